//! The loop on the real embedded store: what was committed is there after the store is opened again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(dead_code, reason = "not every test file uses all of the support")]

mod support;

use std::path::Path;
use std::sync::Arc;
use support::{Rig, command, id, soon, toy::Toy};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Log, TopicPartition};
use tillstream_runtime::{SystemClock, TaskPorts, supervise};
use tillstream_schemas::Topic;
use tillstream_stage::{RowKey, Table};
use tillstream_state::State;

fn open(dir: &Path) -> Arc<EmbeddedStore> {
    let settings = EmbeddedSettings { partitions: 1, ..EmbeddedSettings::new(dir) };
    EmbeddedStore::open(settings).unwrap()
}

/// Appends the commands and runs the task until it has committed them.
async fn run(store: &Arc<EmbeddedStore>, commands: &[&str]) {
    let rig = Rig::new();
    let ports = TaskPorts {
        log: store.clone(),
        state: store.clone(),
        commit: store.clone(),
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
