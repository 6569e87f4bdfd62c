//! A provider in a process of its own, killed under load: every order ends as it should, and is charged once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tillstream_e2e::sandbox::Sandbox;
use tillstream_e2e::{Server, free_port};

const ORDERS: usize = 300;

fn order(n: usize) -> Value {
    json!({"currency": "GBP", "country": "US",
           "lines": [{"sku": "a", "quantity": 1, "unit_price": 100 + n}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

#[tokio::test]
async fn a_served_sandbox_that_is_killed_charges_every_order_once() {
    let (dir, ledger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = ["--latency-max-ms", "20", "--lost-reply-rate", "0.1"];
    let mut sandbox = Sandbox::start(ledger.path(), free_port(), &faults).await;
    let server = Server::start(dir.path(), &["--sandbox-url", sandbox.url()]).await;
    let stock = json!({"delta": 100_000, "reason": "received", "location": "main"});
    server.post("/v1/inventory/a/adjustments", "stock", &stock).await;

    let mut orders = BTreeMap::new();
    for n in 0..ORDERS {
        let id = server.post("/v1/orders", &format!("order-{n}"), &order(n)).await["id"].clone();
        orders.insert(id.as_str().unwrap().to_owned(), 100 + n);
        if n % 100 == 50 {
            sandbox = sandbox.kill_and_restart().await;
        }
    }
    for id in orders.keys() {
        server.until(&format!("/v1/orders/{id}"), |it| it["status"] == "confirmed").await;
    }
    let payments = sandbox.payments().await;
    let charged: BTreeMap<String, usize> = payments
        .iter()
        .map(|it| {
            assert_eq!(it["charges"].as_array().unwrap().len(), 1, "{it}");
            assert_eq!(it["refunds"], json!([]), "{it}");
            let amount = it["charges"][0]["amount_minor"].as_u64().unwrap();
            (it["order_id"].as_str().unwrap().to_owned(), usize::try_from(amount).unwrap())
        })
        .collect();
    assert_eq!((payments.len(), &charged), (ORDERS, &orders));
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn the_door_shows_and_authenticates_payments_of_a_served_sandbox() {
    let (dir, ledger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sandbox = Sandbox::start(ledger.path(), free_port(), &[]).await;
    let server = Server::start(dir.path(), &["--sandbox-url", sandbox.url()]).await;
    let stock = json!({"delta": 10, "reason": "received", "location": "main"});
    server.post("/v1/inventory/a/adjustments", "stock", &stock).await;
    let mut body = order(0);
    body["payment"]["method"] = json!("pm_card_authenticationRequired");
    let id = server.post("/v1/orders", "k", &body).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/orders/{id}");
    let waiting = server.until(&path, |it| it["payment"]["status"] == "requires_action").await;
    let payment = format!("/v1/sandbox/payments/{}", waiting["payment"]["id"].as_str().unwrap());
    assert_eq!(server.get(&payment).await["status"], "requires_action");
    server.post(&format!("{payment}/authenticate"), "a", &json!({"outcome": "succeed"})).await;
    server.until(&path, |it| it["status"] == "confirmed").await;
    assert_eq!(server.get(&payment).await["captured"], 100);
    assert!(!dir.path().join("sandbox").exists(), "no ledger of its own");
}
