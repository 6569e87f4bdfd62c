//! Retention: old batches go, and compacted topics keep the latest record of each key.
//!
//! It reads on a thread of its own and asks the group-commit thread to write, so that there is one writer.
//! The last batch of a partition always stays: its key says where the partition ends.

use crate::batch::{Batch, BatchWriter, stored_size_at_most, timestamp_of};
use crate::committer::Purge;
use crate::layout;
use crate::partition::Partitions;
use crate::read::{Loaded, load};
use crate::shared::Shared;
use crate::tables::io_error;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tillstream_log::{LogError, TopicPartition};
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Batches removed because they were too old or too many, or wholly superseded.
    pub batches_removed: u64,
    /// Batches of compacted topics written again without superseded records.
    pub batches_rewritten: u64,
}

/// Hands a purge to the group-commit thread and waits until it is durable.
pub type SendPurge<'a> = &'a mut dyn FnMut(Purge) -> Result<(), LogError>;

const CHUNK: usize = 1024;
const REWRITE_BYTES: usize = 1 << 20;
/// A compacted partition is looked at again once it has grown by this much, and by as much as it holds.
const COMPACT_AFTER_BYTES: u64 = 4 << 20;

/// What is known of one partition's size.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// Bytes that stood there when the store was opened; `None` until it is asked for.
    at_open: Option<u64>,
    /// Bytes removed since.
    removed: u64,
    /// Compacted topics: bytes written since the store was opened, at the last pass.
    written_at_pass: u64,
    /// Compacted topics: bytes that the last pass left.
    live: u64,
}

/// Retention of one store.
pub struct Retention {
    shared: Arc<Shared>,
    sizes: Mutex<Vec<Size>>,
}

/// Some batches in a row: keys, offsets and stored sizes.
struct Run {
    keys: Vec<[u8; 17]>,
    offsets: Vec<Range<u64>>,
    sizes: Vec<u64>,
}

impl Retention {
    /// Retention of that store.
    pub fn new(shared: Arc<Shared>) -> Self {
        let sizes = Mutex::new(vec![Size::default(); shared.partitions.count()]);
        Self { shared, sizes }
    }

    /// One pass over all partitions. `forced`: compacts also what has grown little.
    pub fn run(&self, forced: bool, send: SendPurge<'_>) -> Result<RetentionReport, LogError> {
        // Held for the whole pass: two passes at once would write over each other.
        let mut sizes = self.sizes.lock();
        let mut report = RetentionReport::default();
        for from in Partitions::every(self.shared.partitions.per_topic()) {
            self.shared.check_running()?;
            let size = &mut sizes[self.shared.partitions.index(from)?];
            if from.topic.compacted() {
                self.compact(from, forced, size, send, &mut report)?;
            } else {
                self.expire(from, size, send, &mut report)?;
            }
        }
        Ok(report)
    }

    fn batches(&self, from: TopicPartition, offsets: Range<u64>) -> fjall::Iter {
        let (first, end) =
            (layout::batch_position(from, offsets.start), layout::batch_position(from, offsets.end));
        self.shared.tables.log.range(first..end)
    }

    /// The next batches from `start` on, values unread.
    fn run_of(&self, from: TopicPartition, start: u64, end: u64) -> Result<Run, LogError> {
        let mut run = Run { keys: Vec::new(), offsets: Vec::new(), sizes: Vec::new() };
        for guard in self.batches(from, start..end).take(CHUNK) {
            let key = guard.key().map_err(io_error)?;
            let whole: Option<[u8; 17]> = key.as_ref().try_into().ok();
            let (Some(key), Some(offsets)) = (whole, layout::batch_offsets(&key)) else {
                return Err(io_error("a batch has no offsets"));
            };
            run.keys.push(key);
            run.offsets.push(offsets);
        }
        for guard in self.batches(from, start..end).take(run.keys.len()) {
            run.sizes.push(u64::from(guard.size().map_err(io_error)?));
        }
        Ok(run)
    }

    fn size_now(&self, from: TopicPartition, end: u64, size: &mut Size) -> Result<u64, LogError> {
        let partition = self.shared.partitions.get(from)?;
        let written = partition.bytes_written.load(Ordering::Relaxed);
        let at_open = match size.at_open {
            Some(at_open) => at_open,
            None => {
                let mut all = 0;
                for guard in self.batches(from, partition.start()..end) {
                    all += u64::from(guard.size().map_err(io_error)?);
                }
                *size.at_open.insert(all.saturating_sub(written))
            }
        };
        Ok((at_open + written).saturating_sub(size.removed))
    }

    /// One past the last offset that everyone who reads the topic as a task has committed.
    fn read_up_to(&self, from: TopicPartition, end: u64) -> u64 {
        let readers = TaskKind::ALL.into_iter().filter(|kind| kind.input() == from.topic);
        let committed = readers.map(|kind| self.shared.committed(TaskId { kind, partition: from.partition }));
        committed.min().unwrap_or(end)
    }

    fn is_older(&self, key: &[u8; 17], than_ms: i64) -> Result<bool, LogError> {
        let value = self.shared.tables.log.get(key).map_err(io_error)?;
        Ok(value.is_some_and(|value| timestamp_of(&value).is_ok_and(|at| at < than_ms)))
    }

    /// How many batches at the head of the run are older than `than_ms`; append times never fall.
    fn older(&self, run: &Run, than_ms: i64) -> Result<usize, LogError> {
        let (mut young, mut old) = (run.keys.len(), 0);
        if young == 0 || !self.is_older(&run.keys[0], than_ms)? {
            return Ok(0);
        }
        while old < young {
            let middle = old + (young - old) / 2;
            if self.is_older(&run.keys[middle], than_ms)? {
                old = middle + 1;
            } else {
                young = middle;
            }
        }
        Ok(old)
    }

    fn expire(
        &self,
        from: TopicPartition,
        size: &mut Size,
        send: SendPurge<'_>,
        report: &mut RetentionReport,
    ) -> Result<(), LogError> {
        let partition = self.shared.partitions.get(from)?;
        let end = partition.end();
        let settings = &self.shared.settings;
        let than_ms = (settings.now_ms)().saturating_sub(settings.retention_ms);
        let bytes_max = if from.topic.is_dlq() { u64::MAX } else { settings.log_bytes_max };
        let read_up_to = self.read_up_to(from, end);
        let mut bytes = self.size_now(from, end, size)?;
        loop {
            let run = self.run_of(from, partition.start(), end)?;
            let may_go = run.offsets.iter().take_while(|it| it.end <= read_up_to && it.end < end).count();
            let mut cut = self.older(&run, than_ms)?.min(may_go);
            let too_old: u64 = run.sizes[..cut].iter().sum();
            let mut left = bytes.saturating_sub(too_old);
            while cut < may_go && left > bytes_max {
                left = left.saturating_sub(run.sizes[cut]);
                cut += 1;
            }
            if cut == 0 {
                return Ok(());
            }
            let purge = Purge {
                partition: from,
                removed: run.keys[..cut].to_vec(),
                rewritten: Vec::new(),
                start: Some(run.offsets[cut - 1].end),
            };
            send(purge)?;
            report.batches_removed += cut as u64;
            size.removed += bytes - left;
            bytes = left;
            if cut < run.keys.len() {
                return Ok(());
            }
        }
    }

    fn compact(
        &self,
        from: TopicPartition,
        forced: bool,
        size: &mut Size,
        send: SendPurge<'_>,
        report: &mut RetentionReport,
    ) -> Result<(), LogError> {
        let partition = self.shared.partitions.get(from)?;
        let end = partition.end();
        let written = partition.bytes_written.load(Ordering::Relaxed);
        let grown = written.saturating_sub(size.written_at_pass);
        if !forced && grown < COMPACT_AFTER_BYTES.max(size.live) {
            return Ok(());
        }
        let latest = self.latest_offsets(from, end)?;
        let mut purge = Purge { partition: from, removed: Vec::new(), rewritten: Vec::new(), start: None };
        let mut live = 0;
        let mut rewritten_bytes = 0;
        for guard in self.batches(from, 0..end) {
            let Loaded::Whole(batch) = load(guard)? else { continue };
            match compacted(&batch, &latest, batch.next == end) {
                Compacted::Stays => live += batch.value.len() as u64,
                Compacted::Goes => purge.removed.push(layout::batch_key(from, batch.base, batch.span())),
                Compacted::Shrinks(smaller) => {
                    live += smaller.value.len() as u64;
                    rewritten_bytes += smaller.value.len();
                    purge.rewritten.push(smaller);
                }
            }
            if rewritten_bytes > REWRITE_BYTES || purge.removed.len() >= CHUNK {
                rewritten_bytes = 0;
                let next = Purge { partition: from, removed: Vec::new(), rewritten: Vec::new(), start: None };
                send_counted(std::mem::replace(&mut purge, next), send, report)?;
            }
        }
        send_counted(purge, send, report)?;
        (size.written_at_pass, size.live) = (written, live);
        Ok(())
    }

    /// The offset of the latest record of every key before `end`.
    fn latest_offsets(&self, from: TopicPartition, end: u64) -> Result<FxHashMap<Box<[u8]>, u64>, LogError> {
        let mut latest: FxHashMap<Box<[u8]>, u64> = FxHashMap::default();
        for guard in self.batches(from, 0..end) {
            let Loaded::Whole(batch) = load(guard)? else { continue };
            for record in batch.records().map_err(io_error)? {
                match latest.get_mut(&record.key[..]) {
                    Some(offset) => *offset = record.offset,
                    None => {
                        latest.insert(record.key[..].into(), record.offset);
                    }
                }
            }
        }
        Ok(latest)
    }
}

fn send_counted(purge: Purge, send: SendPurge<'_>, report: &mut RetentionReport) -> Result<(), LogError> {
    if purge.removed.is_empty() && purge.rewritten.is_empty() {
        return Ok(());
    }
    report.batches_removed += purge.removed.len() as u64;
    report.batches_rewritten += purge.rewritten.len() as u64;
    send(purge)
}

/// What compaction makes of a batch.
enum Compacted {
    Stays,
    Goes,
    Shrinks(Batch),
}

fn compacted(batch: &Batch, latest: &FxHashMap<Box<[u8]>, u64>, is_last: bool) -> Compacted {
    let Ok(mut records) = batch.records() else { return Compacted::Stays };
    let all = records.len();
    records.retain(|record| latest.get(&record.key[..]) == Some(&record.offset));
    if records.is_empty() && !is_last {
        return Compacted::Goes;
    }
    if records.len() * 2 >= all {
        return Compacted::Stays;
    }
    let size = records.iter().map(|it| stored_size_at_most(&it.key, &it.value, &it.headers)).sum();
    let mut writer = BatchWriter::new(timestamp_of(&batch.value).unwrap_or(0), size);
    records.iter().for_each(|record| writer.keep(batch.base, record));
    Compacted::Shrinks(writer.finish_spanning(batch.base, batch.span()))
}
