//! One partition: records and control markers in one sequence of offsets, and who still has a transaction open in it.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tillstream_log::{Headers, ReadLimit};
use tokio::sync::Notify;

/// A record as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its offset.
    pub offset: u64,
    /// Append time, ms since the epoch.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Bytes,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
}

/// What became of the part of a transaction that lies in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Debug)]
enum Body {
    Record { segment: Option<usize>, record: Arc<StoredRecord> },
    Marker,
}

#[derive(Clone, Debug)]
struct Entry {
    offset: u64,
    body: Body,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    segment: usize,
    first_offset: u64,
}

#[derive(Default)]
pub(crate) struct Partition {
    /// By offset; compaction leaves gaps.
    entries: Vec<Entry>,
    start: u64,
    end: u64,
    open: BTreeMap<u64, Open>,
    fates: Vec<Fate>,
    /// How often the topic was made anew.
    pub(crate) incarnation: u32,
    /// Told whenever something can be read, or was taken away.
    pub(crate) changed: Arc<Notify>,
}

impl Partition {
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// One past the last offset, of whatever kind.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The last stable offset: everything before it is decided.
    pub(crate) fn stable_end(&self) -> u64 {
        self.open.values().map(|it| it.first_offset).min().unwrap_or(self.end)
    }

    pub(crate) fn holds(&self, offset: u64) -> bool {
        (self.start..=self.end).contains(&offset)
    }

    /// Appends a record, of the open transaction of `producer` if there is one.
    pub(crate) fn append(&mut self, producer: Option<u64>, mut record: StoredRecord) -> u64 {
        let offset = self.end;
        record.offset = offset;
        let segment = producer.map(|producer| {
            let fates = &mut self.fates;
            let open = self.open.entry(producer).or_insert_with(|| {
                fates.push(Fate::Open);
                Open { segment: fates.len() - 1, first_offset: offset }
            });
            open.segment
        });
        self.entries.push(Entry { offset, body: Body::Record { segment, record: Arc::new(record) } });
        self.end += 1;
        // What is not decided nobody reads: its marker tells.
        if producer.is_none() {
            self.changed.notify_waiters();
        }
        offset
    }

    /// Writes the marker that ends the producer's transaction here. It takes an offset.
    pub(crate) fn mark(&mut self, producer: u64, committed: bool) {
        if let Some(open) = self.open.remove(&producer) {
            self.fates[open.segment] = if committed { Fate::Committed } else { Fate::Aborted };
        }
        self.entries.push(Entry { offset: self.end, body: Body::Marker });
        self.end += 1;
        self.changed.notify_waiters();
    }

    fn fate(&self, segment: Option<usize>) -> Fate {
        segment.map_or(Fate::Committed, |it| self.fates[it])
    }

    fn from(&self, offset: u64) -> &[Entry] {
        &self.entries[self.entries.partition_point(|it| it.offset < offset)..]
    }

    /// Committed records from `offset` to `until` (at most the stable end), and where to go on.
    pub(crate) fn committed(
        &self,
        offset: u64,
        until: u64,
        limit: ReadLimit,
    ) -> (Vec<Arc<StoredRecord>>, u64) {
        let until = until.min(self.stable_end());
        let (mut records, mut bytes) = (Vec::new(), 0);
        for entry in self.from(offset).iter().take_while(|it| it.offset < until) {
            let Body::Record { segment, record } = &entry.body else { continue };
            if self.fate(*segment) != Fate::Committed {
                continue;
            }
            let size = record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
            let full = records.len() >= limit.records_max || bytes + size > limit.bytes_max;
            if full && !records.is_empty() {
                return (records, entry.offset);
            }
            bytes += size;
            records.push(Arc::clone(record));
        }
        (records, until.max(offset))
    }

    /// Every record, with its fate.
    pub(crate) fn uncommitted(&self) -> Vec<(Fate, Arc<StoredRecord>)> {
        let entries = self.entries.iter().filter_map(|entry| match &entry.body {
            Body::Record { segment, record } => Some((self.fate(*segment), Arc::clone(record))),
            Body::Marker => None,
        });
        entries.collect()
    }

    /// Retention: nothing before `start` is there any more.
    pub(crate) fn trim(&mut self, start: u64) {
        self.start = start.clamp(self.start, self.end);
        let gone = self.entries.partition_point(|it| it.offset < self.start);
        self.entries.drain(..gone);
        self.changed.notify_waiters();
    }

    /// Keeps of every key the last committed record before `until`; with `tombstones_too` not even that of a
    /// deleted key. Markers and aborted records go. Offsets stay as they are.
    pub(crate) fn compact(&mut self, until: u64, tombstones_too: bool) {
        let until = until.min(self.stable_end());
        let mut later: BTreeSet<Bytes> = BTreeSet::new();
        let mut kept = Vec::with_capacity(self.entries.len());
        for entry in std::mem::take(&mut self.entries).into_iter().rev() {
            let keep = match &entry.body {
                _ if entry.offset >= until => true,
                Body::Marker => false,
                Body::Record { segment, record } => {
                    self.fate(*segment) == Fate::Committed
                        && later.insert(record.key.clone())
                        && !(tombstones_too && record.value.is_none())
                }
            };
            if keep {
                kept.push(entry);
            }
        }
        kept.reverse();
        self.entries = kept;
    }

    /// The topic was deleted and made anew.
    pub(crate) fn recreate(&mut self) {
        let (incarnation, changed) = (self.incarnation + 1, self.changed.clone());
        *self = Self { incarnation, changed, ..Self::default() };
        self.changed.notify_waiters();
    }
}
