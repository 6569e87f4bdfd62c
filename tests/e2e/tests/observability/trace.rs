//! One correlation id from the call through its command, every stage's records and log lines, to analytics.

use crate::{order, placed, stock};
use reqwest::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tillstream_e2e::{DEADLINE, KEY, Server};
use tokio::time::Instant;

/// How a call may bring its id, and the trace id that comes of it.
const IDS: &[(&str, &str, &str)] = &[
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "4bf92f3577b34da6a3ce929d0e0e4736",
    ),
    ("x-request-id", "0AF76519-16cd-43dd-8448-eb211c80319c", "0af7651916cd43dd8448eb211c80319c"),
];

/// Topics on an order's way, whose records must name its call.
const TOPICS: &[&str] = &[
    "orders.commands",
    "orders.events",
    "items.commands",
    "items.events",
    "effects.requests",
    "analytics.deltas",
];

/// Stages that decide something about a paid, shipped and delivered order.
const STAGES: &[&str] =
    &["pricing", "reservation", "payment", "fulfillment", "order_view", "stock", "effects", "analytics"];

/// Every record of a topic, with its headers.
async fn records(server: &Server, topic: &str) -> Vec<Value> {
    let page = server.get(&format!("/v1/topics/{topic}/records?limit=1000")).await;
    page["data"].as_array().unwrap().clone()
}

/// Posts with the id; the answer, and the request id it came with.
async fn post(server: &Server, path: &str, key: &str, id: (&str, &str), body: &Value) -> (Value, String) {
    let call = Client::new().post(format!("{}{path}", server.url())).bearer_auth(KEY);
    let response = call.header("idempotency-key", key).header(id.0, id.1).json(body).send().await.unwrap();
    assert!(response.status().is_success(), "{path}: {}", response.status());
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    (response.json().await.unwrap(), request_id)
}

/// Waits until the log has a line of each of these stages with the id.
async fn logged(server: &Server, trace_id: &str) {
    let deadline = Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let lines: Vec<Value> =
            server.output().iter().filter_map(|it| serde_json::from_str(it).ok()).collect();
        let fields = lines.iter().map(|it| &it["fields"]).filter(|it| it["trace_id"] == trace_id);
        let stages: BTreeSet<&str> = fields.clone().filter_map(|it| it["stage"].as_str()).collect();
        let called = fields.clone().any(|it| it["route"] == "/v1/orders" && it["status"] == 202);
        let missing: Vec<_> = STAGES.iter().filter(|it| !stages.contains(**it)).collect();
        if called && missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{trace_id}: no lines of {missing:?}, call seen: {called}");
    }
}

#[tokio::test]
async fn one_id_ties_the_call_to_every_record_and_log_line_down_to_analytics() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--log-format", "json", "--log", "info,pipeline=debug"];
    let server = Server::start(dir.path(), &arguments).await;
    stock(&server, "a").await;
    // Somebody else's order runs along: its id is another.
    placed(&server, "other", &order("a"), "confirmed").await;
    for (n, (header, sent, trace_id)) in IDS.iter().enumerate() {
        let key = format!("traced-{n}");
        let (accepted, request_id) = post(&server, "/v1/orders", &key, (header, sent), &order("a")).await;
        assert_eq!(
            request_id,
            if *header == "x-request-id" { *sent } else { *trace_id },
            "it is told to the caller"
        );
        let path = format!("/v1/orders/{}", accepted["id"].as_str().unwrap());
        server.until(&path, |it| it["status"] == "confirmed").await;
        let (_, _) =
            post(&server, &format!("{path}/shipments"), &key, (header, sent), &json!({"carrier": "post"}))
                .await;
        server.until(&path, |it| it["status"] == "shipped").await;
        server.drained().await;
        for topic in TOPICS {
            let records = records(&server, topic).await;
            let naming = records.iter().filter(|it| it.to_string().contains(trace_id)).count();
            assert!(naming > 0, "{topic} does not know {trace_id}: {records:?}");
            assert!(
                naming < records.len() || n > 0,
                "{topic}: the other order's records have an id of their own"
            );
        }
        let events = server.get(&format!("{path}/events")).await;
        let versions = events["data"].as_array().unwrap().len();
        let on_log = records(&server, "orders.events").await;
        let of_call = on_log
            .iter()
            .filter(|it| it["headers"]["traceparent"].as_str().is_some_and(|at| at.contains(trace_id)));
        assert_eq!(of_call.count(), versions, "every event of the order names the call");
        logged(&server, trace_id).await;
    }
}
