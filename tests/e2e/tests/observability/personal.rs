//! The log tells what happened without telling about whom.

use crate::order;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::time::Duration;
use tillstream_e2e::{DEADLINE, KEY, Server};
use tokio::time::Instant;

/// What must never stand in a log line.
const PERSONAL: &[&str] = &[
    "ada.lovelace",
    "Ada Lovelace",
    "Ada%20Lovelace",
    "12 St James",
    "SW1Y 4LB",
    "+44 20 7946",
    "4242424242424242",
    KEY,
    "till_wrong_secret",
    "127.0.0.1:",
    "agent-of-ada",
    "198.51.100.7",
];

/// An order with somebody's data in every field that takes text.
fn personal_order() -> Value {
    let mut it = order("a");
    it["customer"] = "ada.lovelace@example.org".into();
    it["metadata"] = json!({"name": "Ada Lovelace", "address": "12 St James's Square, SW1Y 4LB", "phone": "+44 20 7946 0000",
                            "card": "4242424242424242"});
    it
}

#[tokio::test]
async fn the_log_names_routes_and_ids_but_no_person_key_or_address() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log-format", "json", "--log", "info,pipeline=debug"]).await;
    let listening = server.output().len();
    let order = personal_order();
    let mut wrong = order.clone();
    wrong["currency"] = "Ada Lovelace".into();
    wrong["ada.lovelace"] = "12 St James".into();
    let calls: Vec<(Method, &str, &str, String)> = vec![
        (Method::POST, "/v1/orders", KEY, order.to_string()),
        (Method::POST, "/v1/orders", KEY, wrong.to_string()),
        (Method::POST, "/v1/orders", KEY, "{\"customer\": \"ada.lovelace".into()),
        (Method::POST, "/v1/orders", "till_wrong_secret", order.to_string()),
        (Method::GET, "/v1/orders?customer=ada.lovelace@example.org", KEY, String::new()),
        (Method::GET, "/v1/orders/ada.lovelace", KEY, String::new()),
        (Method::GET, "/Ada%20Lovelace?phone=+44%2020%207946", KEY, String::new()),
        (Method::GET, "/v1/products?q=Ada%20Lovelace", KEY, String::new()),
        (Method::PUT, "/v1/products/ada.lovelace", KEY, json!({"name": "Ada Lovelace"}).to_string()),
        (Method::POST, "/v1/keys", KEY, json!({"name": "Ada Lovelace"}).to_string()),
    ];
    let client = Client::new();
    for (n, (method, path, key, body)) in calls.iter().enumerate() {
        let call = client
            .request(method.clone(), format!("{}{path}", server.url()))
            .bearer_auth(key)
            .header("content-type", "application/json")
            .header("idempotency-key", format!("ada.lovelace-{n}"))
            .header("user-agent", "agent-of-ada")
            .header("x-forwarded-for", "198.51.100.7")
            .header("x-request-id", format!("call-{n}"))
            .body(body.clone());
        call.send().await.unwrap().bytes().await.unwrap();
    }
    server.drained().await;
    // Every call has its line, so the lines that follow are all there are.
    let deadline = Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let lines = loop {
        ticks.tick().await;
        let lines = server.output().split_off(listening);
        if (0..calls.len()).all(|n| lines.iter().any(|it| it.contains(&format!("\"call-{n}\"")))) {
            break lines;
        }
        assert!(Instant::now() < deadline, "calls are missing: {lines:#?}");
    };
    assert!(
        lines.iter().any(|it| it.contains("/v1/orders/{id}"))
            && lines.iter().any(|it| it.contains("\"tenant\":\"demo\""))
    );
    let told: Vec<_> = lines.iter().filter(|line| PERSONAL.iter().any(|it| line.contains(it))).collect();
    assert!(told.is_empty(), "{told:#?}");
}
