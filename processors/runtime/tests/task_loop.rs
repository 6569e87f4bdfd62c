//! The loop over a store in memory: exactly once, poison, timers, shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(dead_code, reason = "not every test file uses all of the support")]

mod support;

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::store::Fail;
use support::{Rig, command, id};
use tillstream_log::{Log, LogError, TopicPartition, headers};
use tillstream_runtime::RuntimeError;
use tillstream_schemas::Topic;
use tillstream_stage::Table;

fn io() -> LogError {
    LogError::Io("the answer is lost".to_owned())
}

#[tokio::test]
async fn counts_exactly_once_over_failing_commits_of_both_kinds() {
    let mut rig = Rig::new();
    rig.settings.records_max = 7;
    let script = (0..60).map(|n| match n % 4 {
        0 => Some(Fail::Before(io())),
        2 => Some(Fail::After(io())),
        _ => None,
    });
    rig.store.script(script);
    let task = rig.start();
    for n in 0..200 {
        rig.send(&[&format!("t/k{} add 1", n % 3)]).await;
    }
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    let rows = ["t/k0", "t/k1", "t/k2"].map(|key| rig.store.row(Table::Order, key).unwrap());
    assert_eq!(rows, ["67", "67", "66"]);
    let outputs = rig.outputs();
    assert_eq!(outputs.len(), 200);
    assert_eq!(outputs.iter().collect::<BTreeSet<_>>().len(), 200);
    assert!(rig.metrics.restarts.with_label_values(&["order"]).get() > 0);
}

#[tokio::test]
async fn a_poisonous_record_is_dead_lettered_and_the_partition_goes_on() {
    for (op, code, reason, stage) in
        [("fail", "TS0202", "stage", "pricing"), ("panic", "TS0407", "panic", "order")]
    {
        let rig = Rig::new();
        rig.send(&["t/a add 1", "t/a add 2", &format!("t/a {op}"), "t/a add 3"]).await;
        let task = rig.start();
        rig.caught_up().await;
        rig.stopped(task).await.unwrap();
        assert_eq!(rig.store.row(Table::Order, "t/a").unwrap(), "6");
        assert_eq!(rig.outputs(), ["t/a=1", "t/a=3", "t/a=6"]);
        let letters = rig.letters();
        assert_eq!(letters.len(), 1);
        let letter = &letters[0];
        assert_eq!((letter.offset, letter.attempts, letter.appended_at_ms), (2, 3, 7));
        assert_eq!(
            (letter.code.as_str(), letter.reason.as_str(), letter.stage.as_str()),
            (code, reason, stage)
        );
        assert_eq!((&letter.key[..], &letter.value[..]), (&b"t/a"[..], format!("t/a {op}").as_bytes()));
        // Two before, the culprit alone, one after.
        assert_eq!(rig.store.commits(), 3);
        assert_eq!(rig.metrics.batch_failures.with_label_values(&["order"]).get(), 2);
        assert_eq!(rig.metrics.dead_letters.with_label_values(&[stage, reason]).get(), 1);
        assert_eq!(rig.metrics.stage_records.with_label_values(&["pricing", "applied"]).get(), 3);
        let stored = &rig.store.records(Topic::OrderCommandsDlq, 0)[0].headers;
        assert_eq!(headers::find(stored, headers::ORIGIN), Some("orders.order.commands.v1/0/2"));
        assert_eq!(headers::find(stored, headers::ERROR_CODE), Some(code));
        assert_eq!(headers::find(stored, headers::STAGE), Some(stage));
    }
}

#[tokio::test]
async fn undecodable_and_misplaced_records_are_given_up_within_their_batch() {
    let rig = Rig::new();
    rig.send(&["t/a add 1", "garbage", "t/a other", "t/a add 1"]).await;
    let task = rig.start();
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.store.commits(), 1);
    assert_eq!(rig.store.row(Table::Order, "t/a").unwrap(), "2");
    let found: Vec<_> = rig.letters().into_iter().map(|it| (it.offset, it.reason, it.attempts)).collect();
    assert_eq!(found, [(1, "decode".into(), 1), (2, "partition".into(), 1)]);
}

#[tokio::test]
async fn a_record_of_another_partition_is_dead_lettered() {
    let mut rig = Rig::new();
    rig.store = support::store::MemoryStore::new(2);
    let stray = (0..)
        .map(|n| format!("t/{n}"))
        .find(|key| tillstream_stage::partition::partition_of(key.as_bytes(), 2) == 1);
    let mut record = command(&format!("{} add 1", stray.unwrap()));
    record.to.partition = 0;
    rig.store.append(vec![record]).await.unwrap();
    let task = rig.start();
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    let letters: usize = (0..2).map(|it| rig.store.records(Topic::OrderCommandsDlq, it).len()).sum();
    assert_eq!(letters, 1);
    assert!(rig.outputs().is_empty());
}

#[tokio::test]
async fn a_failing_batch_end_is_traced_to_its_record() {
    let rig = Rig::new();
    rig.send(&["t/a ok1", "t/a ok2", "t/a badend", "t/a ok3"]).await;
    let task = rig.start();
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    let letters = rig.letters();
    assert_eq!(letters.iter().map(|it| it.offset).collect::<Vec<_>>(), [2]);
    assert_eq!(
        rig.outputs(),
        ["folded ok1 in order.0@0", "folded ok2 in order.0@1", "folded ok3 in order.0@3"]
    );
}

#[tokio::test]
async fn an_undecodable_row_fails_only_the_records_that_read_it() {
    let rig = Rig::new();
    rig.store.put_row(Table::Order, "t/bad", b"not a number".to_vec());
    rig.send(&["t/a add 1", "t/bad add 1", "t/a add 1"]).await;
    let task = rig.start();
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.store.row(Table::Order, "t/a").unwrap(), "2");
    assert_eq!(rig.store.row(Table::Order, "t/bad").unwrap(), "not a number");
    let letters = rig.letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].message.contains("row order/t/bad"), "{}", letters[0].message);
}

#[tokio::test]
async fn a_corrupt_batch_is_named_in_a_letter_and_skipped() {
    let rig = Rig::new();
    rig.send(&["t/a add 1", "t/a add 10", "t/a add 100", "t/a add 1000"]).await;
    rig.store.corrupt(TopicPartition::new(Topic::OrderCommands, 0), 1, 3);
    let task = rig.start();
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.store.row(Table::Order, "t/a").unwrap(), "1001");
    let letters = rig.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].offset, letters[0].code.as_str(), letters[0].value.len()), (1, "TS0303", 0));
    assert!(letters[0].message.contains("1..3"));
}

#[tokio::test]
async fn timers_fire_once_when_due_and_not_when_cleared() {
    let rig = Rig::new();
    rig.send(&["t/a timer 1000500", "t/b timer 1000600", "t/c timer 1000500", "t/c clear 1000500"]).await;
    let task = rig.start();
    rig.caught_up().await;
    assert_eq!(rig.store.timers().len(), 2);
    rig.send(&["t/b clear 1000600"]).await;
    rig.caught_up().await;
    rig.clock.sleeper_within(500).await;
    rig.clock.advance(700);
    rig.clock.sleeper_within(1_000).await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.outputs(), ["t/a=1000"]);
    assert!(rig.store.timers().is_empty());
    assert_eq!(rig.metrics.timers_fired.with_label_values(&["order"]).get(), 1);
}

#[tokio::test]
async fn a_timer_cleared_by_a_record_of_its_own_batch_does_not_fire() {
    let rig = Rig::new();
    rig.send(&["t/a timer 1000500"]).await;
    let task = rig.start();
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    rig.clock.advance(1_000);
    rig.send(&["t/a clear 1000500", "t/b add 1"]).await;
    let again = Rig {
        settings: rig.settings.clone(),
        store: rig.store.clone(),
        clock: rig.clock.clone(),
        ..Rig::new()
    };
    let task = again.start();
    again.caught_up().await;
    again.stopped(task).await.unwrap();
    assert_eq!(again.outputs(), ["t/b=1"]);
    assert!(again.store.timers().is_empty());
}

#[tokio::test]
async fn a_failing_timer_is_dead_lettered_with_the_rest_of_its_batch_kept() {
    let rig = Rig::new();
    rig.send(&["t/badtimer timer 5", "t/good timer 6"]).await;
    let task = rig.start();
    rig.caught_up().await;
    rig.clock.sleeper_within(1_000).await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.outputs(), ["t/good=1000"]);
    assert!(rig.store.timers().is_empty());
    let letters = rig.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].topic.as_str(), letters[0].offset), ("orders.order.commands.v1", -1));
    assert_eq!((&letters[0].key[..], letters[0].attempts), (&b"t/badtimer"[..], 3));
}

#[tokio::test]
async fn fencing_and_a_stopped_store_end_the_task_for_good() {
    let fenced = LogError::Fenced { task: "order.0".to_owned(), expected: 0, found: 1 };
    for error in [fenced, LogError::Stopped("fsync".to_owned())] {
        let rig = Rig::new();
        rig.store.script([Some(Fail::Before(error.clone()))]);
        rig.send(&["t/a add 1"]).await;
        let ended = support::soon("the end", rig.start()).await.unwrap();
        match ended {
            Err(RuntimeError::Log(found)) => assert_eq!(found, error),
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.store.row(Table::Order, "t/a"), None);
    }
}

#[tokio::test]
async fn a_log_that_ends_below_the_committed_offset_halts() {
    let rig = Rig::new();
    rig.store.set_committed(id(), 5);
    let ended = support::soon("the end", rig.start()).await.unwrap();
    assert!(matches!(ended, Err(RuntimeError::OffsetsLost { committed: 5, end: 0, .. })), "{ended:?}");
}

#[tokio::test]
async fn a_full_disk_is_waited_out_and_nothing_is_lost_or_doubled() {
    let rig = Rig::new();
    let full = || Some(Fail::Before(LogError::DiskFull { available_bytes: 1, needed_bytes: 2 }));
    rig.store.script([full(), full(), None]);
    rig.send(&["t/a add 1", "t/a add 2"]).await;
    let task = rig.start();
    for _ in 0..2 {
        rig.clock.sleeper_within(1_000).await;
        assert_eq!(rig.store.row(Table::Order, "t/a"), None);
        rig.clock.advance(1_000);
    }
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.outputs(), ["t/a=1", "t/a=3"]);
}

#[tokio::test]
async fn shutdown_finishes_the_open_batch() {
    let rig = Rig::new();
    rig.store.close_gate();
    rig.send(&["t/a add 1", "t/a add 2"]).await;
    let task = rig.start();
    rig.store.commit_waits().await;
    rig.stop();
    rig.send(&["t/a add 4"]).await;
    rig.store.open_gate();
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.store.row(Table::Order, "t/a").unwrap(), "3");
}

#[tokio::test]
async fn lingering_makes_one_batch_of_what_comes_in_time() {
    let mut rig = Rig::new();
    rig.settings.linger = Duration::from_millis(100);
    rig.settings.records_max = 5;
    rig.send(&["t/a add 1"]).await;
    let task = rig.start();
    rig.clock.sleeper_within(100).await;
    rig.send(&["t/a add 1", "t/a add 1"]).await;
    assert_eq!(rig.store.commits(), 0);
    rig.clock.advance(100);
    rig.caught_up().await;
    assert_eq!(rig.store.commits(), 1);
    // A full batch does not wait: the clock stands still.
    rig.send(&["t/a add 1"; 5]).await;
    rig.caught_up().await;
    assert_eq!(rig.store.commits(), 2);
    rig.stopped(task).await.unwrap();
}

#[tokio::test]
async fn after_a_slow_commit_the_next_batch_waits_as_long_up_to_a_bound() {
    for (took_ms, waits_ms) in [(7, 7), (50, 20)] {
        let mut rig = Rig::new();
        rig.settings.pace_max = Duration::from_millis(20);
        rig.store.close_gate();
        rig.send(&["t/a add 1"]).await;
        let task = rig.start();
        rig.store.commit_waits().await;
        rig.clock.advance(took_ms);
        rig.store.open_gate();
        rig.caught_up().await;
        rig.send(&["t/a add 1"]).await;
        rig.clock.sleeper_within(waits_ms).await;
        rig.send(&["t/a add 1", "t/a add 1"]).await;
        assert_eq!(rig.store.commits(), 1);
        rig.clock.advance(waits_ms);
        rig.caught_up().await;
        assert_eq!(rig.store.commits(), 2, "what came meanwhile is in the same batch");
        rig.stopped(task).await.unwrap();
    }
}

#[tokio::test]
async fn hot_rows_are_read_from_the_store_once_and_evicted_ones_are_read_again() {
    for (cache_bytes_max, keys, expect_again) in [(1 << 20, 50, false), (4_000, 50, true)] {
        let mut rig = Rig::new();
        rig.settings.cache_bytes_max = cache_bytes_max;
        rig.settings.records_max = 10;
        let task = rig.start();
        for _ in 0..3 {
            let commands: Vec<String> = (0..keys).map(|n| format!("t/k{n} add 1")).collect();
            rig.send(&commands.iter().map(String::as_str).collect::<Vec<_>>()).await;
            rig.caught_up().await;
        }
        rig.stopped(task).await.unwrap();
        assert_eq!(rig.store.rows_read() > keys, expect_again, "{} rows read", rig.store.rows_read());
        for n in 0..keys {
            assert_eq!(rig.store.row(Table::Order, &format!("t/k{n}")).unwrap(), "3");
        }
        let reads = |source| rig.metrics.state_reads.with_label_values(&["order", source]).get();
        assert_eq!(reads("store"), rig.store.rows_read() as u64);
        assert_eq!(reads("store") + reads("cache"), 3 * keys as u64);
    }
}

#[tokio::test]
async fn a_row_written_without_being_read_replaces_what_the_cache_had() {
    let rig = Rig::new();
    let task = rig.start();
    for text in ["t/a add 1", "t/b poke t/a", "t/a add 1"] {
        rig.send(&[text]).await;
        rig.caught_up().await;
    }
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.outputs(), ["t/a=1", "t/a=78"]);
}

#[tokio::test]
async fn a_dropped_batch_takes_the_cache_with_it() {
    let rig = Rig::new();
    let task = rig.start();
    rig.send(&["t/a add 1"]).await;
    rig.caught_up().await;
    rig.send(&["t/b fail"]).await;
    rig.caught_up().await;
    let before = rig.store.rows_read();
    rig.send(&["t/a add 1"]).await;
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.store.rows_read(), before + 1);
    assert_eq!(rig.outputs(), ["t/a=1", "t/a=2"]);
}

#[tokio::test]
async fn a_deleted_row_is_absent_for_the_next_record() {
    let rig = Rig::new();
    rig.send(&["t/a add 5", "t/a drop", "t/a add 1", "t/b add 1", "t/b drop"]).await;
    let task = rig.start();
    rig.caught_up().await;
    rig.send(&["t/b add 2"]).await;
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    assert_eq!(rig.outputs(), ["t/a=5", "t/a=1", "t/b=1", "t/b=2"]);
}

#[tokio::test]
async fn outputs_carry_cloudevents_headers_and_the_trace() {
    let rig = Rig::new();
    rig.send(&["t/a add 5"]).await;
    let task = rig.start();
    rig.caught_up().await;
    rig.stopped(task).await.unwrap();
    let record = &rig.store.records(Topic::OrderEvents, 0)[0];
    let find = |name| headers::find(&record.headers, name).unwrap();
    assert_eq!(find(headers::CE_ID).len(), 24);
    assert_eq!(find(headers::CE_TYPE), "order.priced");
    assert_eq!(find(headers::CE_SOURCE), "tillstream/order");
    assert_eq!(find(headers::CE_SPECVERSION), "1.0");
    assert_eq!(find(headers::CONTENT_TYPE), "application/avro");
    assert_eq!(find(headers::TRACEPARENT), "00-trace");
    assert_eq!(&record.key[..], b"t/a");
}

#[tokio::test]
async fn progress_and_lag_follow_the_commits() {
    let rig = Rig::new();
    rig.send(&["t/a add 5", "t/a add 5"]).await;
    assert!(!rig.progress.caught_up_with(&[(id(), 0)]), "a task that has not started is not caught up");
    rig.store.close_gate();
    let task = rig.start();
    rig.store.commit_waits().await;
    assert!(rig.progress.caught_up_with(&[(id(), 0)]));
    assert!(!rig.progress.caught_up_with(&[(id(), 2)]));
    rig.progress.export(&*rig.store, &rig.metrics).unwrap();
    assert_eq!(rig.metrics.lag_records.with_label_values(&["order", "0"]).get(), 2);
    rig.store.open_gate();
    rig.caught_up().await;
    rig.progress.export(&*rig.store, &rig.metrics).unwrap();
    assert_eq!(rig.metrics.lag_records.with_label_values(&["order", "0"]).get(), 0);
    assert_eq!(rig.progress.statuses(&*rig.store).unwrap()[0].committed, Some(2));
    rig.stopped(task).await.unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Add(u8, i64),
    Fail(u8),
    BadEnd(u8),
    Garbage,
    Timer(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4_u8, 1..100_i64).prop_map(|(key, by)| Op::Add(key, by)),
        1 => (0..4_u8).prop_map(Op::Fail),
        1 => (0..4_u8).prop_map(Op::BadEnd),
        1 => Just(Op::Garbage),
        1 => (0..4_u8).prop_map(Op::Timer),
    ]
}

fn fate() -> impl Strategy<Value = Option<Fail>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Fail::Before(io()))),
        1 => Just(Some(Fail::After(io()))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever the batches, the poison and the failing commits: each input counts once, or is one letter.
    #[test]
    fn every_input_counts_once_or_is_dead_lettered_once(
        ops in prop::collection::vec(op(), 1..60),
        script in prop::collection::vec(fate(), 0..40),
        records_max in 1..12_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::new();
            rig.settings.records_max = records_max;
            rig.store.script(script);
            let mut sums = BTreeMap::<u8, i64>::new();
            let mut bad = Vec::new();
            let mut timers = BTreeSet::new();
            for (offset, op) in ops.iter().enumerate() {
                let text = match op {
                    Op::Add(key, by) => { *sums.entry(*key).or_default() += by; format!("t/k{key} add {by}") }
                    Op::Fail(key) => { bad.push(offset as i64); format!("t/k{key} fail") }
                    Op::BadEnd(key) => { bad.push(offset as i64); format!("t/k{key} badend") }
                    Op::Garbage => { bad.push(offset as i64); "garbage".to_owned() }
                    // Due far ahead: each fires once, whenever the clock gets there.
                    Op::Timer(key) => { timers.insert(*key); format!("t/k{key} timer 1001000") }
                };
                rig.send(&[&text]).await;
            }
            timers.iter().for_each(|key| *sums.entry(*key).or_default() += 1_000);
            let task = rig.start();
            rig.caught_up().await;
            rig.clock.advance(2_000);
            // Restarts and timers alike are driven by the clock.
            support::soon("the timers", async {
                while !rig.store.timers().is_empty() {
                    rig.clock.advance(1_000);
                    tokio::task::yield_now().await;
                }
            }).await;
            rig.stopped(task).await.unwrap();
            let mut found: Vec<i64> = rig.letters().iter().map(|it| it.offset).collect();
            found.sort_unstable();
            assert_eq!(found, bad);
            for (key, sum) in sums {
                assert_eq!(rig.store.row(Table::Order, &format!("t/k{key}")), Some(sum.to_string()));
            }
            assert!(rig.store.timers().is_empty());
        });
    }
}
