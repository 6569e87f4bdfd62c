//! `/v1/keys`: a tenant's API keys.

use crate::Ingest;
use crate::access::{ApiKey, KeyError, KeyRefusal, NewKey, ROLE_NAMES, SCOPE_NAMES, scopes_of};
use crate::auth::{Caller, forbidden};
use crate::body;
use crate::moment::{self, to_rfc3339};
use crate::params::{Params, Segments};
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{self, Field, Kind, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_schemas::Text;

/// How often a key or a tenant may call per minute, when that is limited.
pub(crate) const LIMIT: Kind = Kind::Integer { min: 1, max: 10_000_000 };

const KEY: &[Field] = &[
    needed("name", Kind::Text { min: 1, max: 100 }),
    optional("tenant", Kind::Text { min: 1, max: 64 }),
    optional("roles", Kind::List { of: &Kind::Choice(ROLE_NAMES), min: 1, max: 10 }),
    optional("scopes", Kind::List { of: &Kind::Choice(SCOPE_NAMES), min: 1, max: 50 }),
    optional("expires_at", Kind::Time),
    optional("requests_per_minute", LIMIT),
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

/// The old secret holds so long after a rotation when nothing else is asked for, s: a day.
const OVERLAP_SECONDS: i64 = 86_400;
const ROTATION: &[Field] =
    &[optional("overlap_seconds", Kind::Integer { min: 0, max: 30 * OVERLAP_SECONDS })];

#[derive(Deserialize)]
struct RotationInput {
    overlap_seconds: Option<i64>,
}

fn shown(key: &ApiKey, caller: &Caller) -> Value {
    let scopes: Vec<&str> = key.allowed().iter().map(|it| it.as_str()).collect();
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "roles": key.roles,
        "scopes": scopes,
        "created_at": to_rfc3339(key.created_at_ms),
        "created_by": key.created_by,
        "expires_at": key.expires_at_ms.map(to_rfc3339),
        "rotated_at": key.rotated_at_ms.map(to_rfc3339),
        "previous_until": key.previous_until_ms.map(to_rfc3339),
        "revoked_at": key.revoked_at_ms.map(to_rfc3339),
        "revoked_by": key.revoked_by,
        "requests_per_minute": key.requests_per_minute,
        "version": key.version,
        "current": key.id == caller.key_id && key.tenant == caller.tenant,
    })
}

/// An answer with a secret that nobody may keep.
fn with_secret(status: StatusCode, key: &ApiKey, secret: String, caller: &Caller) -> Response {
    let mut body = shown(key, caller);
    body["key"] = secret.into();
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The tenant in the query, for those who may act for others.
fn tenant_of(uri: &Uri, caller: &Caller) -> Result<Text, Problem> {
    let params = Params::of(uri, &["tenant"])?;
    let named = params.text("tenant");
    params.finish()?;
    caller.acting_for(named.as_deref())
}

/// `GET /v1/keys`
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let tenant = tenant_of(&uri, &caller)?;
    let data: Vec<Value> = ingest.keys.list(&tenant).iter().map(|it| shown(it, &caller)).collect();
    Ok(Json(json!({ "data": data, "next_cursor": null })))
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
        (None, None) => ingest
            .keys
            .key(&caller.tenant, &caller.key_id)
            .map(|it| (it.roles, it.scopes))
            .unwrap_or_default(),
        (roles, scopes) => (roles.unwrap_or_default(), scopes.unwrap_or_default()),
    };
    let requests_per_minute = input.requests_per_minute;
    Ok(NewKey { tenant, name: input.name, roles, scopes, expires_at_ms, requests_per_minute })
}

/// Nobody makes a key that may do more than they may: else every key that makes keys would be an admin's.
fn check_within(caller: &Caller, new: &NewKey) -> Result<(), Problem> {
    let asked = scopes_of(new.roles.iter().map(Text::as_str), new.scopes.iter().map(Text::as_str));
    let held = if new.tenant == caller.tenant && !caller.is_operator {
        // Only the operator's keys have it, whatever their roles say.
        caller.scopes.with(crate::access::Scopes::of(&[crate::access::Scope::TenantsWrite]))
    } else {
        caller.scopes
    };
    asked.without(held).iter().next().map_or(Ok(()), |missing| Err(forbidden(missing)))
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
    let new = NewKey { tenant, roles: known.roles, scopes: known.scopes, ..NewKey::default() };
    check_within(&caller, &new)?;
    let overlap_ms = input.overlap_seconds.unwrap_or(OVERLAP_SECONDS).saturating_mul(1_000);
    let until_ms = ingest.clock.now_ms().saturating_add(overlap_ms);
    let rotated = ingest.keys.rotate(&new.tenant, &id, until_ms, &caller.key_id).await;
    let (key, secret) = rotated.map_err(|error| problem_of(error, &id))?;
    Ok(with_secret(StatusCode::OK, &key, secret, &caller))
}

/// `DELETE /v1/keys/{id}`
pub(crate) async fn revoke(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let tenant = tenant_of(&uri, &caller)?;
    let revoked = ingest.keys.revoke(&tenant, &id, &caller.key_id).await;
    revoked.map(|it| Json(shown(&it, &caller))).map_err(|error| problem_of(error, &id))
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
