//! One suite for every implementation of log and state.
//!
//! Each suite takes a factory of empty stores and panics at the first promise that is broken:
//! [`log_suite`], [`state_suite`], [`commit_suite`], [`keys_suite`], [`broker_suite`], [`row_store_suite`]. A store
//! under test must have at least two partitions per topic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a suite of tests: it fails by panicking"
)]

mod broker;
mod commit;
mod keys;
mod log;
mod row_store;
mod state;

use bytes::Bytes;
use std::time::Duration;
use tillstream_log::{Headers, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::{TaskCommit, TaskId};

pub use broker::{BrokerCase, broker_suite};
pub use commit::commit_suite;
pub use keys::keys_suite;
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
