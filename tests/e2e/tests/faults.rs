//! A disk that refuses: a sync that fails, and no space left. The process stops or refuses by itself, and once the disk is
//! well again everything that was acknowledged is there.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use tillstream_e2e::Server;
use tillstream_e2e::audit::audit;
use tillstream_e2e::disk::check::check;
use tillstream_e2e::random::Random;

/// Orders a client tries, at most: the fault comes long before.
const ORDERS_MAX: usize = 2_000;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// Places orders on a server whose disk has `fault` until one is not taken. Answers what was acknowledged.
async fn place_until_refused(dir: &Path, fault: &str) -> (BTreeSet<String>, Server) {
    let mut server = Server::spawn_traced(dir, &[], &["-f", fault]);
    let mut acknowledged = BTreeSet::new();
    if !server.ready_or_ended().await {
        return (acknowledged, server);
    }
    for n in 0..ORDERS_MAX {
        let body = json!({"currency": "GBP", "lines": [{"sku": format!("sku-{}", n % 7), "quantity": 1, "unit_price": 100}],
            "payment": {"method": "pm_card_visa", "capture": "automatic"}});
        match server.try_call(Method::POST, "/v1/orders", Some(&format!("order-{n}")), Some(&body)).await {
            Ok(answer) if answer.status.is_success() => {
                acknowledged.insert(answer.json["id"].as_str().unwrap().to_owned());
            }
            Ok(answer) => {
                let refused = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];
                assert!(refused.contains(&answer.status), "{fault}: {} {}", answer.status, answer.text);
                assert!(answer.json["code"].is_string(), "{fault}: {}", answer.text);
                return (acknowledged, server);
            }
            Err(_) => return (acknowledged, server),
        }
    }
    panic!("{fault}: {ORDERS_MAX} orders were taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_and_a_full_disk_end_in_a_refusal_and_lose_nothing() {
    let rounds = from_environment("TILLSTREAM_FAULTS", 3);
    let seed = from_environment("SEED", 0xfa17);
    let mut random = Random::new(seed);
    for fault in ["sync-eio", "full"] {
        for _ in 0..rounds {
            let fault = format!("{fault}:{}", 20 + random.below(200));
            let dir = tempfile::tempdir().unwrap();
            let (acknowledged, server) = place_until_refused(dir.path(), &fault).await;
            let said = server.output().join("\n");
            server.kill();
            let found = check(dir.path(), &acknowledged).await;
            assert!(found.is_ok(), "SEED={seed} {fault}: {found:?}\n{said}");
            let server = Server::start(dir.path(), &[]).await;
            for id in &acknowledged {
                server.until(&format!("/v1/orders/{id}"), |it| it["status"] != "pending").await;
            }
            server.drained().await;
            let totals = audit(&server, &acknowledged, &[]).await;
            println!("{fault}: {} acknowledged, {:?}", acknowledged.len(), totals.by_status);
            assert!(server.terminate().await.success());
        }
    }
}
