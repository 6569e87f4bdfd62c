//! Backtests: what a version would have changed in the tenant's own past.

use super::calls::{EXAMPLE, NAME, SETTINGS, find, rule_name, rules};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::moment::{Moment, from_rfc3339};
use crate::openapi::answer::AnyJson;
use crate::openapi::{Answer, Call, Page};
use crate::orders::ID_CHARACTERS;
use crate::orders::place::locate;
use crate::params::Segments;
use crate::ports::Backtests;
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{self, Field, Kind, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tillstream_rule_backtest::{BacktestError, Report, Spec, Status, View};

const VERSION: Kind = Kind::Integer { min: 1, max: i64::MAX };
const ID_EXAMPLE: &str = "bt_2a41c06d1c0a97b3e85f2";

const BACKTEST: &[Field] = &[
    optional("version", VERSION).about("The candidate, active or not; left out: the rule's newest version"),
    optional("against", VERSION).about("The version it is compared with; left out: what happened"),
    optional("settings", SETTINGS)
        .about("What the candidate is told beside the order; left out: the settings of the active version"),
    optional("alone", Kind::Flag)
        .about("Whether the tenant's other active rules stay out of it; left out: they are asked too"),
    optional("from", Kind::Time).about("Orders placed at this time or later; left out: all that the log has"),
    optional("to", Kind::Time).about("Orders placed before this time"),
    optional("orders_per_second", Kind::Integer { min: 1, max: 1_000_000 })
        .about("The most orders a second; left out: as fast as there is time beside everything else"),
];

#[derive(Deserialize)]
struct BacktestInput {
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    against: Option<i64>,
    #[serde(default)]
    settings: Option<Map<String, Value>>,
    #[serde(default)]
    alone: Option<bool>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    orders_per_second: Option<u32>,
}

/// A backtest.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Backtest")]
struct Shown {
    /// Its id.
    id: String,
    /// The rule.
    rule: String,
    /// The candidate.
    version: i64,
    /// The version it is compared with; null: what happened.
    against: Option<i64>,
    /// Other settings than those of the active version.
    #[schemars(with = "AnyJson")]
    settings: Value,
    /// Whether the tenant's other rules stay out of it.
    alone: bool,
    /// Orders placed at this time or later.
    from: Option<Moment>,
    /// Orders placed before this time.
    to: Option<Moment>,
    /// Where it stands.
    status: Status,
    /// What went wrong.
    error: Option<String>,
    /// How much of the log has been read, 0 to 1.
    progress: f64,
    /// Orders looked at per second at work.
    orders_per_second: f64,
    /// When it was asked for.
    created_at: Moment,
    /// When it ended.
    ended_at: Option<Moment>,
    /// What was found so far.
    report: Report,
}

#[allow(clippy::cast_precision_loss, reason = "a rate that is shown")]
fn shown(view: View) -> Shown {
    let spec = view.spec;
    let seconds = view.worked_ms.max(1) as f64 / 1_000.0;
    Shown {
        id: spec.id,
        rule: spec.rule,
        version: spec.version,
        against: spec.against,
        settings: spec.settings.and_then(|it| serde_json::from_str(&it).ok()).unwrap_or_default(),
        alone: spec.alone,
        from: spec.from_ms.map(Moment),
        to: spec.to_ms.map(Moment),
        status: view.status,
        error: view.error,
        progress: view.progress,
        orders_per_second: (view.report.orders as f64 / seconds).round(),
        created_at: Moment(spec.created_at_ms),
        ended_at: view.ended_at_ms.map(Moment),
        report: view.report,
    }
}

/// `POST /v1/rules/{name}/backtests`
pub(crate) fn begin_call() -> Call {
    Call::post("/v1/rules/{name}/backtests", "beginBacktest", "rules", "Try a version on past orders")
        .about(
            "The version is asked about every order that the log still has, at the prices of its day, in its place among \
             the active rules; nothing is changed. It runs at low priority beside live traffic. Read it again for its \
             progress and report. A price hook is needed. It runs in the process that was asked: ask the same one again.",
        )
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .body("BacktestInput", BACKTEST, json!({ "version": 2, "from": "2026-11-01T00:00:00Z" }))
        .answer(Answer::json::<Shown>(202, "It runs").header("Location", "Where to read it"))
        .problem(Code::NotFound)
        .problem(Code::BacktestConflict)
        .writes()
}

/// `POST /v1/rules/{name}/backtests`
pub(crate) async fn begin(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: BacktestInput = shape::read(&body::json(&headers, body).await?, BACKTEST)?;
    let name = rule_name(&name)?;
    let rule = find(&ingest, &caller, &name)?.rule;
    let newest = rule.versions.last().map(|it| it.number);
    let version = input.version.or(newest).ok_or_else(|| conflict("the rule has no version".to_owned()))?;
    let (from_ms, to_ms) = (time("from", input.from)?, time("to", input.to)?);
    if let (Some(from), Some(to)) = (from_ms, to_ms)
        && from >= to
    {
        let error = FieldError::new("to", "is not after `from`", "send a later time");
        return Err(Problem::invalid_fields(vec![error]));
    }
    let settings = match input.settings {
        Some(it) => Some(
            serde_json::to_string(&it).map_err(|error| Problem::new(Code::Internal, error.to_string()))?,
        ),
        None => None,
    };
    let spec = Spec {
        id: new_id(&ingest)?,
        tenant: caller.tenant.to_string(),
        rule: name.to_string(),
        version,
        settings,
        against: input.against,
        alone: input.alone.unwrap_or(false),
        from_ms,
        to_ms,
        orders_per_second_max: input.orders_per_second,
        created_at_ms: ingest.clock.now_ms(),
    };
    let view = backtests(&ingest)?.begin(spec).await?;
    let path = format!("/v1/rules/{name}/backtests/{}", view.spec.id);
    let mut response = (StatusCode::ACCEPTED, Json(shown(view))).into_response();
    locate(&mut response, &path, None);
    Ok(response)
}

/// `bt_` and the end of an id that nobody else has: what of its time changes, and what is random in it.
fn new_id(ingest: &Ingest) -> Result<String, Problem> {
    const LENGTH: usize = ID_CHARACTERS - 3;
    let id = rules(ingest)?.new_id()?;
    let id = id.trim_start_matches("rul_");
    let end = id.get(id.len().saturating_sub(LENGTH)..).unwrap_or_default();
    Ok(format!("bt_{end:0>LENGTH$}"))
}

fn time(field: &str, text: Option<String>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let refused = || {
        let error = FieldError::new(field, "is no time", "send RFC 3339, such as 2026-11-30T00:00:00Z");
        Problem::invalid_fields(vec![error])
    };
    from_rfc3339(&text).map(Some).ok_or_else(refused)
}

/// `GET /v1/rules/{name}/backtests`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/rules/{name}/backtests", "listBacktests", "rules", "List the backtests of a rule")
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .answer(Answer::json::<Page<Shown>>(200, "The backtests of this process, newest first"))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/rules/{name}/backtests`
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Response, Problem> {
    find(&ingest, &caller, &name)?;
    let found = backtests(&ingest)?.list(&caller.tenant, &name);
    Ok(Json(Page::whole(found.into_iter().map(shown).collect())).into_response())
}

/// `GET /v1/rules/{name}/backtests/{id}`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/rules/{name}/backtests/{id}", "getBacktest", "rules", "Get a backtest")
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .id_segment("id", "bt_", "The backtest's id", ID_EXAMPLE)
        .answer(Answer::json::<Shown>(200, "The backtest, with what it has found so far"))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/rules/{name}/backtests/{id}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments((name, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let view = backtests(&ingest)?.get(&caller.tenant, &name, &id)?;
    Ok(Json(shown(view)).into_response())
}

/// `POST /v1/rules/{name}/backtests/{id}/cancel`
pub(crate) fn cancel_call() -> Call {
    Call::post("/v1/rules/{name}/backtests/{id}/cancel", "cancelBacktest", "rules", "Stop a backtest")
        .about(
            "What it has found so far stays, and it can go on from there. One that has ended stays as it is.",
        )
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .id_segment("id", "bt_", "The backtest's id", ID_EXAMPLE)
        .answer(Answer::json::<Shown>(200, "The backtest"))
        .problem(Code::NotFound)
        .writes()
}

/// `POST /v1/rules/{name}/backtests/{id}/cancel`
pub(crate) async fn cancel(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments((name, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let view = backtests(&ingest)?.cancel(&caller.tenant, &name, &id)?;
    Ok(Json(shown(view)).into_response())
}

/// `POST /v1/rules/{name}/backtests/{id}/resume`
pub(crate) fn resume_call() -> Call {
    Call::post("/v1/rules/{name}/backtests/{id}/resume", "resumeBacktest", "rules", "Go on with a backtest")
        .about("From where it was stopped or failed; no order is counted twice. One that runs or is done stays as it is.")
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .id_segment("id", "bt_", "The backtest's id", ID_EXAMPLE)
        .answer(Answer::json::<Shown>(202, "The backtest"))
        .problem(Code::NotFound)
        .problem(Code::BacktestConflict)
        .writes()
}

/// `POST /v1/rules/{name}/backtests/{id}/resume`
pub(crate) async fn resume(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments((name, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let view = backtests(&ingest)?.resume(&caller.tenant, &name, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(view))).into_response())
}

fn backtests(ingest: &Ingest) -> Result<&dyn Backtests, Problem> {
    let missing = || Problem::new(Code::Stopped, "this process runs no backtests");
    ingest.backtests.as_deref().ok_or_else(missing)
}

fn conflict(text: String) -> Problem {
    Problem::new(Code::BacktestConflict, text)
}

impl From<BacktestError> for Problem {
    fn from(error: BacktestError) -> Self {
        match error {
            BacktestError::NotPossible(text) | BacktestError::TooMany(text) => conflict(text),
            BacktestError::Unknown(id) => Self::not_found("backtest", &id),
            BacktestError::Log(error) => error.into(),
            BacktestError::Failed(_) => {
                tracing::error!(%error, "a backtest failed");
                Self::new(Code::Stopped, error.to_string()).retry_after(2)
            }
        }
    }
}
