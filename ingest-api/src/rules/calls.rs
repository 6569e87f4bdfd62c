//! The calls.

use super::settings;
use super::view::{Shown, ShownUpload, ShownVersion, sample, shown, shown_versions};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::openapi::{Answer, Call, Page};
use crate::params::Segments;
use crate::ports::{RuleUploaded, RuleView, Rules, RulesError};
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{self, Field, Kind, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tillstream_rule_lifecycle::{ORDER_DEFAULT, RuleRefusal};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{
    RuleActivated, RuleEvent, RuleFallback, RulePayload, RuleRetired, RuleRolledBack,
};

/// What a component is sent as, and what JavaScript; what it is, its first bytes say.
const COMPONENT: &str = "application/wasm";
const SOURCE: &str = "text/javascript";
/// Bytes of a module, at most; the limit that its author knows.
const MODULE_BYTES_MAX: usize = 256 << 10;
/// A module that has an extra is read to here, so that its author is told its size and not only that it is too large.
const MODULE_READ_MAX: u64 = 1 << 20;
const NAME_MAX: usize = 64;
pub(super) const NAME: Kind = Kind::Slug { max: NAME_MAX };
pub(super) const VERSION: Field = needed("version", Kind::Integer { min: 1, max: i64::MAX });
pub(super) const ORDER: Kind = Kind::Integer { min: 0, max: 1_000 };
pub(super) const SETTINGS: Kind = Kind::Json { bytes: 16 << 10 };
pub(super) const FALLBACK: Kind = Kind::Choice(&["skip", "refuse", "review"]);
pub(super) const REVISION: Field = optional("expected_revision", Kind::Integer { min: 0, max: i64::MAX })
    .about("The revision this follows; another one is a conflict");
pub(super) const EXAMPLE: &str = "volume-discount";

const ACTIVATION: &[Field] = &[
    VERSION,
    optional("order", ORDER)
        .about("Its place among the rules of a hook: lower is asked first; left out: 100"),
    optional("settings", SETTINGS).about(
        "What the rule is told beside the order, as the schema of the version wants it; left out: an empty object",
    ),
    optional("fallback", FALLBACK).about(
        "What holds for an order when the rule gives no answer: as if there were no rule, the order is refused, or \
         somebody looks at it before its money is taken; left out: `skip`",
    ),
    REVISION,
];
const ROLLBACK: &[Field] = &[REVISION];

#[derive(Deserialize)]
struct ActivationInput {
    version: i64,
    #[serde(default)]
    order: Option<i32>,
    #[serde(default)]
    settings: Option<Map<String, Value>>,
    #[serde(default)]
    fallback: Option<RuleFallback>,
    #[serde(default)]
    expected_revision: Option<i64>,
}

#[derive(Deserialize)]
struct RollbackInput {
    #[serde(default)]
    expected_revision: Option<i64>,
}

/// `PUT /v1/rules/{name}/versions`
pub(crate) fn upload_call() -> Call {
    Call::put("/v1/rules/{name}/versions", "uploadRule", "rules", "Upload a version of a rule")
        .about(
            "The body is a WebAssembly component of the world `tillstream:rules`, or JavaScript as `tillstream rules build` \
             packs it: its first line is `// tillstream:rule javascript-1`. At most 256 KiB. It is checked, compiled, and \
             tried on sample orders; then it is a version, and answers nothing before it is activated. The same module \
             again is the same version. A custom section `tillstream:settings-schema`, or in JavaScript a second line \
             `// tillstream:settings-schema {…}`, may hold the JSON schema of its settings.",
        )
        .segment("name", NAME, "The rule's name: a to z, 0 to 9 and -", EXAMPLE)
        .bytes("RuleModule", (COMPONENT, &[SOURCE]), "A WebAssembly component, or JavaScript")
        .answer(Answer::json::<ShownUpload>(201, "The version"))
        .problem(Code::ModuleRefused)
        .problem(Code::RuleConflict)
        .writes()
}

/// `PUT /v1/rules/{name}/versions`
pub(crate) async fn upload(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let name = rule_name(&name)?;
    let taken = &[COMPONENT, SOURCE, "application/javascript", "application/octet-stream"];
    let module = body::bytes(&headers, body, taken, MODULE_READ_MAX).await?;
    if module.is_empty() {
        return Err(refused("not_wasm", "the body is empty; send a WebAssembly component, or JavaScript"));
    }
    if module.len() > MODULE_BYTES_MAX {
        let text = format!("the module has {} bytes, at most {MODULE_BYTES_MAX} are taken", module.len());
        return Err(refused("too_large", &text));
    }
    match rules(&ingest)?.upload(&caller.tenant, &name, &caller.key_id, module.to_vec()).await? {
        RuleUploaded::Refused { reason, message } => Err(refused(&reason, &message)),
        RuleUploaded::NoRoom(text) => Err(Problem::new(Code::RuleConflict, text)),
        RuleUploaded::Taken { version, digest, samples } => {
            let dry_run = samples.iter().map(sample).collect();
            let body = ShownUpload { rule: name.to_string(), version, digest, dry_run };
            Ok((StatusCode::CREATED, Json(body)).into_response())
        }
    }
}

fn refused(reason: &str, message: &str) -> Problem {
    let error = FieldError::new(
        format!("(module: {reason})"),
        message,
        "send what `tillstream rules validate` takes",
    );
    Problem { errors: vec![error], ..Problem::new(Code::ModuleRefused, message) }
}

/// `GET /v1/rules`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/rules", "listRules", "rules", "List rules")
        .answer(Answer::json::<Page<Shown>>(200, "The rules, by name"))
        .reads()
}

/// `GET /v1/rules`
pub(crate) async fn list(State(ingest): State<Arc<Ingest>>, caller: Caller) -> Result<Response, Problem> {
    let found = rules(&ingest)?.list(&caller.tenant);
    Ok(Json(Page::whole(found.iter().map(shown).collect())).into_response())
}

/// `GET /v1/rules/{name}`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/rules/{name}", "getRule", "rules", "Get a rule")
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .answer(Answer::json::<Shown>(200, "The rule"))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/rules/{name}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Response, Problem> {
    Ok(Json(shown(&find(&ingest, &caller, &name)?)).into_response())
}

/// `GET /v1/rules/{name}/versions`
pub(crate) fn versions_call() -> Call {
    Call::get("/v1/rules/{name}/versions", "listRuleVersions", "rules", "List the versions of a rule")
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .answer(Answer::json::<Page<ShownVersion>>(200, "The versions, newest first"))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/rules/{name}/versions`
pub(crate) async fn versions(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Response, Problem> {
    let found = find(&ingest, &caller, &name)?;
    Ok(Json(Page::whole(shown_versions(&found.rule))).into_response())
}

/// `POST /v1/rules/{name}/activate`
pub(crate) fn activate_call() -> Call {
    Call::post("/v1/rules/{name}/activate", "activateRule", "rules", "Activate a version of a rule")
        .about(
            "From now on the version answers: here at once, in every other process within a second. What was active \
             before can be brought back in one call. Other settings for the same version are an activation too.",
        )
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .body("RuleActivationInput", ACTIVATION, json!({ "version": 1, "settings": { "from_quantity": 10 } }))
        .answer(Answer::json::<Shown>(200, "The rule"))
        .problem(Code::NotFound)
        .problem(Code::RuleConflict)
        .writes()
}

/// `POST /v1/rules/{name}/activate`
pub(crate) async fn activate(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: ActivationInput = shape::read(&body::json(&headers, body).await?, ACTIVATION)?;
    let rule = find(&ingest, &caller, &name)?.rule;
    let settings = settings::checked(&rule, input.version, input.settings.unwrap_or_default())?;
    let payload = RulePayload::Activated(RuleActivated {
        version: input.version,
        order: input.order.unwrap_or(ORDER_DEFAULT),
        settings,
        fallback: input.fallback.unwrap_or_default(),
        expected_revision: input.expected_revision,
    });
    change(&ingest, &caller, &name, payload).await
}

/// `POST /v1/rules/{name}/rollback`
pub(crate) fn roll_back_call() -> Call {
    Call::post("/v1/rules/{name}/rollback", "rollBackRule", "rules", "Bring back what was active before")
        .about(
            "While a version is on trial, this ends the trial, and what is active stays. Else: version, order, settings \
             and fallback, as they were before. Before the first activation there was nothing.",
        )
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .body("RuleRollbackInput", ROLLBACK, json!({}))
        .answer(Answer::json::<Shown>(200, "The rule"))
        .problem(Code::NotFound)
        .problem(Code::RuleConflict)
        .writes()
}

/// `POST /v1/rules/{name}/rollback`
pub(crate) async fn roll_back(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: RollbackInput = shape::read(&body::json(&headers, body).await?, ROLLBACK)?;
    let payload = RulePayload::RolledBack(RuleRolledBack { expected_revision: input.expected_revision });
    change(&ingest, &caller, &name, payload).await
}

/// `DELETE /v1/rules/{name}`
pub(crate) fn retire_call() -> Call {
    Call::delete("/v1/rules/{name}", "retireRule", "rules", "Take a rule out")
        .about("It answers no more, and no version of it is on trial. It can be activated again: its versions stay.")
        .segment("name", NAME, "The rule's name", EXAMPLE)
        .answer(Answer::json::<Shown>(200, "The rule"))
        .problem(Code::NotFound)
        .problem(Code::RuleConflict)
        .writes()
}

/// `DELETE /v1/rules/{name}`
pub(crate) async fn retire(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Response, Problem> {
    change(&ingest, &caller, &name, RulePayload::Retired(RuleRetired {})).await
}

pub(super) async fn change(
    ingest: &Ingest,
    caller: &Caller,
    name: &str,
    payload: RulePayload,
) -> Result<Response, Problem> {
    let name = rule_name(name)?;
    let rules = rules(ingest)?;
    // What is not there needs no event; the fold judges all else.
    find(ingest, caller, &name)?;
    let event = RuleEvent {
        id: rules.new_id()?,
        tenant: caller.tenant.clone(),
        occurred_at_ms: ingest.clock.now_ms(),
        actor: caller.key_id.clone(),
        rule: name.clone(),
        payload,
    };
    match rules.change(&event).await? {
        Ok(()) => Ok(Json(shown(&find(ingest, caller, &name)?)).into_response()),
        Err(RuleRefusal::UnknownRule) => Err(Problem::not_found("rule", &name)),
        Err(refusal) => Err(Problem::new(Code::RuleConflict, refusal.to_string())),
    }
}

pub(super) fn find(ingest: &Ingest, caller: &Caller, name: &str) -> Result<RuleView, Problem> {
    rules(ingest)?.get(&caller.tenant, name).ok_or_else(|| Problem::not_found("rule", name))
}

pub(super) fn rules(ingest: &Ingest) -> Result<&dyn Rules, Problem> {
    let missing = || Problem::new(Code::Stopped, "this process runs no rules");
    ingest.rules.as_deref().ok_or_else(missing)
}

/// A name that can stand in a path, a file and a key as it is.
pub(super) fn rule_name(name: &str) -> Result<Text, Problem> {
    if shape::is_slug(name, NAME_MAX) {
        return Ok(name.into());
    }
    Err(Problem::parameter(
        "name",
        "cannot be a rule's name",
        "send 1 to 64 of a to z, 0 to 9 and -, not beginning with -",
    ))
}

impl From<RulesError> for Problem {
    fn from(error: RulesError) -> Self {
        tracing::error!(%error, "rules cannot be changed");
        match error {
            RulesError::Log(error) => error.into(),
            RulesError::Other(text) => Self::new(Code::Stopped, text).retry_after(2),
        }
    }
}
