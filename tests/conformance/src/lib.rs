//! One suite for every implementation of log and state.
//!
//! Each suite takes a factory of empty stores and panics at the first promise that is broken:
//! [`log_suite`], [`state_suite`], [`commit_suite`], [`broker_suite`], [`row_store_suite`]. A store
//! under test must have at least two partitions per topic. The first three hold for one store as for a cluster's
//! engines together ([`ClusterStore`]): they compare values and order, not the offsets that commits get, and only the
//! task that owns a row writes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a suite of tests: it fails by panicking"
)]

mod broker;
mod cluster;
mod commit;
mod log;
mod row_store;
mod state;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tillstream_log::{Headers, Log, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::layout::shard_of;
use tillstream_state::{Commit, State, TaskCommit, TaskId};

pub use broker::{BrokerCase, broker_suite};
pub use cluster::{ClusterParts, ClusterStore};
pub use commit::commit_suite;
pub use log::log_suite;
pub use row_store::{ROW_BUCKETS, ROW_PARTITIONS, row_store_suite};
pub use state::state_suite;

/// Nothing here takes this long unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A limit that nothing in the suites reaches.
pub const EVERYTHING: ReadLimit = ReadLimit { records_max: 100_000, bytes_max: 1 << 30 };

/// The order task of partition 0, which most cases commit as.
pub const ORDER_0: TaskId = TaskId { kind: TaskKind::Order, partition: 0 };

/// A partition of the topic of order events.
pub fn events(partition: u32) -> TopicPartition {
    TopicPartition::new(Topic::OrderEvents, partition)
}

/// A record without headers.
pub fn record(to: TopicPartition, key: &str, value: &str) -> NewRecord {
    NewRecord {
        to,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        headers: Headers::new(),
    }
}

/// A commit of `task` that does nothing yet but move its offset.
pub fn commit_of(task: TaskId, from_offset: u64, next_offset: u64) -> TaskCommit {
    TaskCommit {
        task,
        from_offset,
        next_offset,
        outputs: Vec::new(),
        rows: Vec::new(),
        timers_removed: Vec::new(),
        timers_set: Vec::new(),
    }
}

/// A row to write.
pub fn row(table: Table, key: &str, value: &str) -> (RowKey, Option<Bytes>) {
    (row_key(table, key), Some(Bytes::copy_from_slice(value.as_bytes())))
}

/// A row's key.
pub fn row_key(table: Table, key: &str) -> RowKey {
    RowKey::new(table, Key::new(key))
}

/// The values of records, as text.
pub fn values(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(&record.value).unwrap()).collect()
}

/// The task that owns a row: nobody else writes it.
pub fn owner_of(log: &impl Log, row: &RowKey) -> TaskId {
    let kind = row.table.kind();
    TaskId { kind, partition: shard_of(row, log.partitions(kind.input())) }
}

/// Keys `<prefix>0`, `<prefix>1`, … of rows that `task` owns.
pub fn keys_of(log: &impl Log, task: TaskId, table: Table, prefix: &str) -> impl Iterator<Item = String> {
    (0..).map(move |n| format!("{prefix}{n}")).filter(move |key| owner_of(log, &row_key(table, key)) == task)
}

/// The first of [`keys_of`] the order task of partition 0.
pub fn key_of(log: &impl Log, prefix: &str) -> String {
    keys_of(log, ORDER_0, Table::Order, prefix).next().expect("some key falls to partition 0")
}

/// Writes rows, each by its task.
pub async fn put_rows<S: Log + State + Commit>(store: &S, rows: Vec<(RowKey, Option<Bytes>)>) {
    let mut owned: BTreeMap<TaskId, Vec<(RowKey, Option<Bytes>)>> = BTreeMap::new();
    for row in rows {
        owned.entry(owner_of(store, &row.0)).or_default().push(row);
    }
    for (task, rows) in owned {
        let from = store.committed(task).await.unwrap();
        store.commit(TaskCommit { rows, ..commit_of(task, from, from + 1) }).await.unwrap();
    }
}

/// All that is durable of a partition now.
pub async fn all_of(log: &impl Log, partition: TopicPartition) -> Vec<Record> {
    log.refresh(&[partition]).await.unwrap();
    let (mut offset, end) = (log.start_offset(partition).unwrap(), log.end_offset(partition).unwrap());
    let mut records = Vec::new();
    while offset < end {
        let (more, next_offset) = log.read_on(partition, offset, EVERYTHING).await.unwrap();
        assert!(next_offset > offset, "{partition} does not go on at {offset} of {end}");
        records.extend(more);
        offset = next_offset;
    }
    assert!(records.is_sorted_by(|a, b| a.offset < b.offset), "offsets do not grow");
    records
}
