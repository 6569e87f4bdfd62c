//! Bad data dirs, damaged batches, full disks: a clear error, and nothing lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Dir;
use futures::future::join_all;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tillstream_conformance::{EVERYTHING, ORDER_0, commit_of, events, record, row, values};
use tillstream_embedded::{EmbeddedStore, StoreError, damage};
use tillstream_log::{Log, LogError, ReadLimit};
use tillstream_stage::Table;
use tillstream_state::{Commit, Health, State};

fn open_error(dir: &Dir) -> StoreError {
    EmbeddedStore::open(dir.settings()).err().expect("it opened")
}

#[test]
fn a_second_open_names_the_process_that_has_it() {
    let dir = Dir::new();
    let store = dir.open();
    let error = open_error(&dir);
    let owner = format!("process {}", std::process::id());
    assert!(matches!(&error, StoreError::InUse { owner: found, .. } if *found == owner), "{error}");
    assert!(error.to_string().starts_with("TS0313"), "{error}");
    drop(store);
    dir.open();
}

#[test]
fn a_data_dir_of_another_version_is_left_alone() {
    let dir = Dir::new();
    drop(dir.open());
    let marker = dir.path().join("STORE");
    let ours = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, ours.replace("format=1", "format=2")).unwrap();
    let error = open_error(&dir);
    assert!(matches!(&error, StoreError::Version { found, expected: 1, .. } if found == "2"), "{error}");
    std::fs::write(&marker, ours).unwrap();
    dir.open();
}

#[test]
fn the_number_of_partitions_is_fixed() {
    let dir = Dir::new();
    drop(dir.open());
    let mut settings = dir.settings();
    settings.partitions = 3;
    let error = EmbeddedStore::open(settings).err().unwrap();
    assert!(matches!(error, StoreError::Partitions { found: 2, asked: 3, .. }), "{error}");
    let mut settings = dir.settings();
    settings.partitions = 0;
    assert!(matches!(EmbeddedStore::open(settings), Err(StoreError::Settings(_))));
}

#[test]
fn a_database_that_nobody_named_is_not_touched() {
    let dir = Dir::new();
    drop(dir.open());
    for content in [None, Some("format=1\n"), Some("format=1\npartitions=many\ndeployment=x\n"), Some("")] {
        std::fs::remove_file(dir.path().join("STORE")).ok();
        if let Some(content) = content {
            std::fs::write(dir.path().join("STORE"), content).unwrap();
        }
        let error = open_error(&dir);
        assert!(matches!(error, StoreError::NotAStore { .. }), "{content:?}: {error}");
    }
}

#[test]
fn a_lost_database_is_not_replaced_by_an_empty_one() {
    let dir = Dir::new();
    drop(dir.open());
    std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    let error = open_error(&dir);
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_done_again() {
    let (dir, other) = (Dir::new(), Dir::new());
    // Cut off while the database was being made: half of one lies there, and nothing names it.
    std::fs::create_dir_all(dir.path().join("db.new/keyspaces")).unwrap();
    std::fs::write(dir.path().join("db.new/0.jnl"), "half").unwrap();
    // Cut off between the marker and the last move.
    drop(other.open());
    std::fs::rename(other.path().join("db"), other.path().join("db.new")).unwrap();
    for dir in [dir, other] {
        let store = dir.open();
        store.append(vec![record(events(0), "k", "v")]).await.unwrap();
        drop(store);
        assert_eq!(dir.open().end_offset(events(0)), Ok(1));
        assert!(!dir.path().join("db.new").exists());
    }
}

async fn write_batches(dir: &Dir, count: u64, each: u64) {
    let store = dir.open();
    for batch in 0..count {
        let records = (0..each).map(|it| record(events(1), "k", &(batch * each + it).to_string()));
        store.append(records.collect()).await.unwrap();
    }
}

#[tokio::test]
async fn a_corrupt_batch_is_named_and_can_be_stepped_over() {
    let dir = Dir::new();
    write_batches(&dir, 4, 10).await;
    assert!(damage::flip_bit(&dir.settings(), events(1), 15).unwrap());
    let store = dir.open();
    let before = store.read(events(1), 3, EVERYTHING).await.unwrap();
    assert_eq!(before.iter().map(|it| it.offset).collect::<Vec<_>>(), (3..10).collect::<Vec<_>>());
    for inside in [10, 15, 19] {
        let error = store.read(events(1), inside, EVERYTHING).await.unwrap_err();
        let LogError::Corrupt { partition, offset, next_offset, detail } = error else { panic!("{error}") };
        assert_eq!((partition, offset, next_offset), (events(1), 10, 20));
        assert!(detail.contains("checksum"), "{detail}");
    }
    let after = store.read(events(1), 20, EVERYTHING).await.unwrap();
    assert_eq!(values(&after), (20..40).map(|it| it.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_corrupt_last_batch_costs_no_offsets() {
    let dir = Dir::new();
    write_batches(&dir, 2, 10).await;
    assert!(damage::flip_bit(&dir.settings(), events(1), 19).unwrap());
    let store = dir.open();
    assert_eq!(store.end_offset(events(1)), Ok(20));
    let error = store.read(events(1), 10, EVERYTHING).await.unwrap_err();
    assert!(matches!(error, LogError::Corrupt { offset: 10, next_offset: 20, .. }), "{error}");
    store.append(vec![record(events(1), "k", "new")]).await.unwrap();
    assert_eq!(values(&store.read(events(1), 20, EVERYTHING).await.unwrap()), ["new"]);
}

#[tokio::test]
async fn batches_on_disk_and_in_memory_read_as_one_log() {
    let dir = Dir::new();
    write_batches(&dir, 5, 7).await;
    let store = dir.open();
    for it in 35..50 {
        store.append(vec![record(events(1), "k", &it.to_string())]).await.unwrap();
    }
    let (mut offset, mut found) = (0, Vec::new());
    while offset < 50 {
        let read =
            store.read(events(1), offset, ReadLimit { records_max: 4, bytes_max: 1000 }).await.unwrap();
        offset = read.last().unwrap().offset + 1;
        found.extend(read);
    }
    assert_eq!(values(&found), (0..50).map(|it| it.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_first_commits_later_and_recovers_alone() {
    let dir = Dir::new();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let mut settings = dir.settings();
    settings.disk_reserve_bytes = 1000;
    settings.disk_probe_every_ms = 0;
    let probe = free.clone();
    settings.free_space = Arc::new(move |_| Ok(probe.load(Ordering::SeqCst)));
    let store = EmbeddedStore::open(settings).unwrap();
    let mut commits = 0;
    for (available_bytes, append_goes, commit_goes) in
        [(1000, true, true), (999, false, true), (250, false, true), (249, false, false), (5000, true, true)]
    {
        free.store(available_bytes, Ordering::SeqCst);
        let full = LogError::DiskFull { available_bytes, needed_bytes: 1000 };
        let refused = LogError::DiskFull { available_bytes, needed_bytes: 250 };
        let verdict = |goes: bool, error: &LogError| if goes { Ok(()) } else { Err(error.clone()) };
        let appended = store.append(vec![record(events(0), "k", "v")]).await;
        assert_eq!(appended, verdict(append_goes, &full), "{available_bytes}");
        assert_eq!(store.trouble(), verdict(append_goes, &full).err());
        let committed = store.commit(commit_of(ORDER_0, commits, commits + 1)).await;
        assert_eq!(committed, verdict(commit_goes, &refused), "{available_bytes}");
        commits += u64::from(commit_goes);
        assert!(store.read(events(0), 0, EVERYTHING).await.is_ok(), "what is there stays readable");
    }
}

/// Holds the group-commit thread up inside its look at the free space.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    reached: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        self.reached.store(true, Ordering::SeqCst);
        let open = self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap();
        drop(open);
    }
}

#[tokio::test]
async fn all_that_waits_is_one_group_and_a_fenced_commit_spoils_only_itself() {
    let dir = Dir::new();
    let gate = Arc::new(Gate::default());
    let mut settings = dir.settings();
    settings.disk_probe_every_ms = 0;
    let held = gate.clone();
    settings.free_space = Arc::new(move |_| {
        held.pass();
        Ok(u64::MAX)
    });
    let store = EmbeddedStore::open(settings).unwrap();
    let first = store.append(vec![record(events(0), "k", "first")]);
    let others: Vec<_> = (0..100)
        .map(|it: u64| {
            let store = &store;
            async move {
                match it % 10 {
                    0 => {
                        // Commits of one task follow each other within a group; every other one is out of step.
                        let from = if it.is_multiple_of(20) { it / 20 } else { 1000 };
                        let mut commit = commit_of(ORDER_0, from, from + 1);
                        commit.outputs = vec![record(events(0), "k", "by a task")];
                        commit.rows = vec![row(Table::Order, &format!("demo/{it}"), "v")];
                        store.commit(commit).await
                    }
                    _ => store.append(vec![record(events(it as u32 % 2), "k", "v")]).await,
                }
            }
        })
        .collect();
    let open = async {
        while !gate.reached.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        *gate.open.lock().unwrap() = true;
        gate.opened.notify_all();
    };
    // All are polled once, in this order, before the gate opens: so they all wait.
    let (first, others, ()) = tokio::join!(first, join_all(others), open);
    first.unwrap();
    let fenced =
        others.iter().filter(|it| matches!(it, Err(LogError::Fenced { expected: 1000, .. }))).count();
    assert_eq!((fenced, others.iter().filter(|it| it.is_ok()).count()), (5, 95));
    let groups = store.groups_committed();
    assert!(groups <= 2, "what was taken in before the gate, then all that had to wait: not {groups} groups");
    assert_eq!(store.committed_now(ORDER_0), 5);
    assert_eq!(store.scan(Table::Order, "", None, 100).await.unwrap().rows.len(), 5);
    let read = store.read(events(0), 0, EVERYTHING).await.unwrap();
    assert_eq!(values(&read).iter().filter(|it| **it == "by a task").count(), 5);
    assert_eq!(read.len() as u64 + store.end_offset(events(1)).unwrap(), 1 + 90 + 5);
}

/// Overwrites some bytes in the middle of the database's journal, which the database takes for a torn end.
fn damage_journal(dir: &Dir) {
    let journals = std::fs::read_dir(dir.path().join("db")).unwrap().map(|it| it.unwrap().path());
    let journal = journals
        .filter(|it| it.extension().is_some_and(|it| it == "jnl"))
        .max_by_key(|it| it.metadata().unwrap().len())
        .expect("the database has a journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[1_000..1_400].fill(0x5a);
    std::fs::write(&journal, bytes).unwrap();
}

#[tokio::test]
async fn acknowledged_records_that_are_gone_stop_the_start_by_name() {
    for closed in [true, false] {
        let dir = Dir::new();
        let store = dir.open();
        for n in 0..20 {
            store.append(vec![record(events(0), &n.to_string(), &"x".repeat(200))]).await.unwrap();
        }
        if closed {
            store.close().await.unwrap();
        } else {
            // The end of a store that was killed is what it noted last: its first append, at the latest.
            std::fs::copy(dir.path().join("ENDS"), dir.path().join("ENDS.killed")).unwrap();
        }
        drop(store);
        if !closed {
            std::fs::rename(dir.path().join("ENDS.killed"), dir.path().join("ENDS")).unwrap();
        }
        damage_journal(&dir);
        let error = open_error(&dir);
        assert!(matches!(&error, StoreError::Journal { .. }), "{error}");
        assert!(error.to_string().starts_with("TS0318"), "{error}");
    }
}
