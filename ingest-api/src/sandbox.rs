//! `/v1/sandbox/payments/{id}`: a payment as the sandbox has it, and what a customer would do at the bank's page.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::params::Segments;
use crate::ports::{SandboxControl, SandboxError};
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, needed, quoted};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const AUTHENTICATE: &[Field] = &[needed("outcome", Kind::Choice(&["succeed", "fail"]))];

#[derive(Deserialize)]
struct AuthenticateInput {
    outcome: String,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<AuthenticateInput>(bytes, AUTHENTICATE).map(drop)
}

fn sandbox(ingest: &Ingest) -> Result<&dyn SandboxControl, Problem> {
    let missing = || Problem::new(Code::NotFound, "payments do not go to the sandbox provider here");
    ingest.sandbox.as_deref().ok_or_else(missing)
}

fn problem(error: SandboxError, id: &str) -> Problem {
    match error {
        SandboxError::NoSuchPayment => Problem::not_found("payment", id),
        SandboxError::NotWaiting(why) => {
            let detail = format!("payment {} does not wait for the customer: {why}", quoted(id));
            Problem::new(Code::SandboxRefused, detail)
        }
        SandboxError::Log(error) => error.into(),
    }
}

/// `GET /v1/sandbox/payments/{id}`: the provider's side, for comparing with the order's.
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Json<Value>, Problem> {
    let found = sandbox(&ingest)?.payment(&caller.tenant, &id).await;
    let payment = found.map_err(|it| problem(it, &id))?.ok_or_else(|| Problem::not_found("payment", &id))?;
    Ok(Json(json!({
        "id": id,
        "order_id": payment.order_id,
        "status": payment.status,
        "method": payment.method,
        "currency": payment.currency,
        "amount": payment.amount_minor,
        "authorized": payment.authorized_minor,
        "captured": payment.captured_minor,
        "refunded": payment.refunded_minor,
    })))
}

/// `POST /v1/sandbox/payments/{id}/authenticate`: completes or fails a payment that asked for action.
pub(crate) async fn authenticate(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: AuthenticateInput = shape::read(&body::json(&headers, body).await?, AUTHENTICATE)?;
    let acted = sandbox(&ingest)?.authenticate(&caller.tenant, &id, input.outcome == "succeed").await;
    acted.map_err(|it| problem(it, &id))?;
    let body = json!({ "id": id, "status": "accepted", "outcome": input.outcome });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
