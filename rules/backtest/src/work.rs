//! One run of a job: threads of low priority that read partitions of the history and judge its orders.

use crate::error::BacktestError;
use crate::history::History;
use crate::job::{Baseline, Part, Spec, Status};
use crate::judge::{Against, PastOrder, Pricer, Trial, judge};
use crate::report::Tally;
use crate::run::{Backtests, Job, Side};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_schemas::Text;

/// What was found is written down so often.
const KEEP_EVERY_NS: u64 = 2_000_000_000;
/// Niceness of the threads: anything else goes first.
const NICENESS: i32 = 15;

/// Loads the rules and starts the threads.
///
/// # Errors
/// When the rules cannot be asked.
pub(crate) async fn start(backtests: &Arc<Backtests>, job: &Arc<Job>) -> Result<(), BacktestError> {
    let spec = job.kept.lock().spec.clone();
    let rehearsals = &backtests.ports.rehearsals;
    let candidate = rehearsals.rehearse(&spec, Side::Candidate).await?;
    let against = match spec.baseline() {
        Baseline::History => None,
        Baseline::Version | Baseline::Active => Some(rehearsals.rehearse(&spec, Side::Baseline).await?),
    };
    let open: Vec<u32> = {
        let kept = job.kept.lock();
        (0_u32..).zip(&kept.parts).filter(|(_, it)| !it.done).map(|(partition, _)| partition).collect()
    };
    job.begun_ns.store(backtests.ports.clock.monotonic_ns(), Ordering::SeqCst);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(open.len()).max(1);
    let work = Arc::new(Work {
        backtests: backtests.clone(),
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
        let spawned = std::thread::Builder::new().name(format!("backtest-{at}")).spawn(move || work.run());
        spawned.map_err(|error| BacktestError::Failed(format!("no thread: {error}")))?;
    }
    Ok(())
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
            let stopped = self.job.stop.load(Ordering::SeqCst);
            // Once it was stopped, its file is written by whoever goes on.
            if !stopped && now_ns.saturating_sub(self.job.kept_ns.load(Ordering::SeqCst)) > KEEP_EVERY_NS {
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
