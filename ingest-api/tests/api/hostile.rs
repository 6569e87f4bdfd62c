//! Bad input against the router: `tests/bad_input/cases.json`, and what needs more than one call.

use crate::cases;
use crate::harness::Api;
use axum::body::Body;
use http::Method;

#[tokio::test]
async fn bad_input_is_answered_with_a_problem_that_names_it_and_changes_nothing() {
    let api = Api::start().await;
    let made = api.post("/v1/keys", "k", &serde_json::json!({ "name": "to be revoked" })).await.json();
    let revoked = made["key"].as_str().unwrap();
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(api.call(Method::DELETE, &path, &[], Body::empty()).await.status, 200);
    let mut faults = Vec::new();
    let long = "till_".repeat(1_000);
    for case in cases::all() {
        let api = api.with_key(match case.key.as_str() {
            "valid" => "till_demo",
            "revoked" => revoked,
            "long" => &long,
            "wrong" => "till_wrong",
            _ => "",
        });
        let mut headers: Vec<(&str, &str)> =
            case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if case.key == "basic" {
            headers.push(("authorization", "Basic ZGVtbzp4"));
        }
        let answer = api.call(case.method.parse().unwrap(), &case.path, &headers, case.body.clone()).await;
        let status = answer.status.as_u16();
        faults.extend(cases::fault(&case, status, |name| answer.header(name).to_owned(), &answer.text));
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(api.store.written(), Vec::<String>::new());
    assert_eq!(api.post("/v1/orders", "k", &cases::order()).await.status, 202);
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
