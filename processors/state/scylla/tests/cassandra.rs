//! The store keeps its promises on a real server. One server for all: it takes ten seconds and a gigabyte to start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{connect, settings, until};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use tillstream_conformance::{ORDER_0, row_key, row_store_suite};
use tillstream_log::LogError;
use tillstream_scylla::{ScyllaSettings, ScyllaStore};
use tillstream_servers::{Cassandra, CassandraOptions};
use tillstream_stage::{Key, Table, TimerName};
use tillstream_state::Timer;
use tillstream_state::row_store::{Checkpoint, RowStore, RowWrite, StateKey};

const HOUR_MS: i64 = 3_600_000;

async fn store(cassandra: &Cassandra, keyspace: &str) -> ScyllaStore {
    connect(&settings(cassandra.address(), keyspace)).await.unwrap()
}

fn put(table: Table, key: &str, value: &str, timestamp: i64) -> RowWrite {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    RowWrite { key: StateKey::Row(row_key(table, key)), value, timestamp }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_keeps_its_promises_on_cassandra() {
    let options = CassandraOptions {
        // What it acknowledges is there after a kill.
        commitlog_sync_period_ms: 0,
        heap_mib: 768,
        settings: vec![
            ("tombstone_failure_threshold".into(), "300".into()),
            ("tombstone_warn_threshold".into(), "200".into()),
        ],
        ..CassandraOptions::default()
    };
    let cassandra = Cassandra::start(options).unwrap();
    let made = Cell::new(0);
    let next = || {
        made.set(made.get() + 1);
        format!("suite_{}", made.get())
    };
    row_store_suite(async || Arc::new(store(&cassandra, &next()).await)).await;
    keys_of_an_earlier_version_are_listed_in_id_order(&cassandra).await;
    a_truncated_table_is_told_even_under_a_running_task(&cassandra).await;
    two_stores_claim_and_one_wins(&cassandra).await;
    deleted_rows_do_not_hide_the_living(&cassandra).await;
    tables_that_are_not_as_expected_stop(&cassandra).await;
    what_was_acknowledged_is_there_after_a_kill_and_nodes_tell_it(&cassandra).await;
    a_server_that_does_not_answer_is_unavailable(&cassandra).await;
    a_start_without_the_server_names_the_node(cassandra).await;
}

async fn keys_of_an_earlier_version_are_listed_in_id_order(cassandra: &Cassandra) {
    let store = connect(&settings(cassandra.address(), "earlier")).await.unwrap();
    assert_eq!(store.list_keys().await, Ok(Vec::new()));
    for (id, revoked) in [("key_b", "2"), ("key_a", "null")] {
        let values = format!("'{id}', 'demo', 0x{}, 'till', 1, {revoked}", "07".repeat(32));
        let columns = "id, tenant, hash, name, created_at_ms, revoked_at_ms";
        cassandra.execute(&format!("INSERT INTO earlier.api_keys ({columns}) VALUES ({values})")).unwrap();
    }
    let found = store.list_keys().await.unwrap();
    let told: Vec<_> = found.iter().map(|it| (it.id.as_str(), it.hash, it.revoked_at_ms)).collect();
    assert_eq!(told, [("key_a", [7; 32], None), ("key_b", [7; 32], Some(2))]);
}

async fn a_truncated_table_is_told_even_under_a_running_task(cassandra: &Cassandra) {
    let settings = settings(cassandra.address(), "marks");
    let running = connect(&settings).await.unwrap();
    let checkpoint = |offset| Checkpoint { generation: 1, offset, timers_from_ms: 0 };
    let own: BTreeSet<Table> = Table::ALL.into_iter().filter(|it| it.kind() == ORDER_0.kind).collect();
    let marked = async |store: &ScyllaStore| -> BTreeSet<Table> {
        store.marked_tables(ORDER_0).await.unwrap().into_iter().collect()
    };
    running.put_checkpoint(ORDER_0, checkpoint(1), 1).await.unwrap();
    assert_eq!(marked(&running).await, own);
    cassandra.execute("TRUNCATE marks.order_index").unwrap();
    running.put_checkpoint(ORDER_0, checkpoint(2), 2).await.unwrap();
    let later = connect(&settings).await.unwrap();
    assert_eq!(marked(&later).await, BTreeSet::from([Table::Order]), "the next checkpoint covered it up");
    // A store that read whole marks goes on from them.
    later.truncate().await.unwrap();
    assert_eq!(later.checkpoint(ORDER_0).await, Ok(None));
    later.put_checkpoint(ORDER_0, checkpoint(3), 3).await.unwrap();
    assert_eq!(marked(&running).await, own);
    for table in ["timers", "timer_hours"] {
        cassandra.execute(&format!("TRUNCATE marks.{table}")).unwrap();
        assert_eq!(marked(&running).await, BTreeSet::new(), "{table} is lost, and no row can be trusted");
        later.truncate().await.unwrap();
        later.put_checkpoint(ORDER_0, checkpoint(4), 4).await.unwrap();
        assert_eq!(marked(&running).await, own);
    }
    // Another process emptied it all: this one has to mark again.
    later.truncate().await.unwrap();
    assert_eq!(running.checkpoint(ORDER_0).await, Ok(None));
    running.put_checkpoint(ORDER_0, checkpoint(5), 5).await.unwrap();
    assert_eq!(marked(&later).await, own);
}

async fn two_stores_claim_and_one_wins(cassandra: &Cassandra) {
    let settings = settings(cassandra.address(), "claims");
    let stores = [connect(&settings).await.unwrap(), connect(&settings).await.unwrap()];
    let refused = stores[0].set_rebuilding(true).await;
    assert!(matches!(&refused, Err(LogError::Stopped(text)) if text.starts_with("TS0356")), "{refused:?}");
    let deployment = |name: &str| tillstream_state::row_store::Deployment {
        name: name.into(),
        cluster_id: "cluster".into(),
        partitions: 4,
        buckets: 8,
        rebuilding: false,
    };
    let (a, b) = tokio::join!(stores[0].claim(deployment("a")), stores[1].claim(deployment("b")));
    assert_eq!(a, b);
    assert!([deployment("a"), deployment("b")].contains(&a.unwrap()));
}

/// The server gives a read up at 300 deleted rows.
async fn deleted_rows_do_not_hide_the_living(cassandra: &Cassandra) {
    let store = store(cassandra, "deleted").await;
    let hour_ms = 500_000 * HOUR_MS;
    let timer = |n: i64| Timer { due_ms: hour_ms + n, key: Key::new("demo/a"), name: TimerName::HoldExpiry };
    let write = |n: i64, lives: bool, timestamp| RowWrite {
        key: StateKey::Timer(timer(n)),
        value: lives.then(Bytes::new),
        timestamp,
    };
    let set: Vec<RowWrite> = (0..4_000).map(|n| write(n, true, 1)).collect();
    let cleared: Vec<RowWrite> =
        (0..4_000).filter(|n| n % 1_900 != 1_800).map(|n| write(n, false, 2)).collect();
    store.write(ORDER_0, &set).await.unwrap();
    store.write(ORDER_0, &cleared).await.unwrap();
    let expected = vec![(timer(1_800), 1), (timer(3_700), 1)];
    assert_eq!(store.timers(ORDER_0, hour_ms, hour_ms + HOUR_MS, 10).await, Ok(expected.clone()));
    assert_eq!(store.timers(ORDER_0, 0, i64::MAX, 10).await, Ok(expected));

    let key = |n: usize| format!("demo/m/{n:05}");
    let set: Vec<RowWrite> = (0..1_500).map(|n| put(Table::Window, &key(n), "1", 1)).collect();
    let cleared: Vec<RowWrite> = (0..1_500)
        .filter(|n| n % 10 != 9)
        .map(|n| RowWrite { value: None, ..put(Table::Window, &key(n), "", 2) })
        .collect();
    store.write(ORDER_0, &set).await.unwrap();
    store.write(ORDER_0, &cleared).await.unwrap();
    let page = store.scan(Table::Window, "demo/", None, 1_000).await.unwrap();
    let expected: Vec<String> = (0..1_500).filter(|n| n % 10 == 9).map(key).collect();
    assert_eq!(page.rows.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), expected);
}

async fn tables_that_are_not_as_expected_stop(cassandra: &Cassandra) {
    let statements = [
        "CREATE KEYSPACE other WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
        "CREATE TABLE other.stock (a int PRIMARY KEY, b text)",
    ];
    for statement in statements {
        cassandra.execute(statement).unwrap();
    }
    let settings = settings(cassandra.address(), "other");
    let missing = connect(&ScyllaSettings { create_schema: false, ..settings.clone() }).await.unwrap_err();
    let strange = connect(&settings).await.unwrap_err();
    for error in [missing, strange] {
        assert!(matches!(&error, LogError::Stopped(text) if text.starts_with("TS0353")), "{error}");
    }
}

async fn what_was_acknowledged_is_there_after_a_kill_and_nodes_tell_it(cassandra: &Cassandra) {
    let store = store(cassandra, "kills").await;
    let key = [row_key(Table::Order, "demo/a")];
    store.write(ORDER_0, &[put(Table::Order, "demo/a", "1", 1)]).await.unwrap();
    let before = store.incarnations().await.unwrap();
    cassandra.kill().unwrap();
    for _ in 0..2 {
        let error = store.write(ORDER_0, &[put(Table::Order, "demo/a", "2", 2)]).await.unwrap_err();
        assert!(matches!(&error, LogError::Unavailable(text) if text.starts_with("TS035")), "{error}");
        assert!(matches!(store.get_many(&key).await, Err(LogError::Unavailable(_))));
        assert!(matches!(store.checkpoint(ORDER_0).await, Err(LogError::Unavailable(_))));
    }
    let hidden = store.incarnations().await.unwrap();
    assert_eq!(
        hidden.into_iter().collect::<Vec<_>>(),
        before.keys().map(|it| (it.clone(), None)).collect::<Vec<_>>()
    );
    cassandra.start_again().unwrap();
    let found = until("it answers again, to the same store", async || store.get_many(&key).await.ok()).await;
    assert_eq!(found[0].as_ref().map(|it| &it.value[..]), Some(&b"1"[..]));
    store.write(ORDER_0, &[put(Table::Order, "demo/a", "2", 2)]).await.unwrap();
    let after = store.incarnations().await.unwrap();
    assert!(after.keys().eq(before.keys()), "{before:?} {after:?}");
    for (node, started) in &after {
        assert!(started.unwrap() > before[node].unwrap(), "{before:?} {after:?}");
    }
}

async fn a_server_that_does_not_answer_is_unavailable(cassandra: &Cassandra) {
    let settings = ScyllaSettings { request_timeout_ms: 300, ..settings(cassandra.address(), "pauses") };
    // Making tables takes longer than that.
    drop(connect(&ScyllaSettings { request_timeout_ms: 10_000, ..settings.clone() }).await.unwrap());
    let store = until("connected", async || connect(&settings).await.ok()).await;
    cassandra.pause().unwrap();
    let error = store.write(ORDER_0, &[put(Table::Order, "demo/a", "1", 1)]).await.unwrap_err();
    cassandra.resume().unwrap();
    assert!(matches!(&error, LogError::Unavailable(text) if text.starts_with("TS0350")), "{error}");
    let write = [put(Table::Order, "demo/a", "1", 1)];
    until("it goes on", async || store.write(ORDER_0, &write).await.ok()).await;
}

async fn a_start_without_the_server_names_the_node(cassandra: Cassandra) {
    let settings = settings(cassandra.address(), "absent");
    cassandra.kill().unwrap();
    let error = connect(&settings).await.unwrap_err();
    let LogError::Unavailable(text) = &error else { panic!("{error}") };
    assert!(text.starts_with("TS0350") && text.contains(cassandra.address()), "{text}");
}
