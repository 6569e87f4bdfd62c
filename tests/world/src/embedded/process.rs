//! The one process: the parts that `tillstream serve` puts together on the embedded store, over simulated ports and a
//! disk that is watched.

use super::books::{Books, Witness};
use crate::house::{Outside, PARTITIONS};
use crate::process::{Crew, Halted, Spawned};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tillstream_cluster::Spawner;
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_runtime::{CatalogCache, CatalogPorts, CatalogSettings, Clock};
use tillstream_schemas::Topic;
use tillstream_state::{Shared, TaskId};
use tokio::sync::watch;

/// Bytes that the store keeps in reserve.
pub const RESERVE_BYTES: u64 = 1 << 20;

/// Every task of the process.
pub fn tasks() -> Vec<TaskId> {
    let of = |partition| crate::KINDS.into_iter().map(move |kind| TaskId { kind, partition });
    (0..PARTITIONS).flat_map(of).collect()
}

/// Why a process does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store does not open.
    #[error("the store does not open: {0}")]
    Store(#[from] tillstream_embedded::StoreError),
    /// It holds something else than it must.
    #[error("{0}")]
    Held(#[from] crate::oracle::Violation),
    /// The parts cannot be put together.
    #[error("{0}")]
    Parts(String),
}

/// A process that runs.
pub struct Process {
    /// The store as it sees it.
    pub witness: Arc<Witness>,
    halted: Halted,
    stops: Vec<watch::Sender<bool>>,
    working: Arc<Mutex<usize>>,
    spawned: Arc<Spawned>,
}

/// How a store is opened here.
pub fn settings(
    root: &Path,
    house: &Outside,
    free_bytes: &Arc<AtomicU64>,
    spawned: &Arc<Spawned>,
) -> EmbeddedSettings {
    let (free_bytes, clock, spawned) = (free_bytes.clone(), house.clock.clone(), spawned.clone());
    EmbeddedSettings {
        partitions: PARTITIONS,
        retention_every_ms: 0,
        cache_bytes: 1 << 20,
        // Small, so that tasks read from the disk what they are late for.
        tail_bytes: house.tuning.cache_bytes_max.clamp(2_000, 64_000),
        disk_reserve_bytes: RESERVE_BYTES,
        disk_probe_every_ms: 50,
        free_space: Arc::new(move |_| Ok(free_bytes.load(Ordering::Relaxed))),
        now_ms: Arc::new(move || clock.now_ms()),
        // When another thread is done, no seed decides.
        inline_rows_max: usize::MAX,
        spawn: Arc::new(move |_, work| {
            spawned.spawn(work);
            Ok(Box::new(|| {}))
        }),
        ..EmbeddedSettings::new(root)
    }
}

impl Process {
    /// Opens the store and starts every task.
    ///
    /// # Errors
    /// The store does not open, or does not hold what the books say.
    pub async fn start(
        house: &Outside,
        root: &Path,
        free_bytes: &Arc<AtomicU64>,
        books: &Arc<Mutex<Books>>,
    ) -> Result<Self, StartError> {
        let spawned = Arc::new(Spawned::default());
        let made = Self::assemble(house, root, free_bytes, books, &spawned).await;
        if made.is_err() {
            spawned.abort();
            // What stays for all that keeps the next start from the database, which says so.
            gone(&spawned, || true).await;
        }
        made
    }

    async fn assemble(
        house: &Outside,
        root: &Path,
        free_bytes: &Arc<AtomicU64>,
        books: &Arc<Mutex<Books>>,
        spawned: &Arc<Spawned>,
    ) -> Result<Self, StartError> {
        let store = EmbeddedStore::open(settings(root, house, free_bytes, spawned))?;
        let all = tasks();
        let witness = Arc::new(Witness::new(store, books.clone(), &all).await?);
        let parts = |error: &dyn std::fmt::Display| StartError::Parts(error.to_string());
        let catalog = CatalogPorts {
            log: witness.clone(),
            follower: witness.clone(),
            state: witness.clone(),
            clock: house.clock.clone(),
        };
        let kept =
            CatalogSettings { entries_max: house.tuning.catalog_entries_max, ..CatalogSettings::default() };
        let catalog = CatalogCache::new(catalog, kept).map_err(|it| parts(&it))?;
        let sessions = Arc::new(Shared(witness.clone()));
        let crew = Crew::of(house, sessions, catalog.clone()).map_err(|it| parts(&it))?;
        let halted = crew.halted.clone();
        let working = Arc::new(Mutex::new(0));
        let mut process = Self { witness, halted, stops: Vec::new(), working, spawned: spawned.clone() };
        for task in all {
            let stopping = process.stopping();
            process.work(crew.work(task, stopping));
        }
        let stopping = process.stopping();
        process.work(crew.watched(async move { catalog.run_follower(stopping).await }));
        Ok(process)
    }

    /// One for each that is to stop: a channel with many receivers would wake them in an order that no seed decides.
    fn stopping(&mut self) -> watch::Receiver<bool> {
        let (stop, stopping) = watch::channel(false);
        self.stops.push(stop);
        stopping
    }

    fn work(&self, work: BoxFuture<'static, ()>) {
        let working = self.working.clone();
        *working.lock() += 1;
        self.spawned.spawn(Box::pin(async move {
            work.await;
            *working.lock() -= 1;
        }));
    }

    /// Why it has halted, if it has.
    pub fn halted(&self) -> Option<String> {
        self.halted.lock().first().cloned()
    }

    /// SIGTERM: tasks finish their batch, the store is closed. False when that takes too long, or cannot be done.
    pub async fn stop(&self, house: &Outside, longest: Duration) -> bool {
        for stop in &self.stops {
            stop.send_replace(true);
        }
        let deadline_ns = house.now_ns() + longest.as_nanos() as u64;
        while *self.working.lock() > 0 && house.now_ns() < deadline_ns {
            house.pass(Duration::from_millis(50)).await;
        }
        *self.working.lock() == 0 && self.witness.store.close().await.is_ok()
    }

    /// SIGKILL. Resolves when nothing of it is left.
    pub async fn kill(self) -> bool {
        let (store, spawned) = (Arc::downgrade(&self.witness.store), self.spawned.clone());
        spawned.abort();
        drop(self);
        gone(&spawned, || store.strong_count() == 0).await
    }
}

/// Resolves once all that was spawned has ended and `more` holds: what is told to end does so when it is next looked at, and
/// has the store, or its database, open until then.
async fn gone(spawned: &Spawned, more: impl Fn() -> bool) -> bool {
    for _ in 0..1_000 {
        if spawned.has_ended() && more() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// A record that clients were told is taken.
pub type Taken = (TopicPartition, bytes::Bytes, bytes::Bytes);

/// The door: it appends to the store of the process that runs, if one does, and remembers what it said yes to.
#[derive(Default)]
pub struct Door {
    open: Mutex<Option<Arc<Witness>>>,
    taken: Mutex<Vec<Taken>>,
}

impl Door {
    /// A process runs now, or none does.
    pub fn lead_to(&self, witness: Option<Arc<Witness>>) {
        *self.open.lock() = witness;
    }

    /// Everything that it said yes to.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().clone()
    }

    fn there(&self) -> Result<Arc<Witness>, LogError> {
        self.open.lock().clone().ok_or_else(|| LogError::Unavailable("no process runs".to_owned()))
    }
}

impl Log for Door {
    fn partitions(&self, _topic: Topic) -> u32 {
        PARTITIONS
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let asked: Vec<Taken> =
                records.iter().map(|it| (it.to, it.key.clone(), it.value.clone())).collect();
            self.there()?.append(records).await?;
            self.taken.lock().extend(asked);
            Ok(())
        })
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move { self.there()?.read(from, offset, limit).await })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.there()?.wait_past(partition, offset).await })
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.there()?.start_offset(partition)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.there()?.end_offset(partition)
    }
}
