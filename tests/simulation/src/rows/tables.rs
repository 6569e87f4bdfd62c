//! What the database holds, and how writes meet: the later timestamp wins, whenever it arrives.

use bytes::Bytes;
use std::collections::BTreeMap;
use tillstream_stage::{RowKey, Table};
use tillstream_state::row_store::{Checkpoint, Deployment, RowWrite, StateKey};
use tillstream_state::{TaskId, Timer};

/// A value or a deletion, and when it was written by its writer's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) value: Option<Bytes>,
    pub(crate) timestamp: i64,
}

impl Cell {
    /// As CQL decides: the later timestamp; of equal ones a deletion, else the greater value.
    fn loses_to(&self, other: &Self) -> bool {
        match self.timestamp.cmp(&other.timestamp) {
            std::cmp::Ordering::Equal => match (&self.value, &other.value) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(own), Some(other)) => own < other,
            },
            order => order.is_lt(),
        }
    }
}

/// One thing that is written.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    Row(RowKey, Cell),
    Timer(TaskId, Timer, Cell),
    Checkpoint(TaskId, i64, Checkpoint),
    Mark(Table, TaskId, i64),
    Flushed(TaskId, i64, u64),
}

impl Mutation {
    pub(crate) fn of(task: TaskId, write: &RowWrite) -> Self {
        let cell = Cell { value: write.value.clone(), timestamp: write.timestamp };
        match &write.key {
            StateKey::Row(key) => Self::Row(key.clone(), cell),
            StateKey::Timer(timer) => Self::Timer(task, timer.clone(), cell),
        }
    }
}

/// Everything in the database: a copy to restore.
#[derive(Clone, Debug, Default)]
pub struct RowsSnapshot {
    pub(crate) rows: BTreeMap<RowKey, Cell>,
    pub(crate) timers: BTreeMap<(TaskId, Timer), Cell>,
    pub(crate) checkpoints: BTreeMap<TaskId, (i64, Checkpoint)>,
    pub(crate) marks: BTreeMap<(Table, TaskId), i64>,
    pub(crate) flushed: BTreeMap<TaskId, (i64, u64)>,
    pub(crate) deployment: Option<Deployment>,
}

fn put<K: Ord>(cells: &mut BTreeMap<K, Cell>, key: K, cell: Cell) {
    match cells.get_mut(&key) {
        Some(old) if old.loses_to(&cell) => *old = cell,
        Some(_) => {}
        None => {
            cells.insert(key, cell);
        }
    }
}

impl RowsSnapshot {
    pub(crate) fn apply(&mut self, mutation: Mutation) {
        match mutation {
            Mutation::Row(key, cell) => put(&mut self.rows, key, cell),
            Mutation::Timer(task, timer, cell) => put(&mut self.timers, (task, timer), cell),
            Mutation::Checkpoint(task, timestamp, checkpoint) => {
                let found = self.checkpoints.entry(task).or_insert((timestamp, checkpoint));
                if found.0 <= timestamp {
                    *found = (timestamp, checkpoint);
                }
            }
            Mutation::Flushed(task, timestamp, offset) => {
                let found = self.flushed.entry(task).or_insert((timestamp, offset));
                *found = (timestamp, offset).max(*found);
            }
            Mutation::Mark(table, task, timestamp) => {
                let found = self.marks.entry((table, task)).or_insert(timestamp);
                *found = timestamp.max(*found);
            }
        }
    }

    /// Empties one table of rows.
    pub(crate) fn truncate_table(&mut self, table: Table) {
        self.rows.retain(|key, _| key.table != table);
        self.marks.retain(|(marked, _), _| *marked != table);
    }
}
