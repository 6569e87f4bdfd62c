//! What may be tuned.

use std::time::Duration;

/// Settings of one task's loop.
#[derive(Clone, Debug)]
pub struct TaskSettings {
    /// Records of a batch, at most.
    pub records_max: usize,
    /// Bytes of keys and values of a batch, at most; one record is taken whatever its size.
    pub bytes_max: usize,
    /// After the first record is seen, wait this long for more (or until `records_max` are there). Zero: go at once.
    pub linger: Duration,
    /// After a commit that took so long, at most this, the next batch waits as long for more records: a broker that is
    /// slow to end transactions gets fewer and larger ones. Zero: never.
    pub pace_max: Duration,
    /// Approximate bytes of decoded rows kept between batches.
    pub cache_bytes_max: usize,
    /// Timers of a task held in memory, at most; more stay in the store until these have fired.
    pub timers_max: usize,
    /// How long to wait after a commit that the disk had no room for.
    pub disk_full_wait: Duration,
    /// The first wait before a failed task starts again; doubles each time.
    pub restart_wait: Duration,
    /// The longest such wait.
    pub restart_wait_max: Duration,
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            records_max: 1_000,
            bytes_max: 4 << 20,
            linger: Duration::ZERO,
            pace_max: Duration::ZERO,
            cache_bytes_max: 12 << 20,
            timers_max: 100_000,
            disk_full_wait: Duration::from_secs(1),
            restart_wait: Duration::from_millis(100),
            restart_wait_max: Duration::from_secs(10),
        }
    }
}
