//! The served side: routes over one `SandboxProvider`.

use super::super::{LedgerError, SandboxProvider};
use super::{Acted, Authenticate, Execute, Listed, Refusal};
use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tillstream_schemas::Text;
use tokio::net::TcpListener;

/// Lines of a page where no limit is given.
const PAGE_LINES: usize = 1_000;
/// Lines of a page at most.
const PAGE_LINES_MAX: usize = 10_000;

type Sandbox = State<Arc<SandboxProvider>>;

/// Serves a sandbox until `stop`; what is in flight then is answered first.
///
/// # Errors
/// The listener's, or the ledger has stopped.
pub async fn serve_sandbox(
    listener: TcpListener,
    provider: Arc<SandboxProvider>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let failed = provider.stopped();
    let serving = axum::serve(listener, router(provider)).with_graceful_shutdown(stop);
    tokio::select! {
        served = serving => served,
        failed = failed => Err(std::io::Error::other(failed)),
    }
}

fn router(provider: Arc<SandboxProvider>) -> Router {
    Router::new()
        .route("/v1/payments", get(list))
        .route("/v1/payments/execute", post(execute))
        .route("/v1/payments/{id}", get(payment))
        .route("/v1/payments/{id}/authenticate", post(authenticate))
        .route("/v1/requests/{key}", get(request))
        .route("/healthz", get(health))
        .with_state(provider)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Absent => StatusCode::NOT_FOUND,
        };
        (status, Json(self)).into_response()
    }
}

fn unavailable(error: impl std::fmt::Display) -> Response {
    let code = Text::const_new("sandbox_stopped");
    Refusal::Unavailable { code, message: error.to_string().into() }.into_response()
}

fn found<T: Serialize>(found: Option<T>) -> Response {
    found.map_or_else(|| Refusal::Absent.into_response(), |it| Json(it).into_response())
}

async fn execute(State(sandbox): Sandbox, Json(body): Json<Execute<'static>>) -> Response {
    match sandbox.execute(&body.tenant, &body.order_id, &body.request).await {
        ProviderReply::Answered(result) => Json(result).into_response(),
        ProviderReply::Unavailable { code, message } => {
            Refusal::Unavailable { code, message }.into_response()
        }
        ProviderReply::Unknown { code, message } => Refusal::Unknown { code, message }.into_response(),
    }
}

async fn request(State(sandbox): Sandbox, Path(key): Path<String>) -> Response {
    match sandbox.lookup(&key).await {
        Lookup::Found(result) => Json(result).into_response(),
        Lookup::Absent => Refusal::Absent.into_response(),
        Lookup::Unavailable => unavailable("the ledger cannot be read"),
    }
}

async fn payment(State(sandbox): Sandbox, Path(id): Path<String>) -> Response {
    sandbox.payment(&id).map_or_else(unavailable, found)
}

async fn authenticate(
    State(sandbox): Sandbox,
    Path(id): Path<String>,
    Json(Authenticate { succeed }): Json<Authenticate>,
) -> Response {
    match sandbox.authenticate(&id, succeed).await {
        Ok(acted) => found(acted.map(Acted::from)),
        // It may be on the disk all the same.
        Err(error) => {
            let code = Text::const_new("sandbox_stopped");
            Refusal::Unknown { code, message: error.to_string().into() }.into_response()
        }
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

async fn list(State(sandbox): Sandbox, Query(page): Query<Page>) -> Response {
    let limit = page.limit.unwrap_or(PAGE_LINES).clamp(1, PAGE_LINES_MAX);
    // A page reads from the disk.
    let lines = tokio::task::spawn_blocking(move || lines(&sandbox, &page.after, limit)).await;
    match lines {
        Ok(Ok(lines)) => ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response(),
        Ok(Err(error)) => unavailable(error),
        Err(error) => unavailable(error),
    }
}

fn lines(sandbox: &SandboxProvider, after: &str, limit: usize) -> Result<Vec<u8>, LedgerError> {
    let mut lines = Vec::new();
    for entry in sandbox.payments_after(after).take(limit) {
        let (id, payment) = entry?;
        serde_json::to_writer(&mut lines, &Listed { id, payment })
            .map_err(|error| LedgerError::Corrupt(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

async fn health(State(sandbox): Sandbox) -> StatusCode {
    if sandbox.is_running() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
