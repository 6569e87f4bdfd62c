//! TLS and passwords on the wires: an order goes through them, a wrong password does not, and none is ever shown.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::StatusCode;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tillstream_e2e::KEY;
use tillstream_e2e_cluster::cluster::{Cluster, Wires};
use tillstream_e2e_cluster::wait_for;
use tillstream_e2e_cluster::worker::Worker;
use tillstream_servers::{CassandraOptions, ClientTls, Credentials, KafkaOptions, Stack};

const USER: &str = "shopkeeper";
const BROKER_PASSWORD: &str = "brass-lantern-4711";
/// The one that a new Cassandra has.
const DATABASE_PASSWORD: &str = "cassandra";
const WRONG: &str = "wrong-tulip-0815";

fn wires(stack: &Stack, dir: &tempfile::TempDir) -> Wires {
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.display().to_string()
    };
    let broker_ca = stack.kafka.certificates().unwrap().authority.display().to_string();
    let database_ca = stack.cassandra.certificates().unwrap().authority.display().to_string();
    let of = |all: &[&str]| all.iter().map(ToString::to_string).collect();
    Wires {
        brokers: stack.kafka.scram_address().map(str::to_owned),
        broker: of(&[
            "--broker-ca-file",
            &broker_ca,
            "--broker-user",
            USER,
            "--broker-password-file",
            &path("broker-password", BROKER_PASSWORD),
        ]),
        database: of(&[
            "--scylla-ca-file",
            &database_ca,
            "--scylla-user",
            "cassandra",
            "--scylla-password-file",
            &path("database-password", DATABASE_PASSWORD),
        ]),
        ..Wires::default()
    }
}

async fn secured(dir: &tempfile::TempDir) -> Arc<Cluster> {
    let credentials = Credentials { user: USER.into(), password: BROKER_PASSWORD.into() };
    let kafka = KafkaOptions { scram: Some(credentials), ..KafkaOptions::default() };
    let cassandra =
        CassandraOptions { password: true, tls: ClientTls::Server, ..CassandraOptions::default() };
    Cluster::start_with(kafka, cassandra, |stack| wires(stack, dir)).await
}

fn shows_no_secret(worker: &Worker) {
    for line in worker.output() {
        // "cassandra" is a user, a password and a product: only as a password it would stand behind a colon or "=".
        let password = line.contains("password=cassandra") || line.contains("password: \"cassandra\"");
        let shown = [BROKER_PASSWORD, WRONG, KEY].into_iter().find(|it| line.contains(it));
        assert!(shown.is_none() && !password, "{} shows a secret: {line}", worker.name);
    }
}

/// A worker with a wrong password, and what it says: it ends, or says so again and again.
async fn refused(cluster: &Cluster, options: [&str; 2], words: &[&str]) {
    let worker = cluster.worker("", &options);
    worker.start();
    let said = |line: &String| words.iter().any(|it| line.to_lowercase().contains(it));
    let told =
        wait_for(Duration::from_secs(60), async || worker.output().iter().any(said).then_some(())).await;
    assert!(told.is_some(), "{options:?}: none of {words:?} is in:\n{}", worker.tail(40));
    assert!(!worker.is_ready().await, "{options:?} was let in");
    shows_no_secret(&worker);
    if !worker.has_died() {
        worker.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_goes_through_tls_and_logins_and_no_secret_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = secured(&dir).await;
    let worker = cluster.worker("", &["--log", "debug"]);
    worker.start();
    cluster.adopt(worker.clone());
    cluster.ready().await;
    let body = json!({"delta": 5, "reason": "received", "location": "main"});
    assert!(cluster.post("/v1/inventory/lamp/adjustments", "a", &body).await.0.is_success());
    let order = json!({"currency": "GBP", "country": "GB", "lines": [{"sku": "lamp", "quantity": 2, "unit_price": 450}],
                       "payment": {"method": "pm_card_visa", "capture": "automatic"}});
    let (status, placed) = cluster.post("/v1/orders", "one", &order).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{placed}");
    let path = format!("/v1/orders/{}", placed["id"].as_str().unwrap());
    let confirmed = wait_for(Duration::from_secs(30), async || {
        (cluster.get(&path).await["status"] == "confirmed").then_some(())
    });
    assert!(confirmed.await.is_some(), "{}", cluster.tails());
    assert_eq!(cluster.payments().await.len(), 1);

    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, WRONG).unwrap();
    let wrong = wrong.display().to_string();
    refused(&cluster, ["--broker-password-file", &wrong], &["authentication failed", "sasl"]).await;
    refused(&cluster, ["--scylla-password-file", &wrong], &["authentication", "credentials", "password"])
        .await;
    let strange = dir.path().join("strange");
    let strange = tillstream_servers::Certificates::create(&strange).unwrap().authority.display().to_string();
    refused(&cluster, ["--broker-ca-file", &strange], &["certificate", "ssl"]).await;
    cluster.stop_workers().await;
    shows_no_secret(&worker);
}
