//! The calls between an upload and a version that answers for every order, and the one that changes its settings.

use super::calls::{FALLBACK, FORCED, ORDER, REVISION, SETTINGS, VERSION};
use super::frame::{OnRule, changes_rule, read};
use super::settings;
use crate::openapi::Call;
use crate::problem::{Code, Problem};
use crate::shape::{Field, Kind, needed, optional};
use axum::body::Body;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};
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
    FORCED,
    REVISION,
];
const CONFIGURATION: &[Field] = &[
    needed("settings", SETTINGS)
        .about("What the rule is told beside the order, as the schema of the version wants it"),
    FORCED,
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
    forced: Option<bool>,
    #[serde(default)]
    expected_revision: Option<i64>,
}

#[derive(Deserialize)]
struct ConfigurationInput {
    settings: Map<String, Value>,
    #[serde(default)]
    forced: Option<bool>,
    #[serde(default)]
    expected_revision: Option<i64>,
}

/// `POST /v1/rules/{name}/shadow`
pub(crate) fn shadow_call() -> Call {
    let call =
        Call::post("/v1/rules/{name}/shadow", "shadowRule", "rules", "Ask a version beside the active one");
    changes_rule(call)
        .about(
            "From now on the version is asked what the active one is asked, and nothing comes of what it says: calls, \
             failures and differences are counted. A rule has one trial at a time; this ends another. The version is \
             not asked while the tenant's orders use more than half of its share of fuel.",
        )
        .body("RuleShadowInput", SHADOW, json!({ "version": 2 }))
        .problem(Code::SignatureRefused)
}

/// `POST /v1/rules/{name}/shadow`
pub(crate) async fn shadow(on: OnRule, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let input: ShadowInput = read(&headers, body, SHADOW).await?;
    let rule = on.rule()?;
    let settings = input.settings.unwrap_or_else(|| settings_of_active(&rule));
    let shadowed = RuleShadowed {
        version: input.version,
        settings: settings::checked(&rule, input.version, settings)?,
        expected_revision: input.expected_revision,
    };
    on.change(RulePayload::Shadowed(shadowed)).await
}

/// `POST /v1/rules/{name}/canary`
pub(crate) fn canary_call() -> Call {
    let summary = "Let a version answer for a share of the orders";
    changes_rule(Call::post("/v1/rules/{name}/canary", "canaryRule", "rules", summary))
        .about(
            "From now on the version answers for `percent` of the orders, the active one for all others; also where the \
             version gives no answer. Its answers are compared with what the active version would have said. At a bound \
             it stops by itself, and the active version answers for all orders again. To take more orders, send it \
             with a larger share: what was counted begins anew. To take all, activate the version. As an activation it \
             is refused after a dry run that gave no answer to most inputs, unless it is `forced`.",
        )
        .body(
            "RuleCanaryInput",
            CANARY,
            json!({ "version": 2, "percent": 5, "stop_at_failures": 10, "stop_at_difference": 50_000 }),
        )
        .problem(Code::DryRunRefused)
        .problem(Code::SignatureRefused)
}

/// `POST /v1/rules/{name}/canary`
pub(crate) async fn canary(on: OnRule, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let input: CanaryInput = read(&headers, body, CANARY).await?;
    let rule = on.rule()?;
    let settings = input.settings.unwrap_or_else(|| settings_of_active(&rule));
    let canaried = RuleCanaried {
        version: input.version,
        percent: input.percent,
        order: input.order.unwrap_or(ORDER_DEFAULT),
        settings: settings::checked(&rule, input.version, settings)?,
        fallback: input.fallback.unwrap_or_default(),
        failures_max: input.stop_at_failures.unwrap_or(FAILURES_DEFAULT),
        difference_max_minor: input.stop_at_difference,
        expected_revision: input.expected_revision,
        forced: input.forced.unwrap_or(false),
    };
    on.change(RulePayload::Canaried(canaried)).await
}

pub(super) fn settings_of_active(rule: &Rule) -> Map<String, Value> {
    let active = rule.active.as_ref();
    active.and_then(|it| serde_json::from_str(&it.settings).ok()).unwrap_or_default()
}

/// `PUT /v1/rules/{name}/settings`
pub(crate) fn configure_call() -> Call {
    let summary = "Change the settings of the active version";
    changes_rule(Call::put("/v1/rules/{name}/settings", "configureRule", "rules", summary))
        .about(
            "Version, order and fallback stay, and so does a trial. A rollback brings the settings back that were there \
             before. As an activation it is refused after a dry run that gave no answer to most inputs, unless it is \
             `forced`.",
        )
        .body("RuleSettingsInput", CONFIGURATION, json!({ "settings": { "from_quantity": 20 } }))
        .problem(Code::DryRunRefused)
}

/// `PUT /v1/rules/{name}/settings`
pub(crate) async fn configure(on: OnRule, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let input: ConfigurationInput = read(&headers, body, CONFIGURATION).await?;
    let rule = on.rule()?;
    let version = rule.active.as_ref().map_or(0, |it| it.version);
    let configured = RuleConfigured {
        settings: settings::checked(&rule, version, input.settings)?,
        // They were checked for the version that was active then: another one may want others.
        expected_revision: input.expected_revision.or(Some(rule.revision)),
        forced: input.forced.unwrap_or(false),
    };
    on.change(RulePayload::Configured(configured)).await
}
