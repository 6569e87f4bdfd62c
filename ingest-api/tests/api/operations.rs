use crate::harness::{Api, followed_keys, order};
use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tillstream_log::{Headers, Log, LogError, NewRecord, TopicPartition};
use tillstream_schemas::Topic;

#[tokio::test]
async fn a_topic_is_tailed_as_json_tenant_by_tenant() {
    let api = Api::start().await;
    for n in 0..5 {
        api.post("/v1/orders", &format!("k{n}"), &order()).await;
    }
    api.with_key("till_other").post("/v1/orders", "k", &order()).await;
    let mut seen = Vec::new();
    let mut path = "/v1/topics/orders.commands/records?limit=2".to_owned();
    loop {
        let json = api.get(&path).await.json();
        let data = json["data"].as_array().unwrap().clone();
        if data.is_empty() {
            break;
        }
        assert!(data.len() <= 2);
        seen.extend(data.iter().map(|it| it["value"]["order_id"].as_str().unwrap().to_owned()));
        path = format!(
            "/v1/topics/orders.order.commands.v1/records?limit=2&cursor={}",
            json["next_cursor"].as_str().unwrap()
        );
    }
    let mut expected: Vec<String> = api
        .store
        .order_commands()
        .iter()
        .filter(|it| it.tenant == "demo")
        .map(|it| it.order_id.to_string())
        .collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);

    let end = api.get("/v1/topics/orders.commands/records?from=end").await.json();
    assert_eq!(end["data"], json!([]));
    let follow =
        format!("/v1/topics/orders.commands/records?wait=20&cursor={}", end["next_cursor"].as_str().unwrap());
    let waiting = tokio::spawn({
        let api = api.clone();
        async move { api.get(&follow).await.json() }
    });
    api.post("/v1/orders", "late", &order()).await;
    assert_eq!(waiting.await.unwrap()["data"].as_array().unwrap().len(), 1);
    let topics = api.get("/v1/topics").await.json();
    assert_eq!(topics["data"].as_array().unwrap().len(), Topic::ALL.len());
}

#[tokio::test]
async fn what_cannot_be_decoded_is_shown_in_hex() {
    let api = Api::start().await;
    let record = NewRecord {
        to: TopicPartition::new(Topic::OrderCommands, 0),
        key: "demo/x".into(),
        value: b"\xde\xad".as_slice().into(),
        headers: Headers::new(),
    };
    api.store.append(vec![record]).await.unwrap();
    let json = api.get("/v1/topics/orders.commands/records").await.json();
    assert_eq!(json["data"][0]["value"]["hex"], "dead");
}

#[tokio::test]
async fn a_key_is_shown_once_works_at_once_and_ends_at_once() {
    let api = Api::start().await;
    let made = api.post("/v1/keys", "k", &json!({"name": "till 2"})).await;
    assert_eq!((made.status.as_u16(), made.header("cache-control")), (201, "no-store"));
    let (id, key) =
        (made.json()["id"].as_str().unwrap().to_owned(), made.json()["key"].as_str().unwrap().to_owned());
    assert!(key.starts_with("till_") && key.len() == 37);
    assert_eq!(api.with_key(&key).get("/v1/keys").await.status, 200);
    let listed = api.get("/v1/keys").await;
    assert!(listed.text.contains(&id) && !listed.text.contains(&key));
    let path = format!("/v1/keys/{id}");
    assert_eq!(api.with_key("till_other").call(Method::DELETE, &path, &[], Body::empty()).await.status, 404);
    assert_eq!(api.call(Method::DELETE, &path, &[], Body::empty()).await.status, 200);
    assert_eq!(api.with_key(&key).get("/v1/keys").await.status, 401);
    // Also for the next process.
    let keys = followed_keys(api.store.clone(), api.clock.clone()).await;
    assert!(keys.list("demo").iter().any(|it| it.id == id && it.revoked_at_ms.is_some()));
    // A key that is given by configuration is valid whatever happened before.
    keys.revoke("demo", &keys.list("demo")[0].id, "tests").await.unwrap();
    keys.ensure("demo", "tests", "till_demo").await.unwrap();
    assert_eq!(keys.list("demo").iter().filter(|it| it.revoked_at_ms.is_none()).count(), 1);
}

#[tokio::test]
async fn the_sandbox_answers_for_the_tenants_own_payments() {
    let api = Api::start().await;
    let authenticate = async |api: &Api, id: &str, body: Value| {
        api.post(&format!("/v1/sandbox/payments/{id}/authenticate"), "k", &body).await
    };
    assert_eq!(authenticate(&api, "pay_waits", json!({"outcome": "succeed"})).await.status, 202);
    assert_eq!(
        authenticate(&api, "pay_done", json!({"outcome": "fail"})).await.problem(),
        (409, "TS0619".into())
    );
    assert_eq!(
        authenticate(&api, "pay_waits", json!({"outcome": "maybe"})).await.problem(),
        (400, "TS0607".into())
    );
    let other = api.with_key("till_other");
    assert_eq!(authenticate(&other, "pay_waits", json!({"outcome": "succeed"})).await.status, 404);
}

#[tokio::test]
async fn the_sandbox_shows_a_payment_to_its_own_tenant() {
    let api = Api::start().await;
    let path = "/v1/sandbox/payments/pay_done";
    let expected = json!({
        "id": "pay_done", "order_id": "ord_1", "status": "captured", "method": "pm_card_visa", "currency": "GBP",
        "amount": 500, "authorized": 0, "captured": 400, "refunded": 100,
    });
    assert_eq!(api.get(path).await.json(), expected);
    assert_eq!(api.get("/v1/sandbox/payments/pay_none").await.problem(), (404, "TS0605".into()));
    assert_eq!(api.with_key("till_other").get(path).await.problem(), (404, "TS0605".into()));
    assert_eq!(api.with_key("").get(path).await.status, 401);
}

#[tokio::test]
async fn readiness_names_a_full_disk() {
    let api = Api::start().await;
    assert_eq!(api.get("/readyz").await.status, 200);
    api.store.set_trouble(Some(LogError::DiskFull { available_bytes: 1, needed_bytes: 2 }));
    let answer = api.get("/readyz").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reasons"][0]["code"]), (503, &json!("TS0615")));
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn every_call_is_timed_by_its_route_and_traced() {
    let api = Api::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("idempotency-key", "k"),
        ("content-type", "application/json"),
        ("traceparent", trace),
        ("x-request-id", "req-1"),
    ];
    let answer = api.call(Method::POST, "/v1/orders", &headers, order().to_string()).await;
    assert_eq!(answer.header("x-request-id"), "req-1");
    assert_eq!(api.store.order_commands()[0].traceparent.as_deref(), Some(trace));
    let answer = api.get("/v1/products/some-sku").await;
    assert_eq!(answer.header("x-request-id").len(), 32);
    api.get("/no/such/path").await;
    let metrics = api.with_key("").get("/metrics").await.text;
    for series in [
        "tillstream_http_request_seconds_count{route=\"/v1/orders\",status=\"202\"} 1",
        "tillstream_http_request_seconds_count{route=\"/v1/products/{sku}\",status=\"404\"} 1",
        "tillstream_http_request_seconds_count{route=\"none\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
    assert!(!metrics.contains("some-sku"));
}

#[tokio::test]
async fn the_documents_need_no_key_and_nothing_from_outside() {
    let api = Api::start().await.with_key("");
    let docs = api.get("/docs").await;
    assert!(docs.text.contains("id=\"TS0607\""));
    assert!(!docs.text.contains("http://") && !docs.text.contains("https://"));
    assert_eq!(api.get("/openapi.json").await.json()["openapi"], "3.1.0");
}
