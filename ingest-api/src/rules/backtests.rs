//! Backtests: what a version would have changed in the tenant's own past.

use super::calls::SETTINGS;
use super::frame::{OnRule, about_rule, read};
use super::rollout::settings_of_active;
use super::settings;
use crate::Ingest;
use crate::moment::{Moment, from_rfc3339};
use crate::openapi::answer::AnyJson;
use crate::openapi::{Answer, Call, Page};
use crate::orders::ID_CHARACTERS;
use crate::orders::place::locate;
use crate::ports::Backtests;
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{Field, Kind, optional};
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tillstream_rule_backtest::{BacktestError, Baseline, HOOKS, Report, Spec, Status, View};
use tillstream_rule_lifecycle::Rule;
use tillstream_stage::rule::Hook;

const VERSION: Kind = Kind::Integer { min: 1, max: i64::MAX };
const ID_EXAMPLE: &str = "bt_2a41c06d1c0a97b3e85f2";

const HOOK: Kind = Kind::Choice(&["price", "allocate", "risk", "ship", "measure"]);

const BACKTEST: &[Field] = &[
    optional("version", VERSION).about("The candidate, active or not; left out: the rule's newest version"),
    optional("hook", HOOK).about(
        "The hook that is asked: price, allocate, risk or measure; left out: the first of them that the candidate has. \
         What the ship hook was asked cannot be made again from what a backtest reads",
    ),
    optional("against", VERSION).about(
        "The version it is compared with; left out: what happened, and at the hooks allocate and risk, whose outcome \
         stands in events that a backtest does not read, what the rules that are active now say. It is told what the \
         active version is told",
    ),
    optional("settings", SETTINGS).about(
        "What the candidate is told beside the order, as its schema wants it; left out: the settings of the active version",
    ),
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
    hook: Option<Hook>,
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
    /// The hook that is asked.
    hook: &'static str,
    /// The version it is compared with, where it is one.
    against: Option<i64>,
    /// What it is compared with: what happened (`history`), another `version`, or what the rules that are `active` say.
    compared_with: Baseline,
    /// What the candidate is told beside the order.
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
    let compared_with = spec.baseline();
    let seconds = view.worked_ms.max(1) as f64 / 1_000.0;
    Shown {
        id: spec.id,
        rule: spec.rule,
        version: spec.version,
        hook: spec.hook.as_str(),
        against: spec.against,
        compared_with,
        settings: serde_json::from_str(&spec.settings).unwrap_or_default(),
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
    let call =
        Call::post("/v1/rules/{name}/backtests", "beginBacktest", "rules", "Try a version on past orders");
    about_rule(call)
        .about(
            "The version is asked about every order that the log still has, at the prices of its day, in its place among \
             the active rules; nothing is changed. It runs at low priority beside live traffic. Read it again for its \
             progress and report. It runs in the process that was asked; processes that do not share their folder of backtests \
             know nothing of each other's.",
        )
        .body("BacktestInput", BACKTEST, json!({ "version": 2, "from": "2026-11-01T00:00:00Z" }))
        .answer(Answer::json::<Shown>(202, "It runs").header("Location", "Where to read it"))
        .problem(Code::BacktestConflict)
        .writes()
}

/// `POST /v1/rules/{name}/backtests`
pub(crate) async fn begin(on: OnRule, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let input: BacktestInput = read(&headers, body, BACKTEST).await?;
    let name = on.checked_name()?;
    let spec = spec(&on, &on.rule()?, input)?;
    let view = backtests(&on.ingest)?.begin(spec).await?;
    let path = format!("/v1/rules/{name}/backtests/{}", view.spec.id);
    let mut response = (StatusCode::ACCEPTED, Json(shown(view))).into_response();
    locate(&mut response, &path, None);
    Ok(response)
}

fn spec(on: &OnRule, rule: &Rule, input: BacktestInput) -> Result<Spec, Problem> {
    let newest = rule.versions.last().map(|it| it.number);
    let version = input.version.or(newest).ok_or_else(|| conflict("the rule has no version".to_owned()))?;
    let (from_ms, to_ms) = (time("from", input.from)?, time("to", input.to)?);
    if let (Some(from), Some(to)) = (from_ms, to_ms)
        && from >= to
    {
        let error = FieldError::new("to", "is not after `from`", "send a later time");
        return Err(Problem::invalid_fields(vec![error]));
    }
    // The settings of today, also if others are active by the time it goes on.
    let settings = input.settings.unwrap_or_else(|| settings_of_active(rule));
    let settings = settings::checked(rule, version, settings)?;
    Ok(Spec {
        id: new_id(on)?,
        tenant: on.caller.tenant.to_string(),
        rule: on.name.clone(),
        version,
        hook: input.hook.unwrap_or_else(|| first_hook(rule, version)),
        settings: settings.to_string(),
        against: input.against,
        alone: input.alone.unwrap_or(false),
        from_ms,
        to_ms,
        orders_per_second_max: input.orders_per_second,
        created_at_ms: on.ingest.clock.now_ms(),
    })
}

/// The first hook of a version that a backtest can ask, or else the one that it has: that is refused with the reason.
fn first_hook(rule: &Rule, version: i64) -> Hook {
    let Some(hooks) = rule.version(version).map(|it| it.hooks) else { return Hook::Price };
    let can_be_asked = HOOKS.into_iter().find(|it| hooks.contains(*it));
    can_be_asked.or(hooks.iter().next()).unwrap_or(Hook::Price)
}

/// `bt_` and the end of an id that nobody else has: what of its time changes, and what is random in it.
fn new_id(on: &OnRule) -> Result<String, Problem> {
    const LENGTH: usize = ID_CHARACTERS - 3;
    let id = on.rules()?.new_id()?;
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
    about_rule(Call::get(
        "/v1/rules/{name}/backtests",
        "listBacktests",
        "rules",
        "List the backtests of a rule",
    ))
    .answer(Answer::json::<Page<Shown>>(200, "The backtests of this process, newest first"))
    .reads()
}

/// `GET /v1/rules/{name}/backtests`
pub(crate) async fn list(on: OnRule) -> Result<Response, Problem> {
    let name = on.view()?.name;
    let found = backtests(&on.ingest)?.list(&on.caller.tenant, &name);
    Ok(Json(Page::whole(found.into_iter().map(shown).collect())).into_response())
}

/// A call about one backtest.
fn about_backtest(call: Call) -> Call {
    about_rule(call).id_segment("id", "bt_", "The backtest's id", ID_EXAMPLE)
}

/// `GET /v1/rules/{name}/backtests/{id}`
pub(crate) fn get_call() -> Call {
    about_backtest(Call::get("/v1/rules/{name}/backtests/{id}", "getBacktest", "rules", "Get a backtest"))
        .answer(Answer::json::<Shown>(200, "The backtest, with what it has found so far"))
        .reads()
}

/// `GET /v1/rules/{name}/backtests/{id}`
pub(crate) async fn get(on: OnRule) -> Result<Response, Problem> {
    let view = backtests(&on.ingest)?.get(&on.caller.tenant, &on.name, &on.id)?;
    Ok(Json(shown(view)).into_response())
}

/// `POST /v1/rules/{name}/backtests/{id}/cancel`
pub(crate) fn cancel_call() -> Call {
    let path = "/v1/rules/{name}/backtests/{id}/cancel";
    about_backtest(Call::post(path, "cancelBacktest", "rules", "Stop a backtest"))
        .about(
            "What it has found so far stays, and it can go on from there. One that has ended stays as it is.",
        )
        .answer(Answer::json::<Shown>(200, "The backtest"))
        .writes()
}

/// `POST /v1/rules/{name}/backtests/{id}/cancel`
pub(crate) async fn cancel(on: OnRule) -> Result<Response, Problem> {
    let view = backtests(&on.ingest)?.cancel(&on.caller.tenant, &on.name, &on.id)?;
    Ok(Json(shown(view)).into_response())
}

/// `POST /v1/rules/{name}/backtests/{id}/resume`
pub(crate) fn resume_call() -> Call {
    let path = "/v1/rules/{name}/backtests/{id}/resume";
    about_backtest(Call::post(path, "resumeBacktest", "rules", "Go on with a backtest"))
        .about("From where it was stopped or failed, or where its process ended; no order is counted twice. One that runs or is done \
             stays as it is.")
        .answer(Answer::json::<Shown>(202, "The backtest"))
        .problem(Code::BacktestConflict)
        .writes()
}

/// `POST /v1/rules/{name}/backtests/{id}/resume`
pub(crate) async fn resume(on: OnRule) -> Result<Response, Problem> {
    let view = backtests(&on.ingest)?.resume(&on.caller.tenant, &on.name, &on.id).await?;
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
