//! SIGKILL at random moments: every acknowledged order exists once, and the end equals that of a calm run.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_e2e::audit::{Totals, audit};
use tillstream_e2e::random::Random;
use tillstream_e2e::{DEADLINE, Server};
use tokio::sync::RwLock;
use tokio::time::Instant;

const SKUS: u64 = 40;
const STOCK: i64 = 1_000_000;
const WRITERS: usize = 8;

/// Retries with backoff make a lost or refused provider call invisible in the totals, so they are part of both runs.
const ARGUMENTS: [&str; 8] = [
    "--sandbox-latency-max-ms",
    "20",
    "--sandbox-lost-reply-rate",
    "0.05",
    "--sandbox-unavailable-rate",
    "0.02",
    "--retention-hours",
    "100",
];

fn skus() -> Vec<String> {
    (0..SKUS).map(|it| format!("sku-{it}")).collect()
}

/// The nth order of a run: the same for the same seed, whatever happens around it.
fn order(seed: u64, n: usize) -> Value {
    let mut random = Random::new(seed ^ (n as u64).wrapping_mul(0x9e37_79b9));
    let lines: Vec<Value> = (0..1 + random.below(5))
        .map(|_| json!({"sku": format!("sku-{}", random.below(SKUS)), "quantity": 1 + random.below(4)}))
        .collect();
    let method = match random.below(20) {
        0 => "pm_card_chargeDeclined",
        1 => "pm_sandbox_timeout",
        _ => "pm_card_visa",
    };
    json!({
        "customer": format!("c-{}", random.below(100)), "currency": "GBP", "country": "GB",
        "placed_at": "2026-03-01T10:00:00Z", "lines": lines,
        "payment": {"method": method, "capture": "automatic"},
    })
}

/// Whether the nth order is refunded after it was confirmed, and by how much.
fn refund(n: usize) -> Option<i64> {
    n.is_multiple_of(7).then_some(1 + (n as i64 % 50))
}

async fn catalog(server: &Server) {
    for sku in skus() {
        let price = 100 + sku.len() as i64 * 7;
        server.put(&format!("/v1/products/{sku}"), &json!({"name": sku, "active": true, "stocked": true, "prices": {"GBP": price}})).await;
        let path = format!("/v1/inventory/{sku}/adjustments");
        server.post(&path, "stock", &json!({"delta": STOCK, "reason": "received", "location": "main"})).await;
    }
}

/// Posts until acknowledged, whatever happens to the server meanwhile: what a merchant's client does.
async fn acknowledged(server: &RwLock<Option<Server>>, path: &str, key: &str, body: &Value) -> Value {
    let deadline = Instant::now() + DEADLINE * 2;
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        let guard = server.read().await;
        if let Some(server) = guard.as_ref()
            && let Ok(answer) = server.try_call(Method::POST, path, Some(key), Some(body)).await
        {
            match answer.status {
                status if status.is_success() => return answer.json,
                StatusCode::SERVICE_UNAVAILABLE => {}
                status => panic!("{path} {key}: {status} {}", answer.text),
            }
        }
        drop(guard);
        assert!(Instant::now() < deadline, "{path} {key} was never acknowledged");
    }
}

/// Runs `orders` orders through a server that is killed `cuts` times, and audits the end.
async fn history(dir: &Path, seed: u64, orders: usize, cuts: usize) -> Totals {
    let first = Server::start(dir, &ARGUMENTS).await;
    catalog(&first).await;
    let server = Arc::new(RwLock::new(Some(first)));
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (server, next) = (server.clone(), next.clone());
            tokio::spawn(async move {
                let mut ids = BTreeSet::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= orders {
                        return ids;
                    }
                    let answer = acknowledged(&server, "/v1/orders", &format!("order-{n}"), &order(seed, n)).await;
                    let id = answer["id"].as_str().unwrap().to_owned();
                    let again = acknowledged(&server, "/v1/orders", &format!("order-{n}"), &order(seed, n)).await;
                    assert_eq!(again["id"], json!(id), "a repeat answered another id");
                    ids.insert(id);
                }
            })
        })
        .collect();
    let killer = tokio::spawn(cut(server.clone(), dir.to_path_buf(), seed, cuts, next.clone(), orders, done.clone()));
    let mut ids = BTreeSet::new();
    for writer in writers {
        ids.extend(writer.await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    let made = killer.await.unwrap();
    assert_eq!(made, cuts, "every cut was made while orders were posted or processed");
    assert_eq!(ids.len(), orders);

    let server = Arc::try_unwrap(server).ok().unwrap().into_inner().unwrap();
    refunds(&server, seed, orders).await;
    server.drained().await;
    settled(&server, &ids).await;
    let totals = audit(&server, &ids, &skus()).await;
    assert!(server.terminate().await.success(), "SIGTERM drains and exits 0");
    totals
}

/// Kills and restarts at random moments. The server's place is empty while it is down, so writers wait or fail.
async fn cut(
    server: Arc<RwLock<Option<Server>>>,
    dir: std::path::PathBuf,
    seed: u64,
    cuts: usize,
    next: Arc<AtomicUsize>,
    orders: usize,
    done: Arc<AtomicBool>,
) -> usize {
    let mut random = Random::new(seed);
    for made in 0..cuts {
        // Each cut waits for its share of the orders, then for a random moment within the next 80 ms.
        let share = (made + 1) * orders / (cuts + 1);
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        while next.load(Ordering::Relaxed) < share && !done.load(Ordering::Relaxed) {
            ticks.tick().await;
        }
        let moment = Instant::now() + Duration::from_micros(random.below(80_000));
        tokio::time::sleep_until(moment).await;
        // Not through the lock: calls in flight must be cut, too.
        let pid = server.read().await.as_ref().unwrap().pid();
        std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        let mut place = server.write().await;
        place.take().unwrap().kill();
        *place = Some(Server::start(&dir, &ARGUMENTS).await);
    }
    cuts
}

async fn settled(server: &Server, ids: &BTreeSet<String>) {
    for id in ids {
        server.until(&format!("/v1/orders/{id}"), |it| it["status"] != "pending").await;
    }
}

async fn refunds(server: &Server, seed: u64, orders: usize) {
    for n in 0..orders {
        let Some(amount) = refund(n) else { continue };
        let body = order(seed, n);
        if body["payment"]["method"] == "pm_card_chargeDeclined" {
            continue;
        }
        let id = server.post("/v1/orders", &format!("order-{n}"), &body).await["id"].as_str().unwrap().to_owned();
        server.until(&format!("/v1/orders/{id}"), |it| it["status"] == "confirmed").await;
        let path = format!("/v1/orders/{id}/refunds");
        let body = json!({"amount": amount, "reason": "test", "refunded_at": "2026-03-02T10:00:00Z"});
        server.post(&path, &format!("refund-{n}"), &body).await;
        server.until(&format!("/v1/orders/{id}"), |it| it["payment"]["refunded"] == json!(amount)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    let cuts: usize = std::env::var("TILLSTREAM_CUTS").ok().and_then(|it| it.parse().ok()).unwrap_or(24);
    let seed: u64 = std::env::var("SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(0x7115_7263);
    let orders = cuts * 60;
    let calm_dir = tempfile::tempdir().unwrap();
    let cut_dir = tempfile::tempdir().unwrap();
    let calm = history(calm_dir.path(), seed, orders, 0).await;
    let cut = history(cut_dir.path(), seed, orders, cuts).await;
    println!("seed {seed}, {cuts} cuts, {orders} orders: {cut:?}");
    assert_eq!(cut, calm, "SEED={seed} TILLSTREAM_CUTS={cuts}");
    assert_eq!(calm.provider.1, calm.captured);
    assert_eq!(calm.analytics.3, calm.refunded);
    let sold: i64 = calm.stock.values().map(|it| STOCK - it.0).sum();
    assert_eq!(calm.analytics.1, sold, "units sold are units gone");
    assert!(calm.stock.values().all(|it| it.1 == 0), "no hold outlives its order: {:?}", calm.stock);
}
