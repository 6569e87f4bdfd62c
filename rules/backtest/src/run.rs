//! Jobs: partitions of the history, worked off by threads of low priority.

use crate::error::BacktestError;
use crate::job::{Kept, Part, Spec, Status, View};
use crate::judge::Pricer;
use crate::question::{HOOKS, NO_SHIP};
use crate::shelf::{Claim, Shelf};
use crate::work::start;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tillstream_log::Log;
use tillstream_runtime::Clock;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::facts::Catalog;
use tokio::runtime::Handle;

/// Running at a time in this process; one per tenant.
const RUNNING_MAX: usize = 4;
/// Kept per tenant: the oldest that have ended go.
const KEPT_MAX: usize = 50;

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

pub(crate) struct Job {
    pub(crate) kept: Mutex<Kept>,
    pub(crate) stop: AtomicBool,
    pub(crate) begun_ns: AtomicU64,
    pub(crate) kept_ns: AtomicU64,
    /// Held while it runs here; nobody else writes its file meanwhile.
    claim: Mutex<Option<Claim>>,
}

impl Job {
    fn new(kept: Kept) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(kept),
            stop: AtomicBool::new(false),
            begun_ns: AtomicU64::new(0),
            kept_ns: AtomicU64::new(0),
            claim: Mutex::new(None),
        })
    }

    fn runs_here(&self) -> bool {
        self.claim.lock().is_some()
    }
}

/// The backtests of this process.
pub struct Backtests {
    pub(crate) ports: Ports,
    shelf: Shelf,
    jobs: Mutex<BTreeMap<String, Arc<Job>>>,
}

impl Backtests {
    /// Opens what is kept in `dir`, which several processes may share. Nothing runs yet: see [`Backtests::go_on`].
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

    /// Goes on with what ran when the process before this one ended; what another process runs stays its own. The rules must
    /// be loaded by now.
    pub async fn go_on(self: &Arc<Self>) {
        let interrupted: Vec<Arc<Job>> = {
            let jobs = self.jobs.lock();
            jobs.values().filter(|it| it.kept.lock().status == Status::Running).cloned().collect()
        };
        for job in interrupted {
            let spec = job.kept.lock().spec.clone();
            match self.claim(&job) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(id = spec.id, %error, "a backtest does not go on");
                    continue;
                }
            }
            tracing::info!(id = spec.id, rule = spec.rule, "a backtest goes on");
            if let Err(error) = start(self, &job).await {
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
        self.claim(&job)?;
        let started = match self.admit(&job) {
            Ok(()) => start(self, &job).await,
            Err(refused) => Err(refused),
        };
        if let Err(error) = started {
            self.jobs.lock().remove(&id);
            self.shelf.forget(&id);
            return Err(error);
        }
        self.keep(&job);
        Ok(self.view(&job))
    }

    /// Goes on with one that was stopped or failed, or whose process has ended, whichever it was.
    ///
    /// # Errors
    /// When there is none, it runs in another process, another runs, or the version is gone.
    pub async fn resume(self: &Arc<Self>, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        let job = self.find(tenant, rule, id)?;
        if job.runs_here() || job.kept.lock().status == Status::Done {
            return Ok(self.view(&job));
        }
        // Its last run may still be finishing the chunk it was at.
        let ended = Job::new(job.kept.lock().clone());
        {
            let mut kept = ended.kept.lock();
            (kept.status, kept.error, kept.ended_at_ms) = (Status::Running, None, None);
        }
        if !self.claim(&ended)? {
            return Err(elsewhere(id));
        }
        self.admit(&ended)?;
        if let Err(error) = start(self, &ended).await {
            self.end(&ended, Status::Failed, Some(error.to_string()));
            return Err(error);
        }
        self.keep(&ended);
        Ok(self.view(&ended))
    }

    /// Stops one; what was found so far stays.
    ///
    /// # Errors
    /// When there is none, or it runs in another process.
    pub fn cancel(&self, tenant: &str, rule: &str, id: &str) -> Result<View, BacktestError> {
        let job = self.find(tenant, rule, id)?;
        if job.kept.lock().status == Status::Running {
            if !job.runs_here() && !self.claim(&job)? {
                return Err(elsewhere(id));
            }
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
        self.look_again();
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
        let job = self.newest(id).ok_or_else(unknown)?;
        let kept = job.kept.lock();
        let is_it = kept.spec.tenant == tenant && kept.spec.rule == rule;
        drop(kept);
        is_it.then_some(job).ok_or_else(unknown)
    }

    /// A job as it is: what does not run here may have been changed by another process.
    fn newest(&self, id: &str) -> Option<Arc<Job>> {
        let known = self.jobs.lock().get(id).cloned();
        if known.as_ref().is_some_and(|it| it.runs_here()) {
            return known;
        }
        let Some(kept) = self.shelf.get(id) else { return known };
        let mut jobs = self.jobs.lock();
        // It may have begun to run here meanwhile.
        match jobs.get(id).filter(|it| it.runs_here()) {
            Some(running) => Some(running.clone()),
            None => {
                let job = Job::new(kept);
                jobs.insert(id.to_owned(), job.clone());
                Some(job)
            }
        }
    }

    /// Takes in what other processes wrote.
    fn look_again(&self) {
        match self.shelf.ids() {
            Ok(ids) => ids.iter().for_each(|id| drop(self.newest(id))),
            Err(error) => tracing::warn!(%error, "the backtests of other processes cannot be listed"),
        }
    }

    /// Makes a job this process's own while it runs; `false` when it is another's.
    fn claim(&self, job: &Job) -> Result<bool, BacktestError> {
        let id = job.kept.lock().spec.id.clone();
        let claim = self.shelf.claim(&id);
        let claim =
            claim.map_err(|error| BacktestError::Failed(format!("{id} cannot be claimed: {error}")))?;
        let is_mine = claim.is_some();
        if is_mine {
            *job.claim.lock() = claim;
        }
        Ok(is_mine)
    }

    fn view(&self, job: &Job) -> View {
        let runs_here = job.runs_here();
        let kept = job.kept.lock();
        let since_ns = job.begun_ns.load(Ordering::SeqCst);
        let running_ms = match kept.status {
            Status::Running if runs_here && since_ns > 0 => {
                self.ports.clock.monotonic_ns().saturating_sub(since_ns) / 1_000_000
            }
            _ => 0,
        };
        let mut view = kept.view(running_ms);
        if view.status == Status::Running && !runs_here && self.shelf.is_unclaimed(&view.spec.id) {
            view.status = Status::Interrupted;
        }
        view
    }

    /// Puts a job among those of this process, if there is room.
    fn admit(&self, job: &Arc<Job>) -> Result<(), BacktestError> {
        let (id, tenant) = {
            let kept = job.kept.lock();
            (kept.spec.id.clone(), kept.spec.tenant.clone())
        };
        let mut jobs = self.jobs.lock();
        let others = || jobs.iter().filter(|(other, _)| **other != id);
        let running = |it: &Arc<Job>| it.runs_here();
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

    pub(crate) fn keep(&self, job: &Job) {
        job.kept_ns.store(self.ports.clock.monotonic_ns(), Ordering::SeqCst);
        // Under its lock: what is older must not be written later.
        self.put(&job.kept.lock());
    }

    pub(crate) fn end(&self, job: &Job, status: Status, error: Option<String>) {
        let mut kept = job.kept.lock();
        if kept.status != Status::Running {
            return;
        }
        let since_ns = job.begun_ns.load(Ordering::SeqCst);
        kept.worked_ms += self.ports.clock.monotonic_ns().saturating_sub(since_ns) / 1_000_000;
        kept.ended_at_ms = Some(self.ports.clock.now_ms());
        (kept.status, kept.error) = (status, error);
        self.put(&kept);
        // From here on it is anybody's. Who sees that it has ended may begin the next one: both are seen at once.
        job.claim.lock().take();
    }

    fn put(&self, kept: &Kept) {
        if let Err(error) = self.shelf.put(kept) {
            tracing::warn!(id = kept.spec.id, %error, "a backtest cannot be kept: a restart would begin it anew");
        }
    }
}

fn elsewhere(id: &str) -> BacktestError {
    BacktestError::TooMany(format!("the backtest {id} runs in another process: ask that one"))
}
