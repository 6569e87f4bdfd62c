//! API keys: scopes, roles, expiry, rotation, revocation, limits, tenants, and what an earlier version left.

use crate::harness::{Api, NOW_MS, followed_keys, order};
use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tillstream_ingest_api::access::{NewKey, ROLE_NAMES, SCOPE_NAMES};
use tillstream_schemas::Topic;
use tillstream_state::StoredKey;
use tokio::time::{Instant, timeout};

/// A key made over HTTP: its id, and the key.
async fn make(api: &Api, body: Value) -> (String, String) {
    let made = api.post("/v1/keys", "k", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let text = |name: &str| made.json()[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

async fn revoke(api: &Api, id: &str) -> u16 {
    api.call(Method::DELETE, &format!("/v1/keys/{id}"), &[], Body::empty()).await.status.as_u16()
}

async fn status(api: &Api, key: &str) -> u16 {
    api.with_key(key).get("/v1/products").await.status.as_u16()
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_say_and_a_refusal_names_the_scope() {
    let api = Api::start().await;
    let cases = [
        (json!({"roles": ["analyst"]}), "GET", "/v1/analytics/funnel?from=2010-12-03&to=2010-12-04", None),
        (json!({"roles": ["analyst"]}), "POST", "/v1/orders", Some("orders:write")),
        (json!({"roles": ["analyst"], "scopes": ["orders:write"]}), "POST", "/v1/orders", None),
        (json!({"roles": ["storefront"]}), "PUT", "/v1/products/a", Some("catalog:write")),
        (json!({"roles": ["merchant"]}), "GET", "/v1/keys", Some("keys:read")),
        (json!({"roles": ["sre"]}), "GET", "/v1/dead-letters", None),
        (json!({"roles": ["sre"]}), "POST", "/v1/keys", Some("keys:write")),
        (json!({"scopes": ["inventory:read"]}), "GET", "/v1/orders", Some("orders:read")),
        (json!({"roles": ["rule-author"]}), "GET", "/v1/tenants", Some("tenants:write")),
    ];
    for (mut body, method, path, missing) in cases {
        body["name"] = json!("case");
        let (_, key) = make(&api, body.clone()).await;
        let headers = [("idempotency-key", "k"), ("content-type", "application/json")];
        let call =
            api.with_key(&key).call(method.parse().unwrap(), path, &headers, order().to_string()).await;
        match missing {
            None => assert!(call.status.is_success(), "{body} {path}: {call:?}"),
            Some(scope) => {
                assert_eq!(call.problem(), (403, "TS0640".into()), "{body} {path}");
                assert_eq!(call.json()["detail"], format!("the key lacks the scope {scope}"));
            }
        }
    }
}

#[tokio::test]
async fn nobody_makes_or_renews_a_key_that_may_do_more_than_they_may() {
    let api = Api::start().await;
    let (admin, _) = make(&api, json!({"name": "admin"})).await;
    let (_, key) = make(&api, json!({"name": "clerk", "roles": ["sre"], "scopes": ["keys:write"]})).await;
    let clerk = api.with_key(&key);
    let more = clerk.post("/v1/keys", "k", &json!({"name": "x", "roles": ["admin"]})).await;
    assert_eq!(more.problem(), (403, "TS0640".into()));
    let renewed = clerk.post(&format!("/v1/keys/{admin}/rotate"), "k", &json!({})).await;
    assert_eq!(renewed.problem(), (403, "TS0640".into()), "its new secret would be an admin's");
    let same = clerk.post("/v1/keys", "k", &json!({"name": "x"})).await.json();
    assert_eq!(
        same["scopes"],
        json!([
            "orders:read",
            "analytics:read",
            "webhooks:read",
            "keys:read",
            "keys:write",
            "ops:read",
            "ops:write"
        ])
    );
    assert_eq!(revoke(&clerk, &admin).await, 200, "but it may end any");
}

#[tokio::test]
async fn what_cannot_be_a_key_is_named() {
    let api = Api::start().await;
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": "x", "roles": ["emperor"]}), "roles[0]"),
        (json!({"name": "x", "scopes": ["orders:eat"]}), "scopes[0]"),
        (json!({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}), "expires_at"),
        (json!({"name": "x", "requests_per_minute": 0}), "requests_per_minute"),
        (json!({"name": "x", "tenant": "Über/shop"}), "tenant"),
        (json!({"name": "x", "tenant": "-"}), "tenant"),
    ] {
        let answer = api.post("/v1/keys", "k", &body).await;
        assert_eq!(answer.problem(), (400, "TS0607".into()), "{body}");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(ROLE_NAMES.len() + SCOPE_NAMES.len(), 23);
}

#[tokio::test]
async fn a_key_ends_when_its_time_has_come() {
    let api = Api::start().await;
    let at = "2023-11-14T22:14:20Z";
    let (id, key) = make(&api, json!({"name": "short", "expires_at": at})).await;
    api.clock.advance(59_999);
    assert_eq!(status(&api, &key).await, 200);
    api.clock.advance(1);
    assert_eq!(status(&api, &key).await, 401);
    let listed = api.get("/v1/keys").await.json();
    let shown = listed["data"].as_array().unwrap().iter().find(|it| it["id"] == id.as_str()).unwrap();
    assert_eq!(shown["expires_at"], at);
}

#[tokio::test]
async fn a_rotated_key_has_a_new_secret_and_the_old_one_holds_for_the_overlap() {
    let api = Api::start().await;
    let (id, first) = make(&api, json!({"name": "till"})).await;
    let rotate = async |overlap: i64| {
        let path = format!("/v1/keys/{id}/rotate");
        let answer = api.post(&path, "k", &json!({"overlap_seconds": overlap})).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"));
        assert_eq!(answer.json()["id"], id.as_str());
        answer.json()["key"].as_str().unwrap().to_owned()
    };
    let second = rotate(60).await;
    assert_eq!((status(&api, &first).await, status(&api, &second).await), (200, 200));
    api.clock.advance(60_000);
    assert_eq!((status(&api, &first).await, status(&api, &second).await), (401, 200));
    let third = rotate(3_600).await;
    let fourth = rotate(3_600).await;
    assert_eq!(status(&api, &second).await, 401, "only one secret before the present one holds");
    assert_eq!((status(&api, &third).await, status(&api, &fourth).await), (200, 200));
    assert_eq!(revoke(&api, &id).await, 200);
    assert_eq!((status(&api, &third).await, status(&api, &fourth).await), (401, 401), "all its secrets end");
    let late = api.post(&format!("/v1/keys/{id}/rotate"), "k", &json!({})).await;
    assert_eq!(late.problem(), (409, "TS0642".into()));
    let unknown = api.post("/v1/keys/key_none/rotate", "k", &json!({})).await;
    assert_eq!(unknown.problem(), (404, "TS0605".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_changes_holds_in_the_others_within_a_second() {
    let one = Api::start().await;
    let two = Api::over(one.store.clone(), one.tasks.clone()).await;
    // Refused is refused: calls without a valid key are limited, too.
    let until = async |api: &Api, key: &str, wanted: bool| {
        let changed = Instant::now();
        let holds = async {
            while (status(api, key).await == 200) != wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), holds).await.expect("it never came");
        changed.elapsed()
    };
    for _ in 0..20 {
        let (id, key) = make(&one, json!({"name": "shared"})).await;
        let made = until(&two, &key, true).await;
        assert_eq!(revoke(&one, &id).await, 200);
        assert_ne!(status(&one, &key).await, 200, "where it was revoked it ends at once");
        let revoked = until(&two, &key, false).await;
        assert!(made.max(revoked) < Duration::from_secs(1), "{made:?} {revoked:?}");
    }
}

#[tokio::test]
async fn the_operator_makes_tenants_and_sees_to_their_keys_and_nobody_else_does() {
    let api = Api::start().await;
    let (id, key) = make(&api, json!({"name": "first", "tenant": "acme"})).await;
    let acme = api.with_key(&key);
    let own = acme.get("/v1/keys").await.json();
    assert_eq!((own["data"].as_array().unwrap().len(), &own["data"][0]["tenant"]), (1, &json!("acme")));
    assert_eq!(
        own["data"][0]["roles"],
        json!(["admin"]),
        "the first key of a tenant may do everything there"
    );
    // An admin of a shop is no admin of the deployment, nor of another shop.
    let (_, peer) = make(&acme, json!({"name": "second"})).await;
    for key in [&key, &peer] {
        let acme = api.with_key(key);
        for (method, path, body) in [
            (Method::POST, "/v1/keys", json!({"name": "x", "tenant": "other"})),
            (Method::GET, "/v1/keys?tenant=demo", Value::Null),
            (Method::GET, "/v1/tenants", Value::Null),
            (Method::PUT, "/v1/tenants/acme/limit", json!({"requests_per_minute": 1})),
        ] {
            let headers = [("content-type", "application/json")];
            let answer = acme.call(method, path, &headers, body.to_string()).await;
            assert_eq!(answer.problem(), (403, "TS0640".into()), "{path}");
            assert!(answer.text.contains("tenants:write"), "{answer:?}");
        }
    }
    let listed = api.get("/v1/keys?tenant=acme").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let tenants = api.get("/v1/tenants").await.json();
    assert!(
        tenants["data"]
            .as_array()
            .unwrap()
            .contains(&json!({"tenant": "acme", "live_keys": 2, "requests_per_minute": null}))
    );
    assert_eq!(revoke(&api, &id).await, 404, "not a key of the operator's own tenant");
    let path = format!("/v1/keys/{id}?tenant=acme");
    let ended = api.call(Method::DELETE, &path, &[], Body::empty()).await;
    assert_eq!(ended.status, 200);
    assert!(ended.json()["revoked_by"].as_str().unwrap().starts_with("key_"));
    assert_eq!(acme.get("/v1/keys").await.status, 401);
}

#[tokio::test]
async fn a_key_and_a_tenant_may_be_limited_and_hear_when_to_come_again() {
    let api = Api::start().await;
    let (_, key) = make(&api, json!({"name": "slow", "requests_per_minute": 2})).await;
    let slow = api.with_key(&key);
    assert_eq!(
        (slow.get("/v1/products").await.status, slow.get("/v1/orders").await.status.as_u16()),
        (http::StatusCode::OK, 200)
    );
    let limited = slow.get("/v1/products").await;
    assert_eq!(limited.problem(), (429, "TS0641".into()));
    assert!((1..=30).contains(&limited.header("retry-after").parse::<u32>().unwrap()), "{limited:?}");
    assert_eq!(api.get("/v1/products").await.status, 200, "other keys go on");

    let path = "/v1/tenants/other/limit";
    let headers = [("content-type", "application/json")];
    let set = api.call(Method::PUT, path, &headers, r#"{"requests_per_minute":1}"#).await;
    assert_eq!(set.json()["requests_per_minute"], 1);
    let other = api.with_key("till_other");
    assert_eq!(other.get("/v1/products").await.status, 200);
    let limited = other.get("/v1/products").await;
    assert_eq!(limited.problem(), (429, "TS0641".into()));
    assert!(limited.text.contains("the tenant may make 1 calls a minute"));
    assert_eq!(api.call(Method::PUT, path, &headers, "{}").await.json()["requests_per_minute"], Value::Null);
    assert_eq!(other.get("/v1/products").await.status, 200, "without a limit nobody counts");
    let unknown = api.call(Method::PUT, "/v1/tenants/nobody/limit", &headers, "{}").await;
    assert_eq!(unknown.problem(), (404, "TS0605".into()));
}

#[tokio::test]
async fn keys_of_an_earlier_version_are_taken_over_once_and_go_on_working() {
    let api = Api::start().await;
    let old = |id: &str, key: &str, revoked_at_ms| StoredKey {
        id: id.into(),
        tenant: "demo".into(),
        hash: Sha256::digest(key).into(),
        name: "old".into(),
        created_at_ms: NOW_MS - 5,
        revoked_at_ms,
    };
    *api.store.earlier_keys.lock() =
        vec![old("key_a", "till_a", None), old("key_b", "till_b", Some(NOW_MS - 1))];
    let events = || api.store.records(Topic::AccessKeys).len();
    let before = events();
    assert_eq!(api.keys.take_over(&*api.store).await.unwrap(), 2);
    assert_eq!(events(), before + 2);
    assert_eq!((status(&api, "till_a").await, status(&api, "till_b").await), (200, 401));
    assert_eq!(api.with_key("till_a").get("/v1/keys").await.status, 200, "it may do what it could");
    assert_eq!(revoke(&api, "key_a").await, 200);
    // The next start finds the old rows again.
    let next = Api::over(api.store.clone(), api.tasks.clone()).await;
    assert_eq!(next.keys.take_over(&*next.store).await.unwrap(), 0);
    assert_eq!(status(&next, "till_a").await, 401, "what was revoked since stays so");
}

#[tokio::test]
async fn of_two_processes_that_start_at_once_one_makes_the_first_key() {
    let store: std::sync::Arc<crate::store::MemoryStore> = std::sync::Arc::default();
    let api = Api::start().await;
    let one = followed_keys(store.clone(), api.clock.clone()).await;
    let two = followed_keys(store.clone(), api.clock.clone()).await;
    assert!(one.is_empty() && two.is_empty());
    let make = |keys: &tillstream_ingest_api::ApiKeys| {
        let keys = keys.clone();
        async move { keys.create_first(NewKey::admin("demo", "demo")).await.unwrap() }
    };
    let (left, right) = futures::future::join(make(&one), make(&two)).await;
    assert_ne!(left.is_some(), right.is_some());
    assert_eq!(store.records(Topic::AccessKeys).len(), 2, "both asked, one was refused");
    assert_eq!(one.list("demo").len(), 1);
}

#[tokio::test]
async fn a_key_given_to_one_tenant_is_taken_from_the_other() {
    let api = Api::start().await;
    assert_eq!(api.with_key("till_other").get("/v1/keys").await.json()["data"][0]["tenant"], "other");
    api.keys.ensure("demo", "given", "till_other").await.unwrap();
    assert_eq!(api.with_key("till_other").get("/v1/keys?tenant=demo").await.status, 200);
    assert!(api.keys.list("other").iter().all(|it| it.revoked_at_ms.is_some()));
}

#[tokio::test]
async fn hashes_and_changes_of_keys_are_not_for_tailing() {
    let api = Api::start().await;
    for topic in ["access.keys", "access.keys.v1", "webhooks.endpoints", "rules.registry", "rules.modules"] {
        let answer = api.get(&format!("/v1/topics/{topic}/records")).await;
        assert_eq!(answer.problem(), (403, "TS0640".into()), "{topic}");
    }
}
