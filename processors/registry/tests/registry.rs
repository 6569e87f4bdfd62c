//! A registry on the embedded store: verdicts, races, lost answers, restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use bytes::Bytes;
use futures::future::join;
use std::collections::{BTreeMap, BTreeSet};
use support::{Fail, FlakyLog, Follower, Versions, change, open_store, records, settings, soon};
use tillstream_embedded::EmbeddedStore;
use tillstream_log::{Headers, Log, LogError, NewRecord, TopicPartition};
use tillstream_registry_log::RegistryError;
use tillstream_schemas::{Topic, codec};
use tillstream_stage::partition::partition_of;

#[tokio::test]
async fn an_append_answers_what_the_fold_said_and_is_in_force_when_it_returns() {
    let (_dir, store) = open_store();
    let one = Follower::start(store).await;
    assert_eq!(soon("a change", one.registry.append(&change("a", "e1", 0))).await.unwrap(), Ok(()));
    assert_eq!(one.versions(), [("a".to_owned(), 1)].into());
    let refused = soon("a conflict", one.registry.append(&change("a", "e2", 0))).await.unwrap();
    assert_eq!(refused, Err(1), "the version it has");
    assert_eq!(one.versions(), [("a".to_owned(), 1)].into());
    assert_eq!(*one.registry.changes().borrow(), 1, "a refused event turns nothing");
}

#[tokio::test]
async fn an_event_that_comes_again_gets_the_same_answer_and_changes_nothing() {
    let (_dir, store) = open_store();
    let one = Follower::start(store.clone()).await;
    assert_eq!(one.registry.append(&change("a", "e1", 0)).await.unwrap(), Ok(()));
    assert_eq!(one.registry.append(&change("a", "e2", 7)).await.unwrap(), Err(1));
    assert_eq!(one.registry.append(&change("a", "e1", 0)).await.unwrap(), Ok(()));
    assert_eq!(one.registry.append(&change("a", "e2", 7)).await.unwrap(), Err(1));
    assert_eq!(one.registry.append(&change("b", "e1", 0)).await.unwrap(), Ok(()), "ids are per tenant");
    assert_eq!(one.versions(), [("a".to_owned(), 1), ("b".to_owned(), 1)].into());
    assert_eq!(records(&*store).await.len(), 3, "known events are not written again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_with_the_same_expectation_one_wins_and_both_processes_agree() {
    let (_dir, store) = open_store();
    let (one, two) = (Follower::start(store.clone()).await, Follower::start(store).await);
    for round in 0..50 {
        let (left, right) =
            (change("a", &format!("l{round}"), round), change("a", &format!("r{round}"), round));
        let (left, right) =
            soon("a round", join(one.registry.append(&left), two.registry.append(&right))).await;
        let (left, right) = (left.unwrap(), right.unwrap());
        assert_ne!(left.is_ok(), right.is_ok(), "round {round}: {left:?} {right:?}");
        assert_eq!(left.and(right), Err(round + 1), "the loser hears the version that won");
    }
    soon("agreement", two.until(|it| it.versions.get("a") == Some(&50))).await;
    assert_eq!((one.versions(), two.versions()), (two.versions(), one.versions()));
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_applies_once() {
    let away = || LogError::Unavailable("away".into());
    // Which of the tries reach the log.
    for (script, written) in [
        (vec![Fail::Before(away()), Fail::Before(away())], 1),
        (vec![Fail::After(away())], 1),
        (vec![Fail::AfterTwice(away())], 2),
        (vec![Fail::Before(away()), Fail::AfterTwice(away())], 2),
    ] {
        let (_dir, store) = open_store();
        let log = FlakyLog::new(store.clone(), script);
        let one = Follower::start(log).await;
        assert_eq!(soon("the change", one.registry.append(&change("a", "e1", 0))).await.unwrap(), Ok(()));
        let other = Follower::start(store.clone()).await;
        let all = records(&*store).await;
        assert_eq!(all.len(), written);
        let keys: BTreeSet<&Bytes> = all.iter().map(|it| &it.key).collect();
        assert_eq!(keys.len(), written, "compaction must keep the first of them, so no two share a key");
        assert_eq!(
            (one.versions(), other.versions()),
            ([("a".to_owned(), 1)].into(), [("a".to_owned(), 1)].into())
        );
    }
}

#[tokio::test]
async fn an_append_that_cannot_succeed_is_not_tried_again() {
    let (_dir, store) = open_store();
    let full = LogError::DiskFull { available_bytes: 1, needed_bytes: 2 };
    let one = Follower::start(FlakyLog::new(store.clone(), vec![Fail::Before(full.clone())])).await;
    match soon("the answer", one.registry.append(&change("a", "e1", 0))).await {
        Err(RegistryError::Log(error)) => assert_eq!(error, full),
        other => panic!("{other:?}"),
    }
    assert!(records(&*store).await.is_empty());
    assert_eq!(one.registry.append(&change("a", "e1", 0)).await.unwrap(), Ok(()), "and asking again is safe");
}

#[tokio::test]
async fn a_follower_that_starts_again_has_everything_before_it_is_caught_up() {
    let (dir, store) = open_store();
    let one = Follower::start(store.clone()).await;
    for tenant in ["a", "b", "c"] {
        for version in 0..40 {
            let event = change(tenant, &format!("e{version}"), version);
            assert_eq!(one.registry.append(&event).await.unwrap(), Ok(()));
        }
    }
    let expected: BTreeMap<String, i64> = ["a", "b", "c"].map(|it| (it.to_owned(), 40)).into();
    one.stop().await.unwrap();
    store.close().await.unwrap();
    drop((one, store));
    let store = EmbeddedStore::open(settings(dir.path())).unwrap();
    let again = Follower::opened(store.clone()).await;
    assert!(!again.registry.is_caught_up(), "nothing is followed yet");
    let again = again.follow().await;
    assert!(again.registry.is_caught_up());
    assert_eq!(again.versions(), expected);
    assert_eq!(again.registry.append(&change("a", "e0", 0)).await.unwrap(), Ok(()), "ids are known again");
    assert_eq!(again.versions(), expected);
}

#[tokio::test]
async fn retention_and_compaction_keep_every_event() {
    let (_dir, store) = open_store();
    let one = Follower::start(store.clone()).await;
    for version in 0..30 {
        one.registry.append(&change("a", &format!("e{version}"), version)).await.unwrap().unwrap();
    }
    // Everything else is too old and too large at once by these settings.
    store.append(vec![plain(Topic::OrderEvents, b"k", b"v")]).await.unwrap();
    store.append(vec![plain(Topic::OrderEvents, b"k", b"v")]).await.unwrap();
    let report = store.run_retention_now().await.unwrap();
    assert_eq!(report.batches_removed, 1, "the log is being shortened");
    assert_eq!(records(&*store).await.len(), 30);
    assert_eq!(Follower::start(store).await.versions(), [("a".to_owned(), 30)].into());
}

fn plain(topic: Topic, key: &'static [u8], value: &[u8]) -> NewRecord {
    let to = TopicPartition::new(topic, 0);
    NewRecord { to, key: Bytes::from_static(key), value: value.to_vec().into(), headers: Headers::new() }
}

#[tokio::test]
async fn what_cannot_be_read_is_skipped_and_counted_and_a_tombstone_is_nothing() {
    let (_dir, store) = open_store();
    let garbage = plain(Topic::AccessKeys, b"garbage", b"garbage");
    store.append(vec![garbage, plain(Topic::AccessKeys, b"garbage", b"")]).await.unwrap();
    let one = Follower::start(store.clone()).await;
    assert_eq!(one.registry.unreadable(), 1);
    assert_eq!(one.registry.append(&change("a", "e1", 0)).await.unwrap(), Ok(()));
    assert_eq!(one.registry.unreadable(), 1);
}

#[tokio::test]
async fn whoever_waits_hears_when_the_follower_ends() {
    let (_dir, store) = open_store();
    let writer = Follower::start(store.clone()).await;
    writer.registry.append(&change("a", "e1", 0)).await.unwrap().unwrap();
    let one = Follower::opened(store.clone()).await;
    let registry = one.registry.clone();
    let caught_up = registry.caught_up();
    let (event, append) = (change("a", "e2", 1), one.registry.clone());
    let waiting = tokio::spawn(async move { append.append(&event).await });
    // It waits once its event is in the log.
    soon("the event", writer.until(|it| it.versions.get("a") == Some(&2))).await;
    let one = one.follow_nothing().await;
    let stopped = |it: RegistryError| it.to_string()[..6].to_owned();
    assert_eq!(soon("the waiter", waiting).await.unwrap().map_err(stopped), Err("TS0373".to_owned()));
    assert_eq!(soon("the start", caught_up).await.map_err(stopped), Err("TS0373".to_owned()));
    let late = soon("a late one", one.registry.append(&change("a", "e3", 2))).await;
    assert_eq!(late.map_err(stopped), Err("TS0373".to_owned()));
}

#[tokio::test]
async fn all_events_of_a_tenant_lie_in_its_partition_under_its_name() {
    let (_dir, store) = open_store();
    let one = Follower::start(store.clone()).await;
    for tenant in ["a", "b", "c", "d", "e"] {
        one.registry.append(&change(tenant, "e1", 0)).await.unwrap().unwrap();
        let home =
            TopicPartition::new(Topic::AccessKeys, partition_of(tenant.as_bytes(), support::PARTITIONS));
        let there = support::partition(&*store, home).await;
        let last = there.last().unwrap();
        assert!(last.key.starts_with(format!("{tenant}/e1/").as_bytes()), "{:?}", last.key);
        assert_eq!(codec::decode::<support::Event>(&last.value).unwrap().tenant, tenant);
    }
    let fold: Versions = one.registry.read(Clone::clone);
    assert!(fold.appended.iter().all(|it| it.at_ms > 1_600_000_000_000), "the append time is told");
}
