//! Products, per process: filled from the state store, kept fresh by `catalog.products`.
//!
//! A product that is in the cache is in force. One that is not may have been written this very moment, so a
//! miss is not an answer: the topic's end is noted and followed to, and only then the store is asked.

use crate::clock::timeout;
use crate::follow::{Followed, follow, partitions};
use crate::generations::Generations;
use crate::shell::stopped;
use crate::{Clock, RuntimeError};
use futures::future::try_join_all;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_log::{Log, Record, TopicPartition};
use tillstream_schemas::item::ProductState;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::key;
use tillstream_stage::partition::partition_of;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::State;
use tokio::sync::{Notify, oneshot, watch};

/// Products held when nothing else is asked for: about 60 MB of them.
pub const CATALOG_ENTRIES_MAX: usize = 60_000;

/// A product, or the certainty that there was none at the offset followed to: the follower overwrites it when
/// one comes, so it holds for whoever has followed to the topic's end.
type Entry = Option<Arc<ProductState>>;

/// The products one batch asked for.
#[derive(Debug, Default)]
pub struct CatalogSnapshot {
    products: FxHashMap<Key, Entry>,
}

impl tillstream_stage::facts::Catalog for CatalogSnapshot {
    fn product(&self, tenant: &str, sku: &str) -> Option<Arc<ProductState>> {
        self.products.get(key(tenant, sku).as_str()).and_then(Clone::clone)
    }
}

/// What a waiter waits for.
#[derive(Debug)]
enum Expected {
    Command(Text),
    Version(i64),
}

impl Expected {
    fn is_met_by(&self, product: &ProductState) -> bool {
        match self {
            Self::Command(id) => product.command_id == *id,
            Self::Version(version) => product.version >= *version,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    expected: Expected,
    answer: oneshot::Sender<Arc<ProductState>>,
}

#[derive(Debug)]
struct Shared {
    entries: Generations<Key, Entry>,
    waiting: FxHashMap<Key, Vec<Waiting>>,
}

/// How far a partition was followed.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: u64,
    ended: bool,
}

/// Where a partition's follower stands, and who waits for it to go on. They are woken in the order in which they came: a
/// watch channel would wake them in any order, and a simulation could not repeat it.
struct Reached {
    position: Mutex<Position>,
    moved: Notify,
}

impl Reached {
    fn new(offset: u64) -> Self {
        Self { position: Mutex::new(Position { offset, ended: false }), moved: Notify::new() }
    }

    fn position(&self) -> Position {
        *self.position.lock()
    }

    fn change(&self, change: impl FnOnce(&mut Position)) {
        change(&mut self.position.lock());
        self.moved.notify_waiters();
    }

    /// Waits until the follower has come to `end`, or has ended.
    async fn reaches(&self, end: u64) -> Position {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let position = self.position();
            if position.ended || position.offset >= end {
                return position;
            }
            moved.await;
        }
    }
}

/// The catalog of a process.
pub struct CatalogCache {
    log: Arc<dyn Log>,
    state: Arc<dyn State>,
    shared: Mutex<Shared>,
    /// Written under the lock of `shared`, together with what the records changed.
    positions: Vec<Reached>,
    next_waiter: AtomicU64,
}

impl CatalogCache {
    /// An empty cache of at most `entries_max` products, which follows from `replay_records` before the topic's present
    /// end: everything before that is in the store.
    ///
    /// # Errors
    /// When the log does not know its own partitions.
    pub fn new(
        log: Arc<dyn Log>,
        state: Arc<dyn State>,
        entries_max: usize,
        replay_records: u64,
    ) -> Result<Arc<Self>, RuntimeError> {
        let mut positions = Vec::new();
        for partition in partitions(&*log, Topic::Products) {
            let end = log.end_offset(partition)?;
            let offset = end.saturating_sub(replay_records).max(log.start_offset(partition)?);
            positions.push(Reached::new(offset));
        }
        let entries = Generations::new(entries_max);
        let shared = Mutex::new(Shared { entries, waiting: FxHashMap::default() });
        Ok(Arc::new(Self { log, state, shared, positions, next_waiter: AtomicU64::new(0) }))
    }

    /// Follows the topic until `shutdown`. Lookups that miss fail once this has ended.
    ///
    /// # Errors
    /// What the log says.
    pub async fn run_follower(&self, mut shutdown: watch::Receiver<bool>) -> Result<(), RuntimeError> {
        let _ending = Ending(self);
        let all = partitions(&*self.log, Topic::Products).into_iter().map(|it| self.follow_partition(it));
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => Ok(()),
            ended = try_join_all(all) => ended.map(|_: Vec<()>| ()),
        }
    }

    async fn follow_partition(&self, partition: TopicPartition) -> Result<(), RuntimeError> {
        let position = self.position(partition.partition)?;
        loop {
            let offset = position.position().offset;
            match follow(&*self.log, partition, offset).await? {
                Followed::Records(records, next_offset) => self.apply(position, &records, next_offset),
                Followed::Gap(next_offset) => {
                    // Any product may have changed in the gap: the store knows.
                    let mut shared = self.shared.lock();
                    shared.entries.clear();
                    position.change(|it| it.offset = next_offset);
                }
            }
        }
    }

    fn apply(&self, position: &Reached, records: &[Record], next_offset: u64) {
        let mut shared = self.shared.lock();
        for record in records {
            let Ok(key) = std::str::from_utf8(&record.key) else { continue };
            match codec::decode::<ProductState>(&record.value) {
                Ok(product) => shared.insert(Key::from(key), Arc::new(product)),
                Err(error) => {
                    tracing::warn!(offset = record.offset, %error, "a product cannot be decoded");
                    shared.entries.remove(key);
                }
            }
        }
        position.change(|it| it.offset = next_offset);
    }

    /// The products in force, by (tenant, SKU).
    ///
    /// # Errors
    /// When the store fails, a stored product cannot be decoded, or the follower has ended.
    pub async fn resolve(&self, wanted: &[(Text, Text)]) -> Result<CatalogSnapshot, RuntimeError> {
        let mut snapshot = CatalogSnapshot::default();
        let mut missing = Vec::new();
        {
            let mut seen = FxHashSet::default();
            let mut shared = self.shared.lock();
            for (tenant, sku) in wanted {
                let key = key(tenant, sku);
                if !seen.insert(key.clone()) {
                    continue;
                }
                match shared.entries.get(&key) {
                    Some(Some(product)) => {
                        snapshot.products.insert(key, Some(Arc::clone(product)));
                    }
                    Some(None) | None => missing.push(key),
                }
            }
        }
        if !missing.is_empty() {
            self.resolve_missing(missing, &mut snapshot).await?;
        }
        Ok(snapshot)
    }

    /// One product in force; `None` when the SKU was never upserted.
    ///
    /// # Errors
    /// See [`CatalogCache::resolve`].
    pub async fn product(&self, tenant: &str, sku: &str) -> Result<Entry, RuntimeError> {
        let snapshot = self.resolve(&[(tenant.into(), sku.into())]).await?;
        Ok(tillstream_stage::facts::Catalog::product(&snapshot, tenant, sku))
    }

    async fn resolve_missing(
        &self,
        missing: Vec<Key>,
        snapshot: &mut CatalogSnapshot,
    ) -> Result<(), RuntimeError> {
        self.follow_to_end(&missing).await?;
        let mut unknown = Vec::new();
        {
            let mut shared = self.shared.lock();
            for key in missing {
                match shared.entries.get(&key) {
                    Some(entry) => {
                        snapshot.products.insert(key, entry.clone());
                    }
                    None => {
                        let followed = self.position(self.partition_of(&key))?.position().offset;
                        unknown.push((RowKey::new(Table::Product, key), followed));
                    }
                }
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let (keys, followed): (Vec<_>, Vec<_>) = unknown.into_iter().unzip();
        let rows = self.state.get_many(&keys).await?;
        for ((key, followed), row) in keys.into_iter().zip(followed).zip(rows) {
            let product = match row {
                Some(bytes) => Some(Arc::new(decode_product(&bytes)?)),
                None => None,
            };
            self.remember(&key.key, &product, followed)?;
            snapshot.products.insert(key.key, product);
        }
        Ok(())
    }

    /// Keeps what the store said, unless the topic has moved on since the follower stood at `followed`: the
    /// row may be older than what was followed (and evicted) in between.
    fn remember(&self, key: &Key, product: &Entry, followed: u64) -> Result<(), RuntimeError> {
        let mut shared = self.shared.lock();
        let unmoved = self.position(self.partition_of(key))?.position().offset == followed;
        if unmoved && shared.entries.get(key).is_none() {
            shared.entries.insert(key.clone(), product.clone(), 1);
        }
        Ok(())
    }

    async fn follow_to_end(&self, keys: &[Key]) -> Result<(), RuntimeError> {
        let mut asked: Vec<u32> = keys.iter().map(|key| self.partition_of(key)).collect();
        asked.sort_unstable();
        asked.dedup();
        let ends: Vec<TopicPartition> =
            asked.iter().map(|it| TopicPartition::new(Topic::Products, *it)).collect();
        self.log.refresh(&ends).await?;
        for partition in asked {
            let end = self.log.end_offset(TopicPartition::new(Topic::Products, partition))?;
            if self.position(partition)?.reaches(end).await.offset < end {
                return Err(RuntimeError::FollowerStopped("catalog.products"));
            }
        }
        Ok(())
    }

    fn partition_of(&self, key: &Key) -> u32 {
        partition_of(key.as_bytes(), u32::try_from(self.positions.len()).unwrap_or(u32::MAX))
    }

    fn position(&self, partition: u32) -> Result<&Reached, RuntimeError> {
        let missing =
            || tillstream_log::LogError::NoSuchPartition(TopicPartition::new(Topic::Products, partition));
        self.positions.get(partition as usize).ok_or_else(|| missing().into())
    }

    /// Waits for the version that this command makes. Call it before the command is produced.
    pub fn wait_for_command(self: &Arc<Self>, tenant: &str, sku: &str, command_id: &str) -> ProductWaiter {
        self.wait(key(tenant, sku), Expected::Command(command_id.into()))
    }

    /// Waits until the product has this version or a later one.
    pub fn wait_for_version(self: &Arc<Self>, tenant: &str, sku: &str, version: i64) -> ProductWaiter {
        self.wait(key(tenant, sku), Expected::Version(version))
    }

    fn wait(self: &Arc<Self>, key: Key, expected: Expected) -> ProductWaiter {
        let id = self.next_waiter.fetch_add(1, Ordering::Relaxed);
        let (answer, receiver) = oneshot::channel();
        let mut shared = self.shared.lock();
        match shared.entries.get(&key) {
            Some(Some(product)) if expected.is_met_by(product) => {
                // The receiver is ours and open.
                let _ = answer.send(Arc::clone(product));
            }
            _ => shared.waiting.entry(key.clone()).or_default().push(Waiting { id, expected, answer }),
        }
        drop(shared);
        ProductWaiter { cache: Arc::clone(self), key, id, receiver }
    }

    /// How many products (and known absences) are held.
    pub fn entries(&self) -> usize {
        self.shared.lock().entries.len()
    }
}

/// However the follower ends (an error, a dropped future), lookups must not wait for it.
struct Ending<'a>(&'a CatalogCache);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        for position in &self.0.positions {
            position.change(|it| it.ended = true);
        }
    }
}

impl Shared {
    fn insert(&mut self, key: Key, product: Arc<ProductState>) {
        if let Some(waiting) = self.waiting.get_mut(key.as_str()) {
            for met in waiting.extract_if(.., |it| it.expected.is_met_by(&product)) {
                // Whoever no longer waits needs no answer.
                let _ = met.answer.send(Arc::clone(&product));
            }
            if waiting.is_empty() {
                self.waiting.remove(key.as_str());
            }
        }
        self.entries.insert(key, Some(product), 1);
    }
}

fn decode_product(bytes: &[u8]) -> Result<ProductState, RuntimeError> {
    codec::decode(bytes).map_err(|error| RuntimeError::Codec { what: "product row", error })
}

/// A wait for a product; dropping it ends the wait.
pub struct ProductWaiter {
    cache: Arc<CatalogCache>,
    key: Key,
    id: u64,
    receiver: oneshot::Receiver<Arc<ProductState>>,
}

impl ProductWaiter {
    /// The product once this process prices with it; `None` when `deadline_ns` (monotonic) comes first.
    pub async fn wait(mut self, clock: &dyn Clock, deadline_ns: u64) -> Option<Arc<ProductState>> {
        timeout(clock, deadline_ns, &mut self.receiver).await?.ok()
    }
}

impl Drop for ProductWaiter {
    fn drop(&mut self) {
        let mut shared = self.cache.shared.lock();
        if let Some(waiting) = shared.waiting.get_mut(&self.key) {
            waiting.retain(|it| it.id != self.id);
            if waiting.is_empty() {
                shared.waiting.remove(&self.key);
            }
        }
    }
}
