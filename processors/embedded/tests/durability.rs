//! What was acknowledged is there after a restart, however the process ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Dir;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use tillstream_conformance::{EVERYTHING, ORDER_0, commit_of, events, record, row, row_key, values};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Log, LogError, Record};
use tillstream_stage::{Key, Table, TimerName};
use tillstream_state::{Commit, Health, State, Timer};

async fn all_events(store: &EmbeddedStore) -> Vec<Record> {
    store.read(events(0), 0, EVERYTHING).await.unwrap()
}

#[tokio::test]
async fn a_reopened_store_has_everything_and_goes_on_where_it_was() {
    let dir = Dir::new();
    let timer = Timer { due_ms: 5, key: Key::new("demo/a"), name: TimerName::PaymentRetry };
    let store = dir.open();
    let deployment = store.deployment().to_owned();
    store.append(vec![record(events(0), "k", "first"), record(events(1), "k", "elsewhere")]).await.unwrap();
    let mut commit = commit_of(ORDER_0, 0, 7);
    commit.outputs = vec![record(events(0), "k", "second")];
    commit.rows = vec![row(Table::Order, "demo/a", "row")];
    commit.timers_set = vec![timer.clone()];
    store.commit(commit).await.unwrap();
    let written = all_events(&store).await;
    drop(store);
    for round in 0..3 {
        let store = dir.open();
        assert_eq!(store.deployment(), deployment);
        let read = all_events(&store).await;
        assert_eq!(read[..2], written, "key, value, time and headers as they were");
        assert_eq!((store.end_offset(events(0)), store.end_offset(events(1))), (Ok(2 + round), Ok(1)));
        assert_eq!(store.committed_now(ORDER_0), 7);
        assert_eq!(store.get_many(&[row_key(Table::Order, "demo/a")]).await, Ok(vec![Some("row".into())]));
        assert_eq!(store.timers_due(ORDER_0, 0, 10, 10).await, Ok(vec![timer.clone()]));
        store.append(vec![record(events(0), "k", "more")]).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_drains_what_waits_and_stops_everything_after() {
    let dir = Dir::new();
    let store = dir.open();
    let appends: Vec<_> = (0..200)
        .map(|it| {
            let store = store.clone();
            tokio::spawn(async move { store.append(vec![record(events(0), "k", &it.to_string())]).await })
        })
        .collect();
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.wait_past(events(1), 0).await })
    };
    store.close().await.unwrap();
    let acknowledged = join_all(appends).await.into_iter().filter(|it| it.as_ref().unwrap().is_ok()).count();
    let closed = LogError::Stopped("it is closed".to_owned());
    assert_eq!(waiting.await.unwrap(), Err(closed.clone()), "who waits is woken");
    assert_eq!(store.append(vec![record(events(0), "k", "late")]).await, Err(closed.clone()));
    assert_eq!(store.read(events(0), 0, EVERYTHING).await, Err(closed.clone()));
    assert_eq!(store.commit(commit_of(ORDER_0, 0, 1)).await, Err(closed.clone()));
    assert_eq!(store.get_many(&[row_key(Table::Order, "a")]).await, Err(closed.clone()));
    assert_eq!(store.trouble(), Some(closed.clone()));
    assert_eq!(store.close().await, Err(closed));
    drop(store);
    assert_eq!(all_events(&dir.open()).await.len(), acknowledged);
}

/// Names the data dir to the process that [`sigkill_loses_nothing_that_was_acknowledged`] starts of itself.
const CHILD_DIR: &str = "TILLSTREAM_DURABILITY_CHILD_DIR";

/// Commits until somebody kills this process.
fn commit_for_ever(dir: &std::ffi::OsStr) {
    let settings = EmbeddedSettings { partitions: 2, ..EmbeddedSettings::new(dir) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(settings).unwrap();
        let mut offset = store.committed_now(ORDER_0);
        loop {
            let mut commit = commit_of(ORDER_0, offset, offset + 1);
            commit.outputs = vec![record(events(0), "k", &offset.to_string())];
            commit.rows = vec![row(Table::Order, &format!("demo/{offset:08}"), &"x".repeat(500))];
            store.commit(commit).await.unwrap();
            store.append(vec![record(events(1), &offset.to_string(), &"y".repeat(2000))]).await.unwrap();
            let mut told = std::io::stdout();
            writeln!(told, "acknowledged {offset}").unwrap();
            told.flush().unwrap();
            offset += 1;
        }
    });
}

/// Kills the child once it has acknowledged so many offsets; answers all that it acknowledged.
fn run_child_until(dir: &Dir, acknowledged: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["sigkill_loses_nothing_that_was_acknowledged", "--exact", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acks = lines.filter_map(|line| line.split("acknowledged ").nth(1).and_then(|it| it.parse().ok()));
    let mut seen: Vec<u64> = acks.by_ref().take(acknowledged).collect();
    assert_eq!(seen.len(), acknowledged, "the child ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
    seen.extend(acks);
    seen
}

#[test]
fn sigkill_loses_nothing_that_was_acknowledged() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return commit_for_ever(&dir);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(kill_and_look());
}

async fn kill_and_look() {
    let dir = Dir::new();
    let mut acknowledged = Vec::new();
    for until in [1, 37, 3, 160, 11] {
        acknowledged.extend(run_child_until(&dir, until));
        let last = *acknowledged.last().unwrap();
        let store = dir.open();
        let committed = store.committed_now(ORDER_0);
        assert!(committed > last, "{last} was acknowledged, {committed} is committed");
        let expected: Vec<_> = (0..committed).map(|it| it.to_string()).collect();
        assert_eq!(values(&all_events(&store).await), expected, "outputs and offset are one step");
        let page = store.scan(Table::Order, "demo/", None, 100_000).await.unwrap();
        assert_eq!(page.rows.len() as u64, committed, "rows and offset are one step");
        // An append is a step of its own: a kill between commit and append leaves a gap, but only there.
        let appended = store.read(events(1), 0, EVERYTHING).await.unwrap();
        let appended: BTreeSet<_> = appended.iter().map(|it| it.key.clone()).collect();
        for offset in &acknowledged {
            assert!(appended.contains(offset.to_string().as_bytes()), "the append of {offset} is lost");
        }
    }
}

#[tokio::test]
async fn a_failed_write_stops_the_store_for_good() {
    let dir = Dir::new();
    let store = dir.open();
    // Without its directory the database cannot flush; from then on it refuses to commit.
    std::fs::remove_dir_all(dir.path().join("db/keyspaces")).unwrap();
    let mut failed = None;
    for _ in 0..500 {
        if let Err(error) = store.append(vec![record(events(0), "k", &"z".repeat(1 << 20))]).await {
            failed = Some(error);
            break;
        }
    }
    let stopped = failed.expect("500 MB went nowhere");
    assert!(matches!(&stopped, LogError::Stopped(reason) if reason.contains("commit failed")), "{stopped}");
    assert_eq!(store.append(vec![record(events(0), "k", "v")]).await, Err(stopped.clone()));
    assert_eq!(store.commit(commit_of(ORDER_0, 0, 1)).await, Err(stopped.clone()));
    assert_eq!(store.wait_past(events(1), 0).await, Err(stopped.clone()));
    assert_eq!(store.trouble(), Some(stopped));
}
