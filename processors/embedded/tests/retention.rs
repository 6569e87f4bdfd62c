//! What is too old or too much goes, once everyone has read it; the latest record of a key stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::Dir;
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_conformance::{EVERYTHING, commit_of, record, values};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore, RetentionReport};
use tillstream_log::{Log, LogError, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;
use tillstream_state::{Commit, TaskId};

fn open(dir: &Dir, change: impl FnOnce(&mut EmbeddedSettings)) -> Arc<EmbeddedStore> {
    let mut settings = dir.settings();
    change(&mut settings);
    EmbeddedStore::open(settings).unwrap()
}

/// Everything is too old the moment it is written.
fn everything_is_old(settings: &mut EmbeddedSettings) {
    settings.retention_ms = -1000;
}

async fn fill(store: &EmbeddedStore, to: TopicPartition, batches: u64) {
    for it in 0..batches {
        store.append(vec![record(to, "k", &format!("{it:0100}"))]).await.unwrap();
    }
}

/// The task that reads the events of orders has read them up to `end`: before that, none of them goes.
async fn read_by_webhooks(store: &EmbeddedStore, end: u64) {
    let task = TaskId { kind: TaskKind::OrderWebhooks, partition: 0 };
    let before = store.committed_now(task);
    store.commit(commit_of(task, before, end)).await.unwrap();
}

#[tokio::test]
async fn old_batches_go_as_far_as_the_reading_task_has_committed() {
    for kind in TaskKind::ALL {
        let dir = Dir::new();
        let store = open(&dir, everything_is_old);
        let input = TopicPartition::new(kind.input(), 1);
        fill(&store, input, 10).await;
        for (committed, expected_start) in [(0, 0), (4, 4), (10, 9)] {
            let task = TaskId { kind, partition: 1 };
            let before = store.committed_now(task);
            store.commit(commit_of(task, before, committed)).await.unwrap();
            store.run_retention_now().await.unwrap();
            assert_eq!(store.start_offset(input), Ok(expected_start), "{kind:?} at {committed}");
            let read = store.read(input, expected_start, EVERYTHING).await.unwrap();
            assert_eq!(read.first().map(|it| it.offset), Some(expected_start));
            assert_eq!(read.len() as u64, 10 - expected_start);
        }
        let gone = store.read(input, 8, EVERYTHING).await;
        assert_eq!(gone, Err(LogError::OutOfRange { partition: input, start: 9, end: 10, asked: 8 }));
        drop(store);
        let store = open(&dir, everything_is_old);
        assert_eq!(
            (store.start_offset(input), store.end_offset(input)),
            (Ok(9), Ok(10)),
            "after a restart, too"
        );
    }
}

#[tokio::test]
async fn young_batches_stay_and_more_than_one_run_of_old_ones_goes() {
    let dir = Dir::new();
    let events = TopicPartition::new(Topic::OrderEvents, 0);
    let store = open(&dir, |_| {});
    fill(&store, events, 2100).await;
    read_by_webhooks(&store, 2100).await;
    assert_eq!(store.run_retention_now().await, Ok(RetentionReport::default()));
    drop(store);
    let store = open(&dir, everything_is_old);
    let report = store.run_retention_now().await.unwrap();
    assert_eq!(report, RetentionReport { batches_removed: 2099, batches_rewritten: 0 });
    assert_eq!(store.start_offset(events), Ok(2099));
}

#[tokio::test]
async fn a_partition_is_cut_to_its_size_but_a_dead_letter_topic_is_not() {
    for on_new_store in [true, false] {
        let dir = Dir::new();
        let (events, dead) =
            (TopicPartition::new(Topic::OrderEvents, 0), TopicPartition::new(Topic::OrderCommandsDlq, 0));
        let limit = |settings: &mut EmbeddedSettings| settings.log_bytes_max = 1500;
        let mut store = open(&dir, limit);
        fill(&store, events, 50).await;
        read_by_webhooks(&store, 50).await;
        fill(&store, dead, 50).await;
        if !on_new_store {
            drop(store);
            store = open(&dir, limit);
        }
        store.run_retention_now().await.unwrap();
        let kept = 50 - store.start_offset(events).unwrap();
        assert!((8..=12).contains(&kept), "{kept} batches of about 130 bytes are kept in 1500 bytes");
        assert_eq!(store.start_offset(dead), Ok(0));
        fill(&store, events, 5).await;
        read_by_webhooks(&store, 55).await;
        store.run_retention_now().await.unwrap();
        assert_eq!(55 - store.start_offset(events).unwrap(), kept, "the same size again");
    }
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_latest_record_of_every_key_at_its_offset() {
    for tail_bytes in [0, 32 << 20] {
        let dir = Dir::new();
        let products = TopicPartition::new(Topic::Products, 0);
        let settings = |settings: &mut EmbeddedSettings| {
            settings.tail_bytes = tail_bytes;
            settings.retention_ms = -1000;
        };
        let store = open(&dir, settings);
        let mut latest = BTreeMap::new();
        let mut offset = 0;
        for batch in 0..40_u64 {
            let keys: Vec<_> =
                (0..5).map(|it| format!("demo/{}", if it == 0 { batch } else { it })).collect();
            let records = keys.iter().map(|key| record(products, key, &format!("{key} in {batch}")));
            store.append(records.collect()).await.unwrap();
            for key in keys {
                latest.insert(key.clone(), (offset, format!("{key} in {batch}")));
                offset += 1;
            }
        }
        let report = store.run_retention_now().await.unwrap();
        assert!(report.batches_rewritten >= 30 && report.batches_removed >= 3, "{report:?}");
        drop(store);
        let store = open(&dir, settings);
        assert_eq!((store.start_offset(products), store.end_offset(products)), (Ok(0), Ok(offset)));
        let (mut next, mut found, mut read_in_all) = (0, BTreeMap::new(), 0);
        while next < offset {
            let read =
                store.read(products, next, ReadLimit { records_max: 3, bytes_max: 1000 }).await.unwrap();
            next = read.last().expect("there is more before the end").offset + 1;
            read_in_all += read.len();
            let pairs = read.iter().map(|it| (String::from_utf8(it.key.to_vec()).unwrap(), it.offset));
            found.extend(
                pairs.zip(values(&read)).map(|((key, offset), value)| (key, (offset, value.to_owned()))),
            );
        }
        assert_eq!(found, latest);
        assert!(read_in_all < 60, "{read_in_all} of 200 records are left");
        let report = store.run_retention_now().await.unwrap();
        assert_eq!(report, RetentionReport::default(), "there is nothing left to do");
    }
}

#[tokio::test]
async fn retention_runs_by_itself() {
    let dir = Dir::new();
    let events = TopicPartition::new(Topic::OrderEvents, 0);
    let store = open(&dir, |settings| {
        settings.retention_every_ms = 5;
        settings.retention_ms = -1000;
    });
    fill(&store, events, 10).await;
    read_by_webhooks(&store, 10).await;
    tokio::time::timeout(tillstream_conformance::DEADLINE, async {
        while store.start_offset(events) != Ok(9) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nothing was removed");
}
