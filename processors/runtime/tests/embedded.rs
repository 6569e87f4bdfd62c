//! The loop on the real embedded store: what was committed is there after the store is opened again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(dead_code, reason = "not every test file uses all of the support")]

mod support;

use std::path::Path;
use std::sync::Arc;
use support::{Rig, command, id, record, soon, toy::Toy};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore, damage};
use tillstream_log::{Log, ReadLimit, Record, TopicPartition, headers};
use tillstream_runtime::{SystemClock, TaskPorts, supervise};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::{Topic, codec};
use tillstream_stage::{RowKey, Table};
use tillstream_state::{Shared, State};

fn settings(dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings { partitions: 1, ..EmbeddedSettings::new(dir) }
}

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(settings(dir)).unwrap()
}

/// What a topic holds.
async fn all(store: &EmbeddedStore, topic: Topic) -> Vec<Record> {
    let limit = ReadLimit { records_max: 1_000, bytes_max: 1 << 20 };
    store.read(TopicPartition::new(topic, 0), 0, limit).await.unwrap()
}

/// Appends the commands and runs the task until it has committed them.
async fn run(store: &Arc<EmbeddedStore>, commands: &[&str]) {
    let rig = Rig::new();
    let ports = TaskPorts {
        sessions: Arc::new(Shared(store.clone())),
        clock: Arc::new(SystemClock::new()),
        ..rig.ports()
    };
    let task =
        tokio::spawn(supervise(Arc::new(Toy), id(), ports, rig.settings.clone(), rig.shutdown_receiver()));
    for text in commands {
        store.append(vec![command(text)]).await.unwrap();
    }
    let end = store.end_offset(TopicPartition::new(Topic::OrderCommands, 0)).unwrap();
    soon("catching up", rig.progress.wait_caught_up(&[(id(), end)])).await;
    rig.stopped(task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_goes_on_where_it_stopped_after_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    for expected in ["3", "6"] {
        let store = open(dir.path());
        run(&store, &["t/a add 1", "t/a fail", "t/a add 2"]).await;
        let rows = store.get_many(&[RowKey::new(Table::Order, "t/a".into())]).await.unwrap();
        assert_eq!(rows[0].as_deref(), Some(expected.as_bytes()));
        soon("closing", store.close()).await.unwrap();
    }
    let store = open(dir.path());
    assert_eq!(store.committed(id()).await.unwrap(), 6);
    assert_eq!(store.end_offset(TopicPartition::new(Topic::OrderCommandsDlq, 0)).unwrap(), 2);
    assert_eq!(store.end_offset(TopicPartition::new(Topic::OrderEvents, 0)).unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_that_is_due_fires_and_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(&store, &["t/a timer 5"]).await;
    // Whatever the first life left is fired by the second before it is caught up with a later record.
    run(&store, &["t/b add 1"]).await;
    let rows = store.get_many(&[RowKey::new(Table::Order, "t/a".into())]).await.unwrap();
    assert_eq!(rows[0].as_deref(), Some(&b"1000"[..]));
    assert!(store.timers_due(id(), 0, i64::MAX, 10).await.unwrap().is_empty());
}

/// Good records with garbage among them, and a stored batch (offsets 4 and 5) with a flipped bit.
async fn damaged(dir: &Path) {
    let garbage = record(Topic::OrderCommands, "t/a", b"\xff\x00 no command".to_vec());
    let batches = [
        vec![command("t/a add 1")],
        vec![garbage],
        vec![command("t/a add 10"), command("t/b add 5")],
        vec![command("t/a add 100"), command("t/c add 1000")],
        vec![command("t/a add 10000")],
    ];
    let store = open(dir);
    for batch in batches {
        store.append(batch).await.unwrap();
    }
    soon("closing", store.close()).await.unwrap();
    drop(store);
    let commands = TopicPartition::new(Topic::OrderCommands, 0);
    assert!(damage::flip_bit(&settings(dir), commands, 4).unwrap(), "no batch to damage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_a_damaged_batch_are_dead_lettered_and_everything_around_them_counts() {
    let dir = tempfile::tempdir().unwrap();
    damaged(dir.path()).await;
    // The second life finds all of it done.
    for (committed, more) in [(8, "7"), (9, "70")] {
        let store = open(dir.path());
        run(&store, &[&format!("t/b add {more}")]).await;
        assert_eq!(store.committed(id()).await.unwrap(), committed);
        soon("closing", store.close()).await.unwrap();
    }

    let store = open(dir.path());
    let row = |key: &str| RowKey::new(Table::Order, key.into());
    let rows = store.get_many(&[row("t/a"), row("t/b"), row("t/c")]).await.unwrap();
    let sums: Vec<_> = rows.iter().map(|it| it.as_deref()).collect();
    assert_eq!(sums, [Some(&b"10011"[..]), Some(&b"82"[..]), None]);
    let events = all(&store, Topic::OrderEvents).await;
    let said: Vec<&[u8]> = events.iter().map(|it| it.value.as_ref()).collect();
    assert_eq!(said, [&b"t/a=1"[..], b"t/a=11", b"t/b=5", b"t/a=10011", b"t/b=12", b"t/b=82"]);

    let buried = all(&store, Topic::OrderCommandsDlq).await;
    let letters: Vec<DeadLetter> = buried.iter().map(|it| codec::decode(&it.value).unwrap()).collect();
    let told: Vec<_> =
        letters.iter().map(|it| (it.offset, it.reason.as_str(), it.code.as_str(), &it.value[..])).collect();
    assert_eq!(told, [(1, "decode", "TS0102", &b"\xff\x00 no command"[..]), (4, "corrupt", "TS0303", b"")]);
    assert!(letters[1].message.contains("4..6"), "{}", letters[1].message);
    let origins: Vec<_> = buried.iter().map(|it| headers::find(&it.headers, headers::ORIGIN)).collect();
    assert_eq!(origins, [Some("orders.order.commands.v1/0/1"), Some("orders.order.commands.v1/0/4")]);
}
