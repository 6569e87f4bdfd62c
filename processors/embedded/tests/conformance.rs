//! The embedded store keeps every promise of log and state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Dir;
use std::sync::Arc;
use tillstream_conformance::{ORDER_0, commit_of, commit_suite, events, log_suite, record, state_suite};
use tillstream_embedded::EmbeddedStore;
use tillstream_log::{Log, LogError};
use tillstream_stage::task::TaskKind;
use tillstream_state::{Commit, TaskId};

async fn on_new_stores(tail_bytes: usize, suite: impl AsyncFn(&dyn Fn() -> Arc<EmbeddedStore>)) {
    let dirs = std::cell::RefCell::new(Vec::new());
    let make = || {
        let dir = Dir::new();
        let mut settings = dir.settings();
        settings.tail_bytes = tail_bytes;
        let store = EmbeddedStore::open(settings).unwrap();
        dirs.borrow_mut().push(dir);
        store
    };
    suite(&make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_in_memory() {
    on_new_stores(32 << 20, async |make| log_suite(async || make()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_on_disk() {
    on_new_stores(0, async |make| log_suite(async || make()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state() {
    on_new_stores(32 << 20, async |make| state_suite(async || make()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits() {
    on_new_stores(32 << 20, async |make| commit_suite(async || make()).await).await;
}

/// Here, and only here, a refused commit says what is committed, and offsets have no gaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_is_there_and_offsets_have_no_gaps() {
    let dir = Dir::new();
    let store = EmbeddedStore::open(dir.settings()).unwrap();
    for (from, next) in [(0, 5), (5, 9)] {
        let mut commit = commit_of(ORDER_0, from, next);
        commit.outputs = vec![record(events(1), "k", "v")];
        store.commit(commit).await.unwrap();
    }
    assert_eq!(store.end_offset(events(1)), Ok(2));
    for from in [0, 8, 10] {
        let fenced = LogError::Fenced { task: "order.0".to_owned(), expected: from, found: 9 };
        assert_eq!(store.commit(commit_of(ORDER_0, from, 12)).await, Err(fenced));
    }
    let mut beyond = commit_of(ORDER_0, 9, 10);
    let nowhere = events(store.partitions(events(0).topic));
    beyond.outputs = vec![record(nowhere, "k", "v")];
    assert_eq!(store.commit(beyond).await, Err(LogError::NoSuchPartition(nowhere)));
    let nobody = TaskId { kind: TaskKind::Order, partition: nowhere.partition };
    let refused = store.commit(commit_of(nobody, 0, 1)).await;
    assert!(matches!(refused, Err(LogError::NoSuchPartition(_))), "{refused:?}");
}
