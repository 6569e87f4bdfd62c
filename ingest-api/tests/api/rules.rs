//! Rules at the door, over the fold of their history in memory: no module is compiled or run here.

use crate::harness::{Answer, Api, NOW_MS};
use futures::future::BoxFuture;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_ingest_api::ports::{self, RuleSample, RuleUploaded, RuleView, RulesError};
use tillstream_registry_log::{Appended, Fold};
use tillstream_rule_lifecycle::{RuleRefusal, Rules};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{RuleEvent, RulePayload, RuleVersionUploaded};

/// A module that is taken begins so; its digest is the rest of it.
const MAGIC: &str = "\0asm";

/// Rules without a registry: what is appended is in force at once.
#[derive(Default)]
pub struct Shelf {
    rules: Mutex<Rules>,
    ids: AtomicU64,
}

impl Shelf {
    fn apply(&self, event: &RuleEvent) -> Result<(), RuleRefusal> {
        self.rules.lock().apply(event, Appended { partition: 0, offset: 0, at_ms: NOW_MS })
    }
}

impl ports::Rules for Shelf {
    fn list(&self, tenant: &str) -> Vec<RuleView> {
        let view = |(name, rule): (&Text, &tillstream_rule_lifecycle::Rule)| RuleView {
            name: name.clone(),
            rule: rule.clone(),
        };
        self.rules.lock().of(tenant).map(view).collect()
    }

    fn get(&self, tenant: &str, name: &str) -> Option<RuleView> {
        let rule = self.rules.lock().get(tenant, name).cloned()?;
        Some(RuleView { name: name.into(), rule })
    }

    fn new_id(&self) -> Result<Text, RulesError> {
        Ok(format!("rul_{}", self.ids.fetch_add(1, Ordering::Relaxed)).into())
    }

    fn change<'a>(
        &'a self,
        event: &'a RuleEvent,
    ) -> BoxFuture<'a, Result<Result<(), RuleRefusal>, RulesError>> {
        Box::pin(std::future::ready(Ok(self.apply(event))))
    }

    fn upload<'a>(
        &'a self,
        tenant: &'a str,
        rule: &'a str,
        actor: &'a str,
        module: Vec<u8>,
    ) -> BoxFuture<'a, Result<RuleUploaded, RulesError>> {
        let text = String::from_utf8_lossy(&module);
        let uploaded = match text.strip_prefix(MAGIC) {
            None => {
                RuleUploaded::Refused { reason: "not_wasm".to_owned(), message: "it is no Wasm".to_owned() }
            }
            Some(digest) => {
                let payload = RulePayload::Uploaded(RuleVersionUploaded {
                    digest: digest.into(),
                    size_bytes: 4,
                    hooks: vec!["price".into()],
                });
                let event = RuleEvent {
                    id: self.new_id().unwrap(),
                    tenant: tenant.into(),
                    occurred_at_ms: NOW_MS,
                    actor: actor.into(),
                    rule: rule.into(),
                    payload,
                };
                match self.apply(&event) {
                    Err(refusal) => RuleUploaded::NoRoom(refusal.to_string()),
                    Ok(()) => {
                        let rule = self.get(tenant, rule).unwrap().rule;
                        let version = rule.version_of(digest).unwrap().number;
                        let sample = RuleSample {
                            hook: "price",
                            lines: 1,
                            fuel: 9,
                            memory_bytes: 8,
                            log: String::new(),
                        };
                        RuleUploaded::Taken { version, digest: digest.to_owned(), samples: vec![sample] }
                    }
                }
            }
        };
        Box::pin(std::future::ready(Ok(uploaded)))
    }
}

async fn put(api: &Api, name: &str, media_type: &str, module: String) -> Answer {
    let headers = [("content-type", media_type)];
    api.call(Method::PUT, &format!("/v1/rules/{name}/versions"), &headers, module).await
}

/// Uploads a module whose digest is `digest`.
pub async fn upload(api: &Api, name: &str, digest: &str) -> Answer {
    put(api, name, "application/wasm", format!("{MAGIC}{digest}")).await
}

async fn post(api: &Api, path: &str, body: &Value) -> Answer {
    api.call(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
}

#[tokio::test]
async fn versions_are_numbered_and_an_activation_can_be_rolled_back_and_taken_out() {
    let api = Api::start().await;
    for (digest, version) in [("d1", 1), ("d2", 2), ("d1", 1)] {
        let answer = upload(&api, "tiers", digest).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["version"]), (201, &json!(version)));
    }
    let versions = api.get("/v1/rules/tiers/versions").await.json();
    let numbers: Vec<_> = versions["data"].as_array().unwrap().iter().map(|it| &it["version"]).collect();
    assert_eq!(numbers, [2, 1], "newest first");

    let settings = json!({"from_quantity": 5});
    let body = json!({"version": 1, "settings": settings, "fallback": "refuse", "order": 7});
    let rule = post(&api, "/v1/rules/tiers/activate", &body).await.json();
    assert_eq!((&rule["active"]["version"], &rule["active"]["settings"]), (&json!(1), &settings));
    assert_eq!((&rule["active"]["fallback"], &rule["active"]["order"]), (&json!("refuse"), &json!(7)));
    assert_eq!(rule["active"]["digest"], "d1");

    let rule = post(&api, "/v1/rules/tiers/activate", &json!({"version": 2})).await.json();
    assert_eq!((&rule["active"]["version"], &rule["active"]["fallback"]), (&json!(2), &json!("skip")));
    let rule = post(&api, "/v1/rules/tiers/rollback", &json!({})).await.json();
    assert_eq!((&rule["active"]["version"], &rule["active"]["settings"]), (&json!(1), &settings));
    assert_eq!(api.get("/v1/rules/tiers").await.json(), rule);
    assert_eq!(api.get("/v1/rules").await.json()["data"], json!([rule]));

    let gone = api.call(Method::DELETE, "/v1/rules/tiers", &[], String::new()).await;
    assert_eq!((gone.status.as_u16(), &gone.json()["active"]), (200, &Value::Null));
}

#[tokio::test]
async fn a_change_that_follows_another_revision_or_leads_nowhere_is_a_conflict() {
    let api = Api::start().await;
    upload(&api, "tiers", "d1").await;
    for (path, body) in [
        ("activate", json!({"version": 2})),
        ("activate", json!({"version": 1, "expected_revision": 9})),
        ("rollback", json!({})),
    ] {
        let answer = post(&api, &format!("/v1/rules/tiers/{path}"), &body).await;
        assert_eq!(answer.problem(), (409, "TS0664".to_owned()), "{path} {body}: {}", answer.text);
    }
    let revision = api.get("/v1/rules/tiers").await.json()["revision"].clone();
    let body = json!({"version": 1, "expected_revision": revision});
    assert_eq!(post(&api, "/v1/rules/tiers/activate", &body).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_a_rule_is_refused_by_what_is_wrong_with_it() {
    let api = Api::start().await;
    let fields = |answer: &Answer| answer.json()["errors"][0]["field"].as_str().unwrap().to_owned();
    for (module, reason) in [
        (String::new(), "(module: not_wasm)"),
        ("#!/bin/sh".to_owned(), "(module: not_wasm)"),
        ("x".repeat((256 << 10) + 1), "(module: too_large)"),
    ] {
        let answer = put(&api, "tiers", "application/wasm", module).await;
        assert_eq!(answer.problem(), (422, "TS0663".to_owned()), "{}", answer.text);
        assert_eq!(fields(&answer), reason);
    }
    let huge = put(&api, "tiers", "application/wasm", "x".repeat(2 << 20)).await;
    assert_eq!(huge.status, 413);
    assert_eq!(put(&api, "tiers", "application/json", "{}".to_owned()).await.status, 415);
    for name in ["Tiers", "-tiers", "a.b", "%2e%2e", &"x".repeat(65)] {
        let answer = upload(&api, name, "d1").await;
        assert_eq!((answer.status.as_u16(), fields(&answer)), (400, "name".to_owned()), "{name}");
    }
    assert_eq!(api.get("/v1/rules").await.json()["data"], json!([]), "nothing was taken");
    upload(&api, "tiers", "d1").await;
    for (body, field) in [
        (json!({}), "version"),
        (json!({"version": 0}), "version"),
        (json!({"version": 1, "settings": "high"}), "settings"),
        (json!({"version": 1, "settings": {"x": "y".repeat(20_000)}}), "settings"),
        (json!({"version": 1, "fallback": "hope"}), "fallback"),
        (json!({"version": 1, "order": 1_001}), "order"),
    ] {
        let answer = post(&api, "/v1/rules/tiers/activate", &body).await;
        assert_eq!((answer.status.as_u16(), fields(&answer)), (400, field.to_owned()), "{}", answer.text);
    }
}
