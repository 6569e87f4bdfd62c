//! `/v1/sandbox/payments/{id}`: a payment as the sandbox has it, and what a customer would do at the bank's page.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::openapi::{Answer, Call};
use crate::orders::ID_EXAMPLES;
use crate::params::Segments;
use crate::ports::{SandboxControl, SandboxError};
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, needed, quoted};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// What is looked up at the provider; it judges.
const PAYMENT_ID: Kind = Kind::Text { min: 1, max: 255 };
const AUTHENTICATE: &[Field] = &[needed("outcome", Kind::Choice(&["succeed", "fail"]))];

#[derive(Deserialize)]
struct AuthenticateInput {
    outcome: String,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<AuthenticateInput>(bytes, AUTHENTICATE).map(drop)
}

/// A payment as the sandbox provider has it; amounts are minor units.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SandboxPayment")]
struct Payment<'a> {
    /// Its id.
    id: &'a str,
    /// The order it was asked for.
    order_id: &'a str,
    /// Where it stands: `requires_action`, `authorized`, `captured`, `cancelled` or `declined`.
    status: &'a str,
    /// The payment method.
    method: &'a str,
    /// ISO 4217.
    currency: &'a str,
    /// What was asked for.
    amount: i64,
    /// Authorized, and not captured or given up since.
    authorized: i64,
    /// Captured.
    captured: i64,
    /// Refunded.
    refunded: i64,
}

/// What the customer did at the bank's page is on its way to the order.
#[derive(Serialize, JsonSchema)]
struct Authenticated<'a> {
    /// The payment's id.
    id: &'a str,
    /// Always `accepted`.
    status: &'a str,
    /// What was sent.
    outcome: &'a str,
}

/// `GET /v1/sandbox/payments/{id}`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/sandbox/payments/{id}", "getSandboxPayment", "sandbox", "Read a payment as the sandbox provider has it")
        .about("Only where payments go to the sandbox.")
        .segment("id", PAYMENT_ID, "The payment's id", ID_EXAMPLES.payment)
        .answer(Answer::json::<Payment<'_>>(200, "The payment").example(json!({
            "id": ID_EXAMPLES.payment, "order_id": ID_EXAMPLES.order, "status": "captured", "method": "pm_card_visa",
            "currency": "GBP", "amount": 1_652, "authorized": 0, "captured": 1_652, "refunded": 0,
        })))
        .problem(Code::NotFound)
        .reads()
}

/// `POST /v1/sandbox/payments/{id}/authenticate`
pub(crate) fn authenticate_call() -> Call {
    let path = "/v1/sandbox/payments/{id}/authenticate";
    Call::post(
        path,
        "authenticateSandboxPayment",
        "sandbox",
        "Complete or fail a payment that asked for action",
    )
    .about("Only where payments go to the sandbox.")
    .segment("id", PAYMENT_ID, "The payment's id", ID_EXAMPLES.payment)
    .body("AuthenticateInput", AUTHENTICATE, json!({ "outcome": "succeed" }))
    .answer(
        Answer::json::<Authenticated<'_>>(202, "Accepted and durable")
            .example(json!({ "id": ID_EXAMPLES.payment, "status": "accepted", "outcome": "succeed" })),
    )
    .problem(Code::NotFound)
    .problem(Code::SandboxRefused)
    .problem(Code::DiskFull)
    .reads()
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
) -> Result<Response, Problem> {
    let found = sandbox(&ingest)?.payment(&caller.tenant, &id).await;
    let payment = found.map_err(|it| problem(it, &id))?.ok_or_else(|| Problem::not_found("payment", &id))?;
    let shown = Payment {
        id: &id,
        order_id: &payment.order_id,
        status: payment.status,
        method: &payment.method,
        currency: &payment.currency,
        amount: payment.amount_minor,
        authorized: payment.authorized_minor,
        captured: payment.captured_minor,
        refunded: payment.refunded_minor,
    };
    Ok(Json(shown).into_response())
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
    let body = Authenticated { id: &id, status: "accepted", outcome: &input.outcome };
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
