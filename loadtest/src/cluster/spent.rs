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
    threads: BTreeMap<String, f64>,
}

impl Mark {
    /// Reads them.
    pub fn now(house: &House, worker: &Worker) -> Result<Self, BenchError> {
        let cpu = |pid| Ok::<f64, BenchError>(usage(pid)?.cpu_seconds);
        Ok(Self {
            at_ns: house.clock.monotonic_ns(),
            worker: cpu(worker.pid)?,
            broker: cpu(house.broker_pid()?)?,
            database: cpu(house.database_pid()?)?,
            bench: cpu(std::process::id())?,
            machine: machine_cpu_seconds()?,
            threads: threads(worker.pid)?,
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
    pub threads: BTreeMap<String, f64>,
}

impl Spent {
    /// Between two marks.
    pub fn between(before: &Mark, after: &Mark) -> Self {
        let (worker, broker) = (after.worker - before.worker, after.broker - before.broker);
        let (database, bench) = (after.database - before.database, after.bench - before.bench);
        let known = worker + broker + database + bench;
        let earlier = |name: &str| before.threads.get(name).copied().unwrap_or(0.0);
        Self {
            seconds: after.at_ns.saturating_sub(before.at_ns) as f64 / 1e9,
            worker,
            broker,
            database,
            bench,
            foreign: after.machine - before.machine - known,
            threads: after.threads.iter().map(|(name, it)| (name.clone(), it - earlier(name))).collect(),
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
            threads: self.threads.iter().map(|(name, it)| (name.clone(), it / per)).collect(),
        }
    }
}
