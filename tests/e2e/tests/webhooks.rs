//! Outgoing webhooks of the real binary, against receivers that fail, hang, answer slowly, send too much, and send away.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use tillstream_e2e::deliveries::{assert_in_order, of_orders, taken};
use tillstream_e2e::kills::Mortal;
use tillstream_e2e::receiver::{Behaviour, Received, Receiver};
use tillstream_e2e::{Server, root};

const OPTIONS: &[&str] = &[
    "--webhooks-allow-private",
    "--webhooks-timeout-ms",
    "700",
    "--webhooks-retry-waits-ms",
    "40,80,160,320,320,320,320,320,320,320,320,320",
];

fn order(n: usize) -> Value {
    json!({"currency": "GBP", "country": "GB",
           "lines": [{"sku": "a", "quantity": 1, "unit_price": 100 + n}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

async fn stock(server: &Server) {
    let stock = json!({"delta": 100_000, "reason": "received", "location": "main"});
    server.post("/v1/inventory/a/adjustments", "stock", &stock).await;
}

/// Makes an endpoint; its id and secret.
async fn endpoint(server: &Server, url: &str, events: &[&str]) -> (String, String) {
    let body = json!({ "url": url, "events": events });
    let made = server.post("/v1/webhooks/endpoints", "unused", &body).await;
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

async fn change(server: &Server, id: &str, body: &Value) -> Value {
    let path = format!("/v1/webhooks/endpoints/{id}");
    let answer = server.call(Method::PATCH, &path, None, Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json
}

/// Places an order and waits until it is confirmed; its id.
async fn confirmed(server: &Server, n: usize) -> String {
    let id = server.post("/v1/orders", &format!("order-{n}"), &order(n)).await["id"].clone();
    let id = id.as_str().unwrap().to_owned();
    server.until(&format!("/v1/orders/{id}"), |it| it["status"] == "confirmed").await;
    id
}

/// The ids of an order's events, oldest first.
async fn history(server: &Server, order: &str) -> Vec<String> {
    let events = server.get(&format!("/v1/orders/{order}/events")).await;
    events["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_in_order_per_order_through_kills_and_a_receiver_that_fails() {
    const ORDERS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Arc::new(|_, n| match n % 17 {
        1 => Behaviour::Status(500),
        4 => Behaviour::Hang,
        6 => Behaviour::Slow(200),
        9 => Behaviour::Huge,
        12 => Behaviour::Redirect,
        15 => Behaviour::Status(404),
        _ => Behaviour::Status(200),
    }))
    .await;
    let mortal = Mortal::start(dir.path().to_owned(), OPTIONS).await;
    let (status, made) = mortal
        .post("/v1/webhooks/endpoints", "unused", &json!({"url": receiver.url("hook"), "events": ["*"]}))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let adjustment = json!({"delta": 100_000, "reason": "received", "location": "main"});
    mortal.post("/v1/inventory/a/adjustments", "stock", &adjustment).await;

    let mut orders = Vec::new();
    let place = async {
        for n in 0..ORDERS {
            let (status, made) = mortal.post("/v1/orders", &format!("order-{n}"), &order(n)).await;
            assert!(status.is_success(), "{status} {made}");
            orders.push(made["id"].as_str().unwrap().to_owned());
            mortal.progress.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    tokio::join!(place, mortal.cut(7, 3, ORDERS));
    let server = mortal.into_server();
    let mut expected = BTreeMap::new();
    for id in &orders {
        server.until(&format!("/v1/orders/{id}"), |it| it["status"] == "confirmed").await;
        expected.insert(id.clone(), history(&server, id).await);
    }
    let received = receiver.until("hook", |it| taken(&of_orders(it)) == expected).await;
    assert_in_order(&of_orders(&received));
    assert!(received.iter().any(|it| it.body["type"] == "inventory.adjusted"), "items are sent too");
    assert!(receiver.received("trap").is_empty(), "redirects are not followed");
    let metrics = server.call(Method::GET, "/metrics", None, None).await.text;
    assert!(metrics.contains("tillstream_webhook_deliveries_total{outcome=\"delivered\"}"), "{metrics}");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_endpoint_harms_no_other_and_is_switched_off_and_on_again() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Arc::new(|path, _| match path {
        "dead" => Behaviour::Hang,
        "gone" => Behaviour::Status(410),
        _ => Behaviour::Status(200),
    }))
    .await;
    let options =
        [OPTIONS, &["--webhooks-disable-after-seconds", "3", "--webhooks-outage-after", "4"][..]].concat();
    let server = Server::start(dir.path(), &options).await;
    stock(&server).await;
    let before = "2020-01-01T00:00:00Z";
    let (dead, _) = endpoint(&server, &receiver.url("dead"), &["order.*"]).await;
    let (gone, _) = endpoint(&server, &receiver.url("gone"), &["*"]).await;
    let (good, _) = endpoint(&server, &receiver.url("good"), &["order.*", "payment.captured"]).await;
    let mut orders = Vec::new();
    for n in 0..20 {
        orders.push(confirmed(&server, n).await);
    }
    let kinds = ["order.priced", "order.reserved", "payment.captured"];
    let received = receiver.until("good", |it| it.len() >= 60).await;
    assert!(received.iter().all(|it| kinds.contains(&it.body["type"].as_str().unwrap())), "the filter holds");

    let path = |id: &str| format!("/v1/webhooks/endpoints/{id}");
    let off = server.until(&path(&gone), |it| it["enabled"] == false).await;
    assert_eq!(off["disabled"]["code"], "gone");
    let off = server.until(&path(&dead), |it| it["enabled"] == false).await;
    assert_eq!(off["disabled"]["code"], "failing");
    assert!(off["disabled"]["message"].as_str().unwrap().contains("Every attempt has failed since"), "{off}");
    let failed = server
        .until(&format!("{}/deliveries?status=failed", path(&dead)), |it| it["data"] != json!([]))
        .await;
    assert_eq!(failed["data"][0]["reason"], "disabled", "{failed}");

    receiver.becomes(Arc::new(|_, _| Behaviour::Status(200)));
    let on = change(&server, &dead, &json!({"enabled": true, "replay_from": before})).await;
    assert_eq!((&on["enabled"], &on["disabled"]), (&json!(true), &Value::Null));
    let want: BTreeSet<String> = orders.iter().cloned().collect();
    let received = receiver
        .until("dead", |it| {
            let whole = taken(it).into_iter().filter(|it| it.1.len() == 2).map(|it| it.0);
            whole.collect::<BTreeSet<_>>() == want
        })
        .await;
    let metrics = server.call(Method::GET, "/metrics", None, None).await.text;
    assert!(metrics.contains("tillstream_webhook_disablements_total{code=\"failing\"} 1"), "{metrics}");
    drop(received);
    let health = server.until(&path(&good), |it| it["health"]["behind"] == false).await;
    assert_eq!(health["health"]["failing_since"], Value::Null, "{health}");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_or_all_from_a_time_are_sent_again_under_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Arc::new(|_, _| Behaviour::Status(200))).await;
    let server = Server::start(dir.path(), OPTIONS).await;
    stock(&server).await;
    let (id, _) = endpoint(&server, &receiver.url("hook"), &["order.*"]).await;
    let path = format!("/v1/webhooks/endpoints/{id}");
    for n in 0..3 {
        confirmed(&server, n).await;
    }
    let first = receiver.until("hook", |it| it.len() >= 6).await;
    let delivered = format!("{path}/deliveries?status=delivered");
    let listed = server.until(&delivered, |it| it["data"].as_array().is_some_and(|it| it.len() == 6)).await;
    let message = listed["data"][5]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["data"][5]["attempts"][0]["status"], 200);
    assert_eq!(listed["data"][5]["attempts"][0]["response"], "I say 200");
    let page = server.get(&format!("{path}/deliveries?limit=4")).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("{path}/deliveries?limit=4&cursor={cursor}")).await;
    assert_eq!((page["data"].as_array().unwrap().len(), rest["data"].as_array().unwrap().len()), (4, 2));

    let again = format!("{path}/deliveries/{message}/redeliver");
    let answer = server.call(Method::POST, &again, None, None).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let second = receiver.until("hook", |it| it.len() >= 7).await;
    assert_eq!(second[6].id, message);
    let row = server.until(&format!("{path}/deliveries/{message}"), |it| it["attempt_count"] == 2).await;
    assert_eq!(row["status"], "delivered");

    let body = json!({"from": "2020-01-01T00:00:00Z"});
    server.post(&format!("{path}/replay"), "unused", &body).await;
    let third = receiver.until("hook", |it| it.len() >= 13).await;
    let ids = |it: &[Received]| -> BTreeSet<String> { it.iter().map(|it| it.id.clone()).collect() };
    assert_eq!(ids(&third[7..13]), ids(&first[..6]));

    // A restart remembers that all this was done.
    assert!(server.terminate().await.success());
    let server = Server::start(dir.path(), OPTIONS).await;
    confirmed(&server, 99).await;
    let fourth = receiver.until("hook", |it| it.len() >= 15).await;
    assert_eq!(ids(&fourth[13..]).intersection(&ids(&first)).count(), 0, "nothing is replayed twice");
    for (bad, status) in [
        (format!("{path}/deliveries/msg_o0_0_nonsense"), StatusCode::NOT_FOUND),
        (format!("{path}/deliveries/..%2f..%2fetc"), StatusCode::NOT_FOUND),
        ("/v1/webhooks/endpoints/whe_unknown".to_owned(), StatusCode::NOT_FOUND),
        (format!("{path}/deliveries?cursor=garbage"), StatusCode::BAD_REQUEST),
        (format!("{path}/deliveries?limit=-1"), StatusCode::BAD_REQUEST),
    ] {
        let answer = server.call(Method::GET, &bad, None, None).await;
        assert_eq!(answer.status, status, "{bad}: {}", answer.text);
    }
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_library_verifies_signatures_also_while_two_secrets_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Arc::new(|_, _| Behaviour::Status(200))).await;
    let server = Server::start(dir.path(), OPTIONS).await;
    stock(&server).await;
    let (id, old) = endpoint(&server, &receiver.url("hook"), &["*"]).await;
    let path = format!("/v1/webhooks/endpoints/{id}");
    confirmed(&server, 0).await;
    let first = receiver.until("hook", |it| it.len() >= 3).await;
    let body = json!({"overlap_seconds": 600});
    let rotated = server.post(&format!("{path}/secret"), "unused", &body).await;
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    let test = server.call(Method::POST, &format!("{path}/test"), None, None).await;
    assert_eq!((test.status, &test.json["delivered"]), (StatusCode::OK, &json!(true)), "{}", test.text);
    let received = receiver.until("hook", |it| it.iter().any(|it| it.body["type"] == "webhook.ping")).await;
    let ping = received.iter().find(|it| it.body["type"] == "webhook.ping").unwrap();

    let case = |it: &Received, secret: &str, good: bool| {
        json!({"id": it.id, "timestamp": it.timestamp, "signature": it.signature, "body": it.raw,
               "secret": secret, "good": good})
    };
    let tampered = Received {
        raw: first[0].raw.replace("order", "0rder").replace("inventory", "1nventory"),
        ..first[0].clone()
    };
    let cases = json!([
        case(&first[0], &old, true),
        case(&first[1], &old, true),
        case(&first[0], &new, false),
        case(ping, &old, true),
        case(ping, &new, true),
        case(&tampered, &old, false),
    ]);
    let file = dir.path().join("cases.json");
    std::fs::write(&file, cases.to_string()).unwrap();
    let python = Command::new(root().join("ops/dev/python.sh")).arg("webhooks").output().unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let python = String::from_utf8(python.stdout).unwrap().lines().last().unwrap().to_owned();
    let script = root().join("tests/e2e/python/verify_webhooks.py");
    let done = Command::new(python).arg(script).arg(&file).output().unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(String::from_utf8(done.stdout).unwrap().trim(), "6 as expected");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn private_addresses_and_what_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    for (body, field) in [
        (json!({"url": "http://example.com/"}), "url"),
        (json!({"url": "https://127.0.0.1/"}), "url"),
        (json!({"url": "https://[::ffff:10.0.0.1]/"}), "url"),
        (json!({"url": "https://169.254.169.254/latest/meta-data"}), "url"),
        (json!({"url": "https://localhost/"}), "url"),
        (json!({"url": "https://user:secret@example.com/"}), "url"),
        (json!({"url": 5}), "url"),
        (json!({"url": "https://example.com/", "events": ["order.pricd"]}), "events[0]"),
        (json!({"url": "https://example.com/", "events": []}), "events"),
        (json!({"url": "https://example.com/", "in_flight_max": 1000}), "in_flight_max"),
        (json!({"url": "https://example.com/", "what": 1}), "what"),
    ] {
        let answer = server.call(Method::POST, "/v1/webhooks/endpoints", None, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {}", answer.text);
        assert_eq!(answer.json["errors"][0]["field"], field, "{}", answer.text);
    }
    let listed = server.get("/v1/webhooks/endpoints").await;
    assert_eq!(listed["data"], json!([]));
    let made = server
        .post("/v1/webhooks/endpoints", "k", &json!({"url": "https://93.184.216.34/", "enabled": false}))
        .await;
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"), "{made}");
    // The topic holds the secrets: nobody is shown its records.
    let tail = server.call(Method::GET, "/v1/topics/webhooks.endpoints/records", None, None).await;
    assert_eq!(tail.status, StatusCode::FORBIDDEN, "{}", tail.text);
    assert!(!tail.text.contains("whsec_"), "{}", tail.text);
    assert!(server.terminate().await.success());
}
