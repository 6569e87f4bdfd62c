//! What every state promises.

use crate::{ORDER_0, commit_of, keys_of, put_rows, row, row_key};
use bytes::Bytes;
use std::sync::Arc;
use tillstream_log::Log;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, Table, TimerName};
use tillstream_state::{Commit, Page, State, TaskId, Timer};

/// Runs every case on a store of its own.
pub async fn state_suite<S: Log + State + Commit>(make: impl AsyncFn() -> Arc<S>) {
    an_empty_store_has_no_rows_timers_or_offsets(&*make().await).await;
    rows_are_written_rewritten_and_deleted(&*make().await).await;
    tables_do_not_mix(&*make().await).await;
    a_scan_pages_through_a_prefix_in_key_order(&*make().await).await;
    timers_are_due_in_order_within_both_bounds(&*make().await).await;
    a_timer_moves_and_goes(&*make().await).await;
    a_timer_removed_and_set_in_one_commit_is_set(&*make().await).await;
}

fn timer(due_ms: i64, key: &str, name: TimerName) -> Timer {
    Timer { due_ms, key: Key::new(key), name }
}

async fn an_empty_store_has_no_rows_timers_or_offsets(store: &impl State) {
    assert_eq!(store.get_many(&[]).await, Ok(Vec::new()));
    assert_eq!(store.get_many(&[row_key(Table::Order, "demo/a")]).await, Ok(vec![None]));
    for table in Table::ALL {
        assert_eq!(store.scan(table, "", None, 10).await, Ok(Page::default()));
    }
    assert_eq!(store.timers_due(ORDER_0, 0, i64::MAX, 10).await, Ok(Vec::new()));
    assert_eq!(store.committed(ORDER_0).await, Ok(0));
}

async fn rows_are_written_rewritten_and_deleted<S: Log + State + Commit>(store: &S) {
    let names: Vec<String> = keys_of(store, ORDER_0, Table::Order, "demo/ord_").take(4).collect();
    let [a, b, _, never_there] = &names[..] else { unreachable!("four were taken") };
    let keys = [0, 1, 2].map(|it| row_key(Table::Order, &names[it]));
    let mut first = commit_of(ORDER_0, 0, 1);
    first.rows = vec![row(Table::Order, a, "1"), row(Table::Order, b, "")];
    store.commit(first).await.unwrap();
    let expected = vec![Some(Bytes::from_static(b"1")), Some(Bytes::new()), None];
    assert_eq!(store.get_many(&keys).await, Ok(expected), "an empty value is a row, too");
    let mut second = commit_of(ORDER_0, 1, 2);
    second.rows = vec![row(Table::Order, a, "2"), (row_key(Table::Order, b), None)];
    second.rows.push((row_key(Table::Order, never_there), None));
    store.commit(second).await.unwrap();
    assert_eq!(store.get_many(&keys).await, Ok(vec![Some(Bytes::from_static(b"2")), None, None]));
    let back_to_front: Vec<_> = keys.iter().rev().cloned().collect();
    let expected = vec![None, None, Some(Bytes::from_static(b"2"))];
    assert_eq!(store.get_many(&back_to_front).await, Ok(expected), "rows come in the order of the keys");
    let page = store.scan(Table::Order, "demo/", None, 10).await.unwrap();
    assert_eq!(page, Page { rows: vec![(Key::new(a), Bytes::from_static(b"2"))], more: false });
}

async fn tables_do_not_mix<S: Log + State + Commit>(store: &S) {
    let rows = Table::ALL.into_iter().map(|table| row(table, "demo/same", table.name())).collect();
    put_rows(store, rows).await;
    for table in Table::ALL {
        let page = store.scan(table, "demo/", None, 10).await.unwrap();
        let expected = vec![(Key::new("demo/same"), Bytes::from_static(table.name().as_bytes()))];
        assert_eq!(page, Page { rows: expected, more: false });
    }
}

/// Prefix, after, limit; the keys expected, and whether there are more.
type Scan<'a> = (&'a str, Option<&'a str>, usize, &'a [&'a str], bool);

async fn a_scan_pages_through_a_prefix_in_key_order<S: Log + State + Commit>(store: &S) {
    let keys = ["a", "demo", "demo/", "demo/1", "demo/10", "demo/2", "demo/é", "demo0", "z"];
    put_rows(store, keys.iter().rev().map(|key| row(Table::Product, key, key)).collect()).await;
    let cases: [Scan<'_>; 9] = [
        ("demo/", None, 10, &["demo/", "demo/1", "demo/10", "demo/2", "demo/é"], false),
        ("demo/", None, 2, &["demo/", "demo/1"], true),
        ("demo/", Some("demo/1"), 2, &["demo/10", "demo/2"], true),
        ("demo/", Some("demo/10"), 2, &["demo/2", "demo/é"], false),
        ("demo/", Some("demo/é"), 2, &[], false),
        ("demo/", Some("z"), 2, &[], false),
        ("demo/", Some("a"), 1, &["demo/"], true),
        ("demo/", Some("demo/15"), 9, &["demo/2", "demo/é"], false),
        ("", None, 100, &keys, false),
    ];
    for (prefix, after, limit, expected, more) in cases {
        let page = store.scan(Table::Product, prefix, after, limit).await.unwrap();
        let found: Vec<_> = page.rows.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!((found.as_slice(), page.more), (expected, more), "{prefix:?} after {after:?}, {limit}");
        assert!(page.rows.iter().all(|(key, value)| key.as_bytes() == &value[..]));
    }
}

async fn timers_are_due_in_order_within_both_bounds<S: Log + State + Commit>(store: &S) {
    let other = TaskId { kind: TaskKind::Item, partition: 0 };
    let neighbour = TaskId { kind: TaskKind::Order, partition: 1 };
    let all = [
        timer(100, "demo/a", TimerName::HoldExpiry),
        timer(100, "demo/a", TimerName::PaymentRetry),
        timer(100, "demo/b", TimerName::PaymentRetry),
        timer(200, "demo/a", TimerName::HoldExpiry),
        timer(i64::MAX, "demo/z", TimerName::HoldExpiry),
    ];
    for task in [ORDER_0, other, neighbour] {
        let mut commit = commit_of(task, 0, 1);
        commit.timers_set =
            if task == ORDER_0 { all.to_vec() } else { vec![timer(150, "x", TimerName::HoldExpiry)] };
        store.commit(commit).await.unwrap();
    }
    let cases: [(i64, i64, usize, &[Timer]); 9] = [
        (0, 99, 10, &[]),
        (0, 100, 10, &all[..3]),
        (100, 100, 10, &all[..3]),
        (100, 100, 2, &all[..2]),
        (101, 200, 10, &all[3..4]),
        (0, 1_000, 10, &all[..4]),
        (-5, 1_000, 10, &all[..4]),
        (i64::MIN, -1, 10, &[]),
        (300, 200, 10, &[]),
    ];
    for (from, until, limit, expected) in cases {
        let found = store.timers_due(ORDER_0, from, until, limit).await.unwrap();
        assert_eq!(found, expected, "{from}..={until}, {limit}");
    }
}

async fn a_timer_moves_and_goes<S: Log + State + Commit>(store: &S) {
    let (early, late) =
        (timer(100, "demo/a", TimerName::HoldExpiry), timer(900, "demo/a", TimerName::HoldExpiry));
    let mut set = commit_of(ORDER_0, 0, 1);
    set.timers_set = vec![early.clone()];
    store.commit(set).await.unwrap();
    let mut moved = commit_of(ORDER_0, 1, 2);
    moved.timers_removed = vec![early];
    moved.timers_set = vec![late.clone()];
    store.commit(moved).await.unwrap();
    assert_eq!(store.timers_due(ORDER_0, 0, 1_000, 10).await, Ok(vec![late.clone()]));
    let mut fired = commit_of(ORDER_0, 2, 2);
    fired.timers_removed = vec![late];
    store.commit(fired).await.unwrap();
    assert_eq!(store.timers_due(ORDER_0, 0, 1_000, 10).await, Ok(Vec::new()));
}

async fn a_timer_removed_and_set_in_one_commit_is_set<S: Log + State + Commit>(store: &S) {
    let same = timer(100, "demo/a", TimerName::HoldExpiry);
    for offset in 0..2 {
        let mut commit = commit_of(ORDER_0, offset, offset + 1);
        commit.timers_removed = vec![same.clone()];
        commit.timers_set = vec![same.clone()];
        store.commit(commit).await.unwrap();
        assert_eq!(store.timers_due(ORDER_0, 0, 1_000, 10).await, Ok(vec![same.clone()]));
    }
}
