//! What all processes share: the clock, the provider and the rules; in a cluster the broker and the database, too.

use crate::provider::SimProvider;
use crate::rules::SimRules;
use crate::tuning::Tuning;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::ClusterSettings;
use tillstream_runtime::{Clock, TaskSettings};
use tillstream_simulation::{RowSettings, SimBroker, SimClock, SimRows, SimSettings};

/// Partitions of every topic.
pub const PARTITIONS: u32 = 2;

/// What surrounds a deployment, wherever it keeps its log and state.
pub struct Outside {
    /// Time.
    pub clock: Arc<SimClock>,
    /// The payment provider.
    pub provider: Arc<SimProvider>,
    /// The rules.
    pub rules: Arc<SimRules>,
    /// The tasks' settings.
    pub tasks: TaskSettings,
    /// How the history is set.
    pub tuning: Tuning,
}

impl Outside {
    /// At the beginning.
    pub fn new(tuning: Tuning) -> Self {
        let clock = Arc::new(SimClock::default());
        let tasks = TaskSettings {
            records_max: tuning.records_max,
            cache_bytes_max: tuning.cache_bytes_max,
            timers_max: tuning.timers_max,
            restart_wait: Duration::from_millis(50),
            restart_wait_max: Duration::from_millis(1_000),
            ..TaskSettings::default()
        };
        Self {
            provider: Arc::new(SimProvider::new(clock.clone(), Duration::from_millis(5))),
            rules: Arc::default(),
            tasks,
            tuning,
            clock,
        }
    }

    /// Simulated time goes on.
    pub async fn pass(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// Since the beginning, ns.
    pub fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }
}

/// A cluster's surroundings.
pub struct House {
    /// Whatever is not its log and state.
    pub outside: Outside,
    /// The broker.
    pub broker: SimBroker,
    /// The database.
    pub rows: SimRows,
    /// The protocol's settings.
    pub settings: ClusterSettings,
}

impl Deref for House {
    type Target = Outside;

    fn deref(&self) -> &Outside {
        &self.outside
    }
}

impl House {
    /// Empty.
    pub fn new(seed: u64, tuning: Tuning) -> Self {
        let outside = Outside::new(tuning);
        let (tuning, clock) = (&outside.tuning, &outside.clock);
        let mut broker = SimSettings::new(PARTITIONS, seed, clock.clone());
        broker.transaction_timeout = Duration::from_secs(12);
        broker.latency_max = Duration::from_micros(tuning.latency_max_us);
        broker.markers_lag_max = Duration::from_millis(tuning.markers_lag_max_ms);
        broker.fetch_records_max = tuning.fetch_records_max;
        let mut rows = RowSettings::new(PARTITIONS, seed ^ 0x0a11, clock.clone());
        rows.sync_period = Duration::from_secs(2);
        rows.counts = false;
        rows.keeps = true;
        let mut settings = ClusterSettings::new("world", PARTITIONS);
        settings.durable_after = Duration::from_secs(4);
        settings.flush_interval = Duration::from_millis(tuning.flush_interval_ms);
        settings.flush_rows_max = tuning.flush_rows_max;
        settings.unflushed_bytes_max = tuning.unflushed_bytes_max;
        settings.known_keys_max = tuning.known_keys_max;
        Self { broker: SimBroker::new(broker), rows: SimRows::new(rows), settings, outside }
    }
}
