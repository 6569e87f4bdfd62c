//! Timers over takeovers: what is set fires once, what is removed never, and the floor of the search is sound.

use crate::support::*;
use tillstream_runtime::Clock;
use tillstream_schemas::Topic;
use tillstream_simulation::broker::Seen;
use tillstream_stage::{Key, TimerName};
use tillstream_state::Timer;

fn timer(due_ms: i64) -> Timer {
    Timer { due_ms, key: Key::from("t/k"), name: TimerName::HoldExpiry }
}

async fn due(life: &Life, from_ms: i64, until_ms: i64, limit: usize) -> Vec<i64> {
    let found = life.session.state.timers_due(task(0), from_ms, until_ms, limit).await.unwrap();
    found.into_iter().map(|it| it.due_ms).collect()
}

#[tokio::test(start_paused = true)]
async fn a_timer_set_before_a_takeover_fires_once_after_it_and_a_cleared_one_never() {
    for wait in [millis(20), seconds(1), seconds(60)] {
        let world = World::new(1);
        let old = world.worker("old").await;
        world.send("t/kept set 120000 1");
        world.send("t/cleared set 120000 2");
        world.pass(wait).await;
        world.send("t/cleared clear 0 3");
        world.pass(wait).await;
        old.kill();
        let _new = world.worker("new").await;
        world.pass(seconds(300)).await;
        let events = world.broker.topic_records(Topic::OrderEvents, Seen::Committed);
        let fired: Vec<String> = events
            .into_iter()
            .filter_map(|(_, it)| String::from_utf8(it.value.unwrap().to_vec()).ok())
            .filter(|it| it.contains(" fired "))
            .collect();
        assert_eq!(fired.len(), 1, "{wait:?}: {fired:?}");
        assert!(fired[0].starts_with("t/kept"), "{wait:?}: {fired:?}");
        assert!(world.rows.all_timers().is_empty(), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_floor_of_the_search_stays_below_a_timer_that_stands_behind_a_removed_one() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    let now_ms = world.clock.now_ms();
    let (first, second) = (timer(now_ms + 60_000), timer(now_ms + 120_000));
    life.set_timers(&[], &[first.clone(), second.clone()]).await;
    world.pass(seconds(10)).await;
    life.set_timers(std::slice::from_ref(&first), &[]).await;
    // The removal waits for its flush while the next stretch is asked for.
    assert!(due(&life, now_ms + 600_000, now_ms + 1_200_000, 10).await.is_empty());
    world.pass(seconds(40)).await;
    let floor_ms = world.rows.checkpoints()[&task(0)].timers_from_ms;
    assert!(floor_ms <= second.due_ms, "{floor_ms}");
    let next = process.open(0).await.unwrap();
    assert_eq!(due(&next, 0, now_ms + 1_200_000, 10).await, [second.due_ms]);
}

#[tokio::test(start_paused = true)]
async fn the_floor_rises_as_timers_fire() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    let now_ms = world.clock.now_ms();
    life.set_timers(&[], &[timer(now_ms + 1_000), timer(now_ms + 900_000)]).await;
    world.pass(seconds(10)).await;
    life.set_timers(&[timer(now_ms + 1_000)], &[]).await;
    world.pass(seconds(10)).await;
    assert_eq!(due(&life, now_ms + 600_000, now_ms + 1_200_000, 10).await, [now_ms + 900_000]);
    life.put("t/k", "1").await.unwrap();
    world.pass(seconds(40)).await;
    assert_eq!(world.rows.checkpoints()[&task(0)].timers_from_ms, now_ms + 900_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_flushed_while_the_database_is_asked_for_timers_is_neither_lost_nor_revived() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    let now_ms = world.clock.now_ms();
    let (removed, kept) = (timer(now_ms + 60_000), timer(now_ms + 70_000));
    life.set_timers(&[], std::slice::from_ref(&removed)).await;
    world.pass(seconds(10)).await;
    life.set_timers(std::slice::from_ref(&removed), std::slice::from_ref(&kept)).await;
    // The database has answered; before its answer is looked at, everything is flushed.
    let meanwhile = world.clone();
    process.hooks.at("timers", async move { meanwhile.pass(seconds(10)).await });
    assert_eq!(due(&life, 0, now_ms + 600_000, 10).await, [kept.due_ms]);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_timers_is_full_although_some_of_it_is_removed() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut life = process.open(0).await.unwrap();
    let now_ms = world.clock.now_ms();
    let all: Vec<Timer> = (1..=5).map(|it| timer(now_ms + it * 1_000)).collect();
    life.set_timers(&[], &all).await;
    world.pass(seconds(10)).await;
    life.set_timers(&all[..2], &[]).await;
    // A page that is not full says that there is nothing behind it.
    assert_eq!(due(&life, 0, now_ms + 600_000, 2).await, [now_ms + 3_000, now_ms + 4_000]);
}

#[tokio::test(start_paused = true)]
async fn a_timer_set_behind_the_checkpoint_lowers_the_floor_of_the_life_that_replays_it() {
    let world = World::new(1);
    let process = world.bare("a").await;
    let mut first = process.open(0).await.unwrap();
    let now_ms = world.clock.now_ms();
    assert!(due(&first, 0, now_ms + 1_200_000, 10).await.is_empty());
    first.put("t/k", "1").await.unwrap();
    world.pass(seconds(40)).await;
    assert_eq!(world.rows.checkpoints()[&task(0)].timers_from_ms, now_ms + 1_200_000);
    first.set_timers(&[], &[timer(now_ms + 600_000)]).await;
    drop(first);
    let second = process.open(0).await.unwrap();
    assert_eq!(due(&second, 0, now_ms + 1_200_000, 10).await, [now_ms + 600_000]);
    // Its checkpoint goes past the timer's record: the floor alone leads to it from now on.
    world.pass(seconds(60)).await;
    let third = process.open(0).await.unwrap();
    assert_eq!(due(&third, 0, now_ms + 1_200_000, 10).await, [now_ms + 600_000]);
}
