//! The calls between an upload and a version that answers for every order, and the one that changes its settings.

use super::calls::{EXAMPLE, FALLBACK, NAME, ORDER, REVISION, SETTINGS, VERSION, change, find};
use super::settings;
use super::view::Shown;
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::openapi::{Answer, Call};
use crate::params::Segments;
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, needed, optional};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tillstream_rule_lifecycle::{ORDER_DEFAULT, Rule};
use tillstream_schemas::rules::{RuleCanaried, RuleConfigured, RuleFallback, RulePayload, RuleShadowed};
use tillstream_stage::money::AMOUNT_MINOR_MAX;

/// Failures at which a canary stops when nobody said another number.
const FAILURES_DEFAULT: i64 = 10;

const OF_ACTIVE: &str = "What the rule is told beside the order, as the schema of the version wants it; left out: what the active \
                         version is told, or an empty object";

const SHADOW: &[Field] = &[VERSION, optional("settings", SETTINGS).about(OF_ACTIVE), REVISION];
const CANARY: &[Field] = &[
    VERSION,
    needed("percent", Kind::Integer { min: 1, max: 100 })
        .about("The share of the orders, by a hash of their ids: a larger share only adds orders"),
    optional("settings", SETTINGS).about(OF_ACTIVE),
    optional("stop_at_failures", Kind::Integer { min: 1, max: 1_000_000 })
        .about("It stops by itself at so many failures; left out: 10"),
    optional("stop_at_difference", Kind::Integer { min: 1, max: AMOUNT_MINOR_MAX }).about(
        "It stops by itself once the totals of its orders differ by so much from what the active version would have \
         made them, added up without their sign, in minor units of any one currency; left out: no bound",
    ),
    optional("order", ORDER)
        .about("Its place among the rules of a hook while no version of the rule is active; left out: 100"),
    optional("fallback", FALLBACK).about(
        "What holds for an order of its share when it gives no answer and no version of the rule is active; left out: \
         `skip`. While one is active, that one answers",
    ),
    REVISION,
];
const CONFIGURATION: &[Field] = &[
    needed("settings", SETTINGS)
        .about("What the rule is told beside the order, as the schema of the version wants it"),
    REVISION,
];

#[derive(Deserialize)]
struct ShadowInput {
    version: i64,
    #[serde(default)]
    settings: Option<Map<String, Value>>,
    #[serde(default)]
    expected_revision: Option<i64>,
}

#[derive(Deserialize)]
struct CanaryInput {
    version: i64,
    percent: i32,
    #[serde(default)]
    settings: Option<Map<String, Value>>,
    #[serde(default)]
    stop_at_failures: Option<i64>,
    #[serde(default)]
    stop_at_difference: Option<i64>,
    #[serde(default)]
    order: Option<i32>,
    #[serde(default)]
    fallback: Option<RuleFallback>,
    #[serde(default)]
    expected_revision: Option<i64>,
}

#[derive(Deserialize)]
struct ConfigurationInput {
    settings: Map<String, Value>,
    #[serde(default)]
    expected_revision: Option<i64>,
}

/// `POST /v1/rules/{name}/shadow`
pub(crate) fn shadow_call() -> Call {
    Call::post("/v1/rules/{name}/shadow", "shadowRule", "rules", "Ask a version beside the active one")
        .about(
            "From now on the version is asked what the active one is asked, and nothing comes of what it says: calls, \
             failures and differences are counted. A rule has one trial at a time; this ends another. The version is \
             not asked while the tenant's orders use more than half of its share of fuel.",
        )
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .body("RuleShadowInput", SHADOW, json!({ "version": 2 }))
        .answer(Answer::json::<Shown>(200, "The rule"))
        .problem(Code::NotFound)
        .problem(Code::RuleConflict)
        .writes()
}

/// `POST /v1/rules/{name}/shadow`
pub(crate) async fn shadow(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: ShadowInput = shape::read(&body::json(&headers, body).await?, SHADOW)?;
    let rule = find(&ingest, &caller, &name)?.rule;
    let settings = input.settings.unwrap_or_else(|| settings_of_active(&rule));
    let payload = RulePayload::Shadowed(RuleShadowed {
        version: input.version,
        settings: settings::checked(&rule, input.version, settings)?,
        expected_revision: input.expected_revision,
    });
    change(&ingest, &caller, &name, payload).await
}

/// `POST /v1/rules/{name}/canary`
pub(crate) fn canary_call() -> Call {
    Call::post("/v1/rules/{name}/canary", "canaryRule", "rules", "Let a version answer for a share of the orders")
        .about(
            "From now on the version answers for `percent` of the orders, the active one for all others; also where the \
             version gives no answer. Its answers are compared with what the active version would have said. At a bound \
             it stops by itself, and the active version answers for all orders again. To take more orders, send it \
             with a larger share: what was counted begins anew. To take all, activate the version.",
        )
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .body(
            "RuleCanaryInput",
            CANARY,
            json!({ "version": 2, "percent": 5, "stop_at_failures": 10, "stop_at_difference": 50_000 }),
        )
        .answer(Answer::json::<Shown>(200, "The rule"))
        .problem(Code::NotFound)
        .problem(Code::RuleConflict)
        .writes()
}

/// `POST /v1/rules/{name}/canary`
pub(crate) async fn canary(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: CanaryInput = shape::read(&body::json(&headers, body).await?, CANARY)?;
    let rule = find(&ingest, &caller, &name)?.rule;
    let settings = input.settings.unwrap_or_else(|| settings_of_active(&rule));
    let payload = RulePayload::Canaried(RuleCanaried {
        version: input.version,
        percent: input.percent,
        order: input.order.unwrap_or(ORDER_DEFAULT),
        settings: settings::checked(&rule, input.version, settings)?,
        fallback: input.fallback.unwrap_or_default(),
        failures_max: input.stop_at_failures.unwrap_or(FAILURES_DEFAULT),
        difference_max_minor: input.stop_at_difference,
        expected_revision: input.expected_revision,
    });
    change(&ingest, &caller, &name, payload).await
}

fn settings_of_active(rule: &Rule) -> Map<String, Value> {
    let active = rule.active.as_ref();
    active.and_then(|it| serde_json::from_str(&it.settings).ok()).unwrap_or_default()
}

/// `PUT /v1/rules/{name}/settings`
pub(crate) fn configure_call() -> Call {
    Call::put("/v1/rules/{name}/settings", "configureRule", "rules", "Change the settings of the active version")
        .about(
            "Version, order and fallback stay, and so does a trial. A rollback brings the settings back that were there \
             before.",
        )
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .body("RuleSettingsInput", CONFIGURATION, json!({ "settings": { "from_quantity": 20 } }))
        .answer(Answer::json::<Shown>(200, "The rule"))
        .problem(Code::NotFound)
        .problem(Code::RuleConflict)
        .writes()
}

/// `PUT /v1/rules/{name}/settings`
pub(crate) async fn configure(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: ConfigurationInput = shape::read(&body::json(&headers, body).await?, CONFIGURATION)?;
    let rule = find(&ingest, &caller, &name)?.rule;
    let version = rule.active.as_ref().map_or(0, |it| it.version);
    let payload = RulePayload::Configured(RuleConfigured {
        settings: settings::checked(&rule, version, input.settings)?,
        // They were checked for the version that was active then: another one may want others.
        expected_revision: input.expected_revision.or(Some(rule.revision)),
    });
    change(&ingest, &caller, &name, payload).await
}
