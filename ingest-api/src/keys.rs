//! `/v1/keys`: a tenant's API keys.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::moment::Moment;
use crate::openapi::{Answer, Call, Page};
use crate::params::Segments;
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, needed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_state::StoredKey;

const KEY: &[Field] = &[needed("name", Kind::Text { min: 1, max: 100 })];

#[derive(Deserialize)]
struct KeyInput {
    name: Text,
}

/// An API key.
#[derive(Serialize, JsonSchema)]
struct Key<'a> {
    /// Its id.
    id: &'a str,
    /// What it is called.
    name: &'a str,
    /// When it was made.
    created_at: Moment,
    /// When it was revoked; null: it is valid.
    revoked_at: Option<Moment>,
    /// Whether it is the key of this call.
    current: bool,
    /// The key itself: only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

fn shown<'a>(key: &'a StoredKey, caller: &Caller) -> Key<'a> {
    Key {
        id: &key.id,
        name: &key.name,
        created_at: Moment(key.created_at_ms),
        revoked_at: key.revoked_at_ms.map(Moment),
        current: key.id == caller.key_id,
        key: None,
    }
}

/// `GET /v1/keys`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/keys", "listKeys", "keys", "List API keys")
        .answer(Answer::json::<Page<Key<'_>>>(200, "The keys, oldest first, revoked ones included"))
        .problem(Code::Internal)
}

/// `GET /v1/keys`
pub(crate) async fn list(State(ingest): State<Arc<Ingest>>, caller: Caller) -> Response {
    let keys = ingest.keys.list(&caller.tenant);
    Json(Page::whole(keys.iter().map(|it| shown(it, &caller)).collect())).into_response()
}

/// `POST /v1/keys`
pub(crate) fn create_call() -> Call {
    Call::post("/v1/keys", "createKey", "keys", "Create an API key")
        .about("The only answer that holds the key: it is kept nowhere.")
        .body("KeyInput", KEY, json!({ "name": "till 2" }))
        .answer(
            Answer::json::<Key<'_>>(201, "The key")
                .header("Cache-Control", "`no-store`")
                .link("revokeKey", &[("id", "$response.body#/id")]),
        )
        .problem(Code::DiskFull)
        .reads()
}

/// `POST /v1/keys`: the one answer that holds the key itself.
pub(crate) async fn create(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: KeyInput = shape::read(&body::json(&headers, body).await?, KEY)?;
    let (stored, key) = ingest.keys.create(&caller.tenant, &input.name).await?;
    let body = Key { key: Some(key), ..shown(&stored, &caller) };
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `DELETE /v1/keys/{id}`
pub(crate) fn revoke_call() -> Call {
    Call::delete("/v1/keys/{id}", "revokeKey", "keys", "Revoke an API key")
        .about("At once; revoking twice changes nothing.")
        .id_segment("id", "key_", "The key's id", "key_2bdw7ncy4ksv6zrt9qgx")
        .answer(Answer::json::<Key<'_>>(200, "The revoked key"))
        .problem(Code::NotFound)
        .problem(Code::DiskFull)
        .reads()
}

/// `DELETE /v1/keys/{id}`
pub(crate) async fn revoke(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    let revoked = ingest.keys.revoke(&caller.tenant, &id).await?;
    revoked.map(|it| Json(shown(&it, &caller)).into_response()).ok_or_else(|| Problem::not_found("key", &id))
}
