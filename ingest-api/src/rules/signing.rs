//! `/v1/rule-signing`: whose signatures a tenant trusts, and whether its modules must have one.

use super::frame::{change, read, rules};
use crate::Ingest;
use crate::auth::Caller;
use crate::moment::Moment;
use crate::openapi::{Answer, Call};
use crate::params::Segments;
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{Field, Kind, needed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use tillstream_rule_lifecycle::{Signing, SigningKey, signing_key_id};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{
    RulePayload, RuleSigningConfigured, RuleSigningKeyAdded, RuleSigningKeyRevoked,
};

const REQUIREMENT: &[Field] = &[needed("required", Kind::Flag)
    .about("Whether a module is taken, and a version put in force, only if a key in force signed it")];
const KEY: &[Field] = &[
    needed("name", Kind::Text { min: 1, max: 100 }).about("What people call it"),
    needed("public_key", Kind::Hex { digits: 64 })
        .about("The 32 bytes of the Ed25519 public key, in hex, as `tillstream rules keygen` prints them"),
];

#[derive(Deserialize)]
struct RequirementInput {
    required: bool,
}

#[derive(Deserialize)]
struct KeyInput {
    name: Text,
    public_key: Text,
}

/// Whose signatures a tenant trusts.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleSigning")]
struct Shown {
    /// Whether a module is taken, and a version put in force, only if a key in force signed it.
    required: bool,
    /// The keys, by id, revoked ones included.
    keys: Vec<ShownKey>,
}

/// A key that signs modules.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleSigningKey")]
struct ShownKey {
    /// Its id, made from the key.
    id: String,
    /// What people call it.
    name: String,
    /// The Ed25519 public key, in hex.
    public_key: String,
    /// When it was added.
    added_at: Moment,
    /// Who added it: the id of an API key.
    added_by: String,
    /// When it was revoked; null: it is in force.
    revoked_at: Option<Moment>,
}

fn shown(signing: &Signing) -> Shown {
    let key = |(id, it): (&Text, &SigningKey)| ShownKey {
        id: id.to_string(),
        name: it.name.to_string(),
        public_key: it.public_key.to_string(),
        added_at: Moment(it.added_at_ms),
        added_by: it.actor.to_string(),
        revoked_at: it.revoked_at_ms.map(Moment),
    };
    Shown { required: signing.required, keys: signing.keys.iter().map(key).collect() }
}

fn answer(ingest: &Ingest, caller: &Caller, status: StatusCode) -> Result<Response, Problem> {
    Ok((status, Json(shown(&rules(ingest)?.signing(&caller.tenant)))).into_response())
}

/// Makes a change that is no rule's.
async fn changed(
    ingest: &Ingest,
    caller: &Caller,
    payload: RulePayload,
    status: StatusCode,
) -> Result<Response, Problem> {
    change(ingest, caller, Text::default(), payload).await?;
    answer(ingest, caller, status)
}

/// `GET /v1/rule-signing`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/rule-signing", "getRuleSigning", "rules", "See who may sign modules")
        .answer(Answer::json::<Shown>(200, "The keys, and whether a signature is needed"))
        .reads()
}

/// `GET /v1/rule-signing`
pub(crate) async fn get(State(ingest): State<Arc<Ingest>>, caller: Caller) -> Result<Response, Problem> {
    answer(&ingest, &caller, StatusCode::OK)
}

/// `PUT /v1/rule-signing`
pub(crate) fn set_call() -> Call {
    Call::put("/v1/rule-signing", "setRuleSigning", "rules", "Say whether modules must be signed")
        .about(
            "While they must, a module without a signature of a key in force is refused, and so is an activation, a canary \
             and a shadow of a version that has none. What is active stays, and a rollback always holds.",
        )
        .body("RuleSigningInput", REQUIREMENT, json!({ "required": true }))
        .answer(Answer::json::<Shown>(200, "The keys, and whether a signature is needed"))
        .problem(Code::RuleConflict)
        .writes()
}

/// `PUT /v1/rule-signing`
pub(crate) async fn set(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let RequirementInput { required } = read(&headers, body, REQUIREMENT).await?;
    let payload = RulePayload::SigningConfigured(RuleSigningConfigured { required });
    changed(&ingest, &caller, payload, StatusCode::OK).await
}

/// `POST /v1/rule-signing/keys`
pub(crate) fn add_key_call() -> Call {
    Call::post("/v1/rule-signing/keys", "addRuleSigningKey", "rules", "Trust a signing key")
        .about("Modules that it signs are taken as signed. The same key again is the same key; one that was revoked stays so.")
        .body(
            "RuleSigningKeyInput",
            KEY,
            json!({
                "name": "release builds",
                "public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
            }),
        )
        .answer(Answer::json::<Shown>(201, "The keys, and whether a signature is needed"))
        .problem(Code::RuleConflict)
        .writes()
}

/// `POST /v1/rule-signing/keys`
pub(crate) async fn add_key(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let KeyInput { name, public_key } = read(&headers, body, KEY).await?;
    let key_id = signing_key_id(&public_key).map_err(|error| {
        let fix = "send 64 of 0 to 9 and a to f";
        Problem::invalid_fields(vec![FieldError::new("public_key", error.to_string(), fix)])
    })?;
    let payload = RulePayload::SigningKeyAdded(RuleSigningKeyAdded { key_id, name, public_key });
    changed(&ingest, &caller, payload, StatusCode::CREATED).await
}

/// `DELETE /v1/rule-signing/keys/{id}`
pub(crate) fn revoke_key_call() -> Call {
    let path = "/v1/rule-signing/keys/{id}";
    Call::delete(path, "revokeRuleSigningKey", "rules", "Trust a signing key no more")
        .about(
            "What it signs is refused from now on, and where signatures are needed, the versions that it signed are put in \
             force no more. What is active stays: retire it, or activate another version. There is no way back; make a new \
             key.",
        )
        .id_segment("id", "sgn_", "The key's id", "sgn_21fe31dfa154a261626b")
        .answer(Answer::json::<Shown>(200, "The keys, and whether a signature is needed"))
        .problem(Code::NotFound)
        .writes()
}

/// `DELETE /v1/rule-signing/keys/{id}`
pub(crate) async fn revoke_key(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    let payload = RulePayload::SigningKeyRevoked(RuleSigningKeyRevoked { key_id: id.into() });
    changed(&ingest, &caller, payload, StatusCode::OK).await
}
