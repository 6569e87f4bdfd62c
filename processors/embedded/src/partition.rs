//! What is known of the partitions without touching the disk: their ends, and their newest batches.

use crate::batch::{Batch, Budget};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_log::{LogError, Record, TopicPartition};
use tillstream_schemas::Topic;
use tokio::sync::watch;

/// Where a partition ends, for those who wait.
#[derive(Clone, Copy, Debug)]
struct End {
    offset: u64,
    stopped: bool,
}

/// One partition.
pub struct Partition {
    start: AtomicU64,
    end: watch::Sender<End>,
    tail: Mutex<VecDeque<Arc<Batch>>>,
    /// Bytes of batches written since the store was opened.
    pub bytes_written: AtomicU64,
}

/// All partitions of all topics.
pub struct Partitions {
    per_topic: u32,
    all: Vec<Partition>,
}

impl Partitions {
    /// `bounds` are the first offset kept and the end of each, in the order of [`Partitions::index`].
    pub fn new(per_topic: u32, bounds: &[(u64, u64)]) -> Self {
        let all = bounds.iter().map(|(start, offset)| Partition {
            start: AtomicU64::new(*start),
            end: watch::Sender::new(End { offset: *offset, stopped: false }),
            tail: Mutex::new(VecDeque::new()),
            bytes_written: AtomicU64::new(0),
        });
        Self { per_topic, all: all.collect() }
    }

    /// Every partition, in the order of [`Partitions::index`].
    pub fn every(per_topic: u32) -> impl Iterator<Item = TopicPartition> {
        Topic::ALL
            .into_iter()
            .flat_map(move |topic| (0..per_topic).map(move |it| TopicPartition::new(topic, it)))
    }

    /// How many partitions each topic has.
    pub fn per_topic(&self) -> u32 {
        self.per_topic
    }

    /// How many there are in all.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The place of a partition; an error when there is no such partition.
    pub fn index(&self, partition: TopicPartition) -> Result<usize, LogError> {
        let topic = partition.topic.index().filter(|_| partition.partition < self.per_topic);
        let topic = topic.ok_or(LogError::NoSuchPartition(partition))?;
        Ok(topic * self.per_topic as usize + partition.partition as usize)
    }

    /// The partition at a place that [`Partitions::index`] answered.
    pub fn at(&self, index: usize) -> &Partition {
        &self.all[index]
    }

    /// The partition.
    pub fn get(&self, partition: TopicPartition) -> Result<&Partition, LogError> {
        Ok(&self.all[self.index(partition)?])
    }

    /// Wakes everyone who waits: nothing more will come.
    pub fn stop(&self) {
        for partition in &self.all {
            partition.end.send_modify(|end| end.stopped = true);
        }
    }
}

impl Partition {
    /// The first offset kept.
    pub fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// One past the last durable record.
    pub fn end(&self) -> u64 {
        self.end.borrow().offset
    }

    /// Retention has removed what is before `start`.
    pub fn move_start(&self, start: u64) {
        self.start.fetch_max(start, Ordering::AcqRel);
    }

    /// A durable batch: from now on readers see it.
    pub fn publish(&self, batch: Arc<Batch>) {
        let next = batch.next;
        self.bytes_written.fetch_add(batch.value.len() as u64, Ordering::Relaxed);
        self.tail.lock().push_back(batch);
        self.end.send_modify(|end| end.offset = next);
    }

    /// Forgets the oldest batch of the tail.
    pub fn forget_oldest(&self) {
        self.tail.lock().pop_front();
    }

    /// Resolves when the end is past `offset` (true) or the store has stopped (false).
    pub async fn past(&self, offset: u64) -> bool {
        let mut end = self.end.subscribe();
        let reached = end.wait_for(|end| end.offset > offset || end.stopped).await;
        reached.is_ok_and(|end| end.offset > offset)
    }

    /// Reads from the tail; `None` when `offset` is older than the tail.
    pub fn read_tail(&self, offset: u64, budget: &mut Budget) -> Option<Result<Vec<Record>, String>> {
        let batches: Vec<Arc<Batch>> = {
            let tail = self.tail.lock();
            let first = tail.partition_point(|batch| batch.next <= offset);
            if tail.get(first)?.base > offset {
                return None;
            }
            let mut bytes = 0;
            let enough = |batch: &&Arc<Batch>| {
                let more = bytes <= budget.bytes_left();
                bytes += batch.value.len();
                more
            };
            tail.range(first..).take_while(enough).cloned().collect()
        };
        let mut out = Vec::new();
        for batch in batches {
            if let Err(detail) = batch.read_into(offset, budget, &mut out) {
                return Some(Err(detail));
            }
            if budget.spent() {
                break;
            }
        }
        Some(Ok(out))
    }
}

/// Keeps the tails together below a number of bytes. Owned by the group-commit thread.
pub struct TailCache {
    bytes_max: usize,
    bytes: usize,
    oldest_first: VecDeque<(usize, usize)>,
}

impl TailCache {
    /// An empty one.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, oldest_first: VecDeque::new() }
    }

    /// Publishes a durable batch, and forgets the oldest of all partitions while there are too many bytes.
    pub fn publish(&mut self, partitions: &Partitions, index: usize, batch: Batch) {
        let size = batch.value.len();
        partitions.at(index).publish(Arc::new(batch));
        self.bytes += size;
        self.oldest_first.push_back((index, size));
        while self.bytes > self.bytes_max {
            let Some((oldest, size)) = self.oldest_first.pop_front() else { return };
            partitions.at(oldest).forget_oldest();
            self.bytes -= size;
        }
    }
}
