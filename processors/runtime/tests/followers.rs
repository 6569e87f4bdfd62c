//! The catalog cache and the event hub.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(dead_code, reason = "not every test file uses all of the support")]

mod support;

use std::sync::Arc;
use std::time::Duration;
use support::{Rig, record, soon};
use tillstream_log::Log;
use tillstream_runtime::{
    CatalogCache, CatalogPorts, CatalogSettings, Clock, RuntimeError, StoreBehind, Subscriptions,
};
use tillstream_schemas::item::ProductState;
use tillstream_schemas::order_event::{OrderCompleted, OrderEvent};
use tillstream_schemas::{Topic, codec};
use tillstream_stage::Table;
use tokio::task::JoinHandle;

fn product(sku: &str, version: i64) -> Vec<u8> {
    let command_id = format!("cmd{version}").into();
    let product =
        ProductState { tenant: "t".into(), sku: sku.into(), version, command_id, ..ProductState::default() };
    codec::encode(&product).unwrap()
}

async fn publish(rig: &Rig, sku: &str, version: i64) {
    let record = record(Topic::Products, &format!("t/{sku}"), product(sku, version));
    rig.store.append(vec![record]).await.unwrap();
}

fn catalog(rig: &Rig, entries_max: usize) -> Arc<CatalogCache> {
    catalog_with(rig, CatalogSettings { entries_max, behind: None })
}

const DURABLE_AFTER: Duration = Duration::from_secs(4);

/// One whose rows follow the log later: when the test says so.
fn behind(rig: &Rig, entries_max: usize, notes_max: usize) -> Arc<CatalogCache> {
    let behind = Some(StoreBehind { replay_records: 1_000, notes_max, durable_after: DURABLE_AFTER });
    catalog_with(rig, CatalogSettings { entries_max, behind })
}

fn catalog_with(rig: &Rig, settings: CatalogSettings) -> Arc<CatalogCache> {
    let ports = CatalogPorts {
        follower: rig.store.clone(),
        log: rig.store.clone(),
        state: rig.store.clone(),
        clock: rig.clock.clone(),
    };
    CatalogCache::new(ports, settings).unwrap()
}

fn follow(rig: &Rig, catalog: &Arc<CatalogCache>) -> JoinHandle<Result<(), RuntimeError>> {
    let (catalog, shutdown) = (Arc::clone(catalog), rig.shutdown_receiver());
    tokio::spawn(async move { catalog.run_follower(shutdown).await })
}

async fn version(catalog: &CatalogCache, sku: &str) -> Option<i64> {
    soon("a lookup", catalog.product("t", sku)).await.unwrap().map(|it| it.version)
}

#[tokio::test]
async fn a_miss_follows_to_the_end_of_the_topic_before_it_answers() {
    let mut rig = Rig::new();
    let cache = catalog(&rig, 10);
    rig.catalog = Some(Arc::clone(&cache));
    // The store does not have the row yet: only the topic does.
    publish(&rig, "s", 1).await;
    rig.send(&["t/a price s"]).await;
    let task = rig.start();
    let lookup = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { version(&cache, "s").await }
    });
    let follower = follow(&rig, &cache);
    assert_eq!(soon("the lookup", lookup).await.unwrap(), Some(1));
    rig.caught_up().await;
    assert_eq!(rig.outputs(), ["t/a s v1"]);
    rig.stopped(task).await.unwrap();
    soon("the follower", follower).await.unwrap().unwrap();
}

#[tokio::test]
async fn rows_of_the_store_are_cached_and_newer_records_replace_them() {
    let rig = Rig::new();
    rig.store.put_row(Table::Product, "t/s", product("s", 3));
    let cache = catalog(&rig, 10);
    let follower = follow(&rig, &cache);
    assert_eq!(version(&cache, "s").await, Some(3));
    assert_eq!(version(&cache, "s").await, Some(3));
    assert_eq!(rig.store.rows_read(), 1);
    let waiter = cache.wait_for_version("t", "s", 4);
    publish(&rig, "s", 4).await;
    soon("version 4", waiter.wait(&*rig.clock, u64::MAX)).await.unwrap();
    assert_eq!(version(&cache, "s").await, Some(4));
    rig.stop();
    soon("the follower", follower).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_absence_is_remembered_only_until_the_topic_says_otherwise() {
    let rig = Rig::new();
    let cache = catalog(&rig, 10);
    let _follower = follow(&rig, &cache);
    for _ in 0..3 {
        assert_eq!(version(&cache, "s").await, None);
    }
    assert_eq!(rig.store.rows_read(), 1);
    publish(&rig, "s", 1).await;
    // At once: the lookup itself must follow to the record.
    assert_eq!(version(&cache, "s").await, Some(1));
    assert_eq!(rig.store.rows_read(), 1);
}

#[tokio::test]
async fn a_row_read_before_the_topic_moved_on_is_not_kept() {
    let rig = Rig::new();
    rig.store.put_row(Table::Product, "t/s", product("s", 1));
    let cache = catalog(&rig, 2);
    let _follower = follow(&rig, &cache);
    rig.store.close_read_gate();
    let lookup = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { version(&cache, "s").await }
    });
    rig.store.rows_are_read(1).await;
    // Version 2 comes and is evicted again while the lookup still holds version 1 of the row.
    rig.store.put_row(Table::Product, "t/s", product("s", 2));
    let last = cache.wait_for_version("t", "z", 1);
    for (sku, version) in [("s", 2), ("x", 1), ("y", 1), ("z", 1)] {
        publish(&rig, sku, version).await;
    }
    soon("the last record", last.wait(&*rig.clock, u64::MAX)).await.unwrap();
    rig.store.open_read_gate();
    assert_eq!(soon("the lookup", lookup).await.unwrap(), Some(1));
    assert_eq!(version(&cache, "s").await, Some(2));
}

#[tokio::test]
async fn the_catalog_holds_no_more_than_its_bound_and_still_answers_for_all() {
    let rig = Rig::new();
    for n in 0..100 {
        rig.store.put_row(Table::Product, &format!("t/s{n}"), product(&format!("s{n}"), n));
    }
    let cache = catalog(&rig, 20);
    let _follower = follow(&rig, &cache);
    for n in 0..100 {
        assert_eq!(version(&cache, &format!("s{n}")).await, Some(n));
        assert!(cache.entries() <= 21, "{} entries", cache.entries());
    }
    assert_eq!(version(&cache, "s0").await, Some(0));
}

#[tokio::test]
async fn a_product_that_was_evicted_before_the_store_has_it_is_neither_unknown_nor_old() {
    let rig = Rig::new();
    rig.store.put_row(Table::Product, "t/old", product("old", 1));
    let cache = behind(&rig, 4, 1_000);
    let _follower = follow(&rig, &cache);
    publish(&rig, "new", 1).await;
    publish(&rig, "old", 2).await;
    for n in 0..20 {
        publish(&rig, &format!("s{n}"), 1).await;
    }
    assert_eq!(version(&cache, "s19").await, Some(1));
    assert!(cache.entries() <= 5, "{} entries", cache.entries());
    assert_eq!(version(&cache, "new").await, Some(1), "its row is not there yet");
    assert_eq!(version(&cache, "old").await, Some(2), "its row is that of the version before");
    assert_eq!(version(&cache, "never").await, None);
    rig.store.put_row(Table::Product, "t/s1", product("s1", 9));
    assert_eq!(version(&cache, "s1").await, Some(9), "what the store has counts");
}

#[tokio::test]
async fn the_topic_is_followed_no_further_than_can_be_noted_until_the_store_has_some_of_it_for_good() {
    const NOTES_MAX: usize = 8;
    let rig = Rig::new();
    let cache = behind(&rig, 40, NOTES_MAX);
    let _follower = follow(&rig, &cache);
    for n in 0..NOTES_MAX {
        publish(&rig, &format!("s{n}"), 1).await;
    }
    assert_eq!(version(&cache, "s7").await, Some(1));
    publish(&rig, "s7", 2).await;
    let lookup = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { version(&cache, "s7").await }
    });
    // It has looked at all rows and waits; what is in the cache may be old by now, so the lookup waits as well.
    rig.clock.sleeper_within(1_000).await;
    assert!(!lookup.is_finished());
    for n in 0..NOTES_MAX {
        rig.store.put_row(Table::Product, &format!("t/s{n}"), product(&format!("s{n}"), 1));
    }
    rig.clock.advance(1_000);
    rig.clock.sleeper_within(1_000).await;
    assert_eq!(cache.notes(), NOTES_MAX, "they are there, but perhaps not on the disk");
    for _ in 0..DURABLE_AFTER.as_secs() - 1 {
        rig.clock.advance(1_000);
        rig.clock.sleeper_within(1_000).await;
    }
    assert!(!lookup.is_finished());
    rig.clock.advance(1_000);
    assert_eq!(soon("the lookup", lookup).await.unwrap(), Some(2));
    assert_eq!(cache.notes(), 1);
}

#[tokio::test]
async fn a_waiter_gets_the_version_its_command_made() {
    let rig = Rig::new();
    let cache = catalog(&rig, 10);
    let waiter = cache.wait_for_command("t", "s", "cmd2");
    let other = cache.wait_for_command("t", "other", "cmd2");
    publish(&rig, "s", 1).await;
    publish(&rig, "s", 2).await;
    publish(&rig, "s", 3).await;
    let _follower = follow(&rig, &cache);
    let product = soon("the product", waiter.wait(&*rig.clock, u64::MAX)).await.unwrap();
    assert_eq!(product.version, 2);
    let deadline = rig.clock.deadline(Duration::from_secs(1));
    let late = tokio::spawn({
        let clock = rig.clock.clone();
        async move { other.wait(&*clock, deadline).await }
    });
    rig.clock.sleeper_within(1_000).await;
    rig.clock.advance(1_000);
    assert_eq!(soon("the deadline", late).await.unwrap(), None);
}

#[tokio::test]
async fn a_lookup_does_not_wait_for_a_follower_that_has_ended() {
    let rig = Rig::new();
    let cache = catalog(&rig, 10);
    rig.stop();
    soon("the follower", follow(&rig, &cache)).await.unwrap().unwrap();
    publish(&rig, "s", 1).await;
    let answer = soon("the lookup", cache.product("t", "s")).await;
    assert!(matches!(answer, Err(RuntimeError::FollowerStopped(_))), "{answer:?}");
}

fn event(order_id: &str, version: i64) -> OrderEvent {
    OrderEvent {
        id: "evt".into(),
        tenant: "t".into(),
        order_id: order_id.into(),
        version,
        at_ms: 1,
        command_id: "cmd".into(),
        traceparent: None,
        status: "pending".into(),
        payload: OrderCompleted { shipments: 1 }.into(),
    }
}

async fn emit(rig: &Rig, order_id: &str, version: i64) {
    let value = codec::encode(&event(order_id, version)).unwrap();
    rig.store.append(vec![record(Topic::OrderEvents, &format!("t/{order_id}"), value)]).await.unwrap();
}

fn hub(rig: &Rig, capacity: usize) -> (Arc<Subscriptions>, JoinHandle<Result<(), RuntimeError>>) {
    let hub = Subscriptions::new(rig.store.clone(), capacity);
    let (follower, shutdown) = (Arc::clone(&hub), rig.shutdown_receiver());
    (hub, tokio::spawn(async move { follower.run_follower(shutdown).await }))
}

#[tokio::test]
async fn subscribers_get_the_events_of_their_key_from_then_on() {
    let rig = Rig::new();
    let (hub, _follower) = hub(&rig, 8);
    emit(&rig, "o1", 1).await;
    let mut first = hub.subscribe("t/o1").unwrap();
    emit(&rig, "o1", 2).await;
    let mut second = hub.subscribe("t/o1").unwrap();
    emit(&rig, "o2", 1).await;
    // Not an event: nobody asked for this key, so it is not even decoded.
    rig.store.append(vec![record(Topic::OrderEvents, "t/o3", b"noise".to_vec())]).await.unwrap();
    emit(&rig, "o1", 3).await;
    for expected in [2, 3] {
        assert_eq!(soon("an event", first.next()).await.unwrap().event.version, expected);
    }
    let got = soon("an event", second.next()).await.unwrap();
    assert_eq!((got.event.version, got.offset), (3, 4));
    assert_eq!(hub.count(), 2);
    drop((first, second));
    assert_eq!(hub.count(), 0);
}

#[tokio::test]
async fn nothing_is_read_while_nobody_subscribes() {
    let rig = Rig::new();
    let (hub, follower) = hub(&rig, 8);
    // More than one read returns.
    for version in 0..2_500 {
        emit(&rig, "o1", version).await;
    }
    let mut subscription = hub.subscribe("t/o1").unwrap();
    assert_eq!(rig.store.reads(Topic::OrderEvents), 0);
    emit(&rig, "o1", 2_500).await;
    let got = soon("an event", subscription.next()).await.unwrap();
    assert_eq!(got.event.version, 2_500);
    assert_eq!(rig.store.reads(Topic::OrderEvents), 1);
    rig.stop();
    soon("the follower", follower).await.unwrap().unwrap();
    assert!(soon("the end", subscription.next()).await.is_none());
    assert!(hub.subscribe("t/o1").is_err());
}

#[tokio::test]
async fn a_subscriber_that_falls_behind_is_ended_after_what_it_was_given() {
    let rig = Rig::new();
    let (hub, _follower) = hub(&rig, 2);
    let mut slow = hub.subscribe("t/o1").unwrap();
    let mut marker = hub.subscribe("t/o2").unwrap();
    for version in 1..=5 {
        emit(&rig, "o1", version).await;
    }
    emit(&rig, "o2", 1).await;
    soon("the marker", marker.next()).await.unwrap();
    let mut versions = Vec::new();
    while let Some(got) = soon("the end", slow.next()).await {
        versions.push(got.event.version);
    }
    assert_eq!(versions, [1, 2]);
    assert_eq!(hub.count(), 1);
    assert!(rig.store.end_offset(tillstream_log::TopicPartition::new(Topic::OrderEvents, 0)).is_ok());
}

async fn emit_of(rig: &Rig, tenant: &str, order_id: &str, version: i64) {
    let value = codec::encode(&event(order_id, version)).unwrap();
    let key = format!("{tenant}/{order_id}");
    rig.store.append(vec![record(Topic::OrderEvents, &key, value)]).await.unwrap();
}

#[tokio::test]
async fn a_tenants_feed_has_its_own_orders_only_and_begins_where_the_log_ends() {
    let rig = Rig::new();
    let (hub, follower) = hub(&rig, 8);
    emit_of(&rig, "t", "o1", 1).await;
    let mut feed = hub.subscribe_tenant("t").unwrap();
    assert_eq!(feed.starts().iter().sum::<u64>(), 1);
    for (tenant, order, version) in [("t2", "o1", 1), ("t", "o1", 2), ("other", "t", 3), ("t", "o2", 4)] {
        emit_of(&rig, tenant, order, version).await;
    }
    // Not an event, and nobody's: it is not even decoded.
    rig.store.append(vec![record(Topic::OrderEvents, "t3/o3", b"noise".to_vec())]).await.unwrap();
    for expected in [2, 4] {
        assert_eq!(soon("an event", feed.next()).await.unwrap().event.version, expected);
    }
    // Everything is in the feed before a position passes it.
    emit_of(&rig, "t", "o1", 5).await;
    while feed.positions().iter().sum::<u64>() < 7 {
        tokio::task::yield_now().await;
    }
    assert_eq!(feed.try_next().unwrap().event.version, 5);
    rig.stop();
    soon("the follower", follower).await.unwrap().unwrap();
    assert!(soon("the end", feed.next()).await.is_none());
    assert!(hub.subscribe_tenant("t").is_err());
}

#[tokio::test]
async fn a_feed_that_falls_behind_is_lost_whole_and_takes_no_memory() {
    let rig = Rig::new();
    let (hub, _follower) = hub(&rig, 2);
    let mut slow = hub.subscribe_tenant("t").unwrap();
    let mut marker = hub.subscribe("t2/o1").unwrap();
    for version in 1..=5 {
        emit_of(&rig, "t", "o1", version).await;
    }
    emit_of(&rig, "t2", "o1", 1).await;
    soon("the marker", marker.next()).await.unwrap();
    assert!(soon("the end", slow.next()).await.is_none());
    drop((slow, marker));
    assert_eq!(hub.count(), 0);
}
