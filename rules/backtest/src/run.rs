//! Jobs: partitions of the history, worked off by threads of low priority.

use crate::error::BacktestError;
use crate::history::History;
use crate::job::{Baseline, Kept, Part, Spec, Status, View};
use crate::judge::{Against, PastOrder, Pricer, Trial, judge};
use crate::question::{HOOKS, NO_SHIP};
use crate::report::Tally;
use crate::shelf::Shelf;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_log::Log;
use tillstream_runtime::Clock;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::facts::Catalog;
use tokio::runtime::Handle;

/// Running at a time in this process; one per tenant.
const RUNNING_MAX: usize = 4;
/// Kept per tenant: the oldest that have ended go.
const KEPT_MAX: usize = 50;
/// What was found is written down so often.
const KEEP_EVERY_NS: u64 = 2_000_000_000;
/// Niceness of the threads: anything else goes first.
const NICENESS: i32 = 15;

/// Products in force.
pub trait Products: Send + Sync {
    /// Those of a tenant, by SKU.
    fn resolve<'a>(
        &'a self,
        wanted: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Box<dyn Catalog + Send + Sync>, String>>;
}

/// One of the two that a backtest compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The version in question, under the settings in question.
    Candidate,
    /// What it is compared with: another version, or none but the one that is active, under the settings that are active.
    Baseline,
}

/// Where the rules come from that a backtest asks.
pub trait Rehearsals: Send + Sync {
    /// The tenant's active rules with one version of the rule in its place; alone when that is asked for.
    fn rehearse<'a>(
        &'a self,
        spec: &'a Spec,
        side: Side,
    ) -> BoxFuture<'a, Result<Box<dyn Pricer>, BacktestError>>;
}

/// What jobs run on.
#[derive(Clone)]
pub struct Ports {
    /// The history.
    pub log: Arc<dyn Log>,
    /// The catalog.
    pub products: Arc<dyn Products>,
    /// The rules.
    pub rehearsals: Arc<dyn Rehearsals>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where futures are driven.
    pub on: Handle,
}

struct Job {
    kept: Mutex<Kept>,
    stop: AtomicBool,
    begun_ns: AtomicU64,
    kept_ns: AtomicU64,
}

impl Job {
    fn new(kept: Kept) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(kept),
            stop: AtomicBool::new(false),
            begun_ns: AtomicU64::new(0),
            kept_ns: AtomicU64::new(0),
        })
    }
}

/// The backtests of this process.
pub struct Backtests {
    ports: Ports,
    shelf: Shelf,
    jobs: Mutex<BTreeMap<String, Arc<Job>>>,
}

impl Backtests {
    /// Opens what was kept in `dir`. Nothing runs yet: see [`Backtests::go_on`].
    ///
    /// # Errors
    /// [`BacktestError::Failed`] when the folder cannot be read.
    pub fn open(ports: Ports, dir: &Path) -> Result<Arc<Self>, BacktestError> {
        let failed = |error: std::io::Error| BacktestError::Failed(format!("{}: {error}", dir.display()));
        let shelf = Shelf::open(dir).map_err(failed)?;
        let kept = shelf.all().map_err(failed)?;
        let jobs = kept.into_iter().map(|it| (it.spec.id.clone(), Job::new(it))).collect();
        Ok(Arc::new(Self { ports, shelf, jobs: Mutex::new(jobs) }))
    }

    /// Goes on with what ran when the process before this one ended. The rules must be loaded by now.
    pub async fn go_on(self: &Arc<Self>) {
        let interrupted: Vec<Arc<Job>> = {
            let jobs = self.jobs.lock();
            jobs.values().filter(|it| it.kept.lock().status == Status::Running).cloned().collect()
        };
        for job in interrupted {
            let spec = job.kept.lock().spec.clone();
            tracing::info!(id = spec.id, rule = spec.rule, "a backtest goes on");
            if let Err(error) = self.start(&job).await {
                self.end(&job, Status::Failed, Some(error.to_string()));
            }
        }
    }

    /// Lets the threads end, before the process does. What runs still counts as running: see [`Backtests::go_on`].
    pub fn pause(&self) {
        for job in self.jobs.lock().values() {
            job.stop.store(true, Ordering::SeqCst);
        }
    }

    /// Begins one.
    ///
    /// # Errors
    /// When another runs, or the version is not there or has no price hook.
    pub async fn begin(self: &Arc<Self>, spec: Spec) -> Result<View, BacktestError> {
        if !HOOKS.contains(&spec.hook) {
            return Err(BacktestError::NotPossible(NO_SHIP.to_owned()));
        }
        let partitions = self.ports.log.partitions(Topic::OrderCommands);
        if self.ports.log.partitions(Topic::OrderEvents) != partitions {
            let text = "orders.commands and orders.events have different partition counts".to_owned();
            return Err(BacktestError::NotPossible(text));
        }
        let parts = (0..partitions).map(|_| Part::default()).collect();
        let (status, id) = (Status::Running, spec.id.clone());
        let job = Job::new(Kept { spec, status, error: None, parts, worked_ms: 0, ended_at_ms: None });
        self.admit(&job)?;
        if let Err(error) = self.start(&job).await {
            self.jobs.lock().remove(&id);
            return Err(error);
        }
        self.keep(&job);
        Ok(self.view(&job))
    }

    /// Goes on with one that was stopped or failed.
    ///
    /// # Errors
    /// When there is none, another runs, or the version is gone.
    pub async fn resume(self: &Arc<Self>, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        let job = self.find(tenant, rule, id)?;
        if matches!(job.kept.lock().status, Status::Running | Status::Done) {
            return Ok(self.view(&job));
        }
        // Its last run may still be finishing the chunk it was at.
        let ended = Job::new(job.kept.lock().clone());
        {
            let mut kept = ended.kept.lock();
            (kept.status, kept.error, kept.ended_at_ms) = (Status::Running, None, None);
        }
        self.admit(&ended)?;
        if let Err(error) = self.start(&ended).await {
            self.end(&ended, Status::Failed, Some(error.to_string()));
            return Err(error);
        }
        self.keep(&ended);
        Ok(self.view(&ended))
    }

    /// Stops one; what was found so far stays.
    ///
    /// # Errors
    /// When there is none.
    pub fn cancel(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        let job = self.find(tenant, rule, id)?;
        if job.kept.lock().status == Status::Running {
            job.stop.store(true, Ordering::SeqCst);
            self.end(&job, Status::Cancelled, None);
        }
        Ok(self.view(&job))
    }

    /// One.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        Ok(self.view(&*self.find(tenant, rule, id)?))
    }

    /// Those of a rule, newest first.
    pub fn list(&self, tenant: &str, rule: &str) -> Vec<View> {
        let jobs: Vec<_> = self.jobs.lock().values().cloned().collect();
        let is_of = |it: &Arc<Job>| {
            let kept = it.kept.lock();
            kept.spec.tenant == tenant && kept.spec.rule == rule
        };
        let mut found: Vec<View> = jobs.iter().filter(|it| is_of(it)).map(|it| self.view(it)).collect();
        found.sort_by(|a, b| (b.spec.created_at_ms, &b.spec.id).cmp(&(a.spec.created_at_ms, &a.spec.id)));
        found
    }

    fn find(&self, tenant: &str, rule: &str, id: &str) -> Result<Arc<Job>, BacktestError> {
        let unknown = || BacktestError::Unknown(id.to_owned());
        let job = self.jobs.lock().get(id).cloned().ok_or_else(unknown)?;
        let kept = job.kept.lock();
        let is_it = kept.spec.tenant == tenant && kept.spec.rule == rule;
        drop(kept);
        is_it.then_some(job).ok_or_else(unknown)
    }

    fn view(&self, job: &Job) -> View {
        let kept = job.kept.lock();
        let since_ns = job.begun_ns.load(Ordering::SeqCst);
        let running_ms = match kept.status {
            Status::Running if since_ns > 0 => {
                self.ports.clock.monotonic_ns().saturating_sub(since_ns) / 1_000_000
            }
            _ => 0,
        };
        kept.view(running_ms)
    }

    /// Puts a job among those of this process, if there is room.
    fn admit(&self, job: &Arc<Job>) -> Result<(), BacktestError> {
        let (id, tenant) = {
            let kept = job.kept.lock();
            (kept.spec.id.clone(), kept.spec.tenant.clone())
        };
        let mut jobs = self.jobs.lock();
        let others = || jobs.iter().filter(|(other, _)| **other != id);
        let running = |it: &Arc<Job>| it.kept.lock().status == Status::Running;
        if others().filter(|(_, it)| running(it)).count() >= RUNNING_MAX {
            let text = format!("{RUNNING_MAX} backtests run here already: try again when one has ended");
            return Err(BacktestError::TooMany(text));
        }
        let is_mine = |it: &Arc<Job>| it.kept.lock().spec.tenant == tenant;
        if let Some((other, _)) = others().find(|(_, it)| is_mine(it) && running(it)) {
            let text = format!("the backtest {other} runs already: wait for its end, or cancel it");
            return Err(BacktestError::TooMany(text));
        }
        let mut ended: Vec<(i64, String)> = others()
            .filter(|(_, it)| is_mine(it))
            .map(|(other, it)| (it.kept.lock().spec.created_at_ms, other.clone()))
            .collect();
        ended.sort();
        for (_, old) in ended.iter().take((ended.len() + 1).saturating_sub(KEPT_MAX)) {
            jobs.remove(old);
            self.shelf.forget(old);
        }
        jobs.insert(id, job.clone());
        Ok(())
    }

    /// Loads the rules and starts the threads.
    async fn start(self: &Arc<Self>, job: &Arc<Job>) -> Result<(), BacktestError> {
        let spec = job.kept.lock().spec.clone();
        let rehearsals = &self.ports.rehearsals;
        let candidate = rehearsals.rehearse(&spec, Side::Candidate).await?;
        let against = match spec.baseline() {
            Baseline::History => None,
            Baseline::Version | Baseline::Active => Some(rehearsals.rehearse(&spec, Side::Baseline).await?),
        };
        let open: Vec<u32> = {
            let kept = job.kept.lock();
            (0_u32..).zip(&kept.parts).filter(|(_, it)| !it.done).map(|(partition, _)| partition).collect()
        };
        job.begun_ns.store(self.ports.clock.monotonic_ns(), Ordering::SeqCst);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(open.len()).max(1);
        let work = Arc::new(Work {
            backtests: self.clone(),
            job: job.clone(),
            rules: Rules { candidate, against },
            spec,
            open,
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(threads),
            threads,
        });
        for at in 0..threads {
            let work = work.clone();
            let spawned =
                std::thread::Builder::new().name(format!("backtest-{at}")).spawn(move || work.run());
            spawned.map_err(|error| BacktestError::Failed(format!("no thread: {error}")))?;
        }
        Ok(())
    }

    fn keep(&self, job: &Job) {
        job.kept_ns.store(self.ports.clock.monotonic_ns(), Ordering::SeqCst);
        let kept = job.kept.lock().clone();
        if let Err(error) = self.shelf.put(&kept) {
            tracing::warn!(id = kept.spec.id, %error, "a backtest cannot be kept: a restart would begin it anew");
        }
    }

    fn end(&self, job: &Job, status: Status, error: Option<String>) {
        {
            let mut kept = job.kept.lock();
            if kept.status != Status::Running {
                return;
            }
            let since_ns = job.begun_ns.load(Ordering::SeqCst);
            kept.worked_ms += self.ports.clock.monotonic_ns().saturating_sub(since_ns) / 1_000_000;
            kept.ended_at_ms = Some(self.ports.clock.now_ms());
            (kept.status, kept.error) = (status, error);
        }
        self.keep(job);
    }
}

struct Rules {
    candidate: Box<dyn Pricer>,
    against: Option<Box<dyn Pricer>>,
}

/// One run of a job.
struct Work {
    backtests: Arc<Backtests>,
    job: Arc<Job>,
    rules: Rules,
    spec: Spec,
    open: Vec<u32>,
    /// The next of `open` that no thread has taken.
    next: AtomicUsize,
    /// Threads at work.
    left: AtomicUsize,
    threads: usize,
}

impl Work {
    fn run(&self) {
        // Of this thread alone, on Linux.
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::warn!(%error, "a backtest runs at the priority of everything else");
        }
        let result = self.backtests.ports.on.block_on(async {
            while let Some(partition) = self.open.get(self.next.fetch_add(1, Ordering::SeqCst)) {
                self.partition(*partition).await?;
            }
            Ok::<_, BacktestError>(())
        });
        if let Err(error) = result {
            self.job.stop.store(true, Ordering::SeqCst);
            self.backtests.end(&self.job, Status::Failed, Some(error.to_string()));
        }
        let is_last = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_last && !self.job.stop.load(Ordering::SeqCst) {
            self.backtests.end(&self.job, Status::Done, None);
        }
    }

    async fn partition(&self, partition: u32) -> Result<(), BacktestError> {
        let ports = &self.backtests.ports;
        let from = self.part(partition, |it| it.place);
        let mut history = History::open(&*ports.log, &self.spec.tenant, partition, from.flatten()).await?;
        let all = history.progress().1;
        self.part(partition, |it| it.all = all);
        let begun_ns = ports.clock.monotonic_ns();
        let mut orders: u64 = 0;
        while !self.job.stop.load(Ordering::SeqCst) {
            let Some(chunk) = history.next(&*ports.log).await? else {
                let (read, all) = history.progress();
                self.part(partition, |it| (it.done, it.read, it.all) = (true, read, all));
                break;
            };
            let tally = Tally { without_outcome: chunk.without_outcome, ..self.judged(&chunk.orders).await? };
            orders += tally.orders;
            let (place, read) = (history.place(), history.progress().0);
            if !self.job.stop.load(Ordering::SeqCst) {
                self.part(partition, |it| {
                    it.tally.merge(&tally);
                    (it.place, it.read) = (Some(place), read);
                });
            }
            let now_ns = ports.clock.monotonic_ns();
            if now_ns.saturating_sub(self.job.kept_ns.load(Ordering::SeqCst)) > KEEP_EVERY_NS {
                self.backtests.keep(&self.job);
            }
            self.hold_back(begun_ns, orders).await;
        }
        Ok(())
    }

    fn part<T>(&self, partition: u32, change: impl FnOnce(&mut Part) -> T) -> Option<T> {
        let mut kept = self.job.kept.lock();
        kept.parts.get_mut(partition as usize).map(change)
    }

    /// What was found in some orders.
    async fn judged(&self, orders: &[PastOrder]) -> Result<Tally, BacktestError> {
        let in_time = |it: &&PastOrder| {
            let at_ms = it.placed.placed_at_ms;
            self.spec.from_ms.is_none_or(|from| at_ms >= from) && self.spec.to_ms.is_none_or(|to| at_ms < to)
        };
        let orders: Vec<&PastOrder> = orders.iter().filter(in_time).collect();
        let tenant = Text::from(self.spec.tenant.as_str());
        let wanted: Vec<(Text, Text)> = orders
            .iter()
            .filter(|it| it.needs_products(self.spec.hook))
            .flat_map(|it| it.placed.lines.iter().map(|line| (tenant.clone(), line.sku.clone())))
            .collect();
        let catalog = self.backtests.ports.products.resolve(&wanted).await;
        let catalog = catalog.map_err(BacktestError::Failed)?;
        let trial = Trial {
            hook: self.spec.hook,
            tenant: &tenant,
            catalog: &*catalog,
            candidate: &*self.rules.candidate,
            against: self.rules.against.as_deref().map_or(Against::History, Against::Rules),
        };
        let mut tally = Tally::default();
        for order in orders {
            judge(&mut tally, order, &trial);
        }
        Ok(tally)
    }

    /// Waits until so many orders are due at the rate that was asked for.
    async fn hold_back(&self, begun_ns: u64, orders: u64) {
        let Some(rate) = self.spec.orders_per_second_max else { return };
        let threads = self.threads as u64;
        let due_ns = orders.saturating_mul(threads).saturating_mul(1_000_000_000) / u64::from(rate.max(1));
        let clock = &self.backtests.ports.clock;
        let step = Duration::from_millis(200).as_nanos() as u64;
        loop {
            let now_ns = clock.monotonic_ns();
            let until_ns = begun_ns.saturating_add(due_ns);
            if now_ns >= until_ns || self.job.stop.load(Ordering::SeqCst) {
                return;
            }
            clock.sleep_until(until_ns.min(now_ns + step)).await;
        }
    }
}
