//! `/v1/tenants`: what the operator sees and sets of the tenants.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::keys::{LIMIT, bad_tenant};
use crate::params::Segments;
use crate::problem::Problem;
use crate::shape::{self, Field, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const TENANT_LIMIT: &[Field] = &[optional("requests_per_minute", LIMIT)];

#[derive(Deserialize)]
struct LimitInput {
    requests_per_minute: Option<i64>,
}

/// `GET /v1/tenants`: every tenant that ever had a key.
pub(crate) async fn list(State(ingest): State<Arc<Ingest>>) -> Json<Value> {
    let now_ms = ingest.clock.now_ms();
    let data: Vec<Value> = ingest.keys.read(|access| {
        let shown = access.tenants().map(|(name, tenant)| {
            json!({
                "tenant": name,
                "live_keys": tenant.live_keys(now_ms),
                "requests_per_minute": tenant.requests_per_minute,
            })
        });
        shown.collect()
    });
    Json(json!({ "data": data, "next_cursor": null }))
}

/// `PUT /v1/tenants/{tenant}/limit`: calls per minute of all its keys together; null takes the limit away.
pub(crate) async fn set_limit(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(tenant): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let input: LimitInput = shape::read(&body::json(&headers, body).await?, TENANT_LIMIT)?;
    if bad_tenant("tenant", &tenant).is_some() || !ingest.keys.tenants().contains(tenant.as_str()) {
        return Err(Problem::not_found("tenant", &tenant));
    }
    ingest.keys.set_limit(&tenant, input.requests_per_minute, &caller.key_id).await?;
    Ok(Json(json!({ "tenant": tenant, "requests_per_minute": input.requests_per_minute })))
}
