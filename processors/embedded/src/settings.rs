//! How a store is set up.

use crate::{clock, work};
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Answers how many bytes are free where `path` is; tests put their own in to fill a disk.
pub type FreeSpace = Arc<dyn Fn(&Path) -> std::io::Result<u64> + Send + Sync>;

/// The wall clock, ms since the epoch.
pub type NowMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Lets work go on beside the store's callers until it ends, under a name; answers what waits for its end.
pub type Spawn = Arc<dyn Fn(&'static str, BoxFuture<'static, ()>) -> std::io::Result<Ended> + Send + Sync>;

/// Waits for the end of what was spawned, where it does not end with its surroundings.
pub type Ended = Box<dyn FnOnce() + Send + Sync>;

/// What [`EmbeddedStore::open`](crate::EmbeddedStore::open) needs to know.
#[derive(Clone)]
pub struct EmbeddedSettings {
    /// Where everything is kept; made if it does not exist.
    pub data_dir: PathBuf,
    /// Partitions of every topic, 1..=1024. Fixed when the store is made.
    pub partitions: u32,
    /// How long records are kept, ms. Compacted topics keep the latest record of a key for ever.
    pub retention_ms: i64,
    /// How many bytes one partition of a topic may grow to; older batches go first.
    pub log_bytes_max: u64,
    /// How often retention runs by itself, ms; 0: only when it is called.
    pub retention_every_ms: u64,
    /// Size of the block cache, bytes.
    pub cache_bytes: u64,
    /// How many bytes of the newest batches stay in memory, all partitions together.
    pub tail_bytes: usize,
    /// Below so many free bytes new work is refused; below a quarter of it commits of tasks are too.
    pub disk_reserve_bytes: u64,
    /// How long one look at the free space holds good, ms.
    pub disk_probe_every_ms: i64,
    /// Looks at the free space.
    pub free_space: FreeSpace,
    /// Tells the time of appends, of probes and of retention.
    pub now_ms: NowMs,
    /// Runs the group commit: on a thread of its own, if nothing else is said.
    pub spawn: Spawn,
    /// Reads of more rows than this go to a blocking thread.
    pub inline_rows_max: usize,
    /// A group stops taking requests in once it holds so many bytes.
    pub group_bytes_max: usize,
    /// fjall's background threads. With more than one, the first spins while another compacts.
    pub workers: usize,
}

impl EmbeddedSettings {
    /// The defaults, in that directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            partitions: 4,
            retention_ms: 7 * 24 * 3600 * 1000,
            log_bytes_max: 4 << 30,
            retention_every_ms: 30_000,
            cache_bytes: 32 << 20,
            tail_bytes: 32 << 20,
            disk_reserve_bytes: 256 << 20,
            disk_probe_every_ms: 1000,
            free_space: Arc::new(free_space),
            now_ms: Arc::new(clock::now_ms),
            spawn: Arc::new(work::on_a_thread),
            inline_rows_max: 300,
            group_bytes_max: 8 << 20,
            workers: 1,
        }
    }
}

fn free_space(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
