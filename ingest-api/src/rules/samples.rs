//! `GET /v1/rules/{name}/samples`: calls of a rule that were kept, for its author to run again.

use super::frame::{OnRule, about_rule};
use crate::moment::Moment;
use crate::openapi::answer::AnyJson;
use crate::openapi::{Answer, Call, Page};
use crate::params::{Params, Query, Wanted, query, rows, words};
use crate::problem::Problem;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::Uri;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use tillstream_schemas::rule_sample::{RuleSample, RuleSampleKind};

const KINDS: [(&str, RuleSampleKind); 3] = [
    ("call", RuleSampleKind::Call),
    ("failure", RuleSampleKind::Failure),
    ("difference", RuleSampleKind::Difference),
];
const KIND_WORDS: [&str; 3] = words(&KINDS);

const QUERY: &[Query] = &[
    query("order", Wanted::Text, "Only calls about this order"),
    query("kind", Wanted::Choice(&KIND_WORDS), "Only samples of this kind"),
    rows(20, 100),
];

/// A call of a rule that was kept.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleCallSample")]
struct Shown {
    /// Its id.
    id: String,
    /// Why it is kept. `call`: one of those that answered an order; `failure`: it gave no answer; `difference`: a version
    /// on trial said something else than the active one.
    kind: &'static str,
    /// When it was called.
    at: Moment,
    /// The order it was asked about.
    order_id: String,
    /// The version that was called.
    version: String,
    /// SHA-256 of its module, in hex.
    digest: String,
    /// The hook.
    hook: String,
    /// What it was asked: what `tillstream rules run --input` takes. What may be a person is `***`.
    #[schemars(with = "AnyJson")]
    input: Value,
    /// What is masked in the input, such as `order.customer`: a rule that decides from it says something else here.
    masked: Vec<String>,
    /// What it was told beside the order.
    #[schemars(with = "AnyJson")]
    settings: Value,
    /// What became of the call, such as `answered`, `passed` or `fuel`.
    outcome: String,
    /// What it said; null where it gave no answer.
    #[schemars(with = "AnyJson")]
    answer: Value,
    /// Why somebody is to look at the order.
    review: Option<String>,
    /// Units of fuel it used.
    fuel: i64,
    /// Bytes of memory it had at its end.
    memory_bytes: i64,
    /// What it logged.
    log: String,
    /// Of a difference: what it is compared with.
    other: Option<Other>,
}

/// What another version said.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleCallOther")]
struct Other {
    /// Which version; null: no rule at all.
    version: Option<String>,
    /// What it said.
    #[schemars(with = "AnyJson")]
    answer: Value,
}

/// `GET /v1/rules/{name}/samples`
pub(crate) fn samples_call() -> Call {
    let summary = "List calls of a rule that were kept";
    about_rule(Call::get("/v1/rules/{name}/samples", "listRuleSamples", "rules", summary))
        .about(
            "Every process keeps at most one call per second, rule and kind, of orders up to 16 KiB; the newest 32 places of \
             each kind are kept, for a day. An order's later sample takes the place of its earlier one.",
        )
        .query(QUERY)
        .answer(Answer::json::<Page<Shown>>(200, "The samples, newest first"))
        .reads()
}

/// `GET /v1/rules/{name}/samples`
pub(crate) async fn samples(on: OnRule, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, QUERY)?;
    let (order, kind, limit) = (params.text("order"), params.choice("kind", &KINDS), params.rows());
    params.finish()?;
    let name = on.view()?.name;
    let wanted = |it: &Arc<RuleSample>| {
        order.as_ref().is_none_or(|order| it.order_id == *order) && kind.is_none_or(|kind| it.kind == kind)
    };
    let found = on.rules()?.samples(&on.caller.tenant, &name);
    let shown = found.iter().filter(|it| wanted(it)).take(limit).map(|it| shown(it));
    Ok(Json(Page::whole(shown.collect())).into_response())
}

fn shown(it: &RuleSample) -> Shown {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let answer = |text: &Option<String>| text.as_deref().map(json).unwrap_or_default();
    let other = |said: &String| Other {
        version: it.other_version.as_ref().map(ToString::to_string),
        answer: json(said),
    };
    Shown {
        id: it.id.to_string(),
        kind: it.kind.as_str(),
        at: Moment(it.at_ms),
        order_id: it.order_id.to_string(),
        version: it.version.to_string(),
        digest: it.digest.to_string(),
        hook: it.hook.to_string(),
        input: json(&it.input),
        masked: it.masked.iter().map(ToString::to_string).collect(),
        settings: json(&it.settings),
        outcome: it.outcome.to_string(),
        answer: answer(&it.answer),
        review: it.review.clone(),
        fuel: it.fuel,
        memory_bytes: it.memory_bytes,
        log: it.log.clone(),
        other: it.other_answer.as_ref().map(other),
    }
}
