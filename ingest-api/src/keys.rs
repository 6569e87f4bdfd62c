//! `/v1/keys`: a tenant's API keys.

use crate::Ingest;
use crate::access::{
    ApiKey, KeyError, KeyRefusal, NewKey, ROLE_NAMES, SCOPE_NAMES, Scope, Scopes, scopes_of,
};
use crate::auth::{Caller, forbidden};
use crate::body;
use crate::moment::{self, Moment};
use crate::openapi::{Answer, Call, Page};
use crate::params::{Params, Query, Segments, Wanted, query};
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{self, Field, Kind, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use tillstream_schemas::Text;

/// How often a key or a tenant may call per minute, when that is limited.
pub(crate) const LIMIT: Kind = Kind::Integer { min: 1, max: 10_000_000 };

const KEY: &[Field] = &[
    needed("name", Kind::Text { min: 1, max: 100 }).about("What people call it"),
    optional("tenant", Kind::Text { min: 1, max: 64 })
        .about(
            "Whose key it is; left out: the caller's tenant. Another one needs the scope tenants:write, and its name is up \
             to 64 of a-z, 0-9, - and _, beginning with a letter or digit",
        ),
    optional("roles", Kind::List { of: &Kind::Choice(ROLE_NAMES), min: 1, max: 10 })
        .about("Named sets of scopes. Without roles and scopes the key may do what its maker may"),
    optional("scopes", Kind::List { of: &Kind::Choice(SCOPE_NAMES), min: 1, max: 50 })
        .about("Scopes beside those of the roles"),
    optional("expires_at", Kind::Time).about("When it ends by itself; left out: never"),
    optional("requests_per_minute", LIMIT)
        .about("Calls it may make in a minute; left out: as many as it likes"),
];

#[derive(Deserialize)]
struct KeyInput {
    name: Text,
    tenant: Option<Text>,
    roles: Option<Vec<Text>>,
    scopes: Option<Vec<Text>>,
    expires_at: Option<Text>,
    requests_per_minute: Option<i64>,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<KeyInput>(bytes, KEY).map(drop)
}

/// The old secret holds so long after a rotation when nothing else is asked for, s: a day.
const OVERLAP_SECONDS: i64 = 86_400;
const ROTATION: &[Field] =
    &[optional("overlap_seconds", Kind::Integer { min: 0, max: 30 * OVERLAP_SECONDS })
        .about("How long the secret before holds; left out: a day")];

#[derive(Deserialize)]
struct RotationInput {
    overlap_seconds: Option<i64>,
}

/// Reads a body and forgets it.
pub(crate) fn check_rotation(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<RotationInput>(bytes, ROTATION).map(drop)
}

/// Whose keys the call is about.
const WHOSE: &[Query] =
    &[query("tenant", Wanted::Text, "Whose keys; another tenant's need the scope tenants:write")];

/// An API key.
#[derive(Serialize, JsonSchema)]
struct Key<'a> {
    /// Its id.
    id: &'a str,
    /// The tenant it speaks for.
    tenant: &'a str,
    /// What it is called.
    name: &'a str,
    /// Its roles.
    roles: Vec<&'a str>,
    /// Everything it may do, roles and scopes together.
    scopes: Vec<&'static str>,
    /// When it was made.
    created_at: Moment,
    /// Who made it: the id of a key, or `start`.
    created_by: &'a str,
    /// When it ends by itself; null: never.
    expires_at: Option<Moment>,
    /// When its secret was last changed; null: never.
    rotated_at: Option<Moment>,
    /// Until when the secret before the present one holds; null: there is none.
    previous_until: Option<Moment>,
    /// When it was revoked; null: it is valid.
    revoked_at: Option<Moment>,
    /// Who revoked it.
    revoked_by: Option<&'a str>,
    /// Calls it may make in a minute; null: as many as it likes.
    requests_per_minute: Option<i64>,
    /// Grows with every change.
    version: i64,
    /// Whether it is the key of this call.
    current: bool,
    /// The key itself: only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

fn shown<'a>(key: &'a ApiKey, caller: &Caller) -> Key<'a> {
    Key {
        id: &key.id,
        tenant: &key.tenant,
        name: &key.name,
        roles: key.roles.iter().map(Text::as_str).collect(),
        scopes: key.allowed().iter().map(Scope::as_str).collect(),
        created_at: Moment(key.created_at_ms),
        created_by: &key.created_by,
        expires_at: key.expires_at_ms.map(Moment),
        rotated_at: key.rotated_at_ms.map(Moment),
        previous_until: key.previous_until_ms.map(Moment),
        revoked_at: key.revoked_at_ms.map(Moment),
        revoked_by: key.revoked_by.as_deref(),
        requests_per_minute: key.requests_per_minute,
        version: key.version,
        current: key.id == caller.key_id && key.tenant == caller.tenant,
        key: None,
    }
}

/// An answer with a secret that nobody may keep.
fn with_secret(status: StatusCode, key: &ApiKey, secret: String, caller: &Caller) -> Response {
    let mut response = (status, Json(Key { key: Some(secret), ..shown(key, caller) })).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The tenant in the query, for those who may act for others.
fn tenant_of(uri: &Uri, caller: &Caller) -> Result<Text, Problem> {
    let params = Params::read(uri, WHOSE)?;
    let named = params.text("tenant");
    params.finish()?;
    caller.acting_for(named.as_deref())
}

/// `GET /v1/keys`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/keys", "listKeys", "keys", "List API keys")
        .query(WHOSE)
        .answer(Answer::json::<Page<Key<'_>>>(200, "The keys, oldest first, revoked ones included"))
        .problem(Code::Internal)
}

/// `GET /v1/keys`
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let keys = ingest.keys.list(&tenant_of(&uri, &caller)?);
    Ok(Json(Page::whole(keys.iter().map(|it| shown(it, &caller)).collect())).into_response())
}

/// `POST /v1/keys`
pub(crate) fn create_call() -> Call {
    Call::post("/v1/keys", "createKey", "keys", "Create an API key")
        .about(
            "The answer holds the key: it is kept nowhere. It may do nothing that its maker may not. The operator makes a \
             tenant by making its first key.",
        )
        .body(
            "KeyInput",
            KEY,
            json!({ "name": "till 2", "roles": ["storefront"], "expires_at": "2030-01-01T00:00:00Z" }),
        )
        .answer(
            Answer::json::<Key<'_>>(201, "The key")
                .header("Cache-Control", "`no-store`")
                .link("revokeKey", &[("id", "$response.body#/id")])
                .link("rotateKey", &[("id", "$response.body#/id")]),
        )
        .changes()
}

/// `POST /v1/keys`: one of two answers that hold the key itself.
pub(crate) async fn create(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: KeyInput = shape::read(&body::json(&headers, body).await?, KEY)?;
    let new = new_key(&ingest, &caller, input)?;
    check_within(&caller, &new)?;
    let (key, secret) = ingest.keys.create(new, &caller.key_id).await?;
    Ok(with_secret(StatusCode::CREATED, &key, secret, &caller))
}

fn new_key(ingest: &Ingest, caller: &Caller, input: KeyInput) -> Result<NewKey, Problem> {
    let tenant = caller.acting_for(input.tenant.as_deref())?;
    if let Some(error) = bad_tenant("tenant", &tenant).filter(|_| tenant != caller.tenant) {
        return Err(Problem::invalid_fields(vec![error]));
    }
    let expires_at_ms = input.expires_at.as_deref().and_then(moment::from_rfc3339);
    if expires_at_ms.is_some_and(|it| it <= ingest.clock.now_ms()) {
        let error = FieldError::new("expires_at", "has passed", "send a time in the future, or leave it out");
        return Err(Problem::invalid_fields(vec![error]));
    }
    // A key that says nothing may do what its maker may; the first of a new tenant may do everything there.
    let (roles, scopes) = match (input.roles, input.scopes) {
        (None, None) if tenant != caller.tenant => (vec![Text::const_new("admin")], Vec::new()),
        (None, None) => {
            let own = ingest.keys.key(&caller.tenant, &caller.key_id);
            own.map(|it| (it.roles, it.scopes)).unwrap_or_default()
        }
        (roles, scopes) => (roles.unwrap_or_default(), scopes.unwrap_or_default()),
    };
    let requests_per_minute = input.requests_per_minute;
    Ok(NewKey { tenant, name: input.name, roles, scopes, expires_at_ms, requests_per_minute })
}

/// Nobody makes a key that may do more than they may: else every key that makes keys would be an admin's.
fn check_within(caller: &Caller, new: &NewKey) -> Result<(), Problem> {
    let asked = scopes_of(new.roles.iter().map(Text::as_str), new.scopes.iter().map(Text::as_str));
    let tenants = Scopes::of(&[Scope::TenantsWrite]);
    // Only the operator's keys have that one, whatever their roles say: elsewhere it gives nothing.
    let held = if caller.is_operator { caller.scopes } else { caller.scopes.with(tenants) };
    asked.without(held).iter().next().map_or(Ok(()), |missing| Err(forbidden(missing)))
}

/// `POST /v1/keys/{id}/rotate`
pub(crate) fn rotate_call() -> Call {
    Call::post("/v1/keys/{id}/rotate", "rotateKey", "keys", "Give an API key a new secret")
        .about(
            "The answer holds the new key. The one before holds for a while, so that nobody is locked out.",
        )
        .id_segment("id", "key_", "The key's id", "key_2bdw7ncy4ksv6zrt9qgx")
        .query(WHOSE)
        .body("KeyRotationInput", ROTATION, json!({ "overlap_seconds": 3_600 }))
        .answer(Answer::json::<Key<'_>>(200, "The key").header("Cache-Control", "`no-store`"))
        .problem(Code::NotFound)
        .problem(Code::KeyConflict)
        .changes()
}

/// `POST /v1/keys/{id}/rotate`: the other answer that holds the key itself.
pub(crate) async fn rotate(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let tenant = tenant_of(&uri, &caller)?;
    let input: RotationInput = shape::read(&body::json(&headers, body).await?, ROTATION)?;
    let known = ingest.keys.key(&tenant, &id).ok_or_else(|| Problem::not_found("key", &id))?;
    let as_new = NewKey { tenant, roles: known.roles, scopes: known.scopes, ..NewKey::default() };
    check_within(&caller, &as_new)?;
    let overlap_ms = input.overlap_seconds.unwrap_or(OVERLAP_SECONDS).saturating_mul(1_000);
    let until_ms = ingest.clock.now_ms().saturating_add(overlap_ms);
    let rotated = ingest.keys.rotate(&as_new.tenant, &id, until_ms, &caller.key_id).await;
    let (key, secret) = rotated.map_err(|error| problem_of(error, &id))?;
    Ok(with_secret(StatusCode::OK, &key, secret, &caller))
}

/// `DELETE /v1/keys/{id}`
pub(crate) fn revoke_call() -> Call {
    Call::delete("/v1/keys/{id}", "revokeKey", "keys", "Revoke an API key")
        .about("At once here, within a second in every process; revoking twice changes nothing.")
        .id_segment("id", "key_", "The key's id", "key_2bdw7ncy4ksv6zrt9qgx")
        .query(WHOSE)
        .answer(Answer::json::<Key<'_>>(200, "The revoked key"))
        .problem(Code::NotFound)
        .changes()
}

/// `DELETE /v1/keys/{id}`
pub(crate) async fn revoke(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let tenant = tenant_of(&uri, &caller)?;
    let revoked = ingest.keys.revoke(&tenant, &id, &caller.key_id).await;
    revoked.map(|it| Json(shown(&it, &caller)).into_response()).map_err(|error| problem_of(error, &id))
}

/// What is wrong with a tenant's name, if anything is: it stands in the keys of records, before a slash.
pub(crate) fn bad_tenant(field: &str, name: &str) -> Option<FieldError> {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, b'-' | b'_');
    let begins = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    (!begins || name.len() > 64 || !name.bytes().all(plain)).then(|| {
        let fix = "send up to 64 of a-z, 0-9, - and _, beginning with a letter or digit";
        FieldError::new(field, format!("{} cannot name a tenant", shape::quoted(name)), fix)
    })
}

fn problem_of(error: KeyError, id: &str) -> Problem {
    match error {
        KeyError::Refused(KeyRefusal::NoSuchKey) => Problem::not_found("key", id),
        error => error.into(),
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Refused(refusal) => Self::new(Code::KeyConflict, refusal.to_string()),
            KeyError::Registry(error) => error.into(),
        }
    }
}
