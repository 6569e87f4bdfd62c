//! Committed state that the database may not have yet: it answers first.

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHasher};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tillstream_state::Timer;
use tillstream_state::row_store::{RowWrite, StateKey};

/// What an entry takes besides key and value, roughly: its place in the map, its shared key, the note that it waits.
const ENTRY_BYTES: usize = 220;

/// A change that waits for the database.
#[derive(Clone, Debug)]
struct Entry {
    value: Option<Bytes>,
    timestamp: i64,
    /// The timestamp of its first change that the database does not have.
    since: i64,
    /// The timestamp of the last value handed out to be written, and that of the first change after it.
    written: Option<i64>,
    since_written: Option<i64>,
    /// Whether the database may know the key: then its deletion must be written.
    stored: bool,
}

impl Entry {
    fn bytes(&self, key: &StateKey) -> usize {
        let key_bytes = match key {
            StateKey::Row(row) => row.key.len(),
            StateKey::Timer(timer) => timer.key.len() + 16,
        };
        key_bytes + self.value.as_ref().map_or(0, Bytes::len) + ENTRY_BYTES
    }
}

/// What the overlay knows of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its committed value.
    Value(Option<Bytes>),
    /// The database has it, at least as new as this.
    AtLeast(Proof),
    /// Nothing: the database knows.
    Nothing,
}

/// What a read of an acknowledged write must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    timestamp: i64,
    deleted: bool,
}

impl Proof {
    /// Whether the database still has the write (or a later one): `found` is the row's timestamp.
    pub fn holds(self, found: Option<i64>) -> bool {
        found.map_or(self.deleted, |it| it >= self.timestamp)
    }
}

/// The changes of one task behind its log.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    unflushed: FxHashMap<Arc<StateKey>, Entry>,
    /// The same by the time they have waited since, oldest first: what anybody reads, and what only its task does. A note
    /// whose entry has gone, or waits since another time, is passed over.
    waiting: VecDeque<(i64, Arc<StateKey>)>,
    waiting_lazily: VecDeque<(i64, Arc<StateKey>)>,
    /// The timers among them, `true` where set.
    timers: BTreeMap<Timer, bool>,
    bytes: usize,
    /// What the database acknowledged and may not have synced: a hash of the key, and the timestamp a read must see.
    acknowledged: FxHashMap<u64, Proof>,
    /// The same in the order of their acknowledgement, by the changelog end they were flushed up to.
    expiries: VecDeque<(u64, Vec<(u64, Proof)>)>,
}

/// Whether nobody but its task reads it.
fn is_lazy(key: &StateKey) -> bool {
    match key {
        StateKey::Row(row) => row.table.is_private(),
        StateKey::Timer(_) => true,
    }
}

fn hash_of(key: &StateKey) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Overlay {
    /// Takes a change in that an earlier life committed, and may have flushed.
    pub fn replay(&mut self, key: StateKey, value: Option<Bytes>, timestamp: i64) {
        self.take(key, value, timestamp, true);
    }

    /// Takes a committed change in. A timer that is set and cleared before the database has heard of it is nothing to
    /// write. (A row is: its absence is not known here.)
    pub fn put(&mut self, key: StateKey, value: Option<Bytes>, timestamp: i64) {
        if let StateKey::Timer(timer) = &key
            && value.is_none()
            && self.unflushed.get(&key).is_some_and(|it| !it.stored)
        {
            self.timers.remove(timer);
            if let Some(old) = self.unflushed.remove(&key) {
                self.bytes -= old.bytes(&key);
            }
            return;
        }
        // A deletion is of something that is (or was) stored.
        let stored = value.is_none() || self.acknowledged.contains_key(&hash_of(&key));
        self.take(key, value, timestamp, stored);
    }

    fn take(&mut self, key: StateKey, value: Option<Bytes>, timestamp: i64, stored: bool) {
        if let StateKey::Timer(timer) = &key {
            self.timers.insert(timer.clone(), value.is_some());
        }
        let key = Arc::new(key);
        let waiting = if is_lazy(&key) { &mut self.waiting_lazily } else { &mut self.waiting };
        match self.unflushed.get_mut(&key) {
            Some(entry) => {
                self.bytes -= entry.bytes(&key);
                entry.value = value;
                entry.timestamp = timestamp;
                entry.stored |= stored;
                self.bytes += entry.bytes(&key);
                if entry.written.is_some() && entry.since_written.is_none() {
                    // Noted now, so that the notes stay in order.
                    entry.since_written = Some(timestamp);
                    waiting.push_back((timestamp, key));
                }
            }
            None => {
                let entry =
                    Entry { value, timestamp, since: timestamp, written: None, since_written: None, stored };
                self.bytes += entry.bytes(&key);
                waiting.push_back((timestamp, Arc::clone(&key)));
                self.unflushed.insert(key, entry);
            }
        }
    }

    /// What is known of a row without asking the database.
    pub fn get(&self, key: &StateKey) -> Known {
        match self.unflushed.get(key) {
            Some(entry) => Known::Value(entry.value.clone()),
            None if self.acknowledged.is_empty() => Known::Nothing,
            None => match self.acknowledged.get(&hash_of(key)) {
                Some(proof) => Known::AtLeast(*proof),
                None => Known::Nothing,
            },
        }
    }

    /// Approximate bytes that wait for the database.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes that wait for the database.
    pub fn len(&self) -> usize {
        self.unflushed.len()
    }

    /// What has waited since before `before` (a timestamp), as writes; of what only its task reads, since before
    /// `before_lazily`. Until they are acknowledged they are handed out again.
    pub fn writes(&mut self, before: i64, before_lazily: i64) -> Vec<RowWrite> {
        let mut writes = Vec::new();
        for (waiting, before) in [(&mut self.waiting, before), (&mut self.waiting_lazily, before_lazily)] {
            let unflushed = &mut self.unflushed;
            let waits = |(since, key): &(i64, Arc<StateKey>)| {
                unflushed.get(key).is_some_and(|it| it.since == *since || it.since_written == Some(*since))
            };
            while waiting.front().is_some_and(|it| !waits(it)) {
                waiting.pop_front();
            }
            for (since, key) in waiting.iter().take_while(|(since, _)| *since < before) {
                let Some(entry) = unflushed.get_mut(key).filter(|it| it.since == *since) else { continue };
                entry.stored = true;
                entry.written = Some(entry.timestamp);
                entry.since_written = None;
                writes.push(RowWrite {
                    key: StateKey::clone(key),
                    value: entry.value.clone(),
                    timestamp: entry.timestamp,
                });
            }
        }
        writes
    }

    /// Keys of rows that wait.
    pub fn row_keys(&self) -> impl Iterator<Item = &tillstream_stage::RowKey> {
        self.unflushed.keys().filter_map(|key| match &**key {
            StateKey::Row(row) => Some(row),
            StateKey::Timer(_) => None,
        })
    }

    /// The database has acknowledged these, which are all that waited when the changelog ended at `flushed_to`.
    pub fn acknowledged(&mut self, writes: Vec<RowWrite>, flushed_to: u64) {
        let mut expiring = Vec::with_capacity(writes.len());
        for write in writes {
            let hash = hash_of(&write.key);
            let proof = Proof { timestamp: write.timestamp, deleted: write.value.is_none() };
            self.acknowledged.insert(hash, proof);
            expiring.push((hash, proof));
            match self.unflushed.get_mut(&write.key) {
                Some(entry) if entry.timestamp == write.timestamp => {}
                Some(changed) => {
                    // It waits since the first change after what was written.
                    if let Some(since) = changed.since_written.take() {
                        changed.since = since;
                    }
                    changed.written = None;
                    continue;
                }
                None => continue,
            }
            if let Some(entry) = self.unflushed.remove(&write.key) {
                self.bytes -= entry.bytes(&write.key);
            }
            if let StateKey::Timer(timer) = &write.key {
                self.timers.remove(timer);
            }
        }
        self.expiries.push_back((flushed_to, expiring));
    }

    /// Everything flushed up to this changelog offset is on the database's disks.
    pub fn durable(&mut self, offset: u64) {
        while self.expiries.front().is_some_and(|(flushed_to, _)| *flushed_to <= offset) {
            let Some((_, expired)) = self.expiries.pop_front() else { break };
            for (hash, proof) in expired {
                if self.acknowledged.get(&hash) == Some(&proof) {
                    self.acknowledged.remove(&hash);
                }
            }
        }
    }

    /// The timers that wait for the database. To be taken before the database is asked: what is flushed meanwhile is then
    /// known from here.
    pub fn timer_changes(&self) -> TimerChanges {
        TimerChanges(self.timers.clone())
    }
}

/// Timers set (`true`) and removed in the log, which the database may not know yet.
#[derive(Debug)]
pub(crate) struct TimerChanges(BTreeMap<Timer, bool>);

impl TimerChanges {
    /// How many between these (inclusive) the database may still show although they are removed.
    pub fn removed(&self, from_ms: i64, until_ms: i64) -> usize {
        let between = |it: &&Timer| (from_ms..=until_ms).contains(&it.due_ms);
        self.0.iter().filter(|(_, set)| !**set).map(|(timer, _)| timer).filter(between).count()
    }

    /// The database's timers from `from_ms` to `complete_to_ms`, as the log has left them. `found` is complete up to
    /// there.
    pub fn merge(&self, found: Vec<Timer>, from_ms: i64, complete_to_ms: i64) -> Vec<Timer> {
        let mut all: std::collections::BTreeSet<Timer> =
            found.into_iter().filter(|it| self.0.get(it) != Some(&false)).collect();
        for (timer, set) in &self.0 {
            if *set && (from_ms..=complete_to_ms).contains(&timer.due_ms) {
                all.insert(timer.clone());
            }
        }
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::{Key, RowKey, Table, TimerName};

    fn key(name: &str) -> StateKey {
        StateKey::Row(RowKey::new(Table::Order, Key::from(name)))
    }

    fn value(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    fn at_least(timestamp: i64) -> Known {
        Known::AtLeast(Proof { timestamp, deleted: false })
    }

    #[test]
    fn a_lost_write_is_seen_and_a_deletion_is_none() {
        let (written, deleted) =
            (Proof { timestamp: 5, deleted: false }, Proof { timestamp: 5, deleted: true });
        assert!(
            written.holds(Some(5)) && written.holds(Some(6)) && deleted.holds(None) && deleted.holds(Some(6))
        );
        assert!(!written.holds(None) && !written.holds(Some(4)) && !deleted.holds(Some(4)));
    }

    #[test]
    fn a_row_changed_while_it_is_flushed_is_flushed_again() {
        let mut overlay = Overlay::default();
        overlay.put(key("a"), value("1"), 1);
        let writes = overlay.writes(i64::MAX, i64::MAX);
        overlay.put(key("a"), value("2"), 2);
        overlay.acknowledged(writes, 2);
        assert_eq!(overlay.get(&key("a")), Known::Value(value("2")));
        assert_eq!(overlay.writes(i64::MAX, i64::MAX).len(), 1);
        let writes = overlay.writes(i64::MAX, i64::MAX);
        overlay.acknowledged(writes, 3);
        assert_eq!((overlay.len(), overlay.bytes()), (0, 0));
        assert_eq!(overlay.get(&key("a")), at_least(2));
    }

    #[test]
    fn what_is_durable_needs_no_proof_any_more() {
        let mut overlay = Overlay::default();
        overlay.put(key("a"), value("1"), 1);
        overlay.put(key("b"), value("1"), 2);
        let writes = overlay.writes(i64::MAX, i64::MAX);
        overlay.acknowledged(writes, 3);
        overlay.put(key("a"), value("2"), 4);
        let writes = overlay.writes(i64::MAX, i64::MAX);
        overlay.acknowledged(writes, 5);
        overlay.durable(3);
        assert_eq!(overlay.get(&key("b")), Known::Nothing);
        assert_eq!(overlay.get(&key("a")), at_least(4));
        overlay.durable(5);
        assert_eq!(overlay.get(&key("a")), Known::Nothing);
    }

    #[test]
    fn a_timer_cleared_before_it_was_flushed_is_never_written() {
        let timer = StateKey::Timer(Timer { due_ms: 5, key: Key::from("k"), name: TimerName::HoldExpiry });
        let mut overlay = Overlay::default();
        overlay.put(timer.clone(), Some(Bytes::new()), 1);
        overlay.put(timer.clone(), None, 2);
        assert_eq!((overlay.len(), overlay.bytes()), (0, 0));
        // Once a flush has begun, the deletion has to follow it.
        overlay.put(timer.clone(), Some(Bytes::new()), 3);
        let writes = overlay.writes(i64::MAX, i64::MAX);
        overlay.put(timer.clone(), None, 4);
        overlay.acknowledged(writes, 4);
        assert_eq!(overlay.writes(i64::MAX, i64::MAX).len(), 1);
        // So does that of a timer an earlier life has set.
        let mut overlay = Overlay::default();
        overlay.replay(timer.clone(), Some(Bytes::new()), 1);
        overlay.put(timer, None, 2);
        assert_eq!(overlay.writes(i64::MAX, i64::MAX).len(), 1);
    }

    #[test]
    fn what_is_younger_than_the_mark_waits_on() {
        let mut overlay = Overlay::default();
        overlay.put(key("a"), value("1"), 1);
        overlay.put(key("b"), value("1"), 5);
        overlay.put(key("a"), value("2"), 6);
        let writes = overlay.writes(5, 5);
        assert_eq!(writes.iter().map(|it| it.timestamp).collect::<Vec<_>>(), [6]);
        overlay.put(key("a"), value("3"), 7);
        overlay.acknowledged(writes, 5);
        assert_eq!(overlay.writes(6, 6).iter().map(|it| it.timestamp).collect::<Vec<_>>(), [5]);
        assert_eq!(overlay.writes(8, 8).len(), 2);
    }

    #[test]
    fn a_row_changed_again_while_it_is_written_waits_since_that_change() {
        let mut overlay = Overlay::default();
        overlay.put(key("a"), value("1"), 1);
        let first = overlay.writes(2, 2);
        overlay.put(key("a"), value("2"), 2);
        overlay.put(key("b"), value("1"), 3);
        overlay.put(key("a"), value("3"), 4);
        overlay.acknowledged(first, 2);
        assert!(overlay.writes(2, 2).is_empty());
        let timestamps = |writes: &[RowWrite]| writes.iter().map(|it| it.timestamp).collect::<Vec<_>>();
        assert_eq!(timestamps(&overlay.writes(3, 3)), [4], "its first change since is older than b's");
        // A flush that failed hands out again what it had, as it is by then.
        overlay.put(key("a"), value("4"), 5);
        let again = overlay.writes(6, 6);
        assert_eq!(timestamps(&again), [5, 3]);
        overlay.acknowledged(again, 6);
        assert_eq!((overlay.len(), overlay.bytes()), (0, 0));
        assert!(overlay.writes(i64::MAX, i64::MAX).is_empty());
        assert!(overlay.waiting.is_empty(), "the notes are gone too");
    }

    #[test]
    fn what_only_its_task_reads_waits_longer() {
        let mut overlay = Overlay::default();
        overlay.put(key("a"), value("1"), 1);
        overlay.put(StateKey::Row(RowKey::new(Table::Hold, Key::from("h"))), value("1"), 2);
        overlay.put(key("b"), value("1"), 3);
        assert_eq!(overlay.writes(4, 2).len(), 2);
        assert_eq!(overlay.writes(4, 3).len(), 3);
    }

    #[test]
    fn timers_are_as_the_log_left_them() {
        let timer = |due_ms| Timer { due_ms, key: Key::from("k"), name: TimerName::HoldExpiry };
        let mut overlay = Overlay::default();
        overlay.put(StateKey::Timer(timer(1)), None, 1);
        overlay.put(StateKey::Timer(timer(3)), Some(Bytes::new()), 2);
        overlay.put(StateKey::Timer(timer(9)), Some(Bytes::new()), 3);
        let changes = overlay.timer_changes();
        assert_eq!(changes.merge(vec![timer(1), timer(2)], 0, 5), [timer(2), timer(3)]);
        assert_eq!((changes.removed(0, 9), changes.removed(2, 9)), (1, 0));
    }
}
