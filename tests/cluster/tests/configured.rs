//! What a tenant configures at one process of a cluster holds in every other within a second: rules, and keys that are
//! revoked.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests, which tell how fast it was"
)]

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tillstream_e2e::{KEY, Server};
use tillstream_e2e_cluster::cluster::{Cluster, RECOVERY};
use tillstream_e2e_cluster::wait_for;
use tillstream_rule_modules::off;
use tokio::time::{Instant, interval};

/// A change holds in every process so soon.
const EVERYWHERE: Duration = Duration::from_secs(1);
/// After a change orders come in for so long, so often.
const WATCHED: Duration = Duration::from_millis(2_500);
const BETWEEN_ORDERS: Duration = Duration::from_millis(40);
const FULL_MINOR: i64 = 900;

/// Two doors without tasks, and a worker without a door: a rule cannot be worked where it was activated.
async fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::start().await;
    cluster.add_ready(&["ingest", "ingest", "order,item,effects,analytics"]).await;
    let stock = json!({"delta": 100_000, "reason": "received", "location": "main"});
    assert!(cluster.post("/v1/inventory/lamp/adjustments", "stock", &stock).await.0.is_success());
    cluster
}

async fn call(door: &Server, key: &str, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let call = Client::new().request(method, format!("{}{path}", door.url())).bearer_auth(key);
    let call = if body.is_null() { call } else { call.json(body) };
    let answer = call.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or_default())
}

/// Makes a change that must be taken.
async fn change(door: &Server, path: &str, body: &Value) -> Value {
    let (status, answer) = call(door, KEY, Method::POST, path, body).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    answer
}

async fn upload(door: &Server, name: &str, module: Vec<u8>) -> Value {
    let url = format!("{}/v1/rules/{name}/versions", door.url());
    let call = Client::new().put(url).bearer_auth(KEY).header("Content-Type", "application/wasm");
    let answer = call.body(module).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json().await.unwrap()
}

/// Places an order at a door; its id.
async fn place(door: &Server, key: &str) -> String {
    let order = json!({"currency": "GBP", "country": "GB", "lines": [{"sku": "lamp", "quantity": 2, "unit_price": 450}],
        "payment": {"method": "pm_card_visa", "capture": "automatic"}});
    let url = format!("{}/v1/orders", door.url());
    let call = Client::new().post(url).bearer_auth(KEY).header("Idempotency-Key", key).json(&order);
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let placed: Value = answer.json().await.unwrap();
    placed["id"].as_str().unwrap().to_owned()
}

/// The order once it is paid.
async fn paid(door: &Server, id: &str) -> Value {
    let paid = wait_for(RECOVERY, async || {
        let (_, order) = call(door, KEY, Method::GET, &format!("/v1/orders/{id}"), &Value::Null).await;
        (order["status"] == "confirmed").then_some(order)
    });
    paid.await.unwrap_or_else(|| panic!("{id} is never paid"))
}

/// Orders from just after a change on: when each came in, counted from the change, and what it came to.
async fn orders_after(door: &Server, name: &str) -> Vec<(Duration, Value)> {
    let changed = Instant::now();
    let mut ticks = interval(BETWEEN_ORDERS);
    let mut placed = Vec::new();
    while changed.elapsed() < WATCHED {
        ticks.tick().await;
        let sent = changed.elapsed();
        placed.push((sent, place(door, &format!("{name}-{}", placed.len())).await));
    }
    let mut orders = Vec::new();
    for (sent, id) in placed {
        orders.push((sent, paid(door, &id).await));
    }
    orders
}

/// Every order that came in a second after the change or later has this total, and names these versions.
fn assert_everywhere(orders: &[(Duration, Value)], total: i64, versions: &[&str]) {
    let named = |order: &Value| {
        let rules = order["rules"].as_array().unwrap();
        rules.iter().map(|it| it["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let holds = |order: &Value| order["total"] == total && named(order) == versions;
    let late: Vec<_> = orders.iter().filter(|it| it.0 >= EVERYWHERE && !holds(&it.1)).collect();
    assert!(late.is_empty(), "{} of {} orders: {late:#?}", late.len(), orders.len());
    let last_before = orders.iter().rev().find(|it| !holds(&it.1)).map_or(Duration::ZERO, |it| it.0);
    println!("the last order without the change came {last_before:?} after it, of {}", orders.len());
}

async fn rules_hold_everywhere(here: &Server, there: &Server) {
    for minor in [100, 250] {
        upload(here, "off", off(minor)).await;
    }
    let activate = "/v1/rules/off/activate";
    change(here, activate, &json!({"version": 1})).await;
    assert_everywhere(&orders_after(there, "first").await, FULL_MINOR - 100, &["1"]);
    change(here, activate, &json!({"version": 2})).await;
    assert_everywhere(&orders_after(there, "second").await, FULL_MINOR - 250, &["2"]);
    change(there, "/v1/rules/off/rollback", &json!({})).await;
    assert_everywhere(&orders_after(here, "rolled-back").await, FULL_MINOR - 100, &["1"]);
    change(here, "/v1/rules/off/rollback", &json!({})).await;
    assert_everywhere(&orders_after(there, "none").await, FULL_MINOR, &[]);
}

/// What a worker counts stops a canary in every process, and what it sampled is shown at every door.
async fn a_canary_stops_everywhere(here: &Server, there: &Server) {
    change(here, "/v1/rules/off/activate", &json!({"version": 1})).await;
    let bound = 4 * 150;
    let canary = json!({"version": 2, "percent": 100, "stop_at_difference": bound});
    change(here, "/v1/rules/off/canary", &canary).await;
    let orders = orders_after(there, "canary").await;
    let rule = async |door: &Server| call(door, KEY, Method::GET, "/v1/rules/off", &Value::Null).await.1;
    for door in [here, there] {
        let stopped =
            wait_for(RECOVERY, async || (!rule(door).await["trial"]["stopped"].is_null()).then_some(()));
        assert!(stopped.await.is_some(), "{:#}", rule(door).await);
    }
    let shaped = |version: &str| orders.iter().filter(|it| it.1["rules"][0]["version"] == version).count();
    println!("{} orders met the canary, {} the active version", shaped("2"), shaped("1"));
    assert!(shaped("2") >= 4, "at 150 each it takes four");
    assert_everywhere(&orders_after(there, "stopped").await, FULL_MINOR - 100, &["1"]);
    let path = "/v1/rules/off/samples?kind=difference";
    for door in [here, there] {
        let shown = wait_for(RECOVERY, async || {
            let (_, samples) = call(door, KEY, Method::GET, path, &Value::Null).await;
            samples["data"].get(0).cloned()
        });
        let sample = shown.await.expect("a worker's samples are shown at every door");
        assert_eq!((&sample["version"], &sample["other"]["version"]), (&json!("2"), &json!("1")));
    }
    change(here, "/v1/rules/off/rollback", &json!({})).await;
    assert_everywhere(&orders_after(there, "rolled-back-too").await, FULL_MINOR - 100, &["1"]);
}

/// A key made at one door is refused at the other within a second of its revocation.
async fn a_revoked_key_is_refused_everywhere(here: &Server, there: &Server) {
    let path = "/v1/orders?limit=1";
    let (status, made) = call(here, KEY, Method::POST, "/v1/keys", &json!({"name": "till"})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let key = made["key"].as_str().unwrap();
    let known = wait_for(EVERYWHERE, async || {
        let status = call(there, key, Method::GET, path, &Value::Null).await.0;
        (status == StatusCode::OK).then_some(())
    });
    assert!(known.await.is_some(), "a new key is taken at every door within a second");
    let revoke = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    let (status, answer) = call(here, KEY, Method::DELETE, &revoke, &Value::Null).await;
    assert!(status.is_success(), "{status}: {answer}");
    let revoked = Instant::now();
    let refused = wait_for(EVERYWHERE, async || {
        let status = call(there, key, Method::GET, path, &Value::Null).await.0;
        (status == StatusCode::UNAUTHORIZED).then_some(())
    });
    assert!(refused.await.is_some(), "a revoked key is refused at every door within a second");
    println!("the key was refused at the other door {:?} after its revocation", revoked.elapsed());
    assert_eq!(call(here, key, Method::GET, path, &Value::Null).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_configured_at_one_process_holds_in_every_other_within_a_second() {
    let cluster = cluster().await;
    let doors = cluster.workers();
    let (here, there) = (doors[0].server().unwrap(), doors[1].server().unwrap());
    rules_hold_everywhere(&here, &there).await;
    a_revoked_key_is_refused_everywhere(&here, &there).await;
    a_canary_stops_everywhere(&here, &there).await;
    drop((here, there));
    cluster.stop_workers().await;
}
