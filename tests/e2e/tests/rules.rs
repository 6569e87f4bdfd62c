//! A tenant's rule on the real binary: uploaded, activated, in the order's events, rolled back.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tillstream_e2e::{KEY, Server, metric_values, root};

async fn upload(server: &Server, name: &str, module: Vec<u8>) -> (StatusCode, Value) {
    let url = format!("{}/v1/rules/{name}/versions", server.url());
    let call = reqwest::Client::new().put(url).bearer_auth(KEY).header("Content-Type", "application/wasm");
    let answer = call.body(module).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn change(server: &Server, path: &str, body: &Value) -> Value {
    let answer = server.call(Method::POST, path, None, Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json
}

async fn order(server: &Server, key: &str) -> Value {
    let order = json!({"currency": "GBP", "country": "US", "lines": [{"sku": "71053", "quantity": 12}],
        "payment": {"method": "pm_card_visa", "capture": "automatic"}});
    let answer = server
        .try_call_with(Method::POST, "/v1/orders", Some(key), Some(&order), Some("wait=30"))
        .await
        .expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json
}

/// The `order.priced` event of an order, as it stands in the log.
async fn priced(server: &Server, order: &Value) -> Value {
    let records = server.get("/v1/topics/orders.events/records?from=beginning&limit=500").await;
    let id = order["id"].as_str().unwrap();
    let records = records["data"].as_array().unwrap();
    let found = records.iter().find(|it| {
        it["headers"]["ce_type"] == "order.priced" && it["key"].as_str().is_some_and(|it| it.ends_with(id))
    });
    found.unwrap_or_else(|| panic!("no order.priced of {id} in {records:#?}"))["value"].clone()
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(root().join(format!("rules/engine/tests/golden/1.0.0/{name}.wasm"))).unwrap()
}

#[tokio::test]
async fn a_rule_is_uploaded_activated_shapes_orders_survives_a_restart_and_is_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let product = json!({"name": "Lantern", "active": true, "stocked": true, "prices": {"GBP": 339}});
    server.put("/v1/products/71053", &product).await;
    let stock = json!({"delta": 100, "reason": "received", "location": "main"});
    server.post("/v1/inventory/71053/adjustments", "first", &stock).await;

    let before = order(&server, "before").await;
    assert_eq!(before["total"], 4_068);

    let (status, uploaded) = upload(&server, "volume-discount", golden("volume-discount")).await;
    assert_eq!(status, StatusCode::CREATED, "{uploaded}");
    assert_eq!((&uploaded["version"], &uploaded["dry_run"][0]["hook"]), (&json!(1), &json!("price")));
    assert_eq!(order(&server, "uploaded").await["total"], 4_068, "an upload activates nothing");

    let rule = change(&server, "/v1/rules/volume-discount/activate", &json!({"version": 1})).await;
    assert_eq!(rule["active"]["digest"], uploaded["digest"], "{rule}");
    let discounted = order(&server, "active").await;
    assert_eq!(discounted["total"], 3_661, "{discounted}");
    let event = priced(&server, &discounted).await;
    let named = event.to_string();
    assert!(
        named.contains("volume-discount") && named.contains(uploaded["digest"].as_str().unwrap()),
        "{event:#}"
    );

    let text = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
    assert!(metric_values(&text, "tillstream_rule_fuel_units_count").iter().sum::<f64>() >= 1.0, "{text}");
    let answered = r#"tillstream_rule_calls_total{outcome="answered",stage="pricing"} 1"#;
    assert!(text.contains(answered), "{text}");

    server.kill();
    let server = Server::start(dir.path(), &[]).await;
    assert_eq!(
        order(&server, "restarted").await["total"],
        3_661,
        "what was active is active from the first order on"
    );

    let rule = change(&server, "/v1/rules/volume-discount/rollback", &json!({})).await;
    assert_eq!(rule["active"], Value::Null, "{rule}");
    assert_eq!(order(&server, "rolled back").await["total"], 4_068);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn what_cannot_be_a_rule_gets_a_problem_that_says_why_and_the_server_stays_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let mut torn = golden("volume-discount");
    torn.truncate(torn.len() / 2);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("empty", Vec::new(), "not_wasm"),
        ("text", b"#!/bin/sh\necho no".to_vec(), "not_wasm"),
        ("core", b"\0asm\x01\0\0\0".to_vec(), "not_component"),
        ("nothing", b"\0asm\x0d\0\x01\0".to_vec(), "no_hook"),
        ("torn", torn, "invalid"),
        ("large", vec![0; 300 << 10], "too_large"),
    ];
    for (name, module, reason) in cases {
        let (status, problem) = upload(&server, name, module).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {problem}");
        assert_eq!(problem["code"], "TS0663");
        let field = problem["errors"][0]["field"].as_str().unwrap();
        assert!(field.contains(reason), "{name}: {problem}");
    }
    assert_eq!(upload(&server, "Not%2FA%20Name", golden("volume-discount")).await.0, StatusCode::BAD_REQUEST);
    let activate = |body: Value| {
        let server = &server;
        async move { server.call(Method::POST, "/v1/rules/volume-discount/activate", None, Some(&body)).await }
    };
    assert_eq!(activate(json!({"version": 1})).await.status, StatusCode::NOT_FOUND);
    upload(&server, "volume-discount", golden("volume-discount")).await;
    assert_eq!(activate(json!({"version": 2})).await.status, StatusCode::CONFLICT);
    assert_eq!(activate(json!({"version": 1, "expected_revision": 9})).await.status, StatusCode::CONFLICT);
    assert_eq!(activate(json!({"version": 1, "settings": "high"})).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(activate(json!({"version": 1, "fallback": "hope"})).await.status, StatusCode::BAD_REQUEST);
    let rules = server.get("/v1/rules").await;
    assert_eq!(rules["data"].as_array().unwrap().len(), 1, "{rules}");
    assert!(server.terminate().await.success());
}
