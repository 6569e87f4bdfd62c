//! The calls.

use super::frame::{EXAMPLE, NAME, OnRule, about_rule, changes_rule, read, rules};
use super::settings;
use super::view::{Shown, ShownUpload, ShownVersion, dry_run, sample, shown, shown_versions};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::openapi::{Answer, Call, Page};
use crate::params::{Params, Query, Wanted, query};
use crate::ports::{NewModule, RuleUploaded};
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{Field, Kind, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tillstream_rule_lifecycle::ORDER_DEFAULT;
use tillstream_schemas::rules::{
    RuleActivated, RuleFallback, RulePayload, RuleRetired, RuleRolledBack, RuleSignature,
};

/// What a component is sent as, and what JavaScript; what it is, its first bytes say.
const COMPONENT: &str = "application/wasm";
const SOURCE: &str = "text/javascript";
/// Bytes of a module, at most; the limit that its author knows.
const MODULE_BYTES_MAX: usize = 256 << 10;
/// Modules that a tenant may send to one process in a minute, also those that are refused: each occupies the compiler.
const UPLOADS_PER_MINUTE: i64 = 60;
/// A module that has an extra is read to here, so that its author is told its size and not only that it is too large.
const MODULE_READ_MAX: u64 = 1 << 20;
pub(super) const VERSION: Field = needed("version", Kind::Integer { min: 1, max: i64::MAX });
pub(super) const ORDER: Kind = Kind::Integer { min: 0, max: 1_000 };
pub(super) const SETTINGS: Kind = Kind::Json { bytes: 16 << 10 };
pub(super) const FALLBACK: Kind = Kind::Choice(&["skip", "refuse", "review"]);
pub(super) const REVISION: Field = optional("expected_revision", Kind::Integer { min: 0, max: i64::MAX })
    .about("The revision this follows; another one is a conflict");
pub(super) const FORCED: Field = optional("forced", Kind::Flag)
    .about("Whether it holds although the version gives no answer to most recent inputs; left out: it is refused then");

/// Who signed the module, beside it.
const SIGNED: &[Query] = &[
    query("signed_by", Wanted::Text, "The id of the signing key, where the module is signed"),
    query("signature", Wanted::Text, "The Ed25519 signature of the module's digest, in hex"),
];

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
    FORCED,
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
    forced: Option<bool>,
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
             tried on sample orders; then it is a version, and answers nothing before it is activated. At last it is asked \
             what the tenant's rules were asked of late; what came of it stands in `recent`. The same module again is the \
             same version. A tenant may send 60 modules a minute; each process counts for itself. \
             A custom section `tillstream:settings-schema`, or in JavaScript a second line \
             `// tillstream:settings-schema {…}`, may hold the JSON schema of its settings. Where the tenant takes signed \
             modules alone, `signed_by` and `signature` are needed.",
        )
        .segment("name", NAME, "The rule's name: a to z, 0 to 9 and -", EXAMPLE)
        .query(SIGNED)
        .bytes("RuleModule", (COMPONENT, &[SOURCE]), "A WebAssembly component, or JavaScript")
        .answer(Answer::json::<ShownUpload>(201, "The version"))
        .problem(Code::ModuleRefused)
        .problem(Code::SignatureRefused)
        .problem(Code::RuleConflict)
        .writes()
}

/// `PUT /v1/rules/{name}/versions`
pub(crate) async fn upload(
    on: OnRule,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let name = on.checked_name()?;
    let signature = signature(&uri)?;
    let rule = || format!("a tenant may send {UPLOADS_PER_MINUTE} modules a minute: each is compiled");
    let now_ns = on.ingest.clock.monotonic_ns();
    on.ingest.uploads.let_in(&on.caller.tenant, UPLOADS_PER_MINUTE, now_ns, rule)?;
    let taken = &[COMPONENT, SOURCE, "application/javascript", "application/octet-stream"];
    let module = body::bytes(&headers, body, taken, MODULE_READ_MAX).await?;
    if module.is_empty() {
        return Err(refused("not_wasm", "the body is empty; send a WebAssembly component, or JavaScript"));
    }
    if module.len() > MODULE_BYTES_MAX {
        let text = format!("the module has {} bytes, at most {MODULE_BYTES_MAX} are taken", module.len());
        return Err(refused("too_large", &text));
    }
    let (tenant, actor) = (&on.caller.tenant, &on.caller.key_id);
    let new = NewModule { tenant, rule: &name, actor, signature: signature.as_ref() };
    match on.rules()?.upload(new, module.to_vec()).await? {
        RuleUploaded::Refused { reason, message } => Err(refused(&reason, &message)),
        RuleUploaded::Unsigned(text) => Err(Problem::new(Code::SignatureRefused, text)),
        RuleUploaded::NoRoom(text) => Err(Problem::new(Code::RuleConflict, text)),
        RuleUploaded::Taken { version, digest, samples } => {
            let rule = on.rule()?;
            let known = rule.version(version);
            let body = ShownUpload {
                rule: name.to_string(),
                version,
                digest,
                signed_by: known.and_then(|it| it.signed_by.as_ref()).map(ToString::to_string),
                dry_run: samples.iter().map(sample).collect(),
                recent: known.and_then(|it| it.dry_run.as_ref()).map(dry_run),
            };
            Ok((StatusCode::CREATED, Json(body)).into_response())
        }
    }
}

/// Who signed, as the query says it: both or nothing.
fn signature(uri: &Uri) -> Result<Option<RuleSignature>, Problem> {
    let params = Params::read(uri, SIGNED)?;
    let (key_id, signature) = (params.text("signed_by"), params.text("signature"));
    params.finish()?;
    let missing = |field: &str| {
        let text = "is missing beside the other one";
        Err(Problem::parameter(
            field,
            text,
            "send signed_by and signature, as `tillstream rules sign` makes them",
        ))
    };
    match (key_id, signature) {
        (Some(key_id), Some(signature)) => {
            Ok(Some(RuleSignature { key_id: key_id.into(), signature: signature.into() }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => missing("signature"),
        (None, Some(_)) => missing("signed_by"),
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
    about_rule(Call::get("/v1/rules/{name}", "getRule", "rules", "Get a rule"))
        .answer(Answer::json::<Shown>(200, "The rule"))
        .reads()
}

/// `GET /v1/rules/{name}`
pub(crate) async fn get(on: OnRule) -> Result<Response, Problem> {
    Ok(Json(shown(&on.view()?)).into_response())
}

/// `GET /v1/rules/{name}/versions`
pub(crate) fn versions_call() -> Call {
    about_rule(Call::get(
        "/v1/rules/{name}/versions",
        "listRuleVersions",
        "rules",
        "List the versions of a rule",
    ))
    .answer(Answer::json::<Page<ShownVersion>>(200, "The versions, newest first"))
    .reads()
}

/// `GET /v1/rules/{name}/versions`
pub(crate) async fn versions(on: OnRule) -> Result<Response, Problem> {
    Ok(Json(Page::whole(shown_versions(&on.rule()?))).into_response())
}

/// `POST /v1/rules/{name}/activate`
pub(crate) fn activate_call() -> Call {
    let call =
        Call::post("/v1/rules/{name}/activate", "activateRule", "rules", "Activate a version of a rule");
    changes_rule(call)
        .about(
            "From now on the version answers: here at once, in every other process within a second. What was active \
             before can be brought back in one call. Other settings for the same version are an activation too. Before it \
             holds, the version is asked what the tenant's rules were asked of late, with these settings; where it gives \
             no answer to more than half of it, the activation is refused unless it is `forced`.",
        )
        .body("RuleActivationInput", ACTIVATION, json!({ "version": 1, "settings": { "from_quantity": 10 } }))
        .problem(Code::DryRunRefused)
        .problem(Code::SignatureRefused)
}

/// `POST /v1/rules/{name}/activate`
pub(crate) async fn activate(on: OnRule, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let input: ActivationInput = read(&headers, body, ACTIVATION).await?;
    let settings = settings::checked(&on.rule()?, input.version, input.settings.unwrap_or_default())?;
    let activated = RuleActivated {
        version: input.version,
        order: input.order.unwrap_or(ORDER_DEFAULT),
        settings,
        fallback: input.fallback.unwrap_or_default(),
        expected_revision: input.expected_revision,
        forced: input.forced.unwrap_or(false),
    };
    on.change(RulePayload::Activated(activated)).await
}

/// `POST /v1/rules/{name}/rollback`
pub(crate) fn roll_back_call() -> Call {
    let call =
        Call::post("/v1/rules/{name}/rollback", "rollBackRule", "rules", "Bring back what was active before");
    changes_rule(call)
        .about(
            "While a version is on trial, this ends the trial, and what is active stays. Else: version, order, settings \
             and fallback, as they were before. Before the first activation there was nothing. A rollback always holds: \
             also to a version that is not signed, or whose key was revoked.",
        )
        .body("RuleRollbackInput", ROLLBACK, json!({}))
}

/// `POST /v1/rules/{name}/rollback`
pub(crate) async fn roll_back(on: OnRule, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let RollbackInput { expected_revision } = read(&headers, body, ROLLBACK).await?;
    on.change(RulePayload::RolledBack(RuleRolledBack { expected_revision })).await
}

/// `DELETE /v1/rules/{name}`
pub(crate) fn retire_call() -> Call {
    changes_rule(Call::delete("/v1/rules/{name}", "retireRule", "rules", "Take a rule out")).about(
        "It answers no more, and no version of it is on trial. It can be activated again: its versions stay.",
    )
}

/// `DELETE /v1/rules/{name}`
pub(crate) async fn retire(on: OnRule) -> Result<Response, Problem> {
    on.change(RulePayload::Retired(RuleRetired {})).await
}
