//! What every store of rows promises the write-behind protocol.

use crate::{ORDER_0, row_key};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table, TimerName};
use tillstream_state::layout::shard_of;
use tillstream_state::row_store::{Checkpoint, Deployment, RowStore, RowWrite, StateKey, StoredRow};
use tillstream_state::{Page, TaskId, Timer};

/// Partitions of a store under test.
pub const ROW_PARTITIONS: u32 = 4;
/// Buckets per shard of a store under test.
pub const ROW_BUCKETS: u32 = 8;

const HOUR_MS: i64 = 3_600_000;
/// 2026-11-21, at the full hour.
const TODAY_MS: i64 = 1_795_255_200_000;

/// Runs every case on a store of its own, which must have [`ROW_PARTITIONS`] and [`ROW_BUCKETS`].
pub async fn row_store_suite<S: RowStore>(make: impl AsyncFn() -> Arc<S>) {
    an_empty_store_holds_nothing(&*make().await).await;
    rows_come_in_the_order_of_the_keys(&*make().await).await;
    the_newest_timestamp_wins_whichever_comes_last(&*make().await).await;
    many_and_large_rows_are_written_at_once(&*make().await).await;
    scans_and_walks_are_as_a_model_says(&*make().await).await;
    timers_are_due_in_order_within_both_bounds(&*make().await).await;
    timers_are_found_however_far_apart(&*make().await).await;
    checkpoints_move_and_an_older_one_loses(&*make().await).await;
    notes_of_flushes_move_and_an_older_one_loses(&*make().await).await;
    a_checkpoint_marks_the_tables_of_its_kind(&*make().await).await;
    the_first_to_claim_wins(&*make().await).await;
    truncation_leaves_only_the_deployment(&*make().await).await;
    nodes_tell_the_same_start_while_they_run(&*make().await).await;
}

fn task(kind: TaskKind, partition: u32) -> TaskId {
    TaskId { kind, partition }
}

fn timer(due_ms: i64, key: &str, name: TimerName) -> Timer {
    Timer { due_ms, key: Key::new(key), name }
}

fn put(table: Table, key: &str, value: &str, timestamp: i64) -> RowWrite {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    RowWrite { key: StateKey::Row(row_key(table, key)), value, timestamp }
}

fn delete(table: Table, key: &str, timestamp: i64) -> RowWrite {
    RowWrite { key: StateKey::Row(row_key(table, key)), value: None, timestamp }
}

fn set(timer: &Timer, timestamp: i64) -> RowWrite {
    RowWrite { key: StateKey::Timer(timer.clone()), value: Some(Bytes::new()), timestamp }
}

fn clear(timer: &Timer, timestamp: i64) -> RowWrite {
    RowWrite { key: StateKey::Timer(timer.clone()), value: None, timestamp }
}

fn stored(value: &str, timestamp: i64) -> Option<StoredRow> {
    Some(StoredRow { value: Bytes::copy_from_slice(value.as_bytes()), timestamp })
}

/// A fixed course of numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

async fn an_empty_store_holds_nothing(store: &impl RowStore) {
    assert_eq!(store.get_many(&[]).await, Ok(Vec::new()));
    assert_eq!(store.write(ORDER_0, &[]).await, Ok(()));
    for table in Table::ALL {
        assert_eq!(store.get_many(&[row_key(table, "demo/a")]).await, Ok(vec![None]));
        assert_eq!(store.scan(table, "", None, 10).await, Ok(Page::default()));
        let page = store.shard_page(table, 0, None, 10).await.unwrap();
        assert!(page.rows.is_empty() && page.next.is_none(), "{table:?}: {page:?}");
    }
    assert_eq!(store.timers(ORDER_0, 0, i64::MAX, 10).await, Ok(Vec::new()));
    assert_eq!(store.checkpoint(ORDER_0).await, Ok(None));
    assert_eq!(store.flushed(TaskKind::Order).await, Ok(BTreeMap::new()));
    assert_eq!(store.marked_tables(ORDER_0).await, Ok(Vec::new()));
    assert_eq!(store.deployment().await, Ok(None));
}

async fn rows_come_in_the_order_of_the_keys(store: &impl RowStore) {
    let mut writes: Vec<RowWrite> =
        (0..50).map(|n| put(Table::Order, &format!("demo/{n}"), &n.to_string(), n)).collect();
    writes.push(put(Table::Order, "demo/empty", "", 7));
    writes.extend(Table::ALL.map(|table| put(table, "demo/same", table.name(), 8)));
    store.write(ORDER_0, &writes).await.unwrap();
    let mut keys = Vec::new();
    let mut expected = Vec::new();
    for n in [7, 3, 49, 7, 0, 12, 7] {
        keys.push(row_key(Table::Order, &format!("demo/{n}")));
        expected.push(stored(&n.to_string(), n));
    }
    for table in Table::ALL {
        keys.push(row_key(table, "demo/same"));
        expected.push(stored(table.name(), 8));
    }
    for (key, found) in [("demo/nowhere", None), ("demo/empty", stored("", 7)), ("demo/nowhere", None)] {
        keys.push(row_key(Table::Order, key));
        expected.push(found);
    }
    assert_eq!(store.get_many(&keys).await, Ok(expected));
}

async fn the_newest_timestamp_wins_whichever_comes_last(store: &impl RowStore) {
    let keys: Vec<RowKey> =
        ["demo/a", "demo/b", "demo/c", "demo/d", "demo/e"].map(|it| row_key(Table::Stock, it)).into();
    let item = task(TaskKind::Item, 0);
    let old_timer = timer(TODAY_MS, "demo/a/adj_1", TimerName::ForgetAdjustment);
    let new_timer = timer(TODAY_MS + 1, "demo/a/adj_2", TimerName::ForgetAdjustment);
    let new = [
        put(Table::Stock, "demo/a", "new", 20),
        delete(Table::Stock, "demo/b", 20),
        put(Table::Stock, "demo/c", "new", 20),
        clear(&old_timer, 20),
        set(&new_timer, 20),
    ];
    let old = [
        put(Table::Stock, "demo/a", "old", 10),
        put(Table::Stock, "demo/b", "old", 10),
        delete(Table::Stock, "demo/c", 10),
        set(&old_timer, 10),
        clear(&new_timer, 10),
    ];
    // In one call, too, in either order.
    let both = [
        put(Table::Stock, "demo/d", "new", 20),
        put(Table::Stock, "demo/d", "old", 10),
        delete(Table::Stock, "demo/e", 10),
        put(Table::Stock, "demo/e", "new", 20),
    ];
    for writes in [&new[..], &old, &both] {
        store.write(item, writes).await.unwrap();
    }
    let expected = vec![stored("new", 20), None, stored("new", 20), stored("new", 20), stored("new", 20)];
    assert_eq!(store.get_many(&keys).await, Ok(expected));
    assert_eq!(store.timers(item, 0, TODAY_MS + HOUR_MS, 10).await, Ok(vec![(new_timer.clone(), 20)]));
    let newest = [
        delete(Table::Stock, "demo/a", 30),
        put(Table::Stock, "demo/b", "newest", 30),
        set(&old_timer, 30),
        clear(&new_timer, 30),
    ];
    store.write(item, &newest).await.unwrap();
    let found = store.get_many(&keys[..2]).await;
    assert_eq!(
        found,
        Ok(vec![None, stored("newest", 30)]),
        "a deleted row comes back when it is written anew"
    );
    assert_eq!(store.timers(item, 0, TODAY_MS + HOUR_MS, 10).await, Ok(vec![(old_timer, 30)]));
}

async fn many_and_large_rows_are_written_at_once(store: &impl RowStore) {
    // Windows of one tenant lie in one partition of the database: far more than goes into one batch.
    let large = "x".repeat(300_000);
    let middle = "y".repeat(10_000);
    let mut writes = vec![put(Table::Window, "demo/large", &large, 1)];
    writes.extend((0..30).map(|n| put(Table::Window, &format!("demo/middle/{n:03}"), &middle, 2)));
    writes.extend((0..700).map(|n| put(Table::Window, &format!("demo/small/{n:03}"), &n.to_string(), 3)));
    store.write(task(TaskKind::Analytics, 0), &writes).await.unwrap();
    let keys: Vec<RowKey> = writes
        .iter()
        .map(|write| match &write.key {
            StateKey::Row(row) => row.clone(),
            StateKey::Timer(_) => unreachable!(),
        })
        .collect();
    let found = store.get_many(&keys).await.unwrap();
    for (write, row) in writes.iter().zip(found) {
        let row = row.unwrap_or_else(|| panic!("{:?} is not there", write.key));
        assert!(
            Some(&row.value) == write.value.as_ref() && row.timestamp == write.timestamp,
            "{:?}",
            write.key
        );
    }
}

/// Keys of the forms that tables have, of several tenants, one of them the beginning of another.
fn some_row(numbers: &mut Numbers) -> RowKey {
    let tenant = ["demo", "demo2", "d", "zürich"][numbers.below(4) as usize];
    let (a, b) = (numbers.below(30), numbers.below(40));
    match numbers.below(5) {
        0 => row_key(Table::Order, &format!("{tenant}/ord_{:03}", a * 40 + b)),
        1 => row_key(Table::OrderIndex, &format!("{tenant}/{:016x}/ord_{b}", u64::MAX / 2 - a)),
        2 => row_key(Table::Hold, &format!("{tenant}/sku-{a}/ord_{b}")),
        3 => row_key(Table::Window, &format!("{tenant}/m/{a:04}/GBP/é{b}")),
        _ => row_key(Table::Product, &format!("{tenant}/sku-{a}")),
    }
}

async fn scans_and_walks_are_as_a_model_says(store: &impl RowStore) {
    let mut numbers = Numbers(42);
    let mut model: BTreeMap<RowKey, StoredRow> = BTreeMap::new();
    for round in 0..4_i64 {
        let mut writes: BTreeMap<RowKey, RowWrite> = BTreeMap::new();
        for n in 0..400 {
            let row = some_row(&mut numbers);
            let timestamp = round * 1_000 + n;
            let value = (numbers.below(5) > 0).then(|| Bytes::from(timestamp.to_string()));
            match &value {
                Some(value) => model.insert(row.clone(), StoredRow { value: value.clone(), timestamp }),
                None => model.remove(&row),
            };
            writes.insert(row.clone(), RowWrite { key: StateKey::Row(row), value, timestamp });
        }
        let writes: Vec<RowWrite> = writes.into_values().collect();
        store.write(ORDER_0, &writes).await.unwrap();
    }
    let tables = [Table::Order, Table::OrderIndex, Table::Hold, Table::Window, Table::Product, Table::Stock];
    for table in tables {
        for prefix in
            ["", "d", "demo/", "demo2/", "demo/sku-1", "demo/m/0012/", "zürich/", "nobody/", "demo/ord_01"]
        {
            pages_are_as_the_model_says(store, &model, &mut numbers, table, prefix).await;
        }
        walks_are_as_the_model_says(store, &model, table).await;
    }
}

async fn pages_are_as_the_model_says(
    store: &impl RowStore,
    model: &BTreeMap<RowKey, StoredRow>,
    numbers: &mut Numbers,
    table: Table,
    prefix: &str,
) {
    let all: Vec<(Key, Bytes)> = model
        .iter()
        .filter(|(row, _)| row.table == table && row.key.starts_with(prefix))
        .map(|(row, it)| (row.key.clone(), it.value.clone()))
        .collect();
    let limit = [1_000, 1 + numbers.below(60) as usize][numbers.below(2) as usize];
    let mut after: Option<Key> = None;
    let mut seen = Vec::new();
    loop {
        let page = store.scan(table, prefix, after.as_deref(), limit).await.unwrap();
        assert!(page.rows.len() <= limit, "{table:?} {prefix:?}: {} rows", page.rows.len());
        seen.extend(page.rows);
        assert_eq!(page.more, seen.len() < all.len(), "{table:?} {prefix:?} after {after:?}, limit {limit}");
        if !page.more {
            break;
        }
        after = seen.last().map(|(key, _)| key.clone());
    }
    assert_eq!(seen, all, "{table:?} {prefix:?}, limit {limit}");
    // From a place where there may be no row; before and behind all of them.
    for after in ["", "c", "demo/sku-15", "zzz"] {
        let expected: Vec<_> = all.iter().filter(|(key, _)| key.as_str() > after).cloned().collect();
        let page = store.scan(table, prefix, Some(after), 10_000).await.unwrap();
        assert_eq!(page, Page { rows: expected, more: false }, "{table:?} {prefix:?} after {after:?}");
    }
}

async fn walks_are_as_the_model_says(
    store: &impl RowStore,
    model: &BTreeMap<RowKey, StoredRow>,
    table: Table,
) {
    for limit in [7, 10_000] {
        for partition in 0..ROW_PARTITIONS {
            let mut seen = BTreeMap::new();
            let mut from = None;
            loop {
                let page = store.shard_page(table, partition, from.as_ref(), limit).await.unwrap();
                assert!(page.rows.len() <= limit);
                for (key, row) in page.rows {
                    assert_eq!(seen.insert(RowKey::new(table, key.clone()), row), None, "{key} came twice");
                }
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
            let expected: BTreeMap<_, _> = model
                .iter()
                .filter(|(row, _)| row.table == table && shard_of(row, ROW_PARTITIONS) == partition)
                .map(|(row, it)| (row.clone(), it.clone()))
                .collect();
            assert_eq!(seen, expected, "{table:?}[{partition}], limit {limit}");
            let mut keys = BTreeSet::new();
            loop {
                let page = store.shard_keys(table, partition, from.as_ref(), limit).await.unwrap();
                assert!(page.keys.len() <= limit);
                for key in page.keys {
                    assert!(keys.insert(RowKey::new(table, key.clone())), "{key} came twice");
                }
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
            assert!(keys.iter().eq(expected.keys()), "keys of {table:?}[{partition}], limit {limit}");
        }
    }
}

async fn timers_are_due_in_order_within_both_bounds(store: &impl RowStore) {
    let mut timers = Vec::new();
    // Over four hours, at their edges, and several at one moment.
    for hour in 0..4 {
        for ms in [0, 1, HOUR_MS / 2, HOUR_MS - 1] {
            for (key, name) in [
                ("demo/a", TimerName::HoldExpiry),
                ("demo/a", TimerName::PaymentRetry),
                ("demo/b", TimerName::HoldExpiry),
            ] {
                timers.push(timer(TODAY_MS + hour * HOUR_MS + ms, key, name));
            }
        }
    }
    let mut writes: Vec<RowWrite> =
        timers.iter().enumerate().map(|(at, it)| set(it, at as i64 + 1)).collect();
    writes.reverse();
    store.write(ORDER_0, &writes).await.unwrap();
    // Of other tasks.
    for other in [task(TaskKind::Order, 1), task(TaskKind::Item, 0)] {
        store.write(other, &[set(&timer(TODAY_MS, "demo/other", TimerName::HoldExpiry), 99)]).await.unwrap();
    }
    let end = TODAY_MS + 4 * HOUR_MS;
    let bounds = [
        (0, end, usize::MAX),
        (TODAY_MS, TODAY_MS, 100),
        (TODAY_MS + 1, TODAY_MS + HOUR_MS, 100),
        (TODAY_MS + HOUR_MS - 1, TODAY_MS + HOUR_MS, 100),
        (TODAY_MS, end, 6),
        (TODAY_MS + 2 * HOUR_MS, end, 13),
        (end, end + HOUR_MS, 10),
        (end, TODAY_MS, 10),
        (0, end, 0),
    ];
    for (from_ms, until_ms, limit) in bounds {
        let found = store.timers(ORDER_0, from_ms, until_ms, limit).await.unwrap();
        let due: Vec<usize> =
            (0..timers.len()).filter(|at| (from_ms..=until_ms).contains(&timers[*at].due_ms)).collect();
        let what = format!("{from_ms}..={until_ms}, limit {limit}");
        assert_eq!(found.len(), due.len().min(limit), "{what}");
        assert!(found.windows(2).all(|it| it[0].0.due_ms <= it[1].0.due_ms), "{what}: {found:?}");
        let seen: BTreeSet<&Timer> = found.iter().map(|(timer, _)| timer).collect();
        assert_eq!(seen.len(), found.len(), "{what}: none comes twice");
        for (timer, timestamp) in &found {
            let at = timers.iter().position(|it| it == timer).unwrap();
            assert!(due.contains(&at) && *timestamp == at as i64 + 1, "{what}: {timer:?} {timestamp}");
        }
        // The earliest are kept.
        assert_eq!(
            found.last().map(|it| it.0.due_ms),
            due.get(..found.len()).and_then(|it| it.last()).map(|it| timers[*it].due_ms)
        );
    }
    store.write(ORDER_0, &[clear(&timers[0], 1_000)]).await.unwrap();
    let found = store.timers(ORDER_0, TODAY_MS, TODAY_MS, 10).await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
}

async fn timers_are_found_however_far_apart(store: &impl RowStore) {
    let dues = [1, TODAY_MS - 400 * 24 * HOUR_MS, TODAY_MS, TODAY_MS + 5_000 * 24 * HOUR_MS];
    let timers: Vec<Timer> = dues.iter().map(|due| timer(*due, "demo/a", TimerName::HoldExpiry)).collect();
    let writes: Vec<RowWrite> = timers.iter().map(|it| set(it, 5)).collect();
    store.write(ORDER_0, &writes).await.unwrap();
    let due = async |from_ms, until_ms, limit| -> Vec<Timer> {
        let found = store.timers(ORDER_0, from_ms, until_ms, limit).await.unwrap();
        found.into_iter().map(|(timer, _)| timer).collect()
    };
    assert_eq!(due(0, i64::MAX, 10).await, timers);
    assert_eq!(due(0, i64::MAX, 2).await, timers[..2]);
    assert_eq!(due(2, TODAY_MS, 10).await, timers[1..3]);
    assert_eq!(due(TODAY_MS + 1, i64::MAX, 10).await, timers[3..]);
    store.write(ORDER_0, &[clear(&timers[1], 6)]).await.unwrap();
    assert_eq!(due(0, TODAY_MS, 10).await, [timers[0].clone(), timers[2].clone()]);
}

async fn checkpoints_move_and_an_older_one_loses(store: &impl RowStore) {
    let first = Checkpoint { generation: 1, offset: 10, timers_from_ms: TODAY_MS };
    let second = Checkpoint { generation: 2, offset: 4, timers_from_ms: 0 };
    store.put_checkpoint(ORDER_0, first, 10).await.unwrap();
    assert_eq!(store.checkpoint(ORDER_0).await, Ok(Some(first)));
    assert_eq!(store.checkpoint(task(TaskKind::Order, 1)).await, Ok(None));
    assert_eq!(store.checkpoint(task(TaskKind::Item, 0)).await, Ok(None));
    store.put_checkpoint(ORDER_0, second, 20).await.unwrap();
    store.put_checkpoint(ORDER_0, first, 15).await.unwrap();
    assert_eq!(store.checkpoint(ORDER_0).await, Ok(Some(second)));
}

async fn notes_of_flushes_move_and_an_older_one_loses(store: &impl RowStore) {
    for (partition, offset, timestamp) in [(0, 10, 10), (1, 7, 7), (0, 20, 20), (0, 15, 15)] {
        store.put_flushed(task(TaskKind::Order, partition), offset, timestamp).await.unwrap();
    }
    store.put_flushed(task(TaskKind::Item, 2), 3, 3).await.unwrap();
    assert_eq!(store.flushed(TaskKind::Order).await, Ok(BTreeMap::from([(0, 20), (1, 7)])));
    assert_eq!(store.flushed(TaskKind::Item).await, Ok(BTreeMap::from([(2, 3)])));
    assert_eq!(store.flushed(TaskKind::Analytics).await, Ok(BTreeMap::new()));
}

async fn a_checkpoint_marks_the_tables_of_its_kind(store: &impl RowStore) {
    let checkpoint = Checkpoint { generation: 1, offset: 10, timers_from_ms: 0 };
    let item = task(TaskKind::Item, 1);
    store.put_checkpoint(item, checkpoint, 10).await.unwrap();
    let marked =
        async |task| -> BTreeSet<Table> { store.marked_tables(task).await.unwrap().into_iter().collect() };
    let own: BTreeSet<Table> = Table::ALL.into_iter().filter(|it| it.kind() == TaskKind::Item).collect();
    assert_eq!(marked(item).await, own);
    assert_eq!(marked(task(TaskKind::Item, 0)).await, BTreeSet::new());
    // A mark is no row and no timer.
    for table in Table::ALL {
        assert_eq!(store.scan(table, "", None, 10).await, Ok(Page::default()));
        assert!(store.shard_page(table, 1, None, 10).await.unwrap().rows.is_empty());
    }
    assert_eq!(store.timers(item, 0, i64::MAX, 10).await, Ok(Vec::new()));
    store.truncate().await.unwrap();
    assert_eq!(marked(item).await, BTreeSet::new());
    // As a rebuild does: not newer than what was there before.
    store.put_checkpoint(item, checkpoint, 10).await.unwrap();
    assert_eq!(marked(item).await, own);
}

fn deployment(name: &str) -> Deployment {
    let (name, cluster_id) = (Text::new(name), Text::new("cluster"));
    Deployment { name, cluster_id, partitions: ROW_PARTITIONS, buckets: ROW_BUCKETS, rebuilding: false }
}

async fn the_first_to_claim_wins(store: &impl RowStore) {
    let names = ["a", "b", "c", "d"];
    let told = futures::future::join_all(names.map(|name| store.claim(deployment(name)))).await;
    let winner = told[0].clone().unwrap();
    assert!(names.map(deployment).contains(&winner), "{winner:?}");
    for told in told {
        assert_eq!(told, Ok(winner.clone()));
    }
    assert_eq!(store.claim(deployment("late")).await, Ok(winner.clone()));
    assert_eq!(store.deployment().await, Ok(Some(winner.clone())));
    for rebuilding in [true, false] {
        store.set_rebuilding(rebuilding).await.unwrap();
        assert_eq!(store.deployment().await, Ok(Some(Deployment { rebuilding, ..winner.clone() })));
    }
}

async fn truncation_leaves_only_the_deployment(store: &impl RowStore) {
    let claimed = store.claim(deployment("a")).await.unwrap();
    let due = timer(TODAY_MS, "demo/a", TimerName::HoldExpiry);
    let mut writes: Vec<RowWrite> = Table::ALL.map(|table| put(table, "demo/a", "1", 10)).into();
    writes.push(set(&due, 10));
    store.write(ORDER_0, &writes).await.unwrap();
    let checkpoint = Checkpoint { generation: 1, offset: 10, timers_from_ms: 0 };
    store.put_checkpoint(ORDER_0, checkpoint, 10).await.unwrap();
    store.put_flushed(ORDER_0, 5, 10).await.unwrap();
    store.truncate().await.unwrap();
    let keys = Table::ALL.map(|table| row_key(table, "demo/a"));
    assert_eq!(store.get_many(&keys).await, Ok(vec![None; keys.len()]));
    assert_eq!(store.timers(ORDER_0, 0, i64::MAX, 10).await, Ok(Vec::new()));
    assert_eq!(store.checkpoint(ORDER_0).await, Ok(None));
    assert_eq!(store.flushed(TaskKind::Order).await, Ok(BTreeMap::new()));
    assert_eq!(store.marked_tables(ORDER_0).await, Ok(Vec::new()));
    assert_eq!(store.deployment().await, Ok(Some(claimed)));
    // A rebuild writes the same again, with the same timestamps.
    store.write(ORDER_0, &writes).await.unwrap();
    let found = store.get_many(&keys).await.unwrap();
    assert!(found.iter().all(|it| *it == stored("1", 10)), "{found:?}");
    assert_eq!(store.timers(ORDER_0, 0, i64::MAX, 10).await, Ok(vec![(due, 10)]));
}

async fn nodes_tell_the_same_start_while_they_run(store: &impl RowStore) {
    let nodes = store.incarnations().await.unwrap();
    assert!(!nodes.is_empty() && nodes.values().all(Option::is_some), "{nodes:?}");
    assert_eq!(store.incarnations().await, Ok(nodes));
}
