//! What the database is given: committed values alone, each under the timestamp that its record makes; and what waits for it
//! is bounded.

use super::seen::Seen;
use super::{Checked, Violation, expect};
use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use tillstream_log::TopicPartition;
use tillstream_schemas::Topic;
use tillstream_simulation::broker::StoredRecord;
use tillstream_simulation::rows::Asked;
use tillstream_state::TaskId;
use tillstream_state::row_store::{RowWrite, StateKey};

/// Bits of a timestamp that are the changelog's offset; above them stands its generation.
const OFFSET_BITS: u32 = 40;

/// A task's changelog.
#[derive(Debug, Default)]
struct Changelog {
    generation: i64,
    /// By timestamp: a hash of key and value.
    committed: FxHashMap<i64, u64>,
    /// One past the last record.
    end: u64,
    /// Rows that the database has not acknowledged, each with its timestamp and size; and their sum.
    waiting: FxHashMap<Bytes, (i64, usize)>,
    waiting_bytes: usize,
    /// The newest write of each row that was acknowledged.
    acknowledged: FxHashMap<Bytes, i64>,
    /// Transactions that changed a row.
    transactions: u64,
    /// Written anew by an operator: what waits is not known any more.
    adopted: bool,
}

/// What the changelogs say, held against what the database is asked to keep.
#[derive(Debug, Default)]
pub struct Stored {
    changelogs: FxHashMap<TopicPartition, Changelog>,
    /// Writes of records that cannot be read yet.
    unread: Vec<(TopicPartition, RowWrite)>,
    /// Bytes of rows that may wait, per task.
    bytes_max: usize,
}

fn key_of(key: &StateKey) -> Bytes {
    match key {
        StateKey::Row(row) => format!("{}/{}", row.table.name(), row.key).into(),
        StateKey::Timer(it) => format!("timer/{:014}/{}/{}", it.due_ms, it.name.as_str(), it.key).into(),
    }
}

fn is_timer(key: &[u8]) -> bool {
    key.starts_with(b"timer/")
}

/// A timer's value says nothing but that it is set.
fn hash_of(key: &[u8], value: Option<&Bytes>) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(key);
    hash.update(&[u8::from(value.is_some())]);
    hash.update(value.filter(|_| !is_timer(key)).map_or(&[][..], |it| it));
    hash.digest()
}

fn changelog_of(task: TaskId) -> Option<TopicPartition> {
    task.kind.changelog().map(|topic| TopicPartition::new(topic, task.partition))
}

impl Stored {
    /// Nothing yet; so many bytes of rows may wait for the database.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// A changelog's record is committed.
    ///
    /// # Errors
    /// When its task took a batch although too much waits for the database.
    pub fn committed(&mut self, at: TopicPartition, record: &StoredRecord) -> Checked {
        let bytes_max = self.bytes_max;
        let log = self.changelogs.entry(at).or_default();
        // Between two transactions stands the marker that ends the first.
        if record.offset != log.end {
            log.transactions += 1;
            let waiting = log.waiting_bytes;
            expect(log.adopted || bytes_max == 0 || waiting <= bytes_max, || {
                format!("{at} goes on although {waiting} bytes wait for the database, of {bytes_max}")
            })?;
        }
        log.end = record.offset + 1;
        if &*record.key == b"incarnation" {
            let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
            log.generation = text.parse().unwrap_or(0);
            return Ok(());
        }
        let timestamp = (log.generation << OFFSET_BITS) | record.offset as i64;
        log.committed.insert(timestamp, hash_of(&record.key, record.value.as_ref()));
        if !is_timer(&record.key) && log.acknowledged.get(&record.key).is_none_or(|it| *it < timestamp) {
            let bytes = record.value.as_ref().map_or(0, Bytes::len);
            log.waiting_bytes += bytes;
            if let Some((_, before)) = log.waiting.insert(record.key.clone(), (timestamp, bytes)) {
                log.waiting_bytes -= before;
            }
        }
        Ok(())
    }

    /// The topic was made anew: its offsets begin again.
    pub fn recreated(&mut self, topic: Topic) {
        self.unread.retain(|(at, _)| at.topic != topic);
        for (_, log) in self.changelogs.iter_mut().filter(|(at, _)| at.topic == topic) {
            (log.end, log.adopted) = (0, true);
        }
    }

    /// Transactions that each changelog has seen.
    pub fn transactions(&self, task: TaskId) -> u64 {
        let log = changelog_of(task).and_then(|it| self.changelogs.get(&it));
        log.map_or(0, |it| it.transactions)
    }

    /// What the database acknowledged does not wait any more. To be told before what is committed since.
    pub fn acknowledged(&mut self, asked: &Asked) {
        for (task, write) in &asked.acknowledged {
            let Some(at) = changelog_of(*task) else { continue };
            let (log, key) = (self.changelogs.entry(at).or_default(), key_of(&write.key));
            if is_timer(&key) {
                continue;
            }
            if log.waiting.get(&key).is_some_and(|it| it.0 <= write.timestamp)
                && let Some((_, bytes)) = log.waiting.remove(&key)
            {
                log.waiting_bytes -= bytes;
            }
            let newest = log.acknowledged.entry(key).or_insert(write.timestamp);
            *newest = write.timestamp.max(*newest);
        }
    }

    /// What the database was asked to write is what the changelogs have committed; what cannot be read of them yet is looked
    /// at later.
    ///
    /// # Errors
    /// What was never committed.
    pub fn check(&mut self, asked: Asked) -> Checked {
        let writes = asked.writes.into_iter();
        let writes = writes.filter_map(|(task, write)| changelog_of(task).map(|at| (at, write)));
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend(writes);
        for (at, write) in unread {
            let key = key_of(&write.key);
            let log = self.changelogs.get(&at);
            let found = log.and_then(|it| it.committed.get(&write.timestamp));
            let offset = (write.timestamp & ((1 << OFFSET_BITS) - 1)) as u64;
            match found {
                Some(found) if *found == hash_of(&key, write.value.as_ref()) => {}
                None if log.is_none_or(|it| it.end <= offset) => self.unread.push((at, write)),
                _ => {
                    let (generation, key) = (write.timestamp >> OFFSET_BITS, String::from_utf8_lossy(&key));
                    return Err(Violation(format!(
                        "the database was given a value of {key} that was not committed: {at} has no such record at \
                         {offset} of generation {generation}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Nothing was written that was never committed.
    ///
    /// # Errors
    /// What was.
    pub fn at_rest(&self) -> Checked {
        expect(self.unread.is_empty(), || {
            let keys: FxHashSet<Bytes> = self.unread.iter().map(|(_, it)| key_of(&it.key)).collect();
            format!("the database was given values that were never committed: {keys:?}")
        })
    }
}

impl Seen {
    /// The topic was made anew: its offsets begin again.
    pub fn recreated(&mut self, topic: Topic) {
        self.begin_again(topic);
        self.stored.recreated(topic);
    }
}
