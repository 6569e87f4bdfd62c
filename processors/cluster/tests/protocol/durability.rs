//! What a checkpoint promises, and what is done about acknowledged writes that are lost.

use crate::support::*;
use tillstream_simulation::rows::{Loss, RowCall, WriteFault};

#[tokio::test(start_paused = true)]
async fn the_checkpoint_moves_once_all_rows_before_it_are_acknowledged_and_two_sync_periods_have_passed() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    world.pass(seconds(19)).await;
    assert!(world.rows.checkpoints().is_empty());
    world.pass(seconds(8)).await;
    let end = world.rows.checkpoints()[&task(0)].offset;
    assert_eq!(end, 2, "the incarnation and the row");
    world.rows.faults().hold_writes(true);
    life.put("t/k", "2").await.unwrap();
    world.pass(seconds(60)).await;
    assert_eq!(world.rows.checkpoints()[&task(0)].offset, end, "the row is not acknowledged");
    world.rows.faults().hold_writes(false);
    world.pass(seconds(30)).await;
    assert!(world.rows.checkpoints()[&task(0)].offset > end);
}

#[tokio::test(start_paused = true)]
async fn silence_of_a_node_keeps_the_checkpoint_back() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    world.pass(seconds(2)).await;
    world.rows.faults().hide_incarnation(true);
    world.pass(seconds(40)).await;
    assert!(world.rows.checkpoints().is_empty());
    world.rows.faults().hide_incarnation(false);
    world.pass(seconds(3)).await;
    assert_eq!(world.rows.checkpoints().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_restarts_ends_the_life_and_what_it_may_have_lost_is_written_again() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    world.pass(seconds(5)).await;
    assert_eq!(world.stored("t/k").as_deref(), Some("1"));
    world.rows.faults().crash(Loss::All);
    assert_eq!(world.stored("t/k"), None);
    world.pass(seconds(40)).await;
    assert!(world.rows.checkpoints().is_empty(), "nothing of what was lost is promised");
    assert!(is_over(&life.try_get("t/other").await));
    let next = process.open(0).await.unwrap();
    assert_eq!(next.get("t/k").await.as_deref(), Some("1"));
    world.pass(seconds(1)).await;
    assert_eq!(world.stored("t/k").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_between_two_parts_of_one_flush_is_not_missed() {
    let mut world = World::new(1);
    world.settings.flush_rows_max = 1;
    world.settings.retry_wait = seconds(2);
    world.ask_nodes = millis(100);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    world.rows.faults().fail_later(RowCall::Write, 1, WriteFault::Nothing);
    life.put_many(&[("t/a", Some("1")), ("t/b", Some("1"))]).await.unwrap();
    world.pass(millis(400)).await;
    assert_eq!(world.rows.rows().len(), 1, "one part is acknowledged, the other failed");
    world.rows.faults().crash(Loss::All);
    world.pass(seconds(60)).await;
    let next = process.open(0).await.unwrap();
    for key in ["t/a", "t/b"] {
        assert_eq!(next.get(key).await.as_deref(), Some("1"), "{key}");
    }
    world.pass(seconds(1)).await;
    assert_eq!(world.verified(&process, 0).await.different, 0);
    assert_eq!(world.rows.rows().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledged_write_is_noticed_on_read_by_its_timestamp() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put_many(&[("t/k", Some("1")), ("t/gone", Some("1"))]).await.unwrap();
    world.pass(seconds(40)).await;
    for (key, value) in [("t/k", Some("2")), ("t/gone", None), ("t/new", Some("2"))] {
        let mut life = process.open(0).await.unwrap();
        life.put_many(&[(key, value)]).await.unwrap();
        world.pass(millis(400)).await;
        // Before anybody has asked for the nodes' starts.
        world.rows.faults().hide_incarnation(true);
        world.rows.faults().crash(Loss::All);
        let read = life.try_get(key).await;
        assert!(is_over(&read), "{key}: {read:?}");
        world.rows.faults().hide_incarnation(false);
        let next = process.open(0).await.unwrap();
        assert_eq!(next.get(key).await.as_deref(), value, "{key}");
        world.pass(seconds(30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_offset_tells_the_durable_checkpoint_and_an_older_database_is_seen_and_rebuilt() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    world.pass(seconds(27)).await;
    let copy = world.rows.snapshot();
    assert_eq!(copy_checkpoint(&world), 2);
    life.put("t/k", "2").await.unwrap();
    let told = |world: &World| world.broker.group_offset(GROUP, input(0)).unwrap().metadata;
    assert_eq!(told(&world), "v1 generation=1 checkpoint=0", "its own sync is not over yet");
    world.pass(seconds(60)).await;
    life.put("t/k", "3").await.unwrap();
    let durable = copy_checkpoint(&world);
    assert!(durable > 2);
    assert_eq!(told(&world), format!("v1 generation=1 checkpoint={durable}"));
    drop(life);
    world.rows.faults().restore(&copy);
    assert_eq!(process.halt_code(0).await, "TS0324");
    process.close().await;
    world.pass(seconds(5)).await;
    tillstream_cluster::rebuild(&process.ports, |_| {}).await.unwrap();
    let verified = world.verified(&process, 0).await;
    assert_eq!((verified.alike, verified.different, verified.unflushed), (1, 0, 0));
    let process = world.bare("b").await;
    assert_eq!(process.open(0).await.unwrap().get("t/k").await.as_deref(), Some("3"));
}

fn copy_checkpoint(world: &World) -> u64 {
    world.rows.checkpoints()[&task(0)].offset
}

#[tokio::test(start_paused = true)]
async fn a_crash_that_loses_a_fresh_checkpoint_halts_nobody() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    while world.rows.checkpoints().is_empty() {
        world.pass(millis(200)).await;
    }
    life.put("t/k", "2").await.unwrap();
    world.rows.faults().crash(Loss::All);
    assert!(world.rows.checkpoints().is_empty(), "it was not synced");
    world.pass(seconds(3)).await;
    let next = process.open(0).await.unwrap();
    assert_eq!(next.get("t/k").await.as_deref(), Some("2"));
}
