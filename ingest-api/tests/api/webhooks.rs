//! Webhook endpoints at the door, over a book in memory.

use crate::harness::Api;
use crate::harness::NOW_MS;
use axum::body::Body;
use futures::future::BoxFuture;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_ingest_api::webhooks::{PingReply, WebhookError, Webhooks};
use tillstream_schemas::Text;
use tillstream_schemas::webhook::WebhookEndpointEvent;
use tillstream_webhooks::{Endpoint, EndpointBook, EndpointRefusal, TargetError, TargetPolicy};

/// Endpoints without a registry: what is appended is in force at once.
#[derive(Default)]
pub struct Endpoints(Mutex<EndpointBook>);

impl Webhooks for Endpoints {
    fn book(&self) -> Arc<EndpointBook> {
        Arc::new(self.0.lock().clone())
    }

    fn append(
        &self,
        event: WebhookEndpointEvent,
    ) -> BoxFuture<'_, Result<Result<(), EndpointRefusal>, WebhookError>> {
        let verdict = self.0.lock().apply(&event, NOW_MS);
        Box::pin(std::future::ready(Ok(verdict)))
    }

    fn check_target<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(std::future::ready(TargetPolicy::default().check(url).map(|_| ())))
    }

    fn ping(&self, endpoint: Arc<Endpoint>, message_id: Text) -> BoxFuture<'_, Option<PingReply>> {
        let reply = PingReply {
            delivered: true,
            message_id,
            status: Some(204),
            error: None,
            latency_ms: 7,
            response: endpoint.settings.url.clone(),
        };
        Box::pin(std::future::ready(Some(reply)))
    }
}

const PATH: &str = "/v1/webhooks/endpoints";

async fn made(api: &Api) -> Value {
    let answer =
        api.post(PATH, "k", &json!({"url": "https://shop.example.com/hooks", "events": ["order.*"]})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.headers["cache-control"], "no-store");
    answer.json()
}

async fn patch(api: &Api, id: &str, body: &Value) -> crate::harness::Answer {
    let headers = [("content-type", "application/json")];
    api.call(Method::PATCH, &format!("{PATH}/{id}"), &headers, Body::from(body.to_string())).await
}

#[tokio::test]
async fn a_secret_is_shown_once_and_to_its_tenant_alone() {
    let api = Api::start().await;
    let endpoint = made(&api).await;
    let (id, secret) = (endpoint["id"].as_str().unwrap(), endpoint["secret"].as_str().unwrap());
    assert!(secret.starts_with("whsec_"));
    for answer in [api.get(PATH).await, api.get(&format!("{PATH}/{id}")).await] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.text.contains(id) && !answer.text.contains("whsec_"), "{}", answer.text);
    }
    let other = api.with_key("till_other");
    assert_eq!(other.get(PATH).await.json()["data"], json!([]));
    for path in ["", "/deliveries", "/deliveries/msg_o0_0_x"] {
        let answer = other.get(&format!("{PATH}/{id}{path}")).await;
        assert_eq!(answer.problem(), (404, "TS0605".into()), "{path}");
    }
    for path in ["test", "secret", "replay", "deliveries/msg_o0_0_x/redeliver"] {
        let body = if path == "replay" { json!({"from": "2020-01-01T00:00:00Z"}) } else { json!({}) };
        let answer = other.post(&format!("{PATH}/{id}/{path}"), "k", &body).await;
        assert_eq!(answer.problem(), (404, "TS0605".into()), "{path}");
    }
    assert_eq!(patch(&other, id, &json!({"enabled": false})).await.problem(), (404, "TS0605".into()));
    let gone = other.call(Method::DELETE, &format!("{PATH}/{id}"), &[], Body::empty()).await;
    assert_eq!(gone.problem(), (404, "TS0605".into()));
}

#[tokio::test]
async fn a_change_keeps_what_it_leaves_out_and_heeds_the_version() {
    let api = Api::start().await;
    let endpoint = made(&api).await;
    let id = endpoint["id"].as_str().unwrap();
    let changed = patch(&api, id, &json!({"description": "orders", "rate_per_second": 5})).await.json();
    assert_eq!((&changed["url"], &changed["version"]), (&endpoint["url"], &json!(2)));
    assert_eq!((&changed["description"], &changed["rate_per_second"]), (&json!("orders"), &json!(5)));
    let stale = patch(&api, id, &json!({"description": "x", "expected_version": 1})).await;
    assert_eq!(stale.problem(), (409, "TS0660".into()));
    let off = patch(&api, id, &json!({"enabled": false})).await.json();
    assert_eq!((&off["enabled"], &off["disabled"]["code"]), (&json!(false), &json!("requested")));
    let replay =
        api.post(&format!("{PATH}/{id}/replay"), "k", &json!({"from": "2020-01-01T00:00:00Z"})).await;
    assert_eq!(replay.problem(), (409, "TS0660".into()));
    for (body, field) in [
        (json!({"enabled": true, "replay_from": "2999-01-01T00:00:00Z"}), "replay_from"),
        (json!({"replay_from": "2020-01-01T00:00:00Z"}), "replay_from"),
        (json!({"url": "https://10.0.0.1/"}), "url"),
        (json!({"events": ["*", "nothing.*"]}), "events[1]"),
    ] {
        let answer = patch(&api, id, &body).await;
        assert_eq!(answer.problem(), (400, "TS0607".into()), "{body}");
        assert_eq!(answer.json()["errors"][0]["field"], field);
    }
    let on = patch(&api, id, &json!({"enabled": true, "replay_from": "2020-01-01T00:00:00Z"})).await.json();
    assert_eq!(on["enabled"], true);
    let gone = api.call(Method::DELETE, &format!("{PATH}/{id}"), &[], Body::empty()).await;
    assert_eq!(gone.status, 204);
    assert_eq!(api.get(&format!("{PATH}/{id}")).await.problem(), (404, "TS0605".into()));
}

#[tokio::test]
async fn a_rotation_overlaps_and_a_test_answers_what_came_back() {
    let api = Api::start().await;
    let endpoint = made(&api).await;
    let id = endpoint["id"].as_str().unwrap();
    let answer = api.post(&format!("{PATH}/{id}/secret"), "k", &json!({"overlap_seconds": 60})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let rotated = answer.json();
    assert_ne!(rotated["secret"], endpoint["secret"]);
    assert!(rotated["previous_secret_until"].is_string(), "{rotated}");
    let test = api.post(&format!("{PATH}/{id}/test"), "k", &json!({})).await.json();
    assert_eq!((&test["delivered"], &test["status"]), (&json!(true), &json!(204)));
}
