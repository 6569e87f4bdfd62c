//! What the protocol counts.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts};
use tillstream_runtime::Metrics;
use tillstream_stage::task::TaskKind;

/// Counters of the protocol.
pub struct ClusterMetrics {
    /// Rows that wait for the database, by stage.
    pub unflushed_rows: IntGaugeVec,
    /// Reads that the task's own cache did not answer, by stage and by what did: `unflushed` (rows that wait for the
    /// database), `filter` (the key is surely new), `database`.
    pub reads: IntCounterVec,
    /// Rows written to the database.
    pub flushed_rows: IntCounterVec,
    /// Flushes that failed and are tried again.
    pub flush_failures: IntCounterVec,
    /// Lives begun.
    pub lives: IntCounterVec,
    /// Changelog records replayed at takeovers.
    pub replayed: IntCounterVec,
    /// How long taking a partition over took, from the assignment to the first fetch.
    pub takeover_seconds: Histogram,
    /// The newest checkpoint's distance behind the changelog's end, records.
    pub checkpoint_lag: IntGaugeVec,
}

impl ClusterMetrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(shared: &Metrics) -> Result<Self, prometheus::Error> {
        let registry = &shared.registry;
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["stage"]);
        let takeover = HistogramOpts::new(
            "tillstream_takeover_seconds",
            "From a partition's assignment until it is fetched: fencing, offset, checkpoint, replay.",
        )
        .buckets(vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let made = Self {
            unflushed_rows: shared.unflushed_rows.clone(),
            reads: IntCounterVec::new(
                Opts::new(
                    "tillstream_state_misses_total",
                    "Reads past the task's cache: answered by unflushed rows, by the filter of known keys, or by the database.",
                ),
                &["stage", "source"],
            )?,
            flushed_rows: counter("tillstream_state_flushed_rows_total", "Rows written to the database.")?,
            flush_failures: counter(
                "tillstream_state_flush_failures_total",
                "Writes to the database that failed and are tried again.",
            )?,
            lives: counter("tillstream_task_lives_total", "Lives of tasks begun: takeovers and restarts.")?,
            replayed: counter("tillstream_task_replayed_records_total", "Changelog records replayed.")?,
            takeover_seconds: Histogram::with_opts(takeover)?,
            checkpoint_lag: IntGaugeVec::new(
                Opts::new(
                    "tillstream_state_checkpoint_lag_records",
                    "Changelog records behind the checkpoint.",
                ),
                &["stage", "partition"],
            )?,
        };
        for it in [&made.flushed_rows, &made.flush_failures, &made.lives, &made.replayed] {
            registry.register(Box::new(it.clone()))?;
            for kind in TaskKind::ALL {
                it.with_label_values(&[kind.as_str()]);
            }
        }
        registry.register(Box::new(made.reads.clone()))?;
        registry.register(Box::new(made.takeover_seconds.clone()))?;
        registry.register(Box::new(made.checkpoint_lag.clone()))?;
        Ok(made)
    }
}
