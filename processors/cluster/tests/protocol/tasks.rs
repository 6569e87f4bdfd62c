//! Whole tasks through the runtime.

use crate::support::*;
use tillstream_schemas::Topic;
use tillstream_schemas::codec;
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_simulation::broker::{CommitFate, Seen};
use tillstream_stage::partition::partition_of;

fn letters(world: &World) -> Vec<DeadLetter> {
    let records = world.broker.topic_records(Topic::OrderCommandsDlq, Seen::Committed);
    records.into_iter().map(|(_, it)| codec::decode(&it.value.unwrap()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_partition_of_a_key_is_checked_on_consume() {
    let world = World::new(4);
    let _process = world.worker("a").await;
    let own = partition_of(b"t/k", 4);
    world.send_to((own + 1) % 4, "t/k add 1 1");
    world.send("t/k add 2 2");
    world.pass(seconds(5)).await;
    let letters = letters(&world);
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].code.as_str(), letters[0].reason.as_str()), ("TS0408", "partition"));
    assert_eq!(world.stored("t/k").as_deref(), Some("2,0,0"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_written_in_the_transaction_of_its_offset() {
    for fate in [CommitFate::Happened, CommitFate::NeverArrived, CommitFate::ArrivesLater] {
        let world = World::new(1);
        let _process = world.worker("a").await;
        world.pass(seconds(1)).await;
        world.broker.faults().unknown_commit("", fate);
        world.send("t/k fail 0 1");
        world.send("t/k add 1 2");
        world.pass(seconds(20)).await;
        assert_eq!(letters(&world).len(), 1, "{fate:?}");
        assert_eq!(world.stored("t/k").as_deref(), Some("1,0,0"), "{fate:?}");
        assert_eq!(world.broker.group_offset(GROUP, input(0)).map(|it| it.offset), Some(2), "{fate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn cached_rows_are_not_read_and_new_ones_neither() {
    let world = World::new(1);
    let _process = world.worker("a").await;
    world.pass(seconds(1)).await;
    for n in 0..50 {
        world.send(&format!("t/k{} add 1 {n}", n % 5));
        world.pass(millis(500)).await;
    }
    assert_eq!(world.stored("t/k3").as_deref(), Some("10,0,0"));
    assert!(world.rows.counts().reads.is_empty(), "{:?}", world.rows.counts().reads);
}

#[tokio::test(start_paused = true)]
async fn partitions_move_between_processes_and_nothing_is_done_twice() {
    let world = World::new(4);
    let first = world.worker("first").await;
    for n in 0..40 {
        world.send(&format!("t/k{} add 1 {n}", n % 8));
        if n == 10 {
            let second = world.worker("second").await;
            world.pass(seconds(2)).await;
            second.kill();
        }
        if n == 20 {
            std::mem::forget(world.worker("third").await);
        }
        if n == 30 {
            first.close().await;
        }
        world.pass(millis(300)).await;
    }
    world.pass(seconds(30)).await;
    for n in 0..8 {
        assert_eq!(world.stored(&format!("t/k{n}")).as_deref(), Some("5,0,0"), "t/k{n}");
    }
    assert_eq!(world.broker.topic_records(Topic::OrderEvents, Seen::Committed).len(), 40);
}
