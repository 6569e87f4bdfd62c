//! CPU time of everybody on the machine, between two moments.

use super::house::{House, Worker};
use crate::BenchError;
use crate::process::{machine_cpu_seconds, threads, usage};
use std::collections::BTreeMap;

/// Where the kernel's counters stood.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Monotonic.
    pub at_ns: u64,
    worker: f64,
    broker: f64,
    database: f64,
    bench: f64,
    machine: f64,
    worker_threads: BTreeMap<String, f64>,
    broker_threads: BTreeMap<String, f64>,
    database_threads: BTreeMap<String, f64>,
}

impl Mark {
    /// Reads them.
    pub fn now(house: &House, worker: &Worker) -> Result<Self, BenchError> {
        let cpu = |pid| Ok::<f64, BenchError>(usage(pid)?.cpu_seconds);
        let (broker, database) = (house.broker_pid()?, house.database_pid()?);
        Ok(Self {
            at_ns: house.clock.monotonic_ns(),
            worker: cpu(worker.pid)?,
            broker: cpu(broker)?,
            database: cpu(database)?,
            bench: cpu(std::process::id())?,
            machine: machine_cpu_seconds()?,
            worker_threads: threads(worker.pid)?,
            broker_threads: threads(broker)?,
            database_threads: threads(database)?,
        })
    }
}

/// CPU-seconds.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    /// How long it took, seconds.
    pub seconds: f64,
    /// The worker's.
    pub worker: f64,
    /// The broker's.
    pub broker: f64,
    /// The database's.
    pub database: f64,
    /// This program's.
    pub bench: f64,
    /// Everybody else's.
    pub foreign: f64,
    /// The worker's by thread name.
    pub worker_threads: BTreeMap<String, f64>,
    /// The broker's.
    pub broker_threads: BTreeMap<String, f64>,
    /// The database's.
    pub database_threads: BTreeMap<String, f64>,
}

/// What each thread has used between two moments.
fn since(after: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let earlier = |name: &str| before.get(name).copied().unwrap_or(0.0);
    after.iter().map(|(name, it)| (name.clone(), it - earlier(name))).collect()
}

fn divided(threads: &BTreeMap<String, f64>, per: f64) -> BTreeMap<String, f64> {
    threads.iter().map(|(name, it)| (name.clone(), it / per)).collect()
}

impl Spent {
    /// Between two marks.
    pub fn between(before: &Mark, after: &Mark) -> Self {
        let (worker, broker) = (after.worker - before.worker, after.broker - before.broker);
        let (database, bench) = (after.database - before.database, after.bench - before.bench);
        let known = worker + broker + database + bench;
        Self {
            seconds: after.at_ns.saturating_sub(before.at_ns) as f64 / 1e9,
            worker,
            broker,
            database,
            bench,
            foreign: after.machine - before.machine - known,
            worker_threads: since(&after.worker_threads, &before.worker_threads),
            broker_threads: since(&after.broker_threads, &before.broker_threads),
            database_threads: since(&after.database_threads, &before.database_threads),
        }
    }

    /// Divided by `per`: thousands of orders, or seconds for cores.
    pub fn per(&self, per: f64) -> Self {
        let per = per.max(1e-9);
        Self {
            seconds: self.seconds,
            worker: self.worker / per,
            broker: self.broker / per,
            database: self.database / per,
            bench: self.bench / per,
            foreign: self.foreign / per,
            worker_threads: divided(&self.worker_threads, per),
            broker_threads: divided(&self.broker_threads, per),
            database_threads: divided(&self.database_threads, per),
        }
    }
}
