//! How a history's processes are set.

use tillstream_random::Random;

/// How a history's processes are set: small limits find more.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Records of a batch.
    pub records_max: usize,
    /// Bytes of rows kept between batches.
    pub cache_bytes_max: usize,
    /// Timers of a task held in memory.
    pub timers_max: usize,
    /// Rows of one flush.
    pub flush_rows_max: usize,
    /// Rows wait so long for the database, ms; those that only their task reads twelve times as long.
    pub flush_interval_ms: u64,
    /// Bytes of rows that wait for the database.
    pub unflushed_bytes_max: usize,
    /// Known keys per task; 0: no filter.
    pub known_keys_max: usize,
    /// A call takes up to so long, µs.
    pub latency_max_us: u64,
    /// Markers are written up to so late, ms.
    pub markers_lag_max_ms: u64,
    /// Records of one fetch.
    pub fetch_records_max: usize,
    /// Requests in flight per partition of the executor.
    pub in_flight_max: usize,
    /// Products a process remembers.
    pub catalog_entries_max: usize,
    /// Products whose newest record it notes, per partition.
    pub catalog_notes_max: usize,
}

impl Tuning {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut one_of = |of: &[usize]| of[random.below(of.len())];
        Self {
            records_max: one_of(&[2, 7, 40, 1_000, 1_000]),
            cache_bytes_max: one_of(&[0, 3_000, 1 << 20]),
            timers_max: one_of(&[4, 100_000]),
            flush_rows_max: one_of(&[3, 20, 4_000]),
            flush_interval_ms: one_of(&[100, 250, 1_000, 1_000]) as u64,
            unflushed_bytes_max: one_of(&[8_000, 60_000, 32 << 20, 32 << 20]),
            known_keys_max: one_of(&[0, 10_000, 10_000]),
            latency_max_us: one_of(&[0, 500, 3_000, 3_000]) as u64,
            markers_lag_max_ms: one_of(&[0, 5, 30]) as u64,
            fetch_records_max: one_of(&[10, 1_000]),
            in_flight_max: one_of(&[2, 16, 1_024]),
            catalog_entries_max: one_of(&[2, 6, 10_000]),
            catalog_notes_max: one_of(&[12, 10_000, 10_000]),
        }
    }
}
