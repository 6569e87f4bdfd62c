//! What can be seen of the real binary from outside: metrics that mean what they say, in a bounded number, and one
//! correlation id from the call to the last stage.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cardinality;
mod metrics;
mod personal;
mod trace;

use serde_json::{Value, json};
use tillstream_e2e::Server;
use tillstream_e2e::scrape::Scrape;

/// An order of one unit of a SKU.
pub fn order(sku: &str) -> Value {
    json!({"currency": "GBP", "country": "GB", "lines": [{"sku": sku, "quantity": 1, "unit_price": 100}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

/// Puts units of a SKU in stock.
pub async fn stock(server: &Server, sku: &str) {
    let body = json!({"delta": 100_000, "reason": "received", "location": "main"});
    server.post(&format!("/v1/inventory/{sku}/adjustments"), &format!("stock-{sku}"), &body).await;
}

/// Places an order and waits until it has a status; its path.
pub async fn placed(server: &Server, key: &str, order: &Value, status: &str) -> String {
    let id = server.post("/v1/orders", key, order).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/orders/{id}");
    server.until(&path, |it| it["status"] == status).await;
    path
}

pub async fn scrape(server: &Server) -> Scrape {
    Scrape::parse(&server.call(reqwest::Method::GET, "/metrics", None, None).await.text)
}
