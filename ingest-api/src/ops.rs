//! `/healthz`, `/readyz`, `/metrics`, `/docs`.

use crate::Ingest;
use crate::problem::{Code, Problem};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use std::fmt::Write;
use std::sync::Arc;

/// The process answers.
pub(crate) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// Whether commands are taken, and if not, why.
pub(crate) async fn readyz(State(ingest): State<Arc<Ingest>>) -> Response {
    let mut reasons = Vec::new();
    if let Some(error) = ingest.health.trouble() {
        let message = error.to_string();
        reasons.push(json!({ "code": Problem::from(error).code.as_str(), "message": message }));
    }
    for message in ingest.progress.trouble() {
        reasons.push(json!({ "code": Code::Stopped.as_str(), "message": message }));
    }
    for task in ingest.behind() {
        let message = format!("task {task} has not caught up with the log since the start");
        reasons.push(json!({ "code": Code::NotReady.as_str(), "message": message }));
    }
    let (status, word) = if reasons.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    (status, Json(json!({ "status": word, "reasons": reasons }))).into_response()
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

/// A page that lists the calls of `/openapi.json` and the codes of problems; nothing comes from outside.
pub(crate) async fn docs() -> Response {
    const PAGE: &str = include_str!("../static/docs.html");
    const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
        style-src 'unsafe-inline'; frame-ancestors 'none'";
    let mut rows = String::new();
    for code in Code::ALL {
        let (name, status, title) = (code.as_str(), code.status().as_u16(), code.title());
        let _ = write!(rows, "<tr id=\"{name}\"><td>{name}</td><td>{status}</td><td>{title}</td></tr>");
    }
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE.replace("<!--codes-->", &rows)).into_response()
}
