//! SIGKILL at random moments: every acknowledged order exists once, and the end equals that of a calm run.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tillstream_e2e::Server;
use tillstream_e2e::audit::{Totals, audit};
use tillstream_e2e::disk::POINTS;
use tillstream_e2e::kills::Mortal;
use tillstream_random::Random;

const SKUS: usize = 40;
const STOCK: i64 = 1_000_000;
const WRITERS: usize = 8;

/// Retries with backoff make a lost or refused provider call invisible in the totals, so they are part of every run.
const ARGUMENTS: [&str; 6] = [
    "--sandbox-latency-max-ms",
    "20",
    "--sandbox-lost-reply-rate",
    "0.05",
    "--sandbox-unavailable-rate",
    "0.02",
];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

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

async fn catalog(server: &Mortal) {
    for sku in skus() {
        let body = json!({"delta": STOCK, "reason": "received", "location": "main"});
        let (status, answer) = server.post(&format!("/v1/inventory/{sku}/adjustments"), "stock", &body).await;
        assert!(status.is_success(), "{answer}");
    }
}

/// Prices stand in the orders, so that no catalog has to be put in force while the server dies.
fn with_prices(mut order: Value) -> Value {
    for line in order["lines"].as_array_mut().unwrap() {
        line["unit_price"] = json!(100 + line["sku"].as_str().unwrap().len() * 7);
    }
    order
}

async fn place(server: &Mortal, seed: u64, n: usize) -> String {
    let body = with_prices(order(seed, n));
    let key = format!("order-{n}");
    let (status, answer) = server.post("/v1/orders", &key, &body).await;
    assert!(status.is_success(), "{status} {answer}");
    let (status, again) = server.post("/v1/orders", &key, &body).await;
    assert!(status.is_success(), "{status} {again}");
    assert_eq!(again["id"], answer["id"], "a repeat answered another id");
    answer["id"].as_str().unwrap().to_owned()
}

/// Runs `orders` steps through a server that is killed `cuts` times; `each` is one step of a client.
async fn run<F: Future<Output = String> + Send>(
    dir: &Path,
    seed: u64,
    orders: usize,
    cuts: usize,
    each: impl Fn(Arc<Mortal>, usize) -> F + Copy + Send + 'static,
) -> (Server, BTreeSet<String>) {
    let server = Arc::new(Mortal::start(dir.to_path_buf(), &ARGUMENTS).await);
    catalog(&server).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut ids = BTreeSet::new();
                loop {
                    let n = server.progress.fetch_add(1, Ordering::Relaxed);
                    if n >= orders {
                        return ids;
                    }
                    ids.insert(each(server.clone(), n).await);
                }
            })
        })
        .collect();
    server.cut(seed, cuts, orders).await;
    let mut ids = BTreeSet::new();
    for writer in writers {
        ids.extend(writer.await.unwrap());
    }
    assert_eq!(ids.len(), orders, "every order has an id of its own");
    let server = Arc::try_unwrap(server).ok().unwrap().into_server();
    for id in &ids {
        server.until(&format!("/v1/orders/{id}"), |it| it["status"] != "pending").await;
    }
    (server, ids)
}

/// As [`run`], but the cuts are aimed into the group commit, and clients go on until all are made. Answers the
/// orders that took, and how often each point was met.
async fn run_aimed(dir: &Path, seed: u64, cuts: usize) -> (Server, BTreeSet<String>, [usize; POINTS.len()]) {
    let server = Arc::new(Mortal::start(dir.to_path_buf(), &ARGUMENTS).await);
    catalog(&server).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut ids = BTreeSet::new();
                while !server.over.load(Ordering::Relaxed) {
                    let n = server.progress.fetch_add(1, Ordering::Relaxed);
                    ids.insert(place(&server, seed, n).await);
                }
                ids
            })
        })
        .collect();
    let met = server.cut_in_commits(seed, cuts).await;
    let mut ids = BTreeSet::new();
    for writer in writers {
        ids.extend(writer.await.unwrap());
    }
    let server = Arc::try_unwrap(server).ok().unwrap();
    assert_eq!(ids.len(), server.progress.load(Ordering::Relaxed), "every order has an id of its own");
    let server = server.into_server();
    for id in &ids {
        server.until(&format!("/v1/orders/{id}"), |it| it["status"] != "pending").await;
    }
    (server, ids, met)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_inside_the_group_commit_lose_nothing_and_double_nothing() {
    let cuts = from_environment("TILLSTREAM_CUTS", 24) as usize;
    let seed = from_environment("SEED", 0x0a1_3ed);
    let (cut_dir, calm_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, ids, met) = run_aimed(cut_dir.path(), seed, cuts).await;
    refund_some(&server, &ids).await;
    server.drained().await;
    let cut = audit(&server, &ids, &skus()).await;
    assert!(server.terminate().await.success());
    let calm = history(calm_dir.path(), seed, ids.len(), 0).await;
    println!(
        "seed {seed}: {cuts} cuts, {} orders, {:?}, provider {:?}",
        ids.len(),
        cut.by_status,
        cut.provider
    );
    println!("met {:?}", POINTS.iter().zip(met).collect::<Vec<_>>());
    assert_eq!(cut, calm, "SEED={seed} TILLSTREAM_CUTS={cuts}");
    assert_eq!((cut.provider.1, cut.provider.2), (cut.captured, cut.refunded));
}

async fn refund_some(server: &Server, ids: &BTreeSet<String>) {
    for (n, id) in ids.iter().enumerate().filter(|(n, _)| n % 7 == 0) {
        if server.get(&format!("/v1/orders/{id}")).await["status"] != "confirmed" {
            continue;
        }
        let amount = 1 + n as i64 % 50;
        let body = json!({"amount": amount, "refunded_at": "2026-03-02T10:00:00Z"});
        server.post(&format!("/v1/orders/{id}/refunds"), "refund", &body).await;
        server.until(&format!("/v1/orders/{id}"), |it| it["payment"]["refunded"] == json!(amount)).await;
    }
}

async fn history(dir: &Path, seed: u64, orders: usize, cuts: usize) -> Totals {
    let each = move |server: Arc<Mortal>, n| async move { place(&server, seed, n).await };
    let (server, ids) = run(dir, seed, orders, cuts, each).await;
    refund_some(&server, &ids).await;
    server.drained().await;
    let totals = audit(&server, &ids, &skus()).await;
    assert!(server.terminate().await.success(), "SIGTERM drains and exits 0");
    totals
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    let cuts = from_environment("TILLSTREAM_CUTS", 24) as usize;
    let seed = from_environment("SEED", 0x7115_7263);
    let orders = cuts * 60;
    let calm_dir = tempfile::tempdir().unwrap();
    let cut_dir = tempfile::tempdir().unwrap();
    let calm = history(calm_dir.path(), seed, orders, 0).await;
    let cut = history(cut_dir.path(), seed, orders, cuts).await;
    println!("seed {seed}: {cuts} cuts, {orders} orders, {:?}, provider {:?}", cut.by_status, cut.provider);
    assert_eq!(cut, calm, "SEED={seed} TILLSTREAM_CUTS={cuts}");
    assert_eq!((calm.provider.1, calm.provider.2), (calm.captured, calm.refunded));
    assert_eq!(calm.analytics.3, calm.refunded);
    assert!(calm.by_status["confirmed"] > 0 && calm.by_status["failed"] > 0, "{:?}", calm.by_status);
    let sold: i64 = calm.stock.values().map(|it| STOCK - it.0).sum();
    assert_eq!(calm.analytics.1, sold, "units sold are units gone");
    assert!(calm.stock.values().all(|it| it.1 == 0), "no hold outlives its order: {:?}", calm.stock);
}

/// An order, and at once something that races it: a cancel, a refund, a shipment, a return.
async fn place_and_race(server: Arc<Mortal>, seed: u64, n: usize) -> String {
    let id = place(&server, seed, n).await;
    let mut random = Random::new(seed.rotate_left(17) ^ n as u64);
    for step in 0..random.below(4) {
        let (path, body) = match random.below(6) {
            0 | 1 => ("cancel", json!({"reason": "changed my mind"})),
            2 => ("refunds", json!({})),
            3 => ("refunds", json!({"amount": 1 + random.below(200)})),
            4 => ("shipments", json!({})),
            _ => (
                "returns",
                json!({"returned_at": "2026-03-03T10:00:00Z",
                "lines": [{"sku": with_prices(order(seed, n))["lines"][0]["sku"], "quantity": 1}]}),
            ),
        };
        let (status, answer) =
            server.post(&format!("/v1/orders/{id}/{path}"), &format!("{path}-{step}"), &body).await;
        // Whether the order can take it is for the order to say; that it is answered at all is checked here.
        assert!(status.is_success() || status.as_u16() == 409, "{path}: {status} {answer}");
    }
    id
}

/// Units of each SKU that left the stock for good: those of orders that live, less what came back.
async fn units_gone(server: &Server, ids: &BTreeSet<String>) -> BTreeMap<String, i64> {
    let mut gone: BTreeMap<String, i64> = skus().into_iter().map(|it| (it, 0)).collect();
    for id in ids {
        let order = server.get(&format!("/v1/orders/{id}")).await;
        let status = order["status"].as_str().unwrap();
        let (captured, refunded) =
            (order["payment"]["captured"].as_i64(), order["payment"]["refunded"].as_i64());
        if matches!(status, "cancelled" | "failed") {
            assert_eq!(captured, refunded, "a dead order keeps no money: {order}");
            continue;
        }
        for line in order["lines"].as_array().unwrap() {
            *gone.get_mut(line["sku"].as_str().unwrap()).unwrap() += line["quantity"].as_i64().unwrap();
        }
        for line in order["returns"].as_array().unwrap() {
            *gone.get_mut(line["sku"].as_str().unwrap()).unwrap() -= line["quantity"].as_i64().unwrap();
        }
    }
    gone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancels_refunds_shipments_and_returns_that_race_kills_leave_books_and_stock_in_balance() {
    let cuts = (from_environment("TILLSTREAM_CUTS", 24) / 3).max(1) as usize;
    let seed = from_environment("SEED", 0x0ca5_cade);
    let orders = cuts * 60;
    let dir = tempfile::tempdir().unwrap();
    let each = move |server, n| place_and_race(server, seed, n);
    let (server, ids) = run(dir.path(), seed, orders, cuts, each).await;
    server.drained().await;
    let gone = units_gone(&server, &ids).await;
    let totals = audit(&server, &ids, &skus()).await;
    println!(
        "seed {seed}: {cuts} cuts, {orders} orders, {:?}, provider {:?}",
        totals.by_status, totals.provider
    );
    assert_eq!((totals.provider.1, totals.provider.2), (totals.captured, totals.refunded), "SEED={seed}");
    assert!(totals.by_status["cancelled"] > 0 && totals.by_status["shipped"] > 0, "{:?}", totals.by_status);
    for (sku, (on_hand, reserved)) in &totals.stock {
        assert_eq!((*on_hand, *reserved), (STOCK - gone[sku], 0), "{sku}, SEED={seed}");
    }
    assert!(server.terminate().await.success());
}
