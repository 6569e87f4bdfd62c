//! Rules at the door, over the fold of their history in memory: no module is compiled or run here.

use crate::harness::{Answer, Api, NOW_MS};
use futures::future::BoxFuture;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_ingest_api::ports::{
    self, NewModule, RuleSample as TriedSample, RuleUploaded, RuleView, RulesError,
};
use tillstream_registry_log::{Appended, Fold};
use tillstream_rule_lifecycle::{RuleRefusal, Rules, Signing};
use tillstream_schemas::Text;
use tillstream_schemas::rule_sample::{RuleSample, RuleSampleKind};
use tillstream_schemas::rules::{
    RuleEvent, RuleFailures, RuleInputs, RulePayload, RuleTried, RuleTriedHook, RuleVersionUploaded,
};

/// A module that is taken begins so; its digest is the rest of it.
const MAGIC: &str = "\0asm";

/// Rules without a registry: what is appended is in force at once.
#[derive(Default)]
pub struct Shelf {
    rules: Mutex<Rules>,
    ids: AtomicU64,
}

impl Shelf {
    /// Says that the first version failed on so many of 10 inputs, with no settings.
    fn tried(&self, event: &RuleEvent, failures: i64) {
        let hook = RuleTriedHook {
            hook: "price".into(),
            inputs: RuleInputs::Samples,
            calls: 10,
            failures: vec![RuleFailures { outcome: "trap".into(), calls: failures }],
            fuel_p50: 7,
            fuel_max: 9,
            changed: 2,
        };
        let tried = RuleTried { version: 1, settings: "{}".into(), against: None, hooks: vec![hook] };
        let event = RuleEvent { id: "evt_tried".into(), payload: RulePayload::Tried(tried), ..event.clone() };
        self.apply(&event).unwrap();
    }

    fn apply(&self, event: &RuleEvent) -> Result<(), RuleRefusal> {
        self.rules.lock().apply(event, Appended { partition: 0, offset: 0, at_ms: NOW_MS })
    }
}

impl ports::Rules for Shelf {
    fn list(&self, tenant: &str) -> Vec<RuleView> {
        let view = |(name, rule): (&Text, &tillstream_rule_lifecycle::Rule)| RuleView {
            name: name.clone(),
            rule: rule.clone(),
            untold: Vec::new(),
        };
        self.rules.lock().of(tenant).map(view).collect()
    }

    fn get(&self, tenant: &str, name: &str) -> Option<RuleView> {
        let rule = self.rules.lock().get(tenant, name).cloned()?;
        Some(RuleView { name: name.into(), rule, untold: Vec::new() })
    }

    fn samples(&self, tenant: &str, name: &str) -> Vec<Arc<RuleSample>> {
        let sample = |(index, kind): (usize, RuleSampleKind)| RuleSample {
            id: format!("smp_{index}").into(),
            tenant: tenant.into(),
            rule: name.into(),
            version: "2".into(),
            digest: "d2".into(),
            order_id: format!("ord_{}", index % 2).into(),
            hook: "price".into(),
            kind,
            at_ms: NOW_MS,
            input: r#"{"hook":"price","order":{"customer":"***"},"lines":[]}"#.to_owned(),
            masked: vec!["order.customer".into()],
            settings: "{}".into(),
            outcome: if kind == RuleSampleKind::Failure { "fuel" } else { "passed" }.into(),
            answer: (kind != RuleSampleKind::Failure).then(|| r#""pass""#.to_owned()),
            review: None,
            fuel: 9,
            memory_bytes: 8,
            log: String::new(),
            other_version: None,
            other_answer: (kind == RuleSampleKind::Difference).then(|| r#"{"adjust":[]}"#.to_owned()),
        };
        RuleSampleKind::ALL.into_iter().enumerate().map(|it| Arc::new(sample(it))).collect()
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

    fn signing(&self, tenant: &str) -> Signing {
        self.rules.lock().signing(tenant).cloned().unwrap_or_default()
    }

    fn upload<'a>(
        &'a self,
        new: NewModule<'a>,
        module: Vec<u8>,
    ) -> BoxFuture<'a, Result<RuleUploaded, RulesError>> {
        let NewModule { tenant, rule, actor, signature } = new;
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
                    settings_schema: digest.strip_prefix("schema:").map(Into::into),
                    signature: signature.cloned(),
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
                    Err(RuleRefusal::Signature(refusal)) => RuleUploaded::Unsigned(refusal.to_string()),
                    Err(refusal) => RuleUploaded::NoRoom(refusal.to_string()),
                    Ok(()) => {
                        if let Some(failures) = digest.strip_prefix("fails:") {
                            self.tried(&event, failures.parse().unwrap());
                        }
                        let rule = self.get(tenant, rule).unwrap().rule;
                        let version = rule.version_of(digest).unwrap().number;
                        let sample = TriedSample {
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

pub async fn post(api: &Api, path: &str, body: &Value) -> Answer {
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
        ("shadow", json!({"version": 2})),
        ("canary", json!({"version": 1, "percent": 5, "expected_revision": 9})),
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

async fn put_json(api: &Api, path: &str, body: &Value) -> Answer {
    api.call(Method::PUT, path, &[("content-type", "application/json")], body.to_string()).await
}

#[tokio::test]
async fn a_version_goes_on_trial_is_raised_and_ends_in_an_activation_or_a_rollback() {
    let api = Api::start().await;
    for digest in ["d1", "d2"] {
        upload(&api, "tiers", digest).await;
    }
    let settings = json!({"from_quantity": 5});
    post(&api, "/v1/rules/tiers/activate", &json!({"version": 1, "settings": settings})).await;
    let shadow = post(&api, "/v1/rules/tiers/shadow", &json!({"version": 2})).await.json();
    assert_eq!((&shadow["active"]["version"], &shadow["trial"]["version"]), (&json!(1), &json!(2)));
    assert_eq!((&shadow["trial"]["kind"], &shadow["trial"]["percent"]), (&json!("shadow"), &Value::Null));
    assert_eq!(shadow["trial"]["settings"], settings, "it is told what the active version is told");
    for (percent, bound) in [(5, json!(700)), (50, Value::Null)] {
        let body = json!({"version": 2, "percent": percent, "settings": {}, "stop_at_difference": bound});
        let trial = post(&api, "/v1/rules/tiers/canary", &body).await.json()["trial"].clone();
        assert_eq!(
            (&trial["kind"], &trial["percent"], &trial["settings"]),
            (&json!("canary"), &json!(percent), &json!({}))
        );
        assert_eq!((&trial["stop_at_failures"], &trial["stop_at_difference"]), (&json!(10), &bound));
        assert_eq!((&trial["calls"], &trial["stopped"]), (&json!(0), &Value::Null));
    }
    let rule = post(&api, "/v1/rules/tiers/rollback", &json!({})).await.json();
    assert_eq!((&rule["active"]["version"], &rule["trial"]), (&json!(1), &Value::Null));
    post(&api, "/v1/rules/tiers/canary", &json!({"version": 2, "percent": 5})).await;
    let rule = post(&api, "/v1/rules/tiers/activate", &json!({"version": 2})).await.json();
    assert_eq!((&rule["active"]["version"], &rule["trial"]), (&json!(2), &Value::Null));
}

#[tokio::test]
async fn a_tenant_that_sends_module_after_module_waits() {
    let api = Api::start().await;
    let mut answers = Vec::new();
    while answers.last() != Some(&429) {
        assert!(answers.len() < 600, "it is never told to wait");
        let answer = upload(&api, "tiers", "d1").await;
        if answer.status == 429 {
            assert_eq!(answer.json()["code"], "TS0641");
            assert!((1..=60).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
        }
        answers.push(answer.status.as_u16());
    }
    assert!(answers.len() > 60, "{} were taken", answers.len() - 1);
    let other = post(&api, "/v1/rules/tiers/activate", &json!({"version": 1})).await;
    assert_eq!(other.status, 200, "only modules wait");
}

#[tokio::test]
async fn settings_are_changed_without_a_version_and_held_against_its_schema() {
    let api = Api::start().await;
    let schema = json!({"required": ["from"], "properties": {"from": {"type": "integer"}}});
    for digest in ["d1".to_owned(), format!("schema:{schema}")] {
        assert_eq!(upload(&api, "tiers", &digest).await.status, 201);
    }
    let versions = api.get("/v1/rules/tiers/versions").await.json();
    assert_eq!(
        (&versions["data"][0]["settings_schema"], &versions["data"][1]["settings_schema"]),
        (&schema, &Value::Null)
    );
    let early = put_json(&api, "/v1/rules/tiers/settings", &json!({"settings": {}})).await;
    assert_eq!(early.problem(), (409, "TS0664".to_owned()), "{}", early.text);

    let any = json!({"version": 1, "settings": {"anything": "goes"}});
    assert_eq!(post(&api, "/v1/rules/tiers/activate", &any).await.status, 200);
    let wrong = json!({"from": "five"});
    for (path, body) in [
        ("activate", json!({"version": 2, "settings": wrong})),
        ("shadow", json!({"version": 2, "settings": wrong})),
        ("canary", json!({"version": 2, "percent": 5, "settings": wrong})),
    ] {
        let refused = post(&api, &format!("/v1/rules/tiers/{path}"), &body).await;
        assert_eq!(refused.status, 400, "{path}: {}", refused.text);
        assert_eq!(refused.json()["errors"][0]["field"], "settings.from", "{path}");
    }
    let left_out = post(&api, "/v1/rules/tiers/activate", &json!({"version": 2})).await;
    assert_eq!((left_out.status.as_u16(), &left_out.json()["errors"][0]["field"]), (400, &json!("settings")));

    let body = json!({"version": 2, "order": 7, "fallback": "refuse", "settings": {"from": 5}});
    post(&api, "/v1/rules/tiers/activate", &body).await;
    let refused = put_json(&api, "/v1/rules/tiers/settings", &json!({"settings": wrong})).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    let rule = put_json(&api, "/v1/rules/tiers/settings", &json!({"settings": {"from": 9}})).await.json();
    let active = &rule["active"];
    assert_eq!(
        (&active["version"], &active["order"], &active["fallback"]),
        (&json!(2), &json!(7), &json!("refuse"))
    );
    assert_eq!(active["settings"], json!({"from": 9}));
    let stale = json!({"settings": {"from": 1}, "expected_revision": 1});
    assert_eq!(put_json(&api, "/v1/rules/tiers/settings", &stale).await.problem().0, 409);
    let rule = post(&api, "/v1/rules/tiers/rollback", &json!({})).await.json();
    assert_eq!(rule["active"]["settings"], json!({"from": 5}));
}

#[tokio::test]
async fn kept_calls_are_found_by_order_and_kind_and_can_be_run_again() {
    let api = Api::start().await;
    upload(&api, "tiers", "d2").await;
    let ids = |page: &Value| {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let page = api.get("/v1/rules/tiers/samples").await.json();
    assert_eq!(ids(&page), ["smp_0", "smp_1", "smp_2"]);
    let [call, failure, difference] = [0, 1, 2].map(|it| &page["data"][it]);
    assert_eq!((&call["input"]["hook"], &call["answer"]), (&json!("price"), &json!("pass")));
    assert_eq!((&call["masked"], &call["other"]), (&json!(["order.customer"]), &Value::Null));
    assert_eq!((&failure["kind"], &failure["answer"]), (&json!("failure"), &Value::Null));
    assert_eq!(difference["other"], json!({"version": null, "answer": {"adjust": []}}));
    for (query, found) in [
        ("order=ord_0", vec!["smp_0", "smp_2"]),
        ("order=ord_0&kind=difference", vec!["smp_2"]),
        ("order=ord_9", vec![]),
        ("limit=1", vec!["smp_0"]),
    ] {
        assert_eq!(ids(&api.get(&format!("/v1/rules/tiers/samples?{query}")).await.json()), found, "{query}");
    }
    assert_eq!(api.get("/v1/rules/tiers/samples?kind=odd").await.status, 400);
    assert_eq!(api.get("/v1/rules/nobodys/samples").await.status, 404);
}

#[tokio::test]
async fn a_version_that_fails_on_most_recent_inputs_is_put_in_force_only_by_force() {
    let api = Api::start().await;
    let uploaded = upload(&api, "tiers", "fails:6").await.json();
    let recent = &uploaded["recent"];
    assert_eq!((&recent["fails_on_most"], &recent["against"]), (&json!(true), &Value::Null), "{uploaded}");
    let hook = json!({"hook": "price", "inputs": "samples", "calls": 10, "failures": {"trap": 6},
        "fuel_p50": 7, "fuel_max": 9, "changed": 2});
    assert_eq!(recent["hooks"], json!([hook]));
    assert_eq!(api.get("/v1/rules/tiers/versions").await.json()["data"][0]["recent"], *recent);
    for (path, body) in [("activate", json!({"version": 1})), ("canary", json!({"version": 1, "percent": 5}))]
    {
        let path = format!("/v1/rules/tiers/{path}");
        let refused = post(&api, &path, &body).await;
        assert_eq!(refused.problem(), (409, "TS0668".to_owned()), "{}", refused.text);
        assert!(refused.text.contains("6 of 10"), "it says how often: {}", refused.text);
        let mut forced = body.clone();
        forced["forced"] = Value::Null;
        let refused = post(&api, &path, &forced).await;
        assert_eq!(refused.problem(), (409, "TS0668".to_owned()), "null is left out: {}", refused.text);
        forced["forced"] = json!(true);
        assert_eq!(post(&api, &path, &forced).await.status, 200);
        post(&api, "/v1/rules/tiers/rollback", &json!({})).await;
    }
    assert_eq!(post(&api, "/v1/rules/tiers/shadow", &json!({"version": 1})).await.status, 200);
    upload(&api, "half", "fails:5").await;
    assert_eq!(post(&api, "/v1/rules/half/activate", &json!({"version": 1})).await.status, 200);
}

const PUBLIC_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[tokio::test]
async fn a_tenant_that_needs_signatures_takes_no_module_without_one_that_holds() {
    let api = Api::start().await;
    upload(&api, "tiers", "d1").await;
    let early = put_json(&api, "/v1/rule-signing", &json!({"required": true})).await;
    assert_eq!(early.problem(), (409, "TS0664".to_owned()), "nobody could sign: {}", early.text);
    for body in
        [json!({"name": "ci", "public_key": "d75a"}), json!({"name": "ci", "public_key": "x".repeat(64)})]
    {
        let refused = post(&api, "/v1/rule-signing/keys", &body).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["field"]),
            (400, &json!("public_key"))
        );
    }
    let body = json!({"name": "ci", "public_key": PUBLIC_KEY});
    let added = post(&api, "/v1/rule-signing/keys", &body).await;
    assert_eq!((added.status.as_u16(), &added.json()["keys"][0]["name"]), (201, &json!("ci")));
    let id = added.json()["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(put_json(&api, "/v1/rule-signing", &json!({"required": true})).await.json()["required"], true);

    let unsigned = upload(&api, "tiers", "d2").await;
    assert_eq!(unsigned.problem(), (422, "TS0667".to_owned()), "{}", unsigned.text);
    assert!(unsigned.text.contains("rules sign"), "it says how: {}", unsigned.text);
    let signed =
        |key: &str| format!("/v1/rules/tiers/versions?signed_by={key}&signature={}", "ab".repeat(64));
    for (key, says) in [(id.as_str(), "over this module"), ("sgn_nobody", "no signing key sgn_nobody")] {
        let headers = [("content-type", "application/wasm")];
        let answer = api.call(Method::PUT, &signed(key), &headers, format!("{MAGIC}d2")).await;
        assert_eq!(answer.problem(), (422, "TS0667".to_owned()), "{}", answer.text);
        assert!(answer.text.contains(says), "{}", answer.text);
    }
    let path = "/v1/rules/tiers/versions?signed_by=sgn_x";
    let half = api.call(Method::PUT, path, &[("content-type", "application/wasm")], MAGIC.to_owned()).await;
    assert_eq!(half.problem(), (400, "TS0612".to_owned()), "{}", half.text);
    for path in ["activate", "shadow"] {
        let answer = post(&api, &format!("/v1/rules/tiers/{path}"), &json!({"version": 1})).await;
        assert_eq!(answer.problem(), (422, "TS0667".to_owned()), "{path}: {}", answer.text);
    }

    let path = format!("/v1/rule-signing/keys/{id}");
    let revoked = api.call(Method::DELETE, &path, &[], String::new()).await.json();
    assert!(revoked["keys"][0]["revoked_at"].is_string(), "{revoked}");
    assert_eq!(api.get("/v1/rule-signing").await.json(), revoked);
    let unknown = api.call(Method::DELETE, "/v1/rule-signing/keys/sgn_x", &[], String::new()).await;
    assert_eq!(unknown.status, 404);
    put_json(&api, "/v1/rule-signing", &json!({"required": false})).await;
    assert_eq!(post(&api, "/v1/rules/tiers/activate", &json!({"version": 1})).await.status, 200);
}
