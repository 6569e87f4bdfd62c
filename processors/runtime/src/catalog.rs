//! Products, per process: filled from the state store, kept fresh by `catalog.products`.
//!
//! A product that is in the cache is in force. One that is not may have been written this very moment, so a
//! miss is not an answer: the topic's end is noted and followed to, and only then the store is asked.
//!
//! Where rows follow the log later, the store's answer may be older than what was followed and dropped from the cache in
//! between. So it is noted where each followed product's newest record stands, until the store is seen to have it; a row
//! that is older than its note is not an answer either: the record is read again.

mod behind;
mod notes;
mod settings;

pub use settings::{CATALOG_ENTRIES_MAX, CatalogPorts, CatalogSettings, StoreBehind};

use crate::clock::timeout;
use crate::follow::{Followed, follow, partitions};
use crate::generations::Generations;
use crate::shell::stopped;
use crate::{Clock, RuntimeError};
use futures::future::try_join_all;
use notes::{Note, Notes};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tillstream_log::{LogError, Record, TopicPartition};
use tillstream_schemas::item::ProductState;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::key;
use tillstream_stage::partition::partition_of;
use tillstream_stage::{Key, RowKey, Table};
use tokio::sync::{Notify, oneshot, watch};

/// A record that is gone was replaced by one further on, which is there after following to the end once more. It may be
/// replaced again meanwhile, but hardly so often.
const FOLLOWS_MAX: usize = 8;

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

/// A product that is not in the cache, when the follower stood at `followed`.
struct Unknown {
    key: Key,
    followed: u64,
    note: Option<Note>,
}

#[derive(Debug)]
struct Shared {
    entries: Generations<Key, Entry>,
    /// By partition.
    notes: Vec<Notes<Key>>,
    waiting: FxHashMap<Key, Vec<Waiting>>,
}

/// How far a partition was followed.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: u64,
    ended: bool,
    /// Records were read that cannot be taken yet: nothing in the cache is surely in force.
    held_up: bool,
}

/// Where a partition's follower stands, and who waits for it to go on. They are woken in the order in which they came: a
/// watch channel would wake them in any order, and a simulation could not repeat it.
struct Reached {
    position: Mutex<Position>,
    moved: Notify,
}

impl Reached {
    fn new(offset: u64) -> Self {
        Self { position: Mutex::new(Position { offset, ended: false, held_up: false }), moved: Notify::new() }
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
    ports: CatalogPorts,
    is_behind: bool,
    shared: Mutex<Shared>,
    /// Written under the lock of `shared`, together with what the records changed.
    positions: Vec<Reached>,
    next_waiter: AtomicU64,
}

impl CatalogCache {
    /// An empty cache.
    ///
    /// # Errors
    /// When the log does not know its own partitions.
    pub fn new(ports: CatalogPorts, settings: CatalogSettings) -> Result<Arc<Self>, RuntimeError> {
        let (replay_records, notes_max, durable_after) = settings
            .behind
            .map_or_else(Default::default, |it| (it.replay_records, it.notes_max, it.durable_after));
        let (mut positions, mut notes) = (Vec::new(), Vec::new());
        for partition in partitions(&*ports.follower, Topic::Products) {
            let end = ports.follower.end_offset(partition)?;
            let offset = end.saturating_sub(replay_records).max(ports.follower.start_offset(partition)?);
            positions.push(Reached::new(offset));
            notes.push(Notes::new(notes_max, nanos(durable_after)));
        }
        let entries = Generations::new(settings.entries_max);
        let shared = Mutex::new(Shared { entries, notes, waiting: FxHashMap::default() });
        let (is_behind, next_waiter) = (settings.behind.is_some(), AtomicU64::new(0));
        Ok(Arc::new(Self { ports, is_behind, shared, positions, next_waiter }))
    }

    /// Follows the topic until `shutdown`. Lookups that miss fail once this has ended.
    ///
    /// # Errors
    /// What the log says.
    pub async fn run_follower(&self, mut shutdown: watch::Receiver<bool>) -> Result<(), RuntimeError> {
        let _ending = Ending(self);
        let all = partitions(&*self.ports.follower, Topic::Products);
        let all = all.into_iter().map(|it| self.follow_partition(it));
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
            match follow(&*self.ports.follower, partition, offset).await? {
                Followed::Records(records, next_offset) => {
                    self.make_room(partition.partition, position).await?;
                    self.apply(partition, position, &records, next_offset);
                }
                Followed::Gap(next_offset) => {
                    // Any product may have changed in the gap: the store knows.
                    let mut shared = self.shared.lock();
                    shared.entries.clear();
                    position.change(|it| it.offset = next_offset);
                }
            }
        }
    }

    fn apply(&self, partition: TopicPartition, position: &Reached, records: &[Record], next_offset: u64) {
        let mut shared = self.shared.lock();
        for record in records {
            let Ok(key) = std::str::from_utf8(&record.key) else { continue };
            match codec::decode::<ProductState>(&record.value) {
                Ok(product) => {
                    let note = Note { offset: record.offset, version: product.version, stored_ns: None };
                    shared.note(partition.partition, key, self.is_behind.then_some(note));
                    shared.insert(Key::from(key), Arc::new(product));
                }
                Err(error) => {
                    tracing::warn!(offset = record.offset, %error, "a product cannot be decoded");
                    shared.note(partition.partition, key, None);
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
                let held_up = self.position(self.partition_of(&key))?.position().held_up;
                match shared.entries.get(&key) {
                    Some(Some(product)) if !held_up => {
                        snapshot.products.insert(key, Some(Arc::clone(product)));
                    }
                    _ => missing.push(key),
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
        mut missing: Vec<Key>,
        snapshot: &mut CatalogSnapshot,
    ) -> Result<(), RuntimeError> {
        for _ in 0..FOLLOWS_MAX {
            self.follow_to_end(&missing).await?;
            let unknown = self.take_followed(missing, snapshot)?;
            if unknown.is_empty() {
                return Ok(());
            }
            missing = self.take_stored(unknown, snapshot).await?;
            if missing.is_empty() {
                return Ok(());
            }
        }
        let gone = format!("{}: the newest record of {} is not there", Topic::Products, missing.join(", "));
        Err(LogError::Unavailable(gone).into())
    }

    /// Takes what the follower has brought; answers the others.
    fn take_followed(
        &self,
        keys: Vec<Key>,
        snapshot: &mut CatalogSnapshot,
    ) -> Result<Vec<Unknown>, RuntimeError> {
        let mut unknown = Vec::new();
        let mut shared = self.shared.lock();
        for key in keys {
            if let Some(entry) = shared.entries.get(&key) {
                snapshot.products.insert(key, entry.clone());
                continue;
            }
            let partition = self.partition_of(&key);
            let followed = self.position(partition)?.position().offset;
            let note = shared.notes.get(partition as usize).and_then(|it| it.get(&key));
            unknown.push(Unknown { key, followed, note });
        }
        Ok(unknown)
    }

    /// Takes what the store has, or, where its row is older than what was followed, what the log has. Answers those whose
    /// record is gone: a newer one stands further on.
    async fn take_stored(
        &self,
        unknown: Vec<Unknown>,
        snapshot: &mut CatalogSnapshot,
    ) -> Result<Vec<Key>, RuntimeError> {
        let keys: Vec<RowKey> =
            unknown.iter().map(|it| RowKey::new(Table::Product, it.key.clone())).collect();
        let rows = self.ports.state.get_many(&keys).await?;
        let mut gone = Vec::new();
        for (Unknown { key, followed, note }, row) in unknown.into_iter().zip(rows) {
            let mut product = row.map(|bytes| decode_product(&bytes)).transpose()?.map(Arc::new);
            if let Some(note) = note
                && product.as_ref().is_none_or(|it| it.version < note.version)
            {
                product = self.record(&key, note).await?;
                if product.is_none() {
                    gone.push(key);
                    continue;
                }
            }
            self.remember(&key, &product, followed)?;
            snapshot.products.insert(key, product);
        }
        Ok(gone)
    }

    /// Keeps what was found, unless the topic has moved on since the follower stood at `followed`: it may be older than
    /// what was followed (and evicted) in between.
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
        self.ports.follower.refresh(&ends).await?;
        for partition in asked {
            let end = self.ports.follower.end_offset(TopicPartition::new(Topic::Products, partition))?;
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

    /// Of how many products it is noted where their newest record stands.
    pub fn notes(&self) -> usize {
        self.shared.lock().notes.iter().map(Notes::len).sum()
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
    /// Notes the newest record of a product; `None`: the store alone knows of it.
    fn note(&mut self, partition: u32, key: &str, note: Option<Note>) {
        let Some(notes) = self.notes.get_mut(partition as usize) else { return };
        match note {
            Some(note) => notes.note(Key::from(key), note),
            None => notes.forget(key),
        }
    }

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

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
