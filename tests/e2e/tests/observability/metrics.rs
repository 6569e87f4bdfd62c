//! Every metric that scripts and dashboards are written against is there, and moves when what it counts happens.

use crate::{order, placed, scrape, stock};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use tillstream_e2e::scrape::promtool_complaints;
use tillstream_e2e::{DEADLINE, Server};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_schemas::Topic;
use tokio::time::Instant;

/// The contract: name, kind, labels.
const CONTRACT: &[(&str, &str, &[&str])] = &[
    ("tillstream_stage_records_total", "counter", &["stage", "outcome"]),
    ("tillstream_stage_batch_seconds", "histogram", &["stage"]),
    ("tillstream_stage_commit_seconds", "histogram", &["stage"]),
    ("tillstream_stage_lag_records", "gauge", &["stage", "partition"]),
    ("tillstream_stage_event_lag_seconds", "gauge", &["stage"]),
    ("tillstream_state_reads_total", "counter", &["stage", "source"]),
    ("tillstream_state_unflushed_rows", "gauge", &["stage"]),
    ("tillstream_rule_calls_total", "counter", &["stage", "outcome"]),
    ("tillstream_rule_call_seconds", "histogram", &["stage"]),
    ("tillstream_rule_fuel_units", "histogram", &["stage"]),
    ("tillstream_dead_letters_total", "counter", &["stage", "reason"]),
    ("tillstream_order_seconds", "histogram", &["to"]),
    ("tillstream_http_request_seconds", "histogram", &["route", "status"]),
];

/// Something that happens to a shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    /// An order is placed and paid.
    Paid,
    /// An order is placed that pricing refuses: the product has no price in its currency.
    Unpriced,
    /// An order finds no stock.
    OutOfStock,
    /// A card is declined.
    Declined,
    /// A paid order is shipped and delivered.
    Completed,
    /// A refund of more than was paid is asked for.
    RefundTooMuch,
    /// An order is read that is not there.
    NotFound,
    /// A product is put in the catalog.
    Product,
}

use Happening::{Completed, Declined, NotFound, OutOfStock, Paid, Product, RefundTooMuch, Unpriced};

/// How often a metric counts a happening.
#[derive(Clone, Copy, Debug)]
enum Times {
    Exactly(f64),
    AtLeast(f64),
}

use Times::{AtLeast, Exactly};

/// A happening, a metric, labels of it, and how often it counts the happening.
type Move = (Happening, &'static str, &'static [(&'static str, &'static str)], Times);

/// What each happening does to the counters and histograms: a row of rules belongs here as well, once an active rule is
/// one of the happenings.
const MOVES: &[Move] = &[
    (Paid, "tillstream_stage_records_total", &[("stage", "pricing"), ("outcome", "applied")], Exactly(1.0)),
    (
        Paid,
        "tillstream_stage_records_total",
        &[("stage", "reservation"), ("outcome", "applied")],
        AtLeast(2.0),
    ),
    (Paid, "tillstream_stage_records_total", &[("stage", "payment"), ("outcome", "applied")], AtLeast(2.0)),
    (
        Paid,
        "tillstream_stage_records_total",
        &[("stage", "order_view"), ("outcome", "applied")],
        AtLeast(3.0),
    ),
    (Paid, "tillstream_stage_records_total", &[("stage", "stock"), ("outcome", "applied")], AtLeast(2.0)),
    (Paid, "tillstream_stage_records_total", &[("stage", "effects"), ("outcome", "applied")], AtLeast(1.0)),
    (Paid, "tillstream_stage_records_total", &[("stage", "analytics"), ("outcome", "applied")], AtLeast(1.0)),
    (Paid, "tillstream_stage_batch_seconds", &[("stage", "order")], AtLeast(1.0)),
    (Paid, "tillstream_stage_batch_seconds", &[("stage", "item")], AtLeast(1.0)),
    (Paid, "tillstream_stage_batch_seconds", &[("stage", "effects")], AtLeast(1.0)),
    (Paid, "tillstream_stage_batch_seconds", &[("stage", "analytics")], AtLeast(1.0)),
    (Paid, "tillstream_stage_commit_seconds", &[("stage", "order")], AtLeast(1.0)),
    (Paid, "tillstream_stage_commit_seconds", &[("stage", "item")], AtLeast(1.0)),
    (Paid, "tillstream_stage_commit_seconds", &[("stage", "effects")], AtLeast(1.0)),
    (Paid, "tillstream_stage_commit_seconds", &[("stage", "analytics")], AtLeast(1.0)),
    (Paid, "tillstream_state_reads_total", &[("stage", "order"), ("source", "cache")], AtLeast(1.0)),
    (Paid, "tillstream_state_reads_total", &[("stage", "order"), ("source", "store")], AtLeast(1.0)),
    (Paid, "tillstream_order_seconds", &[("to", "priced")], Exactly(1.0)),
    (Paid, "tillstream_order_seconds", &[("to", "reserved")], Exactly(1.0)),
    (Paid, "tillstream_order_seconds", &[("to", "paid")], Exactly(1.0)),
    (Paid, "tillstream_order_seconds", &[("to", "completed")], Exactly(0.0)),
    (Paid, "tillstream_http_request_seconds", &[("route", "/v1/orders"), ("status", "202")], Exactly(1.0)),
    (Paid, "tillstream_dead_letters_total", &[], Exactly(0.0)),
    (Paid, "tillstream_rule_calls_total", &[], Exactly(0.0)),
    (
        Unpriced,
        "tillstream_stage_records_total",
        &[("stage", "pricing"), ("outcome", "refused")],
        Exactly(1.0),
    ),
    (Unpriced, "tillstream_order_seconds", &[("to", "priced")], Exactly(0.0)),
    (
        OutOfStock,
        "tillstream_stage_records_total",
        &[("stage", "stock"), ("outcome", "refused")],
        Exactly(1.0),
    ),
    (OutOfStock, "tillstream_order_seconds", &[("to", "priced")], Exactly(1.0)),
    (OutOfStock, "tillstream_order_seconds", &[("to", "reserved")], Exactly(0.0)),
    (Declined, "tillstream_order_seconds", &[("to", "reserved")], Exactly(1.0)),
    (Declined, "tillstream_order_seconds", &[("to", "paid")], Exactly(0.0)),
    (
        Declined,
        "tillstream_stage_records_total",
        &[("stage", "effects"), ("outcome", "refused")],
        Exactly(1.0),
    ),
    (Completed, "tillstream_order_seconds", &[("to", "completed")], Exactly(1.0)),
    (
        Completed,
        "tillstream_stage_records_total",
        &[("stage", "fulfillment"), ("outcome", "applied")],
        AtLeast(2.0),
    ),
    (
        RefundTooMuch,
        "tillstream_stage_records_total",
        &[("stage", "payment"), ("outcome", "refused")],
        Exactly(1.0),
    ),
    (
        NotFound,
        "tillstream_http_request_seconds",
        &[("route", "/v1/orders/{id}"), ("status", "404")],
        Exactly(1.0),
    ),
    (
        Product,
        "tillstream_stage_records_total",
        &[("stage", "catalog"), ("outcome", "applied")],
        Exactly(1.0),
    ),
    (
        Product,
        "tillstream_http_request_seconds",
        &[("route", "/v1/products/{sku}"), ("status", "200")],
        Exactly(1.0),
    ),
];

impl Happening {
    const ALL: [Self; 8] =
        [Paid, Unpriced, OutOfStock, Declined, Completed, RefundTooMuch, NotFound, Product];

    async fn happen(self, server: &Server) {
        let key = format!("{self:?}");
        let no_price = json!({"currency": "GBP", "country": "GB", "lines": [{"sku": "no-such", "quantity": 1}],
                              "payment": {"method": "pm_card_visa", "capture": "automatic"}});
        let mut declined = order("a");
        declined["payment"]["method"] = "pm_card_chargeDeclined".into();
        let shipped = json!({"carrier": "post"});
        match self {
            Paid => drop(placed(server, &key, &order("a"), "confirmed").await),
            Unpriced => drop(placed(server, &key, &no_price, "failed").await),
            OutOfStock => drop(placed(server, &key, &order("none-left"), "failed").await),
            Declined => drop(placed(server, &key, &declined, "failed").await),
            Completed => {
                let path = placed(server, &key, &order("a"), "confirmed").await;
                server.post(&format!("{path}/shipments"), &key, &shipped).await;
                let order = server.until(&path, |it| it["status"] == "shipped").await;
                let shipment = order["shipments"][0]["id"].as_str().unwrap();
                server.post(&format!("{path}/shipments/{shipment}/deliver"), &key, &json!({})).await;
                server.until(&path, |it| it["status"] == "delivered").await;
            }
            RefundTooMuch => {
                let path = placed(server, &key, &order("a"), "confirmed").await;
                let refund = json!({"amount": 1_000_000});
                server.call(Method::POST, &format!("{path}/refunds"), Some(&key), Some(&refund)).await;
            }
            NotFound => drop(server.call(Method::GET, "/v1/orders/ord_none", None, None).await),
            Product => {
                let product = json!({"name": "Lantern", "active": true, "stocked": true, "tax_class": "standard",
                                     "prices": {"GBP": 339}});
                server.put("/v1/products/lantern", &product).await;
            }
        }
        server.drained().await;
    }
}

#[tokio::test]
async fn every_metric_of_the_contract_is_there_and_counts_what_happens() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    stock(&server, "a").await;
    server.drained().await;
    let mut faults = Vec::new();
    for happening in Happening::ALL {
        let before = scrape(&server).await;
        happening.happen(&server).await;
        let after = scrape(&server).await;
        for (_, name, labels, times) in MOVES.iter().filter(|it| it.0 == happening) {
            // A series begins with what it first counts.
            let moved = after.times(name, labels).unwrap_or(0.0) - before.times(name, labels).unwrap_or(0.0);
            let as_told = match times {
                Exactly(times) => moved == *times,
                AtLeast(times) => moved >= *times,
            };
            if !as_told {
                faults.push(format!("{happening:?}: {name}{labels:?} moved by {moved}, not by {times:?}"));
            }
        }
    }
    let scrape = scrape(&server).await;
    for (name, kind, labels) in CONTRACT {
        let found = scrape.kinds.get(*name).map_or("none", String::as_str);
        let wanted: BTreeSet<&str> = labels.iter().copied().collect();
        if found != *kind || scrape.label_names(name) != wanted {
            faults.push(format!("{name} is a {found} with {:?}", scrape.label_names(name)));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    match promtool_complaints(&scrape.text) {
        Some(complaints) => assert_eq!(complaints, "", "promtool complains of /metrics"),
        None => println!("NOT CHECKED: /metrics by promtool, which is not here"),
    }
}

#[tokio::test]
async fn lag_rises_under_a_flood_and_is_gone_once_it_is_worked_off() {
    let dir = tempfile::tempdir().unwrap();
    // Small batches: the tasks fall behind for sure.
    let server = Server::start(dir.path(), &["--batch-records-max", "1"]).await;
    let line = |n: usize| {
        let mut line = order("a");
        line["idempotency_key"] = format!("flood-{n}").into();
        format!("{line}\n")
    };
    let body: String = (0..400).map(line).collect();
    let call = reqwest::Client::new()
        .post(format!("{}/v1/orders/bulk", server.url()))
        .bearer_auth(tillstream_e2e::KEY)
        .header("content-type", "application/x-ndjson")
        .body(body);
    let flood = tokio::spawn(async move { call.send().await.unwrap().text().await.unwrap() });
    let deadline = Instant::now() + DEADLINE;
    let (mut lag, mut age) = (0.0_f64, 0.0_f64);
    while lag == 0.0 || age == 0.0 {
        assert!(Instant::now() < deadline, "lag {lag}, age {age} s");
        let seen = scrape(&server).await;
        lag = lag.max(seen.sum("tillstream_stage_lag_records", &[("stage", "order")]).unwrap());
        age = age.max(seen.sum("tillstream_stage_event_lag_seconds", &[("stage", "order")]).unwrap());
    }
    let answers = flood.await.unwrap();
    assert!(answers.lines().all(|it| serde_json::from_str::<Value>(it).unwrap()["status"] == 202));
    server.drained().await;
    assert_eq!(scrape(&server).await.sum("tillstream_stage_lag_records", &[]), Some(0.0));
}

/// Writes bytes that are no command into every partition of a stopped pipeline's log.
async fn append_garbage(dir: &Path) {
    let store = EmbeddedStore::open(EmbeddedSettings::new(dir)).unwrap();
    let garbage = (0..store.partitions(Topic::OrderCommands)).map(|partition| NewRecord {
        to: TopicPartition::new(Topic::OrderCommands, partition),
        key: "demo/ord_garbage".into(),
        value: b"no Avro at all"[..].into(),
        headers: Headers::new(),
    });
    store.append(garbage.collect()).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn every_dead_letter_is_counted_under_its_stage_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    assert!(server.terminate().await.success());
    append_garbage(dir.path()).await;
    let server = Server::start(dir.path(), &[]).await;
    server.drained().await;
    let seen = scrape(&server).await;
    let letters = |labels: &[(&str, &str)]| seen.sum("tillstream_dead_letters_total", labels);
    assert_eq!(letters(&[("stage", "order"), ("reason", "decode")]), Some(4.0), "one per partition");
    assert_eq!(letters(&[]), Some(4.0), "and under no other");
}
