//! Rows behind the log: how often, how many, who answers first, and which write wins.

use crate::support::*;
use tillstream_simulation::rows::{RowCall, WriteFault};

fn calls(world: &World, call: RowCall) -> u64 {
    world.rows.counts().calls.get(&call).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_row_is_written_once_per_interval_however_often_it_changes() {
    let mut world = World::new(1);
    world.settings.flush_interval = seconds(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    world.pass(millis(10)).await;
    for n in 0..200 {
        life.put_many(&[("t/hot", Some(&n.to_string())), (&format!("t/k{n}"), Some("1"))]).await.unwrap();
    }
    world.pass(millis(1_500)).await;
    let counts = world.rows.counts();
    assert_eq!(counts.cells_written, 201);
    assert_eq!(counts.calls[&RowCall::Write], 1, "and all of them together");
    assert!(counts.groups_written <= 16, "grouped by the database's partitions: {}", counts.groups_written);
    assert_eq!(world.stored("t/hot").as_deref(), Some("199"));
    world.pass(seconds(5)).await;
    assert_eq!(world.rows.counts().cells_written, 201, "and never again");
}

#[tokio::test(start_paused = true)]
async fn a_busy_task_writes_a_busy_row_less_often_and_all_of_it_once_it_is_idle() {
    let mut world = World::new(1);
    world.settings.flush_interval = seconds(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    let keys: Vec<String> = (0..1_200).map(|n| format!("t/k{n}")).collect();
    for round in 0..9 {
        let value = round.to_string();
        let rows: Vec<_> = keys.iter().map(|it| (it.as_str(), Some(value.as_str()))).collect();
        life.put_many(&rows).await.unwrap();
        world.pass(seconds(1)).await;
    }
    let written = world.rows.counts().cells_written;
    assert!((1_200..=4_800).contains(&written), "{written} writes of 9 times 1,200 changes");
    world.pass(seconds(3)).await;
    assert_eq!(world.stored("t/k7").as_deref(), Some("8"));
}

#[tokio::test(start_paused = true)]
async fn unflushed_rows_answer_first_and_without_the_database() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    life.put("t/k", "1").await.unwrap();
    world.pass(seconds(1)).await;
    world.rows.faults().set_available(false);
    life.put_many(&[("t/k", Some("2")), ("t/gone", None)]).await.unwrap();
    assert_eq!(life.get("t/k").await.as_deref(), Some("2"));
    assert_eq!(life.get("t/gone").await, None);
    assert_eq!(calls(&world, RowCall::GetMany), 0);
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_are_bounded_in_memory_and_the_task_goes_on_once_there_is_room() {
    let mut world = World::new(1);
    world.settings.unflushed_bytes_max = 2_000;
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    let large = "x".repeat(10_000);
    life.put("t/large", &large).await.unwrap();
    world.pass(seconds(1)).await;
    assert_eq!(
        world.stored("t/large").map(|it| it.len()),
        Some(10_000),
        "one batch may be larger than the bound"
    );
    world.rows.faults().set_available(false);
    let mut committed = 0;
    while tokio::time::timeout(seconds(5), life.put(&format!("t/k{committed}"), "1")).await.is_ok() {
        committed += 1;
        assert!(committed < 100, "never blocked");
    }
    assert!(committed > 3);
    world.rows.faults().set_available(true);
    let went_on = tokio::time::timeout(seconds(10), life.put("t/more", "1")).await;
    went_on.unwrap().unwrap();
    world.pass(seconds(1)).await;
    assert_eq!(world.stored("t/more").as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_late_write_of_an_old_life_loses_against_the_new_one() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut old = process.open(0).await.unwrap();
    world.rows.faults().fail(RowCall::Write, WriteFault::Late);
    old.put_many(&[("t/k", Some("9")), ("t/gone", Some("9"))]).await.unwrap();
    world.pass(millis(400)).await;
    let mut new = process.open(0).await.unwrap();
    new.put_many(&[("t/k", Some("1")), ("t/gone", None)]).await.unwrap();
    world.pass(seconds(2)).await;
    assert_eq!(world.rows.faults().arrive_late_writes(), 2);
    assert_eq!((world.stored("t/k").as_deref(), world.stored("t/gone")), (Some("1"), None));
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_in_any_way_is_made_good() {
    for fault in [WriteFault::Nothing, WriteFault::Part, WriteFault::All, WriteFault::Late] {
        let world = World::new(1);
        let process = world.bare("a").await;
        let mut life = process.open(0).await.unwrap();
        world.rows.faults().fail(RowCall::Write, fault);
        for n in 0..10 {
            life.put(&format!("t/k{n}"), "1").await.unwrap();
        }
        world.pass(seconds(5)).await;
        world.rows.faults().arrive_late_writes();
        let verified = world.verified(&process, 0).await;
        assert_eq!((verified.alike, verified.different, verified.unflushed), (10, 0, 0), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_that_rows_can_be_read_before_they_can() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    world.send("t/k add 1 1");
    life.take(0, 1).await;
    world.rows.faults().fail(RowCall::Write, WriteFault::Nothing);
    let rows = vec![(row("t/k"), Some(bytes::Bytes::from_static(b"1")))];
    life.commit(tillstream_state::TaskCommit { next_offset: 1, rows, ..life.empty() }).await.unwrap();
    let mut told = 0;
    for _ in 0..100 {
        world.pass(millis(20)).await;
        let flushed = tillstream_state::row_store::RowStore::flushed(&world.rows, KIND).await.unwrap();
        told = flushed.get(&0).copied().unwrap_or(0);
        assert!(told == 0 || world.stored("t/k").is_some(), "told {told}");
    }
    assert_eq!(told, 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_surely_new_are_not_read_and_stored_ones_are_never_called_new() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut old = process.open(0).await.unwrap();
    old.put("t/durable", "1").await.unwrap();
    world.pass(seconds(30)).await;
    old.put("t/late", "1").await.unwrap();
    world.rows.faults().set_slow(millis(500));
    let mut new = process.open(0).await.unwrap();
    assert_eq!(new.get("t/durable").await.as_deref(), Some("1"), "while the walk is under way");
    assert_eq!(new.get("t/late").await.as_deref(), Some("1"));
    world.rows.faults().set_slow(millis(0));
    new.put("t/own", "1").await.unwrap();
    world.pass(seconds(40)).await;
    world.rows.reset_counts();
    assert_eq!(new.get("t/new").await, None);
    assert_eq!(calls(&world, RowCall::GetMany), 0, "surely new");
    for key in ["t/durable", "t/late", "t/own"] {
        assert_eq!(new.get(key).await.as_deref(), Some("1"), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replayed_key_that_the_walk_did_not_see_is_not_called_new() {
    let world = World::new(1);
    let process = world.bare("a").await;
    world.rows.faults().hold_writes(true);
    process.open(0).await.unwrap().put("t/k", "1").await.unwrap();
    let new = process.open(0).await.unwrap();
    world.pass(seconds(10)).await;
    assert_eq!(world.stored("t/k"), None);
    world.rows.faults().hold_writes(false);
    world.pass(seconds(40)).await;
    assert_eq!(world.stored("t/k").as_deref(), Some("1"));
    assert_eq!(new.get("t/k").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_at_the_start_is_waited_for() {
    let world = World::new(1);
    let process = world.bare("a").await;
    process.open(0).await.unwrap().put("t/k", "1").await.unwrap();
    world.pass(seconds(60)).await;
    world.rows.faults().set_available(false);
    assert!(matches!(process.open(0).await, Err(tillstream_log::LogError::Unavailable(_))));
    assert!(process_start_fails(&world).await);
    world.rows.faults().set_available(true);
    assert_eq!(process.open(0).await.unwrap().get("t/k").await.as_deref(), Some("1"));
}

async fn process_start_fails(world: &World) -> bool {
    Process::join(world, "b").await.is_err()
}
