//! `/v1/tenants`: what the operator sees and sets of the tenants.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::keys::LIMIT;
use crate::openapi::{Answer, Call, Page};
use crate::params::Segments;
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

const TENANT_LIMIT: &[Field] = &[optional("requests_per_minute", LIMIT)
    .about("Calls that all its keys together may make in a minute; left out or null: as many as they like")];

#[derive(Deserialize)]
struct LimitInput {
    requests_per_minute: Option<i64>,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<LimitInput>(bytes, TENANT_LIMIT).map(drop)
}

/// A tenant, as the operator sees it.
#[derive(Serialize, JsonSchema)]
struct Tenant {
    /// Its name.
    tenant: String,
    /// Keys that have not ended.
    live_keys: usize,
    /// Calls that all its keys together may make in a minute; null: as many as they like.
    requests_per_minute: Option<i64>,
}

fn all(ingest: &Ingest) -> Vec<Tenant> {
    let now_ms = ingest.clock.now_ms();
    ingest.keys.read(|access| {
        let shown = access.tenants().map(|(name, it)| Tenant {
            tenant: name.to_string(),
            live_keys: it.live_keys(now_ms),
            requests_per_minute: it.requests_per_minute,
        });
        shown.collect()
    })
}

/// `GET /v1/tenants`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/tenants", "listTenants", "keys", "List tenants")
        .about("For keys of the operator's tenant.")
        .answer(Answer::json::<Page<Tenant>>(200, "Every tenant that ever had a key"))
        .problem(Code::Internal)
}

/// `GET /v1/tenants`
pub(crate) async fn list(State(ingest): State<Arc<Ingest>>) -> Response {
    Json(Page::whole(all(&ingest))).into_response()
}

/// `PUT /v1/tenants/{tenant}/limit`
pub(crate) fn set_limit_call() -> Call {
    Call::put("/v1/tenants/{tenant}/limit", "setTenantLimit", "keys", "Limit how often a tenant may call")
        .about("For keys of the operator's tenant. Past the limit calls get 429; each process counts for itself.")
        .segment("tenant", Kind::Text { min: 1, max: 64 }, "The tenant", "acme")
        .body("TenantLimitInput", TENANT_LIMIT, json!({ "requests_per_minute": 6_000 }))
        .answer(Answer::json::<Tenant>(200, "The tenant"))
        .problem(Code::NotFound)
        .changes()
}

/// `PUT /v1/tenants/{tenant}/limit`
pub(crate) async fn set_limit(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: LimitInput = shape::read(&body::json(&headers, body).await?, TENANT_LIMIT)?;
    let unknown = || Problem::not_found("tenant", &name);
    if !ingest.keys.tenants().contains(name.as_str()) {
        return Err(unknown());
    }
    ingest.keys.set_limit(&name, input.requests_per_minute, &caller.key_id).await?;
    let tenant = all(&ingest).into_iter().find(|it| it.tenant == name).ok_or_else(unknown)?;
    Ok(Json(tenant).into_response())
}
