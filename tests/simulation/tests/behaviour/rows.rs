//! The simulated database: last write wins, and what can become of a write.

use super::*;
use tillstream_log::LogError;
use tillstream_simulation::rows::{Loss, RowCall, WriteFault};
use tillstream_simulation::{RowSettings, SimRows};
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table, TimerName};
use tillstream_state::row_store::{Checkpoint, RowStore, RowWrite, StateKey};
use tillstream_state::{TaskId, Timer};

const TASK: TaskId = TaskId { kind: TaskKind::Order, partition: 0 };

fn rows() -> SimRows {
    SimRows::new(RowSettings::new(4, 1, Arc::new(SimClock::default())))
}

fn key(name: &str) -> RowKey {
    RowKey::new(Table::Order, Key::from(format!("demo/{name}")))
}

fn write(name: &str, value: Option<&str>, timestamp: i64) -> RowWrite {
    let value = value.map(|it| Bytes::copy_from_slice(it.as_bytes()));
    RowWrite { key: StateKey::Row(key(name)), value, timestamp }
}

fn ten() -> Vec<RowWrite> {
    (0..10).map(|it| write(&it.to_string(), Some("v"), 5)).collect()
}

async fn value(rows: &SimRows, name: &str) -> Option<String> {
    let found = rows.get_many(&[key(name)]).await.unwrap().remove(0)?;
    Some(String::from_utf8(found.value.to_vec()).unwrap())
}

fn is_unavailable<T>(result: &Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::Unavailable(_)))
}

#[tokio::test(start_paused = true)]
async fn the_later_timestamp_wins_in_whatever_order_writes_arrive() {
    let rows = rows();
    rows.write(TASK, &[write("a", Some("new"), 7)]).await.unwrap();
    rows.write(TASK, &[write("a", Some("old"), 6)]).await.unwrap();
    assert_eq!(value(&rows, "a").await.as_deref(), Some("new"));
    rows.write(TASK, &[write("a", None, 8)]).await.unwrap();
    rows.write(TASK, &[write("a", Some("late"), 7), write("b", Some("equal"), 7)]).await.unwrap();
    rows.write(TASK, &[write("b", None, 7)]).await.unwrap();
    assert_eq!((value(&rows, "a").await, value(&rows, "b").await), (None, None), "deleted stays deleted");
    assert!(rows.rows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_may_have_happened_in_any_part_or_happen_later() {
    for fault in [WriteFault::Nothing, WriteFault::Part, WriteFault::All, WriteFault::Late] {
        let rows = rows();
        rows.faults().fail(RowCall::Write, fault);
        assert!(is_unavailable(&rows.write(TASK, &ten()).await));
        let found = rows.rows().len();
        match fault {
            WriteFault::Nothing | WriteFault::Late => assert_eq!(found, 0),
            WriteFault::Part => assert!((1..10).contains(&found), "{found}"),
            WriteFault::All => assert_eq!(found, 10),
        }
        rows.write(TASK, &[write("1", Some("newer"), 6)]).await.unwrap();
        assert_eq!(rows.faults().arrive_late_writes(), if fault == WriteFault::Late { 10 } else { 0 });
        assert_eq!(value(&rows, "1").await.as_deref(), Some("newer"));
        assert_eq!(rows.rows().len() == 10, matches!(fault, WriteFault::All | WriteFault::Late));
    }
}

#[tokio::test(start_paused = true)]
async fn held_writes_wait_for_their_release_or_their_timeout() {
    let rows = rows();
    rows.faults().hold_writes(true);
    let held: Vec<_> = (0..3)
        .map(|it| {
            let rows = rows.clone();
            tokio::spawn(async move { rows.write(TASK, &[write(&it.to_string(), Some("v"), 1)]).await })
        })
        .collect();
    pass(1).await;
    assert_eq!((rows.held(), rows.rows().len()), (3, 0));
    assert_eq!(rows.faults().release_writes(1), 1);
    pass(5).await;
    let mut acknowledged = 0;
    for write in held {
        acknowledged += usize::from(write.await.unwrap().is_ok());
    }
    assert_eq!((acknowledged, rows.rows().len()), (1, 1));
    rows.faults().hold_writes(false);
    assert_eq!(rows.rows().len(), 3, "what nobody waits for any more arrives all the same");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loses_what_was_acknowledged_and_not_synced() {
    let rows = rows();
    rows.write(TASK, &[write("synced", Some("v"), 1)]).await.unwrap();
    pass(11).await;
    rows.write(TASK, &[write("lost", Some("v"), 2)]).await.unwrap();
    let checkpoint = Checkpoint { generation: 1, offset: 9, timers_from_ms: 0 };
    rows.put_checkpoint(TASK, checkpoint, 3).await.unwrap();
    let before = rows.incarnations().await.unwrap();
    rows.faults().crash(Loss::All);
    assert_ne!(rows.incarnations().await.unwrap(), before);
    assert_eq!(value(&rows, "synced").await.as_deref(), Some("v"));
    assert_eq!((value(&rows, "lost").await, rows.checkpoint(TASK).await.unwrap()), (None, None));
    rows.faults().hide_incarnation(true);
    assert!(rows.incarnations().await.unwrap().values().all(Option::is_none));
}

#[tokio::test(start_paused = true)]
async fn a_restored_copy_is_older_and_a_truncated_table_has_lost_its_marks() {
    let rows = rows();
    rows.write(TASK, &ten()).await.unwrap();
    rows.put_checkpoint(TASK, Checkpoint { generation: 1, offset: 3, timers_from_ms: 0 }, 3).await.unwrap();
    let copy = rows.snapshot();
    rows.put_checkpoint(TASK, Checkpoint { generation: 1, offset: 8, timers_from_ms: 0 }, 8).await.unwrap();
    rows.write(TASK, &[write("1", None, 9)]).await.unwrap();
    rows.faults().restore(&copy);
    assert_eq!(rows.checkpoint(TASK).await.unwrap().unwrap().offset, 3);
    assert_eq!(rows.rows().len(), 10);

    assert_eq!(rows.marked_tables(TASK).await.unwrap(), [Table::Order, Table::OrderIndex]);
    rows.faults().truncate_table(Table::Order);
    assert_eq!(rows.marked_tables(TASK).await.unwrap(), [Table::OrderIndex]);
    assert_eq!((rows.rows().len(), rows.checkpoint(TASK).await.unwrap().unwrap().offset), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_or_slow_says_so() {
    let rows = rows();
    rows.faults().set_available(false);
    assert!(is_unavailable(&rows.get_many(&[key("a")]).await));
    assert!(is_unavailable(&rows.write(TASK, &ten()).await));
    rows.faults().set_available(true);
    assert_eq!(rows.rows().len(), 0);
    rows.faults().set_slow(Duration::from_secs(1));
    assert!(at_once(rows.write(TASK, &ten())).await.is_none());
    rows.write(TASK, &ten()).await.unwrap();
    rows.faults().set_slow(Duration::from_secs(5));
    assert!(is_unavailable(&rows.get_many(&[key("a")]).await));
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_is_counted() {
    let rows = rows();
    rows.write(TASK, &ten()).await.unwrap();
    rows.get_many(&[key("1"), key("2")]).await.unwrap();
    rows.get_many(&[key("1")]).await.unwrap();
    let counts = rows.counts();
    assert_eq!((counts.calls[&RowCall::Write], counts.calls[&RowCall::GetMany]), (1, 2));
    assert_eq!((counts.reads[&key("1")], counts.reads[&key("2")]), (2, 1));
    assert_eq!(counts.cells_written, 10);
    assert!((1..=10).contains(&counts.groups_written), "{}", counts.groups_written);
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_walked_once_and_whole_by_pages_of_any_size() {
    let rows = rows();
    let all: Vec<_> = (0..200).map(|it| write(&it.to_string(), Some("v"), 1)).collect();
    rows.write(TASK, &all).await.unwrap();
    for limit in [1, 7, 1_000] {
        let mut seen = Vec::new();
        for partition in 0..4 {
            let mut from = None;
            loop {
                let page = rows.shard_page(Table::Order, partition, from.as_ref(), limit).await.unwrap();
                assert!(page.rows.len() <= limit);
                seen.extend(page.rows.into_iter().map(|(key, _)| key));
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 200, "pages of {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn timers_are_the_tasks_own_and_in_order() {
    let rows = rows();
    let timer = |due_ms| Timer { due_ms, key: Key::from("demo/x"), name: TimerName::HoldExpiry };
    let set = |due_ms| RowWrite {
        key: StateKey::Timer(timer(due_ms)),
        value: Some(Bytes::new()),
        timestamp: due_ms,
    };
    rows.write(TASK, &[set(30), set(10), set(20)]).await.unwrap();
    rows.write(TaskId { partition: 1, ..TASK }, &[set(15)]).await.unwrap();
    rows.write(TASK, &[RowWrite { value: None, timestamp: 40, ..set(20) }]).await.unwrap();
    assert_eq!(rows.timers(TASK, 0, 30, 10).await.unwrap(), [(timer(10), 10), (timer(30), 30)]);
    assert_eq!(rows.timers(TASK, 10, 29, 10).await.unwrap(), [(timer(10), 10)]);
    assert_eq!(rows.timers(TASK, 0, 30, 1).await.unwrap(), [(timer(10), 10)]);
    assert_eq!(rows.all_timers().len(), 3);
}
