//! The one transaction: its order, its deadline, and who may commit.

use crate::support::*;
use bytes::Bytes;
use tillstream_cluster::ClusterSettings;
use tillstream_log::{LogError, NewRecord, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_schemas::Topic;
use tillstream_simulation::broker::{Notice, Seen};
use tillstream_state::TaskCommit;

#[tokio::test(start_paused = true)]
async fn deliveries_are_drained_before_the_offset_and_the_offset_is_the_last_thing_before_the_commit() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    process.hooks.calls();
    life.put("t/k", "1").await.unwrap();
    assert_eq!(process.hooks.calls(), ["begin", "produce", "drain", "send_offset", "commit"]);
    assert_eq!(world.stored("t/k"), None, "not before the flush");
}

#[tokio::test(start_paused = true)]
async fn a_batch_gives_up_before_half_of_the_transaction_timeout() {
    for stuck_at in ["drain", "send_offset", "commit"] {
        let world = World::with(1, 1, |it| it.call_timeout = seconds(600));
        let process = world.bare("a").await;
        let mut life = process.open(0).await.unwrap();
        let faults = world.broker.faults();
        process.hooks.at(stuck_at, async move { faults.set_available(false) });
        let began_ns = world.clock.monotonic_ns();
        assert!(is_over(&life.put("t/k", "1").await), "{stuck_at}");
        let took_ns = world.clock.monotonic_ns() - began_ns;
        let half_ns = world.settings.transaction_timeout.as_nanos() as u64 / 2;
        // An abort may take another second.
        assert!(took_ns < half_ns, "{stuck_at}: {took_ns} ns");
        world.broker.faults().set_available(true);
    }
    let deadline = ClusterSettings::new("test", 1).batch_deadline();
    assert!(deadline * 2 < ClusterSettings::new("test", 1).transaction_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_zombie_of_an_old_generation_cannot_commit_what_it_took() {
    let world = World::new(1);
    let process = world.bare("a").await;
    world.send("t/k add 1 1");
    let mut life = process.open(0).await.unwrap();
    let taken = life.take(0, 10).await;
    // The group goes on without it, and it joins again: its metadata is new, its batch is old.
    let member = world.broker.members(GROUP)[0].member;
    world.broker.faults().expel(member, Notice::Now);
    assert!(is_over(&life.commit_to(taken[0].offset + 1).await));
    assert_eq!(world.broker.group_offset(GROUP, input(0)), None);
}

#[tokio::test(start_paused = true)]
async fn records_read_ahead_are_committed_under_the_generation_they_were_taken_in() {
    let world = World::new(1);
    let process = world.bare("a").await;
    for n in 0..3 {
        world.send(&format!("t/k add 1 {n}"));
    }
    let mut life = process.open(0).await.unwrap();
    for offset in 0..3 {
        assert_eq!(life.take(offset, 1).await.len(), 1);
    }
    life.commit_to(1).await.unwrap();
    let member = world.broker.members(GROUP)[0].member;
    world.broker.faults().expel(member, Notice::Now);
    assert!(is_over(&life.commit_to(3).await), "what was read ahead is of the old generation");
    assert_eq!(world.broker.group_offset(GROUP, input(0)).map(|it| it.offset), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_dropped_is_read_again() {
    let world = World::new(1);
    let process = world.bare("a").await;
    for n in 0..3 {
        world.send(&format!("t/k add 1 {n}"));
    }
    let mut life = process.open(0).await.unwrap();
    assert_eq!(life.take(0, 10).await.len(), 3);
    let again = life.session.log.read(input(0), 0, limit(10)).await.unwrap();
    assert!(again.is_empty(), "it is fetched anew");
    let again = life.take(0, 2).await;
    assert_eq!(again.iter().map(|it| it.offset).collect::<Vec<_>>(), [0, 1]);
    life.commit_to(2).await.unwrap();
    assert_eq!(life.take(2, 10).await.len(), 1);
    life.commit_to(3).await.unwrap();
    assert!(is_over(
        &life.commit_to(1).await.and(life.commit(TaskCommit { from_offset: 0, ..life.empty() }).await)
    ));
}

fn limit(records_max: usize) -> tillstream_log::ReadLimit {
    tillstream_log::ReadLimit { records_max, bytes_max: 1 << 20 }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_ends_the_life_instead_of_waiting_for_ever() {
    let world = World::new(1);
    let process = world.bare("a").await;
    for n in 0..5 {
        world.send(&format!("t/k add 1 {n}"));
    }
    let mut life = process.open(0).await.unwrap();
    life.take(0, 10).await;
    life.commit_to(5).await.unwrap();
    world.broker.faults().recreate(Topic::OrderCommands);
    let waited = life.session.log.wait_past(input(0), 5);
    let waited = tokio::time::timeout(seconds(5), waited).await.unwrap();
    assert!(is_over(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_taken_away_ends_the_wait_of_its_life() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let life = process.open(0).await.unwrap();
    process.member.leave().await;
    let waited = life.session.log.wait_past(input(0), 0);
    assert!(is_over(&tokio::time::timeout(seconds(5), waited).await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn an_output_to_a_partition_that_does_not_exist_is_refused() {
    let world = World::new(2);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    let to = TopicPartition::new(Topic::OrderEvents, 2);
    let record = NewRecord { to, key: Bytes::new(), value: Bytes::new(), headers: Default::default() };
    let refused = life.commit(TaskCommit { outputs: vec![record], ..life.empty() }).await;
    assert_eq!(refused, Err(LogError::NoSuchPartition(to)));
}

#[tokio::test(start_paused = true)]
async fn only_committed_values_reach_the_database() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    let faults = world.broker.faults();
    let rows = world.clone();
    process.hooks.at("commit", async move {
        // Long enough for a flush, while the transaction is open.
        rows.pass(seconds(2)).await;
        assert_eq!(rows.stored("t/k").as_deref(), Some("1"));
        faults.abort("test.order.0");
    });
    assert!(is_over(&life.put("t/k", "aborted").await));
    world.pass(seconds(10)).await;
    assert_eq!(world.stored("t/k").as_deref(), Some("1"));
    assert_eq!(world.broker.records(changelog(0), Seen::Committed).len(), 2);
}
