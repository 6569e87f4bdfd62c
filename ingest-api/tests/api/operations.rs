use crate::harness::{Api, NOW_MS, order};
use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use tillstream_ingest_api::ApiKeys;
use tillstream_log::headers::{REDRIVE_COUNT, find, header};
use tillstream_log::{Headers, Log, LogError, NewRecord, TopicPartition};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::{Topic, codec};

async fn bury(api: &Api, tenant: &str, reason: &str, value: &[u8]) {
    bury_key(api, format!("{tenant}/ord_1").as_bytes(), reason, value).await;
}

async fn bury_key(api: &Api, key: &[u8], reason: &str, value: &[u8]) {
    let letter = DeadLetter {
        id: format!("dl_{reason}").into(),
        topic: Topic::OrderCommands.name().into(),
        partition: 0,
        offset: 7,
        appended_at_ms: NOW_MS,
        failed_at_ms: NOW_MS,
        stage: "pricing".into(),
        code: "TS0103".into(),
        reason: reason.into(),
        message: "it cannot be decoded".into(),
        attempts: 2,
        version: "0.1.0".into(),
        key: key.to_vec(),
        value: value.to_vec(),
    };
    let record = NewRecord {
        to: TopicPartition::new(Topic::OrderCommandsDlq, 0),
        key: key.to_vec().into(),
        value: codec::encode(&letter).unwrap().into(),
        headers: [header(REDRIVE_COUNT, "1")].into_iter().collect(),
    };
    api.store.append(vec![record]).await.unwrap();
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_redriven_by_their_tenant() {
    let api = Api::start().await;
    bury(&api, "demo", "decode", b"\x00garbage").await;
    bury(&api, "other", "decode", b"secret").await;
    bury(&api, "demo", "panic", b"\x01").await;
    let json = api.get("/v1/dead-letters").await.json();
    let reasons: Vec<&str> =
        json["data"].as_array().unwrap().iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["decode", "panic"]);
    assert_eq!(json["data"][1]["offset"], 2);
    assert_eq!(json["data"][0]["redrive_count"], 1);
    assert!(!json.to_string().contains("secret"));
    let filtered = api.get("/v1/dead-letters?topic=orders.commands&reason=panic").await.json();
    assert_eq!(filtered["data"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/v1/dead-letters?topic=items.commands").await.json()["data"], json!([]));

    let shown = api.get("/v1/dead-letters/orders.commands.dlq/0/0").await.json();
    assert_eq!(shown["value"]["bytes"], 8);
    assert_eq!(api.get("/v1/dead-letters/orders.commands.dlq/0/1").await.status, 404);

    let redriven = api.post("/v1/dead-letters/orders.commands.dlq/0/0/redrive", "k", &json!({})).await;
    assert_eq!((redriven.status.as_u16(), &redriven.json()["redriven"]), (200, &json!(1)));
    let back = api.store.records(Topic::OrderCommands);
    assert_eq!((back[0].key.as_ref(), back[0].value.as_ref()), (&b"demo/ord_1"[..], &b"\x00garbage"[..]));
    assert_eq!(find(&back[0].headers, REDRIVE_COUNT), Some("2"));

    let all = api.post("/v1/dead-letters/redrive", "k", &json!({"reason": "panic"})).await.json();
    assert_eq!((&all["redriven"], &all["next_cursor"]), (&json!(1), &Value::Null));
    assert_eq!(api.store.records(Topic::OrderCommands).len(), 2);
}

#[tokio::test]
async fn letters_that_are_no_tenants_are_the_operators() {
    let api = Api::start().await;
    let other = api.with_key("till_other");
    bury(&api, "other", "decode", b"secret").await;
    bury_key(&api, b"\xffnobody", "decode", b"garbage").await;
    bury_key(&api, b"", "corrupt", b"").await;
    // A tenant without a key cannot ask for its letters.
    bury(&api, "ghost", "decode", b"x").await;
    let seen = async |api: &Api| {
        let json = api.get("/v1/dead-letters").await.json();
        let letters = json["data"].as_array().unwrap().clone();
        letters
            .iter()
            .map(|it| (it["offset"].as_u64().unwrap(), it["unowned"].as_bool().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(&api).await, [(1, true), (2, true), (3, true)]);
    assert_eq!(seen(&other).await, [(0, false)]);

    let at = |offset: u64, then: &str| format!("/v1/dead-letters/orders.commands.dlq/0/{offset}{then}");
    assert_eq!(api.get(&at(1, "")).await.json()["value"]["bytes"], 7);
    for offset in 1..4 {
        assert_eq!(other.get(&at(offset, "")).await.status, 404, "{offset}");
        assert_eq!(other.post(&at(offset, "/redrive"), "k", &json!({})).await.status, 404, "{offset}");
    }
    assert_eq!(api.get(&at(0, "")).await.status, 404);
    assert_eq!(other.post("/v1/dead-letters/redrive", "k", &json!({})).await.json()["redriven"], 1);

    assert_eq!(api.post(&at(1, "/redrive"), "k", &json!({})).await.status, 200);
    let back = api.store.records(Topic::OrderCommands);
    let sent: Vec<&[u8]> = back.iter().map(|it| it.value.as_ref()).collect();
    assert_eq!(sent, [&b"secret"[..], b"garbage"]);
    assert_eq!(back[1].key.as_ref(), b"\xffnobody");
    // What held no record has nothing to send again.
    let empty = api.post(&at(2, "/redrive"), "k", &json!({})).await;
    assert_eq!(empty.problem().0, 409);
}

#[tokio::test]
async fn dead_letters_are_paged() {
    let api = Api::start().await;
    for n in 0..5 {
        bury(&api, "demo", &format!("r{n}"), b"x").await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let json = api.get(&format!("/v1/dead-letters?limit=2{cursor}")).await.json();
        seen.extend(
            json["data"].as_array().unwrap().iter().map(|it| it["reason"].as_str().unwrap().to_owned()),
        );
        match json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
}

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
    let keys = ApiKeys::load(api.store.clone(), api.clock.clone()).await.unwrap();
    assert!(keys.list("demo").iter().any(|it| it.id == id && it.revoked_at_ms.is_some()));
    // A key that is given by configuration is valid whatever happened before.
    keys.revoke("demo", &keys.list("demo")[0].id).await.unwrap();
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
