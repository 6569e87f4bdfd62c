//! Rows per second that one node takes: `rows_bench <host:port> [rows] [bytes of a row]`.
//!
//! It writes to the keyspace `rows_bench`, which stays: one row per request, then grouped by the database's partitions;
//! and reads them back grouped. Nothing else should run meanwhile.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark: it measures time and prints"
)]

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::time::Instant;
use tillstream_log::LogError;
use tillstream_scylla::{Replication, ReplicationClass, ScyllaSettings, ScyllaStore};
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::TaskId;
use tillstream_state::row_store::{RowStore, RowWrite, StateKey};

const PARTITIONS: u32 = 4;
const BUCKETS: u32 = 16;
const TASK: TaskId = TaskId { kind: TaskKind::Order, partition: 0 };
/// Rows of one flush, and keys of one read.
const FLUSH: usize = 5_000;

#[tokio::main]
async fn main() -> Result<(), LogError> {
    let mut arguments = std::env::args().skip(1);
    let node = arguments.next().unwrap_or_else(|| "127.0.0.1:9042".into());
    let mut number = |default: usize| arguments.next().and_then(|it| it.parse().ok()).unwrap_or(default);
    let (rows, bytes) = (number(100_000), number(300));
    for connections in [1, 2] {
        let settings = ScyllaSettings {
            nodes: vec![node.clone()],
            keyspace: "rows_bench".into(),
            replication: Replication { class: ReplicationClass::Simple, factor: 1 },
            connections,
            ..ScyllaSettings::default()
        };
        let store = ScyllaStore::connect(&settings, PARTITIONS, BUCKETS).await?;
        store.truncate().await?;
        println!(
            "{rows} rows of {bytes} bytes, {connections} connection(s), {} in flight",
            settings.in_flight_max
        );
        measure(&store, rows, bytes).await?;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|it| it.starts_with("VmHWM") || it.starts_with("Threads")) {
        println!("{line}");
    }
    Ok(())
}

async fn measure(store: &ScyllaStore, rows: usize, bytes: usize) -> Result<(), LogError> {
    let value = Bytes::from(vec![b'x'; bytes]);
    let writes = |timestamp: i64| -> Vec<RowWrite> {
        (0..rows)
            .map(|n| RowWrite { key: StateKey::Row(row(n)), value: Some(value.clone()), timestamp })
            .collect()
    };
    let (single, grouped, again) = (writes(1), writes(2), writes(3));
    let few = &single[..rows / 5];
    let began = Instant::now();
    stream::iter(few.chunks(1))
        .map(|it| store.write(TASK, it))
        .buffer_unordered(32)
        .try_collect::<Vec<_>>()
        .await?;
    show("written one by one", few.len(), began);
    for (what, writes) in [("written grouped", &grouped), ("overwritten grouped", &again)] {
        let began = Instant::now();
        for flush in writes.chunks(FLUSH) {
            store.write(TASK, flush).await?;
        }
        show(what, rows, began);
    }
    let keys: Vec<RowKey> = (0..rows).map(row).collect();
    let few = &keys[..rows / 5];
    let began = Instant::now();
    stream::iter(few.chunks(1))
        .map(|it| store.get_many(it))
        .buffer_unordered(32)
        .try_collect::<Vec<_>>()
        .await?;
    show("read one by one", few.len(), began);
    for size in [500, FLUSH] {
        let began = Instant::now();
        for keys in keys.chunks(size) {
            let found = store.get_many(keys).await?;
            assert!(found.iter().all(Option::is_some), "every row that was written is read");
        }
        show(&format!("read grouped, {size} keys"), rows, began);
    }
    Ok(())
}

fn row(n: usize) -> RowKey {
    RowKey::new(Table::Order, Key::from(format!("demo/ord_{n:020}")))
}

fn show(what: &str, rows: usize, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    println!("  {what:<24} {:>9.0} rows/s", rows as f64 / seconds);
}
