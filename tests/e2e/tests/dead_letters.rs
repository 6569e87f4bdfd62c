//! A record that nobody can take goes to the dead letters with its reason and origin, and the partition goes on.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tillstream_e2e::{KEY, Server, binary};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore, damage};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_schemas::Topic;

const PARTITIONS: u32 = 4;

fn order() -> Value {
    json!({"currency": "GBP", "country": "GB", "lines": [{"sku": "a", "quantity": 1, "unit_price": 100}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

async fn stock(server: &Server) {
    let body = json!({"delta": 1_000, "reason": "received", "location": "main"});
    server.post("/v1/inventory/a/adjustments", "stock", &body).await;
}

async fn confirmed(server: &Server, key: &str) {
    let id = server.post("/v1/orders", key, &order()).await["id"].as_str().unwrap().to_owned();
    server.until(&format!("/v1/orders/{id}"), |it| it["status"] == "confirmed").await;
}

/// Writes bytes into the log of a stopped pipeline, as a broken producer would.
async fn append_garbage(dir: &Path) {
    let store = EmbeddedStore::open(EmbeddedSettings::new(dir)).unwrap();
    let garbage = (0..PARTITIONS).map(|partition| NewRecord {
        to: TopicPartition::new(Topic::OrderCommands, partition),
        key: "demo/ord_garbage".into(),
        value: b"no Avro at all"[..].into(),
        headers: Headers::new(),
    });
    store.append(garbage.collect()).await.unwrap();
    store.close().await.unwrap();
}

fn dlq(server: &Server, arguments: &[&str]) -> String {
    let output = Command::new(binary())
        .arg("dlq")
        .args(arguments)
        .args(["--url", server.url(), "--api-key", KEY])
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn garbage_in_the_log_is_dead_lettered_shown_and_redriven_and_orders_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    stock(&server).await;
    confirmed(&server, "before").await;
    assert!(server.terminate().await.success());
    append_garbage(dir.path()).await;

    let server = Server::start(dir.path(), &[]).await;
    for n in 0..8 {
        confirmed(&server, &format!("after-{n}")).await;
    }
    let count = |it: &Value| it["data"].as_array().unwrap().len();
    let letters = server.until("/v1/dead-letters", |it| count(it) == PARTITIONS as usize).await;
    for letter in letters["data"].as_array().unwrap() {
        assert_eq!((&letter["reason"], &letter["code"]), (&json!("decode"), &json!("TS0101")), "{letter}");
        assert_eq!(letter["origin"]["topic"], "orders.order.commands.v1", "{letter}");
        assert!(letter["origin"]["offset"].is_u64(), "{letter}");
    }

    let listed = dlq(&server, &["list", "--reason", "decode"]);
    assert_eq!(listed.lines().count(), PARTITIONS as usize, "{listed}");
    let place = listed.split_whitespace().next().unwrap();
    assert!(dlq(&server, &["show", place]).contains("TS0101"));
    dlq(&server, &["redrive", place]);
    // Still garbage: it comes back, and its history with it.
    let again = server.until("/v1/dead-letters", |it| count(it) == PARTITIONS as usize + 1).await;
    assert!(again["data"].as_array().unwrap().iter().any(|it| it["redrive_count"] == 1), "{again}");

    // All at once: each of them comes back once, and not twice in the same run.
    let said = dlq(&server, &["redrive", "--reason", "decode", "--rate", "1000"]);
    assert_eq!(said.trim(), "redriven: 5, not redriven: 0");
    let all = server.until("/v1/dead-letters", |it| count(it) == 2 * (PARTITIONS as usize + 1)).await;
    let newest = all["data"].as_array().unwrap().iter().find(|it| it["redrive_count"] == 2).unwrap();
    assert_ne!(newest["first_origin"], Value::Null, "{newest}");
    let before = newest["redriven_from"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/dead-letters/{before}")).await["redrive_count"], 1);
    confirmed(&server, "last").await;
}

#[tokio::test]
async fn a_batch_that_the_disk_has_changed_is_named_and_the_partition_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    stock(&server).await;
    confirmed(&server, "before").await;
    assert!(server.terminate().await.success());
    append_garbage(dir.path()).await;
    let settings = EmbeddedSettings::new(dir.path());
    let end = {
        let store = EmbeddedStore::open(settings.clone()).unwrap();
        let at = TopicPartition::new(Topic::OrderCommands, 0);
        let end = store.end_offset(at).unwrap();
        store.close().await.unwrap();
        end
    };
    let flipped = damage::flip_bit(&settings, TopicPartition::new(Topic::OrderCommands, 0), end - 1);
    assert!(flipped.unwrap(), "a batch was there to damage");

    let server = Server::start(dir.path(), &[]).await;
    for n in 0..8 {
        confirmed(&server, &format!("after-{n}")).await;
    }
    let metrics = server.call(reqwest::Method::GET, "/metrics", None, None).await.text;
    let letters = metrics.lines().filter(|it| it.starts_with("tillstream_dead_letters_total{"));
    let corrupt = letters.filter(|it| it.contains("reason=\"corrupt\""));
    let given_up: f64 = corrupt.filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(given_up, 1.0, "{metrics}");
}
