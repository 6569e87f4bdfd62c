//! The independent look at what a history left behind: only HTTP answers and topics, no code of the pipeline.

use crate::Server;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What all orders together came to; equal histories have equal totals.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Orders per status.
    pub by_status: BTreeMap<String, u64>,
    /// Σ captured, minor units.
    pub captured: i64,
    /// Σ refunded, minor units.
    pub refunded: i64,
    /// Analytics, summed over all windows: orders, units, gross, refunded.
    pub analytics: (i64, i64, i64, i64),
    /// Per SKU: on hand, reserved.
    pub stock: BTreeMap<String, (i64, i64)>,
    /// The provider's ledger: charges, Σ captured, Σ refunded.
    pub provider: (u64, i64, i64),
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// Reads everything about `orders` and `skus` and checks what must hold in any history.
pub async fn audit(server: &Server, orders: &BTreeSet<String>, skus: &[String]) -> Totals {
    let mut totals = Totals::default();
    for id in orders {
        let order = server.get(&format!("/v1/orders/{id}")).await;
        let status = order["status"].as_str().unwrap_or_default().to_owned();
        assert_ne!(status, "pending", "{order}");
        let payment = &order["payment"];
        totals.captured += number(&payment["captured"]);
        totals.refunded += number(&payment["refunded"]);
        let ledger: i64 =
            payment["ledger"].as_array().into_iter().flatten().map(|it| number(&it["amount"])).sum();
        assert_eq!(ledger, 0, "the ledger of {id} does not sum to zero: {payment}");
        check_provider(server, &order, &mut totals).await;
        *totals.by_status.entry(status).or_default() += 1;
    }
    for sku in skus {
        let level = server.get(&format!("/v1/inventory/{sku}")).await;
        let entry = (number(&level["on_hand"]), number(&level["reserved"]));
        assert_eq!(number(&level["available"]), entry.0 - entry.1, "{level}");
        totals.stock.insert(sku.clone(), entry);
    }
    let revenue =
        server.get("/v1/analytics/revenue?from=2010-01-01T00:00:00Z&to=2040-01-01T00:00:00Z&by=day").await;
    for row in revenue["data"].as_array().into_iter().flatten() {
        totals.analytics.0 += number(&row["orders"]);
        totals.analytics.1 += number(&row["units"]);
        totals.analytics.2 += number(&row["gross"]);
        totals.analytics.3 += number(&row["refunded"]);
    }
    check_events(server, orders).await;
    totals
}

/// The provider's ledger and ours agree: one charge per payment, the same amounts.
async fn check_provider(server: &Server, order: &Value, totals: &mut Totals) {
    let Some(id) = order["payment"]["id"].as_str().filter(|it| !it.is_empty()) else { return };
    let answer = server.call(reqwest::Method::GET, &format!("/v1/sandbox/payments/{id}"), None, None).await;
    if answer.status == reqwest::StatusCode::NOT_FOUND {
        assert_eq!(number(&order["payment"]["captured"]), 0, "captured without the provider: {order}");
        return;
    }
    let provider = answer.json;
    assert_eq!(provider["captured"], order["payment"]["captured"], "{provider} {order}");
    assert_eq!(provider["refunded"], order["payment"]["refunded"], "{provider} {order}");
    assert!(number(&provider["captured"]) <= number(&order["total"]), "charged more than once: {provider}");
    totals.provider.0 += u64::from(number(&provider["captured"]) > 0);
    totals.provider.1 += number(&provider["captured"]);
    totals.provider.2 += number(&provider["refunded"]);
}

/// Every acknowledged order was priced (or rejected) exactly once, in the log itself, and no event id stands twice.
async fn check_events(server: &Server, orders: &BTreeSet<String>) {
    let events = topic(server, "orders.events").await;
    let mut first: BTreeMap<&str, u32> = BTreeMap::new();
    let mut captured: BTreeMap<&str, u32> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for record in &events {
        let value = &record["value"];
        let id = value["id"].as_str().expect("every event has an id");
        assert!(ids.insert(id), "event {id} stands twice");
        let order = value["order_id"].as_str().expect("every event names its order");
        match record["headers"]["ce_type"].as_str() {
            Some("order.priced") => *first.entry(order).or_default() += 1,
            Some("payment.captured") => *captured.entry(order).or_default() += 1,
            _ => {}
        }
    }
    for id in orders {
        assert_eq!(first.get(id.as_str()), Some(&1), "{id} was not priced exactly once");
        assert!(captured.get(id.as_str()).copied().unwrap_or(0) <= 1, "{id} was captured more than once");
    }
}

/// Every record of a topic, all partitions.
pub async fn topic(server: &Server, name: &str) -> Vec<Value> {
    let mut records = Vec::new();
    let mut place = "from=beginning".to_owned();
    loop {
        let page = server.get(&format!("/v1/topics/{name}/records?{place}&limit=1000")).await;
        let rows = page["data"].as_array().expect("a page has data");
        if rows.is_empty() {
            return records;
        }
        records.extend(rows.iter().cloned());
        place = format!("cursor={}", page["next_cursor"].as_str().expect("a page names the next"));
    }
}
