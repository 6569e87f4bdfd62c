//! A disk that refuses: a sync that fails, and no space left. The process stops or refuses by itself, and once the disk is
//! well again everything that was acknowledged is there.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeSet;
use tillstream_e2e::audit::audit;
use tillstream_e2e::disk::check::check;
use tillstream_e2e::{Server, bare_command, free_port};
use tillstream_effects::{
    PaymentProvider, ProviderReply, RemoteSandbox, RemoteSettings, SandboxProvider, SandboxSettings,
};
use tillstream_random::Random;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation};

/// Orders a client tries, at most: the fault comes long before.
const ORDERS_MAX: usize = 2_000;
/// Payments a client tries, at most.
const PAYMENTS_MAX: usize = 1_000;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// What goes wrong.
struct Fault {
    /// The tracer's name of it.
    kind: &'static str,
    /// With which journals: a part of their path.
    journals: &'static str,
    /// The first time it may come, and how much later.
    at: (usize, usize),
    /// The code that the process ends with by itself; none: it stays, and refuses.
    ends_with: Option<&'static str>,
}

const FAULTS: [Fault; 3] = [
    Fault { kind: "sync-eio", journals: "/db", at: (20, 200), ends_with: Some("TS0306") },
    Fault { kind: "sync-eio", journals: "/sandbox/", at: (1, 40), ends_with: Some("TS0502") },
    Fault { kind: "full", journals: "", at: (20, 200), ends_with: None },
];

fn sku(n: usize) -> String {
    format!("sku-{}", n % 7)
}

/// Takes stock in and places orders until one call is not taken. Answers what was acknowledged.
async fn place_until_refused(server: &Server, name: &str) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for n in 0..7 + ORDERS_MAX {
        let (path, key, body) = if n < 7 {
            let body = json!({"delta": 100_000, "reason": "received", "location": "main"});
            (format!("/v1/inventory/{}/adjustments", sku(n)), format!("stock-{n}"), body)
        } else {
            let body = json!({"currency": "GBP", "lines": [{"sku": sku(n), "quantity": 1, "unit_price": 100}],
                "payment": {"method": "pm_card_visa", "capture": "automatic"}});
            ("/v1/orders".to_owned(), format!("order-{n}"), body)
        };
        match server.try_call(Method::POST, &path, Some(&key), Some(&body)).await {
            Ok(answer) if answer.status.is_success() && n < 7 => {}
            Ok(answer) if answer.status.is_success() => {
                acknowledged.insert(answer.json["id"].as_str().unwrap().to_owned());
            }
            Ok(answer) => {
                let refused = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];
                assert!(refused.contains(&answer.status), "{name}: {} {}", answer.status, answer.text);
                assert!(answer.json["code"].is_string(), "{name}: {}", answer.text);
                return acknowledged;
            }
            Err(_) => return acknowledged,
        }
    }
    panic!("{name}: {ORDERS_MAX} orders were taken");
}

/// One server on a disk with this fault, and one on the same disk once it is well. Answers what it came to.
async fn outlives(fault: &Fault, random: &mut Random, seed: u64) -> String {
    let at = fault.at.0 + random.below(fault.at.1);
    let name = format!("SEED={seed} {}:{at} {}", fault.kind, fault.journals);
    let dir = tempfile::tempdir().unwrap();
    let flags = ["-j", fault.journals, "-f", &format!("{}:{at}", fault.kind)];
    let mut server = Server::spawn_traced(dir.path(), &[], &flags);
    let mut acknowledged = BTreeSet::new();
    if server.ready_or_ended().await {
        acknowledged = place_until_refused(&server, &name).await;
    }
    match fault.ends_with {
        Some(code) => {
            assert!(!server.wait().await.success(), "{name}: it ended well");
            let said = server.output().join("\n");
            assert!(said.contains(code), "{name}: {code} was not said\n{said}");
        }
        None => server.kill(),
    }
    let found = check(dir.path(), &acknowledged).await;
    assert!(found.is_ok(), "{name}: {found:?}");
    let server = Server::start(dir.path(), &[]).await;
    for id in &acknowledged {
        server.until(&format!("/v1/orders/{id}"), |it| it["status"] != "pending").await;
    }
    server.drained().await;
    let totals = audit(&server, &acknowledged, &[]).await;
    let confirmed = totals.by_status.get("confirmed").copied().unwrap_or_default();
    assert_eq!(
        confirmed,
        acknowledged.len() as u64,
        "{name}: a disk's fault is no reason to refuse an order"
    );
    assert_eq!(totals.captured, 100 * i64::try_from(confirmed).unwrap(), "{name}: each is paid, once");
    assert!(server.terminate().await.success());
    format!("{name}: {} acknowledged, {:?}", acknowledged.len(), totals.by_status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_and_a_full_disk_end_in_a_refusal_and_lose_nothing() {
    let rounds = from_environment("TILLSTREAM_FAULTS", 3);
    let seed = from_environment("SEED", 0xfa17);
    let mut random = Random::new(seed);
    for fault in &FAULTS {
        for _ in 0..rounds {
            println!("{}", outlives(fault, &mut random, seed).await);
        }
    }
}

fn payment(n: usize) -> PaymentRequest {
    PaymentRequest {
        payment_id: format!("pay_{n}").into(),
        request_key: format!("req_{n}").into(),
        attempt: 1,
        operation: PaymentOperation::Authorize,
        amount_minor: 100,
        currency: "GBP".into(),
        method: "pm_card_visa".into(),
        capture: CaptureMode::Automatic,
        refund_id: None,
        first_asked_at_ms: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_served_sandbox_ends_with_its_ledger_and_keeps_what_it_answered() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut command = bare_command();
    command.arg("sandbox").arg("--data-dir").arg(dir.path()).args(["--listen", &format!("127.0.0.1:{port}")]);
    let flags = ["-j", "/sandbox/", "-f", "sync-eio:20"];
    let server = Server::spawn_command_traced(&command, port, dir.path(), &flags);
    server.until_answered("/healthz").await;
    let client = RemoteSandbox::new(RemoteSettings::new(server.url())).unwrap();
    let mut answered = Vec::new();
    for n in 0..PAYMENTS_MAX {
        match client.execute("demo", &format!("ord_{n}"), &payment(n)).await {
            ProviderReply::Answered(result) => answered.push(result),
            ProviderReply::Unavailable { .. } | ProviderReply::Unknown { .. } => break,
        }
    }
    assert!((1..PAYMENTS_MAX).contains(&answered.len()), "{} were answered", answered.len());
    assert!(!server.wait().await.success());
    let said = server.output().join("\n");
    assert!(said.contains("TS0502"), "{said}");
    let ledger = SandboxProvider::open(SandboxSettings::new(dir.path().join("sandbox"))).unwrap();
    for result in &answered {
        let kept = ledger.payment(&result.payment_id).unwrap().expect("an answered payment is kept");
        assert_eq!(kept.captured_minor, 100, "{result:?}");
    }
}
