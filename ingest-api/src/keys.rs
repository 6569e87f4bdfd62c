//! `/v1/keys`: a tenant's API keys.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::moment::to_rfc3339;
use crate::params::Segments;
use crate::problem::Problem;
use crate::shape::{self, Field, Kind, needed};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_state::StoredKey;

const KEY: &[Field] = &[needed("name", Kind::Text { min: 1, max: 100 })];

#[derive(Deserialize)]
struct KeyInput {
    name: Text,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<KeyInput>(bytes, KEY).map(drop)
}

fn shown(key: &StoredKey, caller: &Caller) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "created_at": to_rfc3339(key.created_at_ms),
        "revoked_at": key.revoked_at_ms.map(to_rfc3339),
        "current": key.id == caller.key_id,
    })
}

/// `GET /v1/keys`
pub(crate) async fn list(State(ingest): State<Arc<Ingest>>, caller: Caller) -> Json<Value> {
    let data: Vec<Value> = ingest.keys.list(&caller.tenant).iter().map(|it| shown(it, &caller)).collect();
    Json(json!({ "data": data, "next_cursor": null }))
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
    let mut body = shown(&stored, &caller);
    body["key"] = key.into();
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `DELETE /v1/keys/{id}`
pub(crate) async fn revoke(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Json<Value>, Problem> {
    let revoked = ingest.keys.revoke(&caller.tenant, &id).await?;
    revoked.map(|it| Json(shown(&it, &caller))).ok_or_else(|| Problem::not_found("key", &id))
}
