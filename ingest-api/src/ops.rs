//! `/healthz`, `/readyz`, `/metrics`.

use crate::Ingest;
use crate::openapi::{Answer, Call};
use crate::problem::{Code, Problem};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus::{Encoder, TextEncoder};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

/// The process answers.
pub(crate) async fn healthz() -> Response {
    Json(Health { status: "ok" }).into_response()
}

/// The process answers.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether commands are taken.
#[derive(Serialize, JsonSchema)]
struct Readiness {
    /// Whether they are.
    status: ReadyStatus,
    /// Why not.
    reasons: Vec<Reason>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ReadyStatus {
    Ready,
    NotReady,
}

/// Why commands are not taken.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReadinessReason")]
struct Reason {
    /// A stable code.
    code: &'static str,
    /// A sentence.
    message: String,
}

/// `GET /healthz`
pub(crate) fn healthz_call() -> Call {
    Call::get("/healthz", "getHealth", "operations", "Whether the process answers")
        .answer(Answer::json::<Health>(200, "It does").example(json!(Health { status: "ok" })))
}

/// `GET /readyz`
pub(crate) fn readyz_call() -> Call {
    Call::get("/readyz", "getReadiness", "operations", "Whether commands are taken, and if not, why")
        .answer(
            Answer::json::<Readiness>(200, "They are").example(json!({ "status": "ready", "reasons": [] })),
        )
        .answer(Answer::json::<Readiness>(503, "They are not"))
}

/// `GET /metrics`
pub(crate) fn metrics_call() -> Call {
    Call::get("/metrics", "getMetrics", "operations", "Prometheus metrics")
        .answer(Answer::other(200, "Prometheus' text format", "text/plain"))
        .problem(Code::Internal)
}

/// Whether commands are taken, and if not, why.
pub(crate) async fn readyz(State(ingest): State<Arc<Ingest>>) -> Response {
    let mut reasons = Vec::new();
    if let Some(error) = ingest.health.trouble() {
        let message = error.to_string();
        reasons.push(Reason { code: Problem::from(error).code.as_str(), message });
    }
    for message in ingest.progress.trouble() {
        reasons.push(Reason { code: Code::Stopped.as_str(), message });
    }
    for task in ingest.behind() {
        let message = format!("task {task} has not caught up with the log since the start");
        reasons.push(Reason { code: Code::NotReady.as_str(), message });
    }
    let (code, status) = if reasons.is_empty() {
        (StatusCode::OK, ReadyStatus::Ready)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, ReadyStatus::NotReady)
    };
    (code, Json(Readiness { status, reasons })).into_response()
}

/// Everything in the registry, in Prometheus' text format.
pub(crate) async fn metrics(State(ingest): State<Arc<Ingest>>) -> Response {
    ingest.progress.export();
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&ingest.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => Problem::new(Code::Internal, error.to_string()).into_response(),
    }
}
