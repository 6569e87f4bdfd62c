//! Taking a partition over: fence, offset, checkpoint, replay.

use crate::support::*;
use bytes::Bytes;
use std::sync::Arc;
use tillstream_log::broker::BrokerError;
use tillstream_simulation::broker::{Call, CommitFate, Effect, Hold, Seen};
use tillstream_state::TaskCommit;
use tokio::sync::Mutex;

#[tokio::test(start_paused = true)]
async fn a_life_fences_first_then_reads_its_offset_and_then_replays() {
    let world = World::new(1);
    let process = world.bare("a").await;
    process.open(0).await.unwrap().put("t/k", "1").await.unwrap();
    process.hooks.calls();
    process.open(0).await.unwrap();
    let calls: Vec<String> = process.hooks.calls().into_iter().filter(|it| it != "write").collect();
    assert_eq!(calls, ["init", "group_offsets", "replay"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_old_life_commits_until_it_is_fenced_is_seen_by_the_new_one() {
    let world = World::new(1);
    let process = world.bare("a").await;
    world.send("t/k add 1 1");
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    assert_eq!(life.take(0, 10).await.len(), 1);
    let life = Arc::new(Mutex::new(life));
    let last = life.clone();
    process.hooks.at("init", async move {
        let mut last = last.lock().await;
        let rows = vec![(row("t/k"), Some(Bytes::from_static(b"2")))];
        let commit = TaskCommit { next_offset: 1, rows, ..last.empty() };
        last.commit(commit).await.unwrap();
    });
    let next = process.open(0).await.unwrap();
    assert_eq!((next.next, next.get("t/k").await.as_deref()), (1, Some("2")));
    assert!(is_over(&life.lock().await.put("t/k", "3").await));
    assert_eq!(process.open(0).await.unwrap().get("t/k").await.as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_new_life_waits_for_a_commit_whose_markers_are_late() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    world.broker.faults().hold_markers("", Hold::For(seconds(3)));
    life.put("t/k", "2").await.unwrap();
    let next = process.open(0).await.unwrap();
    assert_eq!(next.get("t/k").await.as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_commit_outcome_ends_the_life_and_the_next_one_finds_out() {
    for (fate, expected) in
        [(CommitFate::Happened, "2"), (CommitFate::NeverArrived, "1"), (CommitFate::ArrivesLater, "1")]
    {
        let world = World::new(1);
        let process = world.bare("a").await;
        let mut life = process.open(0).await.unwrap();
        life.put("t/k", "1").await.unwrap();
        world.broker.faults().unknown_commit("", fate);
        assert!(is_over(&life.put("t/k", "2").await), "{fate:?}");
        assert!(is_over(&life.put("t/k", "3").await), "{fate:?}: nothing more of this life");
        assert!(is_over(&life.try_get("t/k").await), "{fate:?}");
        let mut next = process.open(0).await.unwrap();
        assert_eq!(world.broker.faults().arrive_late_commits(), 0, "it is fenced");
        assert_eq!(next.get("t/k").await.as_deref(), Some(expected), "{fate:?}");
        next.put("t/k", "4").await.unwrap();
        world.pass(seconds(1)).await;
        assert_eq!(world.stored("t/k").as_deref(), Some("4"), "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_any_step_of_a_transaction_ends_the_life_and_leaves_nothing() {
    let errors = [
        BrokerError::Abortable("as asked".into()),
        BrokerError::Unknown("as asked".into()),
        BrokerError::Unavailable("as asked".into()),
    ];
    for call in [Call::Begin, Call::Produce, Call::Deliver, Call::Drain, Call::SendOffset] {
        for error in &errors {
            let world = World::new(1);
            let process = world.bare("a").await;
            let mut life = process.open(0).await.unwrap();
            life.put("t/k", "1").await.unwrap();
            world.broker.faults().fail(call, "", Effect::None, error.clone());
            assert!(is_over(&life.put("t/k", "2").await), "{call:?} {error}");
            assert!(is_over(&life.put("t/k", "3").await), "{call:?} {error}: never again");
            let next = process.open(0).await.unwrap();
            assert_eq!(next.get("t/k").await.as_deref(), Some("1"), "{call:?} {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stray_abort_ends_the_life() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    let faults = world.broker.faults();
    process.hooks.at("send_offset", async move { assert!(faults.abort("test.order.0")) });
    assert!(is_over(&life.put("t/k", "2").await));
    assert_eq!(process.open(0).await.unwrap().get("t/k").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_first_life_that_commits_nothing_leaves_a_clean_beginning() {
    let world = World::new(1);
    let process = world.bare("a").await;
    drop(process.open(0).await.unwrap());
    let mut life = process.open(0).await.unwrap();
    world.broker.faults().unknown_commit("", CommitFate::NeverArrived);
    assert!(is_over(&life.put("t/k", "lost with the incarnation record").await));
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    let records = world.broker.records(changelog(0), Seen::Committed);
    let keys: Vec<&[u8]> = records.iter().map(|it| it.key.as_ref()).collect();
    assert_eq!(keys, [&b"incarnation"[..], b"order/t/k"]);
    assert_eq!(process.open(0).await.unwrap().get("t/k").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_takeover_replays_from_the_checkpoint_and_not_all() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    for n in 0..50 {
        life.put(&format!("t/k{n}"), "1").await.unwrap();
    }
    world.pass(seconds(30)).await;
    life.put("t/last", "1").await.unwrap();
    let replayed = process.ports.metrics.replayed.with_label_values(&["order"]);
    let before = replayed.get();
    let next = process.open(0).await.unwrap();
    assert_eq!(replayed.get() - before, 1);
    assert_eq!(next.get("t/k7").await.as_deref(), Some("1"));
    assert_eq!(next.get("t/last").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_overtaken_by_the_first_commit_of_another_halts_nothing() {
    let world = World::new(1);
    let process = std::sync::Arc::new(world.bare("a").await);
    let other = process.clone();
    process.hooks.at("group_offsets after", async move {
        let mut life = other.open(0).await.unwrap();
        life.put("t/k", "1").await.unwrap();
    });
    assert!(is_over(&process.open(0).await.map(|_| ())));
    assert_eq!(process.open(0).await.unwrap().get("t/k").await.as_deref(), Some("1"));
}
