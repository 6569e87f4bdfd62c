//! A backtest on the real servers: the process that runs it is killed, and another one that shares its folder goes on with it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which tell what they saw"
)]

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tillstream_e2e::KEY;
use tillstream_e2e_cluster::cluster::{Cluster, RECOVERY, Wires};
use tillstream_e2e_cluster::wait_for;
use tillstream_e2e_cluster::worker::Worker;
use tillstream_rule_modules::off;
use tillstream_servers::{CassandraOptions, KafkaOptions};

const ORDERS: i64 = 2_000;
/// Slow on purpose, so that the kill finds it under way.
const ORDERS_PER_SECOND: i64 = 250;
const OFF_MINOR: i64 = 25;
/// What was found is kept every two seconds, and a fast machine is not needed to see it.
const PATIENCE: Duration = RECOVERY;

async fn place_orders(door: &Worker) {
    let mut lines = String::new();
    for n in 0..ORDERS {
        let line = json!({"idempotency_key": format!("order-{n}"), "currency": "GBP", "country": "US",
            "lines": [{"sku": "lamp", "quantity": 2, "unit_price": 450}],
            "payment": {"method": "pm_card_visa", "capture": "automatic"}});
        writeln!(lines, "{line}").unwrap();
    }
    let url = format!("{}/v1/orders/bulk", door.server().unwrap().url());
    let call = Client::new().post(url).bearer_auth(KEY).header("Content-Type", "application/x-ndjson");
    let answer = call.body(lines).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let results = answer.text().await.unwrap();
    let refused = results.lines().find(|it| it.contains("\"errors\""));
    assert_eq!((results.lines().count() as i64, refused), (ORDERS, None));
}

async fn upload(door: &Worker) -> Value {
    let url = format!("{}/v1/rules/off/versions", door.server().unwrap().url());
    let call = Client::new().put(url).bearer_auth(KEY).header("Content-Type", "application/wasm");
    let answer = call.body(off(OFF_MINOR)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json().await.unwrap()
}

async fn get(door: &Worker, path: &str) -> Value {
    let answer = door.call(Method::GET, path, None, None).await.expect("a door that is up answers");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json
}

async fn until(door: &Worker, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_for(PATIENCE, async || {
        last = get(door, path).await;
        done(&last).then(|| last.clone())
    });
    found.await.unwrap_or_else(|| panic!("it never came: {last:#}\n{}", door.tail(40)))
}

/// Two doors that share their folder of backtests, and a worker without a door.
async fn cluster(shared: &str) -> (Arc<Cluster>, [Arc<Worker>; 2]) {
    let wires =
        |_: &_| Wires { workers: vec!["--backtests-dir".to_owned(), shared.to_owned()], ..Wires::default() };
    let cluster = Cluster::start_with(KafkaOptions::default(), CassandraOptions::default(), wires).await;
    cluster.add_ready(&["ingest", "ingest", "order,item,effects,analytics,webhooks"]).await;
    let workers = cluster.workers();
    (cluster, [workers[0].clone(), workers[1].clone()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_whose_process_is_killed_goes_on_in_another_and_counts_every_order_once() {
    let shared = tempfile::tempdir().unwrap();
    let (cluster, [here, there]) = cluster(shared.path().to_str().unwrap()).await;
    let stock = json!({"delta": 100_000, "reason": "received", "location": "main"});
    assert!(cluster.post("/v1/inventory/lamp/adjustments", "stock", &stock).await.0.is_success());
    place_orders(&here).await;
    assert_eq!(cluster.drained().await, Vec::<String>::new());

    let uploaded = upload(&here).await;
    let recent = &uploaded["recent"]["hooks"][0];
    assert_eq!((&recent["inputs"], &recent["calls"]), (&json!("log"), &json!(64)), "{uploaded:#}");
    let body = json!({"version": 1, "orders_per_second": ORDERS_PER_SECOND});
    let begun =
        here.call(Method::POST, "/v1/rules/off/backtests", Some("unused"), Some(&body)).await.unwrap();
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text);
    let path = format!("/v1/rules/off/backtests/{}", begun.json["id"].as_str().unwrap());
    let seen = until(&there, &path, |it| it["report"]["orders"].as_i64().unwrap() > 0).await;
    assert_eq!(seen["status"], "running", "another process shows it as it was last kept");
    let early = there.call(Method::POST, &format!("{path}/resume"), Some("early"), None).await.unwrap();
    assert_eq!(early.status, StatusCode::CONFLICT, "it runs: {}", early.text);

    here.kill();
    let left = until(&there, &path, |it| it["status"] == "interrupted").await;
    let counted = left["report"]["orders"].as_i64().unwrap();
    assert!(0 < counted && counted < ORDERS, "the kill found it under way: {left:#}");
    let resumed = there.call(Method::POST, &format!("{path}/resume"), Some("now"), None).await.unwrap();
    assert_eq!(resumed.status, StatusCode::ACCEPTED, "{}", resumed.text);
    println!("killed at {counted} orders of {ORDERS}, gone on at {}", resumed.json["report"]["orders"]);
    assert!(resumed.json["report"]["orders"].as_i64().unwrap() >= counted);

    // Its first process comes back meanwhile and leaves it alone.
    here.start();
    cluster.ready().await;
    let done = until(&there, &path, |it| it["status"] != "running").await;
    let (report, money) = (&done["report"], &done["report"]["money"]["GBP"]);
    assert_eq!((&done["status"], &report["orders"]), (&json!("done"), &json!(ORDERS)), "{done:#}");
    assert_eq!((&report["compared"], &report["changed"]), (&json!(ORDERS), &json!(ORDERS)));
    assert_eq!(money["margin_difference_minor"], -OFF_MINOR * ORDERS);
    assert_eq!(money["before"]["gross_minor"], 900 * ORDERS);
    assert_eq!(get(&here, &path).await["report"], *report, "every door shows the same");
    drop((here, there));
    cluster.stop_workers().await;
}
