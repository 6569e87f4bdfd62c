use crate::harness::{Api, order};
use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

fn with(pointer: &str, value: Value) -> Value {
    let mut order = order();
    *order.pointer_mut(pointer).unwrap() = value;
    order
}

#[tokio::test]
async fn hostile_bodies_are_problems_and_write_nothing() {
    let api = Api::start().await;
    let deep = format!("{{\"metadata\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"{".to_vec(), 400, "TS0606"),
        (b"nonsense".to_vec(), 400, "TS0606"),
        (b"{\"currency\": \"\xff\xfe\"}".to_vec(), 400, "TS0606"),
        (b"{\"currency\": NaN}".to_vec(), 400, "TS0606"),
        (b"{\"currency\": 1e999}".to_vec(), 400, "TS0606"),
        (b"[]".to_vec(), 400, "TS0607"),
        (b"null".to_vec(), 400, "TS0607"),
        (b"\"GBP\"".to_vec(), 400, "TS0607"),
        (b"".to_vec(), 400, "TS0607"),
        (b"{} {}".to_vec(), 400, "TS0606"),
        (deep.into_bytes(), 400, "TS0606"),
        (vec![b'['; 900_000], 400, "TS0606"),
        (vec![b' '; 12 << 20], 413, "TS0610"),
        (with("/currency", json!("GBP\u{0}")).to_string().into_bytes(), 400, "TS0607"),
        (with("/lines/0/unit_price", json!(-5)).to_string().into_bytes(), 400, "TS0607"),
        (with("/lines/0/unit_price", json!(i64::MAX)).to_string().into_bytes(), 400, "TS0607"),
        (
            with("/lines", json!(vec![json!({"sku": "a", "quantity": 1}); 1_001])).to_string().into_bytes(),
            400,
            "TS0607",
        ),
    ];
    for (body, status, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let headers = [("idempotency-key", "k"), ("content-type", "application/json")];
        let answer = api.call(Method::POST, "/v1/orders", &headers, body).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{shown}");
        assert!(answer.text.len() < 64 << 10, "{shown}");
    }
    assert!(api.store.order_commands().is_empty());
}

#[tokio::test]
async fn hostile_headers_are_problems() {
    let api = Api::start().await;
    let long = "k".repeat(5_000);
    let body = order().to_string();
    let json_type = ("content-type", "application/json");
    type Case<'a> = (Vec<(&'a str, &'a str)>, u16, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (vec![json_type], 400, "TS0608"),
        (vec![json_type, ("idempotency-key", "")], 400, "TS0608"),
        (vec![json_type, ("idempotency-key", &long)], 400, "TS0608"),
        (vec![json_type, ("idempotency-key", "a b")], 400, "TS0608"),
        (vec![json_type, ("idempotency-key", "a"), ("idempotency-key", "b")], 400, "TS0608"),
        (vec![("content-type", "text/plain"), ("idempotency-key", "k")], 415, "TS0611"),
        (vec![json_type, ("content-encoding", "br"), ("idempotency-key", "k")], 415, "TS0611"),
    ];
    for (headers, status, code) in cases {
        let answer = api.call(Method::POST, "/v1/orders", &headers, body.clone()).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{:?}", headers.first());
    }
}

#[tokio::test]
async fn hostile_paths_and_parameters_are_problems() {
    let api = Api::start().await;
    let long = "x".repeat(65);
    let cases = [
        ("/v1/orders?limit=-1".to_owned(), 400, "TS0612"),
        ("/v1/orders?limit=0".to_owned(), 400, "TS0612"),
        ("/v1/orders?limit=101".to_owned(), 400, "TS0612"),
        ("/v1/orders?cursor=garbage".to_owned(), 400, "TS0612"),
        ("/v1/orders?cursor=p00".to_owned(), 400, "TS0612"),
        ("/v1/orders?status=lost".to_owned(), 400, "TS0612"),
        ("/v1/orders?order_by=total%3Bdrop".to_owned(), 400, "TS0612"),
        ("/v1/orders/%ff%fe".to_owned(), 400, "TS0612"),
        ("/v1/orders/..%2f..%2fetc%2fpasswd".to_owned(), 404, "TS0605"),
        ("/v1/../etc/passwd".to_owned(), 404, "TS0603"),
        ("/v1/nothing".to_owned(), 404, "TS0603"),
        (format!("/v1/products/{long}"), 400, "TS0612"),
        ("/v1/products/a%00b".to_owned(), 400, "TS0612"),
        ("/v1/products?cursor=%00".to_owned(), 400, "TS0612"),
        ("/v1/inventory/a%0ab".to_owned(), 400, "TS0612"),
        ("/v1/analytics/revenue?by=week&from=never".to_owned(), 400, "TS0612"),
        ("/v1/analytics/revenue?cursor=r".to_owned(), 400, "TS0612"),
        ("/v1/topics/secrets/records".to_owned(), 404, "TS0605"),
        ("/v1/topics/orders.commands/records?partition=9".to_owned(), 400, "TS0612"),
        ("/v1/topics/orders.commands/records?offset=1".to_owned(), 400, "TS0612"),
        (
            "/v1/topics/orders.commands/records?partition=0&offset=18446744073709551615".to_owned(),
            400,
            "TS0612",
        ),
        ("/v1/topics/orders.commands/records?cursor=t303a393939".to_owned(), 400, "TS0612"),
        ("/v1/dead-letters?topic=orders.events".to_owned(), 400, "TS0612"),
        ("/v1/dead-letters?cursor=d312f302f30".to_owned(), 400, "TS0612"),
        ("/v1/dead-letters/orders.commands/0/0".to_owned(), 404, "TS0605"),
        ("/v1/dead-letters/orders.commands/-1/x".to_owned(), 404, "TS0605"),
    ];
    for (path, status, code) in cases {
        assert_eq!(api.get(&path).await.problem(), (status, code.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn another_method_is_405_with_what_is_allowed() {
    let api = Api::start().await;
    let answer = api.call(Method::PATCH, "/v1/orders", &[], Body::empty()).await;
    assert_eq!(answer.problem(), (405, "TS0604".into()));
    let mut allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test]
async fn without_a_valid_key_there_is_nothing_and_soon_not_even_an_answer() {
    let api = Api::start().await;
    let long = "x".repeat(5_000);
    for key in ["", "till_wrong", "till_dem", "till_demo2", long.as_str()] {
        let answer = api.with_key(key).get("/v1/orders").await;
        assert_eq!(answer.problem(), (401, "TS0601".into()));
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    let basic =
        api.with_key("").call(Method::GET, "/v1/orders", &[("authorization", "Basic ZGVtbzp4")], "").await;
    assert_eq!(basic.status, 401);
    for _ in 6..100 {
        assert_eq!(api.with_key("").get("/v1/orders").await.status, 401);
    }
    let limited = api.with_key("").get("/v1/orders").await;
    assert_eq!(limited.problem(), (429, "TS0602".into()));
    assert!((1..=60).contains(&limited.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(api.get("/v1/orders").await.status, 200);
    api.clock.advance(60_001);
    assert_eq!(api.with_key("").get("/v1/orders").await.status, 401);
}

#[tokio::test]
async fn errors_name_field_and_fix() {
    let api = Api::start().await;
    let body = json!({"currency": "GBP", "lines": [{"sku": "a", "quantity": 0}], "payment": {"method": "pm_card_visa"}, "colour": 1});
    let json = api.post("/v1/orders", "k", &body).await.json();
    assert_eq!(json["type"], "/docs#TS0607");
    let fields: Vec<&str> =
        json["errors"].as_array().unwrap().iter().map(|it| it["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["lines[0].quantity", "colour"]);
    assert!(json["errors"][0]["fix"].as_str().unwrap().contains("1 to 1000000"));
}
