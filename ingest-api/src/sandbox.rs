//! `POST /v1/sandbox/payments/{id}/authenticate`: what a customer would do at the bank's page.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::params::Segments;
use crate::ports::SandboxError;
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, needed, quoted};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

const AUTHENTICATE: &[Field] = &[needed("outcome", Kind::Choice(&["succeed", "fail"]))];

#[derive(Deserialize)]
struct AuthenticateInput {
    outcome: String,
}

/// Completes or fails a payment that asked for action.
pub(crate) async fn authenticate(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: AuthenticateInput = shape::read(&body::json(&headers, body).await?, AUTHENTICATE)?;
    let Some(sandbox) = &ingest.sandbox else {
        return Err(Problem::new(Code::NotFound, "payments do not go to the sandbox provider here"));
    };
    match sandbox.authenticate(&caller.tenant, &id, input.outcome == "succeed").await {
        Ok(()) => {
            let body = json!({ "id": id, "status": "accepted", "outcome": input.outcome });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        Err(SandboxError::NoSuchPayment) => Err(Problem::not_found("payment", &id)),
        Err(SandboxError::NotWaiting(why)) => {
            let detail = format!("payment {} does not wait for the customer: {why}", quoted(&id));
            Err(Problem::new(Code::SandboxRefused, detail))
        }
        Err(SandboxError::Log(error)) => Err(error.into()),
    }
}
