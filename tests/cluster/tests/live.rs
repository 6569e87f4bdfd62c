//! What leaves a cluster live: a stream goes on at another door where the one before was killed, and webhooks keep each
//! order's events in order while the workers that send them are killed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_e2e::deliveries::{assert_in_order, of_orders, taken};
use tillstream_e2e::events::Events;
use tillstream_e2e::receiver::{Behaviour, Receiver};
use tillstream_e2e_cluster::cluster::{Cluster, RECOVERY, Wires};
use tillstream_e2e_cluster::wait_for;
use tillstream_servers::{CassandraOptions, KafkaOptions};

const ORDERS: usize = 30;

fn order() -> Value {
    json!({"currency": "GBP", "country": "GB", "lines": [{"sku": "lamp", "quantity": 1, "unit_price": 450}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

async fn cluster() -> Arc<Cluster> {
    let environment = [
        ("TILLSTREAM_WEBHOOKS_ALLOW_PRIVATE", "true"),
        ("TILLSTREAM_WEBHOOKS_RETRY_WAITS_MS", "50,100,200,400,400,400,400,400,400,400"),
        ("TILLSTREAM_WEBHOOKS_TIMEOUT_MS", "1000"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let wires = Wires { environment, ..Wires::default() };
    let cluster = Cluster::start_with(KafkaOptions::default(), CassandraOptions::default(), |_| wires).await;
    let stock = json!({"delta": 100_000, "reason": "received", "location": "main"});
    cluster.add_ready(&["ingest,order,item,effects,analytics", "ingest"]).await;
    assert!(cluster.post("/v1/inventory/lamp/adjustments", "stock", &stock).await.0.is_success());
    cluster
}

/// Places an order; its id.
async fn place(cluster: &Cluster, key: &str) -> String {
    let (status, placed) = cluster.post("/v1/orders", key, &order()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{placed}");
    placed["id"].as_str().unwrap().to_owned()
}

/// Waits until an order has a status.
async fn becomes(cluster: &Cluster, id: &str, status: &str) {
    let path = format!("/v1/orders/{id}");
    let there = wait_for(RECOVERY, async || (cluster.get(&path).await["status"] == status).then_some(()));
    assert!(there.await.is_some(), "{id} is not {status}:\n{}", cluster.tails());
}

/// The ids of an order's events, oldest first.
async fn history(cluster: &Cluster, id: &str) -> Vec<String> {
    let events = cluster.get(&format!("/v1/orders/{id}/events")).await;
    events["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

/// A stream begins at one door, which is killed, and goes on at the other.
async fn a_stream_resumes_at_another_door(cluster: &Cluster) {
    let [keeps, dies] = cluster.workers().try_into().map_err(|_| "two doors").unwrap();
    let id = place(cluster, "streamed").await;
    let path = format!("/v1/orders/{id}/events");
    let mut seen: Vec<(String, Value)> = Vec::new();
    let mut stream = Events::open(dies.server().unwrap().url(), &path, None).await;
    for _ in 0..2 {
        seen.push(stream.next().await.unwrap().unwrap());
    }
    dies.kill();
    while let Ok(Some(event)) = stream.next().await {
        seen.push(event);
    }
    let last = seen.last().unwrap().0.clone();
    let mut stream = Events::open(keeps.server().unwrap().url(), &path, Some(&last)).await;
    becomes(cluster, &id, "confirmed").await;
    let (status, shipped) =
        cluster.post(&format!("/v1/orders/{id}/shipments"), "ship", &json!({"carrier": "post"})).await;
    assert!(status.is_success(), "{shipped}");
    becomes(cluster, &id, "shipped").await;
    let all = history(cluster, &id).await;
    while seen.len() < all.len() {
        seen.push(stream.next().await.unwrap().unwrap());
    }
    let streamed: Vec<&str> = seen.iter().map(|(_, it)| it["id"].as_str().unwrap()).collect();
    assert_eq!(streamed, all, "every event once, in order, over both doors");
    dies.start();
    cluster.ready().await;
}

/// Two workers send; each is killed in turn while orders come in, and the other, or the next life, goes on.
async fn webhooks_keep_their_order_while_senders_are_killed(cluster: &Cluster) {
    let receiver = Receiver::start(Arc::new(|_, n| match n % 11 {
        3 => Behaviour::Status(500),
        7 => Behaviour::Slow(100),
        _ => Behaviour::Status(200),
    }))
    .await;
    let hook = json!({"url": receiver.url("hook"), "events": ["order.*", "payment.*"]});
    let (status, made) = cluster.post("/v1/webhooks/endpoints", "unused", &hook).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let senders = [cluster.add("webhooks"), cluster.add("webhooks")];
    cluster.ready().await;
    let mut orders = Vec::new();
    for n in 0..ORDERS {
        orders.push(place(cluster, &format!("hooked-{n}")).await);
        if n % 10 == 5 {
            let before = receiver.received("hook").len();
            receiver.until("hook", |it| it.len() > before).await;
            let sender = &senders[n / 10 % 2];
            sender.kill();
            sender.start();
        }
    }
    for id in &orders {
        becomes(cluster, id, "confirmed").await;
    }
    // An order's last event may come after it is confirmed: what must have come is asked anew each time.
    let told = || {
        let mut told = taken(&of_orders(&receiver.received("hook")));
        told.retain(|id, _| orders.contains(id));
        told
    };
    let mut happened = BTreeMap::new();
    let all = wait_for(RECOVERY, async || {
        for id in &orders {
            happened.insert(id.clone(), history(cluster, id).await);
        }
        (told() == happened).then_some(())
    });
    assert!(all.await.is_some(), "told {:#?}\nof {happened:#?}\n{}", told(), cluster.tails());
    assert_in_order(&of_orders(&receiver.received("hook")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_resume_elsewhere_and_webhooks_stay_in_order_through_kills() {
    let cluster = cluster().await;
    println!("the servers are up");
    a_stream_resumes_at_another_door(&cluster).await;
    println!("a stream went on at another door");
    webhooks_keep_their_order_while_senders_are_killed(&cluster).await;
    cluster.ready().await;
    cluster.stop_workers().await;
}
