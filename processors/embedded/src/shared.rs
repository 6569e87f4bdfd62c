//! What the group-commit thread and the readers share.

use crate::disk::{DiskWatch, Work};
use crate::layout;
use crate::partition::Partitions;
use crate::settings::EmbeddedSettings;
use crate::tables::Tables;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tillstream_log::{LogError, TopicPartition};
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;

/// A commit that takes longer than this is trouble.
const HANGS_AFTER_MS: i64 = 30_000;

/// What the group-commit thread and the readers share.
pub struct Shared {
    /// As it was opened.
    pub settings: EmbeddedSettings,
    /// The database.
    pub tables: Tables,
    /// Ends and tails.
    pub partitions: Partitions,
    /// Free space.
    pub disk: DiskWatch,
    committed: Vec<AtomicU64>,
    stopped: OnceLock<LogError>,
    /// Groups committed since the store was opened.
    pub groups: AtomicU64,
    /// When the group that is being committed began; 0: there is none.
    busy_since_ms: AtomicI64,
}

impl Shared {
    /// Reads the ends of the partitions and the committed offsets from the database.
    pub fn recover(settings: EmbeddedSettings, tables: Tables) -> fjall::Result<Self> {
        let mut bounds = Vec::new();
        for partition in Partitions::every(settings.partitions) {
            bounds.push(bounds_of(&tables, partition)?);
        }
        let mut committed = Vec::new();
        for kind in TaskKind::ALL {
            for partition in 0..settings.partitions {
                let stored = tables.offsets.get(layout::task_key(TaskId { kind, partition }))?;
                let offset =
                    stored.as_deref().and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
                committed.push(AtomicU64::new(offset));
            }
        }
        Ok(Self {
            partitions: Partitions::new(settings.partitions, &bounds),
            disk: DiskWatch::new(&settings),
            settings,
            tables,
            committed,
            stopped: OnceLock::new(),
            groups: AtomicU64::new(0),
            busy_since_ms: AtomicI64::new(0),
        })
    }

    /// Every task.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        let partitions = self.settings.partitions;
        let of_kind = move |kind| (0..partitions).map(move |partition| TaskId { kind, partition });
        TaskKind::ALL.into_iter().flat_map(of_kind)
    }

    fn committed_slot(&self, task: TaskId) -> Option<&AtomicU64> {
        if task.partition >= self.settings.partitions {
            return None;
        }
        // Task kinds count from 1 in the order of TaskKind::ALL.
        let index = (task.kind as usize - 1) * self.settings.partitions as usize + task.partition as usize;
        self.committed.get(index)
    }

    /// The offset a task goes on from; 0 for a task that there is not.
    pub fn committed(&self, task: TaskId) -> u64 {
        self.committed_slot(task).map_or(0, |slot| slot.load(Ordering::Acquire))
    }

    /// A commit is durable.
    pub fn set_committed(&self, task: TaskId, offset: u64) {
        if let Some(slot) = self.committed_slot(task) {
            slot.store(offset, Ordering::Release);
        }
    }

    /// Ends the store for good; the first reason stays.
    pub fn stop(&self, reason: String) -> LogError {
        let error = self.stopped.get_or_init(|| LogError::Stopped(reason)).clone();
        self.partitions.stop();
        error
    }

    /// An error once the store has stopped.
    pub fn check_running(&self) -> Result<(), LogError> {
        self.stopped.get().cloned().map_or(Ok(()), Err)
    }

    /// Notes that a group is being committed, or that it is done.
    pub fn set_busy(&self, busy: bool) {
        self.busy_since_ms.store(if busy { (self.settings.now_ms)() } else { 0 }, Ordering::Relaxed);
    }

    /// Why new work is refused, if it is.
    pub fn trouble(&self) -> Option<LogError> {
        if let Err(stopped) = self.check_running() {
            return Some(stopped);
        }
        let since = self.busy_since_ms.load(Ordering::Relaxed);
        let hangs_ms = (self.settings.now_ms)().saturating_sub(since);
        if since != 0 && hangs_ms > HANGS_AFTER_MS {
            return Some(LogError::Io(format!("a commit has been hanging for {} s", hangs_ms / 1000)));
        }
        self.disk.check(Work::New).err()
    }
}

/// The first offset kept and the end of a partition. A compacted topic begins at 0 for ever: a reader of it
/// steps over what is superseded.
fn bounds_of(tables: &Tables, partition: TopicPartition) -> fjall::Result<(u64, u64)> {
    let range = layout::batch_position(partition, 0).to_vec()
        ..=layout::batch_key(partition, u64::MAX, u32::MAX).to_vec();
    let mut batches = tables.log.range(range);
    let Some(first) = batches.next() else { return Ok((0, 0)) };
    let first = layout::batch_offsets(&first.key()?).unwrap_or(0..0);
    let last = match batches.next_back() {
        Some(last) => layout::batch_offsets(&last.key()?).unwrap_or(0..0),
        None => first.clone(),
    };
    Ok((if partition.topic.compacted() { 0 } else { first.start }, last.end))
}
