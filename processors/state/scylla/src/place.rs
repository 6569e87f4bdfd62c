//! Where a row or a timer lies: a partition of the database.

use tillstream_stage::task::TaskKind;
use tillstream_stage::{RowKey, Table};
use tillstream_state::row_store::StateKey;
use tillstream_state::{TaskId, layout};

/// The hour in which a timer is due.
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// A partition of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Of a table of rows.
    Rows {
        /// The table.
        table: Table,
        /// The shard.
        shard: i32,
        /// The bucket.
        bucket: i32,
    },
    /// Of the timers.
    Timers {
        /// The kind of task.
        kind: TaskKind,
        /// The task's partition.
        shard: i32,
        /// Hours since the epoch.
        hour: i64,
    },
}

/// How many partitions and buckets there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Partitions of every topic.
    pub(crate) partitions: u32,
    /// Buckets of every shard.
    pub(crate) buckets: u32,
}

impl Layout {
    /// The place of a row.
    pub(crate) fn of_row(self, row: &RowKey) -> Place {
        Place::Rows {
            table: row.table,
            shard: layout::shard_of(row, self.partitions).cast_signed(),
            bucket: layout::bucket_of(row, self.buckets).cast_signed(),
        }
    }

    /// The place of what a task keeps.
    pub(crate) fn of(self, task: TaskId, key: &StateKey) -> Place {
        match key {
            StateKey::Row(row) => self.of_row(row),
            StateKey::Timer(timer) => Place::Timers {
                kind: task.kind,
                shard: task.partition.cast_signed(),
                hour: timer.due_ms.div_euclid(HOUR_MS),
            },
        }
    }
}
