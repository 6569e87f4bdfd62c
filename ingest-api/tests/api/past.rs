//! `as_of`, list filters, categories, compressed bodies and answers, and refusals under load.

use crate::harness::{Answer, Api, NOW_MS, eventually, eventually_by_the_clock, order};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tillstream_ingest_api::ports::Memory;
use tillstream_schemas::item::ProductState;
use tillstream_schemas::order_state::{OrderStatus, PricedOrder, TimelineEntry};
use tillstream_stage::Table;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tokio::sync::watch;

const ID: &str = "ord_00000000000000000001";

fn entry(version: i64, kind: &str, after_ms: i64, status: OrderStatus) -> TimelineEntry {
    TimelineEntry {
        event_id: format!("evt_{version}").into(),
        kind: kind.into(),
        at_ms: NOW_MS + after_ms,
        version,
        status,
        amount_minor: None,
        detail: None,
        rules: Vec::new(),
    }
}

#[tokio::test]
async fn an_order_is_shown_as_it_was_and_not_before_it_was_or_after_now() {
    let api = Api::start().await;
    api.commit_order(ID, OrderStatus::Cancelled, |row| {
        row.view.version = 3;
        row.view.timeline = vec![
            entry(1, "order.priced", 1_000, OrderStatus::Pending),
            entry(2, "order.reserved", 2_000, OrderStatus::Pending),
            entry(3, "order.cancelled", 9_000, OrderStatus::Cancelled),
        ];
    });
    api.clock.advance(60_000);
    let at = async |second: &str| api.get(&format!("/v1/orders/{ID}?as_of=2023-11-14T22:13:{second}Z")).await;
    let then = at("23").await.json();
    assert_eq!(
        (&then["status"], &then["stage"], &then["version"]),
        (&json!("pending"), &json!("payment"), &json!(2))
    );
    assert_eq!(then["as_of"], "2023-11-14T22:13:23Z");
    assert_eq!(at("20").await.json()["version"], 0);
    assert_eq!(at("29").await.json()["status"], "cancelled");
    assert_eq!(at("19").await.problem(), (404, "TS0605".into()));
    for bad in ["soon", "1700000000", "2023-11-14T25:00:00Z", "2999-01-01T00:00:00Z", "2023-11-14T22:14:21Z"]
    {
        let answer = api.get(&format!("/v1/orders/{ID}?as_of={bad}")).await;
        assert_eq!(answer.problem(), (400, "TS0612".into()), "{bad}");
        assert_eq!(answer.json()["errors"][0]["field"], "as_of");
    }
    assert_eq!(api.get("/v1/orders?as_of=2023-11-14").await.status, 400);
}

fn ids(page: &Answer) -> Vec<i64> {
    let json = page.json();
    let id = |it: &Value| it["id"].as_str().unwrap()[4..].parse().unwrap();
    json["data"].as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn lists_are_filtered_by_time_place_and_money_and_stay_stable_while_orders_come() {
    let api = Api::start().await;
    let commit = |n: i64| {
        api.commit_order(&format!("ord_{n:020}"), OrderStatus::Confirmed, |row| {
            row.accepted_at_ms = NOW_MS + n * 1_000;
            row.order = Some(PricedOrder {
                currency: if n % 2 == 0 { "GBP" } else { "EUR" }.into(),
                country: if n < 3 { "GB" } else { "DE" }.into(),
                placed_at_ms: 1_291_191_960_000 - n * 86_400_000,
                ..PricedOrder::default()
            });
        });
    };
    (0..6).for_each(commit);
    let cases: [(&str, &[i64]); 8] = [
        ("currency=gbp", &[4, 2, 0]),
        ("country=DE&currency=EUR", &[5, 3]),
        ("accepted_from=2023-11-14T22:13:22Z&accepted_to=2023-11-14T22:13:24Z", &[3, 2]),
        ("accepted_to=2023-11-14T22:13:21Z", &[0]),
        ("accepted_from=2023-11-14T22:13:25Z", &[5]),
        ("placed_from=2010-11-30&placed_to=2010-12-01", &[1]),
        ("accepted_from=2030-01-01", &[]),
        ("accepted_to=1970-01-01", &[]),
    ];
    for (query, expected) in cases {
        assert_eq!(ids(&api.get(&format!("/v1/orders?{query}")).await), expected, "{query}");
    }
    let first = api.get("/v1/orders?limit=2&country=GB").await;
    assert_eq!(ids(&first), [2, 1]);
    commit(7);
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(ids(&api.get(&format!("/v1/orders?limit=2&country=GB&cursor={cursor}")).await), [0]);
    for bad in
        ["placed_from=later", "accepted_to=-1", "cursor=zz", "limit=0", "limit=-5", "limit=101", "status=odd"]
    {
        assert_eq!(api.get(&format!("/v1/orders?{bad}")).await.problem(), (400, "TS0612".into()), "{bad}");
    }
}

#[tokio::test]
async fn products_are_filtered_by_activity_and_counted_by_category() {
    let api = Api::start().await;
    for (sku, category, active, removed) in [
        ("a", Some("toys"), true, false),
        ("b", Some("toys"), false, false),
        ("c", Some("art"), true, false),
        ("d", None, true, false),
        ("e", Some("gone"), true, true),
    ] {
        let category = category.map(Into::into);
        let row = ProductState { sku: sku.into(), category, active, removed, ..ProductState::default() };
        api.store.put(Table::Product, &format!("demo/{sku}"), &row);
        api.store.put(Table::Product, &format!("other/{sku}{sku}"), &row);
    }
    let skus = |page: Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|it| it["sku"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(skus(api.get("/v1/products?active=true").await.json()), ["a", "c", "d"]);
    assert_eq!(skus(api.get("/v1/products?active=false&category=toys").await.json()), ["b"]);
    assert_eq!(api.get("/v1/products?active=yes").await.problem().0, 400);
    let page = api.get("/v1/categories?limit=1").await.json();
    assert_eq!(page["data"], json!([{"name": "art", "products": 1}]));
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = api.get(&format!("/v1/categories?limit=1&cursor={cursor}")).await.json();
    assert_eq!(page, json!({"data": [{"name": "toys", "products": 2}], "next_cursor": null}));
    assert_eq!(api.get("/v1/categories?cursor=o00").await.problem().0, 400);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

#[tokio::test]
async fn compressed_bodies_are_taken_and_bombs_are_not() {
    let api = Api::start().await;
    // What was accepted stays in flight: a repeat is judged by it.
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let json = order().to_string();
    let headers = |encoding: &'static str| {
        [("idempotency-key", "k1"), ("content-type", "application/json"), ("content-encoding", encoding)]
    };
    let plain = api.post("/v1/orders", "k1", &order()).await;
    for (encoding, body) in [("gzip", gzip(json.as_bytes())), ("zstd", zstd(json.as_bytes()))] {
        let answer = api.call(Method::POST, "/v1/orders", &headers(encoding), body.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (202, &plain.json()["id"]), "{encoding}");
        let half = body[..body.len() / 2].to_vec();
        let answer = api.call(Method::POST, "/v1/orders", &headers(encoding), half).await;
        assert_eq!(answer.problem(), (400, "TS0662".into()), "{encoding}");
    }
    let bomb = gzip(&vec![b' '; 50 << 20]);
    let answer = api.call(Method::POST, "/v1/orders", &headers("gzip"), bomb.clone()).await;
    assert_eq!(answer.problem(), (413, "TS0610".into()));
    let answer = api.call(Method::POST, "/v1/orders", &headers("br"), "x").await;
    assert_eq!(answer.problem(), (415, "TS0611".into()));
    assert_eq!(api.store.order_commands().len(), 1);
}

#[tokio::test]
async fn bulk_comes_and_goes_compressed_and_a_cut_body_keeps_its_whole_lines() {
    let api = Api::start().await;
    let line = |n: usize| {
        let mut line = order();
        line["idempotency_key"] = json!(format!("k{n}"));
        format!("{line}\n")
    };
    let text: String = (0..100).map(line).collect();
    let whole = zstd(text.as_bytes());
    let headers =
        [("content-type", "application/x-ndjson"), ("content-encoding", "zstd"), ("accept-encoding", "gzip")];
    let (parts, body) = api.raw(Method::POST, "/v1/orders/bulk", &headers, whole.clone()).await;
    assert_eq!((parts.status.as_u16(), parts.headers["content-encoding"].as_bytes()), (200, &b"gzip"[..]));
    let mut results = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut results).unwrap();
    assert_eq!(results.lines().filter(|it| it.contains("\"status\":202")).count(), 100);
    let taken = api.store.order_commands();
    assert_eq!(taken.len(), 100);
    taken.iter().for_each(|it| api.commit_order(&it.order_id, OrderStatus::Confirmed, |_| {}));

    // Again, cut: every line that was whole answers as before, and the cut has a line of its own.
    let cut = whole[..whole.len() - 10].to_vec();
    let answer = api.call(Method::POST, "/v1/orders/bulk", &headers[..2], cut).await;
    let lines = answer.lines();
    let (last, taken) = lines.split_last().unwrap();
    assert_eq!((&last["status"], &last["problem"]["code"]), (&json!(400), &json!("TS0662")));
    assert!(taken.iter().all(|it| it["status"] == 202));
    assert_eq!(api.store.order_commands().len(), 100);
}

struct Fixed(u64);

impl Memory for Fixed {
    fn resident_bytes(&self) -> Option<u64> {
        Some(self.0)
    }
}

/// Waits until the door says of itself that it refuses for that reason (1), or does not (0).
async fn refusing(api: &Api, reason: &str, wanted: f64) {
    let gauge = || {
        let families = api.registry.gather();
        let family = families.iter().find(|it| it.name() == "tillstream_http_refusing")?;
        let of_reason =
            |it: &&prometheus::proto::Metric| it.get_label().iter().any(|it| it.value() == reason);
        family.get_metric().iter().find(of_reason).map(|it| it.get_gauge().get_value())
    };
    eventually_by_the_clock(|| gauge().filter(|it| *it == wanted)).await;
}

#[tokio::test(start_paused = true)]
async fn new_work_waits_for_whatever_is_behind_and_all_else_goes_on() {
    let api = Api::start().await;
    api.commit_order(ID, OrderStatus::Confirmed, |_| {});
    let (_stop, stopping) = watch::channel(false);
    let ingest = api.ingest.clone();
    tokio::spawn(async move { ingest.watch_load(Arc::new(Fixed(1)), stopping).await });
    let place = async |key: &str| api.post("/v1/orders", key, &order()).await;
    for (kind, reason) in [
        (TaskKind::Order, "order_lag"),
        (TaskKind::Item, "item_lag"),
        (TaskKind::Effects, "effects_lag"),
        (TaskKind::Analytics, "analytics_lag"),
    ] {
        assert_eq!(place(&format!("before {reason}").replace(' ', "-")).await.status, 202, "{reason}");
        *api.tasks.lags.lock() = vec![(TaskId { kind, partition: 0 }, 10_000_000)];
        refusing(&api, reason, 1.0).await;
        let refused = place("refused").await;
        assert_eq!(refused.problem(), (503, "TS0614".into()), "{reason}");
        assert_eq!(refused.header("retry-after"), "2");
        let level = json!({"delta": 1, "reason": "received"});
        assert_eq!(api.post("/v1/inventory/a/adjustments", "refused", &level).await.status, 503);
        // What was accepted goes on, and so do reads.
        assert_eq!(api.post(&format!("/v1/orders/{ID}/cancel"), reason, &json!({})).await.status, 202);
        assert_eq!(api.get(&format!("/v1/orders/{ID}")).await.status, 200);
        let metrics = api.get("/metrics").await.text;
        assert!(metrics.contains(&format!("tillstream_http_refusing{{reason=\"{reason}\"}} 1")), "{metrics}");
        assert!(
            metrics.contains(&format!("tillstream_http_refusals_total{{reason=\"{reason}\"}} 2")),
            "{metrics}"
        );
        api.tasks.lags.lock().clear();
        refusing(&api, reason, 0.0).await;
    }
    assert_eq!(place("after").await.status, 202);
    assert!(eventually(|| Some(api.store.order_commands().len())).await > 5);
}
