//! Server-sent events of one order and of a tenant.

use crate::harness::eventually;
use crate::live::{
    CAPACITY, Reader, happen, log_event, log_record, order_id, process, process_with, put_row,
};
use crate::store::MemoryStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_ingest_api::Bounds;
use tillstream_schemas::order_event::{CommandConflicted, OrderEvent};

#[tokio::test]
async fn an_orders_history_then_its_events_come_once_each_and_resume_anywhere() {
    let store = Arc::new(MemoryStore::default());
    let first = process(&store).await;
    let order = order_id(1);
    let path = format!("/v1/orders/{order}/events");
    for version in 1..=3 {
        happen(&store, "demo", &order, version).await;
    }
    let mut reader = Reader::open(&first.api, &path, None).await;
    assert_eq!(reader.versions(3).await, [1, 2, 3]);
    happen(&store, "demo", &order, 4).await;
    happen(&store, "demo", &order_id(2), 1).await;
    happen(&store, "demo", &order, 5).await;
    assert_eq!(reader.versions(1).await, [4]);
    let last = reader.event().await;
    assert_eq!((last.id.as_str(), last.event.as_str()), ("5", "order.returned"));
    assert_eq!((&last.data["order_id"], &last.data["amount"]), (&order.as_str().into(), &5.into()));
    drop(reader);

    // The same process, and another one that starts later.
    happen(&store, "demo", &order, 6).await;
    let second = process(&store).await;
    for api in [&first.api, &second.api] {
        let mut reader = Reader::open(api, &path, Some("4")).await;
        assert_eq!(reader.versions(2).await, [5, 6]);
        let mut reader = Reader::open(api, &format!("{path}?cursor=5"), None).await;
        assert_eq!(reader.versions(1).await, [6]);
    }
    let page = first.api.get(&format!("{path}?cursor=4")).await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    assert_eq!(page["data"][1], Reader::open(&first.api, &path, Some("5")).await.event().await.data);
}

#[tokio::test]
async fn an_event_ahead_of_its_row_waits_for_what_comes_before_it() {
    let store = Arc::new(MemoryStore::default());
    let cluster = process_with(&store, Bounds::default(), true).await;
    let order = order_id(1);
    put_row(&store, "demo", &order, 1);
    let mut reader = Reader::open(&cluster.api, &format!("/v1/orders/{order}/events"), None).await;
    assert_eq!(reader.versions(1).await, [1]);
    // Version 2 happened before the subscription as far as the hub knows, and its row is late.
    log_event(&store, "demo", &order, 3).await;
    let (early, row) =
        tokio::join!(tokio::time::timeout(Duration::from_millis(200), reader.event()), async {
            tokio::time::sleep(Duration::from_millis(200)).await
        },);
    assert!(early.is_err() && row == (), "version 3 came before version 2");
    put_row(&store, "demo", &order, 3);
    assert_eq!(reader.versions(2).await, [2, 3]);
}

#[tokio::test]
async fn a_row_that_was_late_is_looked_at_again_though_nothing_more_happens() {
    let store = Arc::new(MemoryStore::default());
    let cluster = process_with(&store, Bounds::default(), true).await;
    let order = order_id(1);
    put_row(&store, "demo", &order, 1);
    let mut reader = Reader::open(&cluster.api, &format!("/v1/orders/{order}/events"), None).await;
    assert_eq!(reader.versions(1).await, [1]);
    put_row(&store, "demo", &order, 2);
    assert_eq!(reader.versions(1).await, [2]);
}

#[tokio::test]
async fn a_command_that_was_not_taken_is_no_part_of_an_orders_history() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let order = order_id(1);
    happen(&store, "demo", &order, 1).await;
    let mut reader = Reader::open(&process.api, &format!("/v1/orders/{order}/events"), None).await;
    assert_eq!(reader.versions(1).await, [1]);
    let conflict = OrderEvent {
        id: "evt_conflict".into(),
        tenant: "demo".into(),
        order_id: order.as_str().into(),
        version: 1,
        at_ms: 0,
        command_id: "cmd_1".into(),
        traceparent: None,
        status: "confirmed".into(),
        payload: CommandConflicted { command_id: "cmd_1".into() }.into(),
    };
    log_record(&store, &conflict).await;
    happen(&store, "demo", &order, 2).await;
    assert_eq!(reader.versions(1).await, [2]);
    // The tenant's stream is the log itself.
    let mut all =
        Reader::open(&process.api, "/v1/orders/events?from=beginning&type=command.conflicted", None).await;
    assert_eq!(all.event().await.data["id"], "evt_conflict");
}

/// Versions by order, in the order in which they came.
async fn read(reader: &mut Reader, count: usize) -> (BTreeMap<String, Vec<i64>>, String) {
    let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut place = String::new();
    for _ in 0..count {
        let block = reader.event().await;
        let order = block.data["order_id"].as_str().unwrap().to_owned();
        seen.entry(order).or_default().push(block.data["version"].as_i64().unwrap());
        place = block.id;
    }
    (seen, place)
}

#[tokio::test]
async fn a_tenants_stream_has_every_event_of_its_own_once_and_resumes_on_another_process() {
    let store = Arc::new(MemoryStore::default());
    let first = process(&store).await;
    let orders: Vec<String> = (1..=10).map(order_id).collect();
    for version in 1..=3 {
        for order in &orders {
            log_event(&store, "demo", order, version).await;
            log_event(&store, "demo2", order, version).await;
        }
    }
    let mut reader = Reader::open(&first.api, "/v1/orders/events?from=beginning", None).await;
    let (seen, place) = read(&mut reader, 30).await;
    assert!(orders.iter().all(|it| seen[it] == [1, 2, 3]), "{seen:?}");
    // Live, and in the middle of it the reader goes on elsewhere.
    for order in &orders {
        log_event(&store, "demo", order, 4).await;
    }
    let (_, later) = read(&mut reader, 4).await;
    drop(reader);
    let second = process(&store).await;
    let mut reader = Reader::open(&second.api, "/v1/orders/events", Some(&later)).await;
    let (rest, _) = read(&mut reader, 6).await;
    assert_eq!(rest.values().map(Vec::len).sum::<usize>(), 6);
    let mut reader = Reader::open(&second.api, &format!("/v1/orders/events?cursor={place}"), None).await;
    let (seen, _) = read(&mut reader, 10).await;
    assert!(orders.iter().all(|it| seen[it] == [4]), "{seen:?}");
}

#[tokio::test]
async fn a_heartbeat_moves_the_place_past_what_others_wrote() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    tokio::time::pause();
    let mut reader = Reader::open(&process.api, "/v1/orders/events", None).await;
    let begun = reader.block().await.unwrap();
    assert!(begun.event.is_empty() && !begun.id.is_empty());
    for n in 0..20 {
        log_event(&store, "other", &order_id(n), 1).await;
    }
    let beat = reader.block().await.unwrap();
    assert!(beat.event.is_empty());
    let fresh = Reader::open(&process.api, "/v1/orders/events", None).await.block().await.unwrap();
    assert_eq!(beat.id, fresh.id);
}

#[tokio::test]
async fn a_slow_reader_is_bounded_and_misses_nothing() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let order = order_id(1);
    put_row(&store, "demo", &order, 1);
    let mut all = Reader::open(&process.api, "/v1/orders/events", None).await;
    let mut one = Reader::open(&process.api, &format!("/v1/orders/{order}/events"), None).await;
    assert_eq!(one.versions(1).await, [1]);
    all.block().await.unwrap();
    let last = CAPACITY as i64 * 50;
    for version in 2..=last {
        happen(&store, "demo", &order, version).await;
    }
    // Both have lost their live feeds meanwhile, and read on from log and row.
    let expected: Vec<i64> = (2..=last).collect();
    assert_eq!(all.versions(expected.len()).await, expected);
    assert_eq!(one.versions(expected.len()).await, expected);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off_and_its_place_is_free() {
    let store = Arc::new(MemoryStore::default());
    let bounds = Bounds { streams_per_tenant: 1, ..Bounds::default() };
    let process = process_with(&store, bounds, false).await;
    tokio::time::pause();
    let mut stalled = Reader::open(&process.api, "/v1/orders/events", None).await;
    let begun = stalled.block().await.unwrap();
    for n in 0..50 {
        log_event(&store, "demo", &order_id(n), 1).await;
    }
    let second = process
        .api
        .call(http::Method::GET, "/v1/orders/events", &[("accept", "text/event-stream")], "")
        .await;
    assert_eq!(second.problem(), (429, "TS0661".into()));
    assert_eq!(second.header("retry-after"), "5");
    let metrics = async || process.api.get("/metrics").await.text;
    let cut = "tillstream_streams_ended_total{reason=\"slow\",transport=\"sse\"} 1";
    for _ in 0..100 {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    assert!(metrics().await.contains(cut), "{}", metrics().await);
    assert!(metrics().await.contains("tillstream_streams_open{transport=\"sse\"} 0"));
    assert_eq!(eventually(|| Some(process.hub.count())).await, 0);
    // What was on its way is there; then the stream ends, and the place of the last block resumes it.
    let mut place = begun.id;
    let mut got = 0;
    while let Some(block) = stalled.block().await {
        got += usize::from(!block.event.is_empty());
        place = block.id;
    }
    let mut resumed = Reader::open(&process.api, "/v1/orders/events", Some(&place)).await;
    let (rest, _) = read(&mut resumed, 50 - got).await;
    assert_eq!(rest.len(), 50 - got);
}

#[tokio::test]
async fn a_drain_ends_streams_cleanly() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let mut reader = Reader::open(&process.api, "/v1/orders/events", None).await;
    reader.block().await.unwrap();
    process.api.ingest.drain_streams().await;
    assert_eq!(reader.block().await, None);
    let metrics = process.api.get("/metrics").await.text;
    assert!(metrics.contains("tillstream_streams_ended_total{reason=\"drained\",transport=\"sse\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn places_that_no_stream_gave_out_are_refused() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    let order = order_id(1);
    happen(&store, "demo", &order, 3).await;
    let one = format!("/v1/orders/{order}/events?cursor=");
    let all = "/v1/orders/events?cursor=".to_owned();
    for path in [
        format!("{one}-1"),
        format!("{one}x"),
        format!("{one}99999999999999999999"),
        format!("{one}4"),
        format!("{all}e"),
        format!("{all}e01"),
        format!("{all}eff7fff7fff7fff7f"),
        format!("{all}3"),
        "/v1/orders/events?type=order.eaten".to_owned(),
        "/v1/orders/events?from=middle".to_owned(),
    ] {
        let stream = [("accept", "text/event-stream")];
        let answer = process.api.call(http::Method::GET, &path, &stream, "").await;
        assert_eq!(answer.problem(), (400, "TS0612".into()), "{path}");
    }
    // Another tenant's order is no order, in whichever form it is asked for.
    let other = process.api.with_key("till_other");
    let answer = other
        .call(
            http::Method::GET,
            &format!("/v1/orders/{order}/events"),
            &[("accept", "text/event-stream")],
            "",
        )
        .await;
    assert_eq!(answer.problem(), (404, "TS0605".into()));
}

#[tokio::test]
async fn pages_of_a_tenants_events_go_on_where_the_one_before_ended() {
    let store = Arc::new(MemoryStore::default());
    let process = process(&store).await;
    for n in 0..25 {
        log_event(&store, "demo", &order_id(n), 1).await;
        log_event(&store, "other", &order_id(n), 1).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/orders/events?limit=10".to_owned();
    for expected in [10, 10, 5, 0] {
        let page = process.api.get(&path).await.json();
        let data = page["data"].as_array().unwrap();
        assert_eq!(data.len(), expected);
        seen.extend(data.iter().map(|it| it["id"].as_str().unwrap().to_owned()));
        path = format!("/v1/orders/events?limit=10&cursor={}", page["next_cursor"].as_str().unwrap());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}
