//! A merchant's webhook endpoint under test: it takes what is sent, and fails in every way that is asked of it.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

use crate::DEADLINE;

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with a status.
    Status(u16),
    /// Never answers.
    Hang,
    /// Answers with 200 after so long, ms.
    Slow(u64),
    /// Answers with 200 and more bytes than anybody should read.
    Huge,
    /// 503 with so many seconds of `Retry-After`.
    RetryAfter(u32),
    /// Sends the caller elsewhere: to the path `trap`.
    Redirect,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The last part of its path.
    pub path: String,
    /// `webhook-id`
    pub id: String,
    /// `webhook-timestamp`
    pub timestamp: String,
    /// `webhook-signature`
    pub signature: String,
    /// The raw body.
    pub raw: String,
    /// The body.
    pub body: Value,
    /// Whether it was answered with a 2xx.
    pub taken: bool,
}

/// Chooses what to do with the `n`th request of a path, from 0.
pub type Plan = Arc<dyn Fn(&str, usize) -> Behaviour + Send + Sync>;

#[derive(Default)]
struct Inner {
    received: Vec<Received>,
    counts: BTreeMap<String, usize>,
}

/// An endpoint that listens on loopback until it is dropped.
pub struct Receiver {
    url: String,
    inner: Arc<Mutex<Inner>>,
    plan: Arc<Mutex<Plan>>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Mutex<Inner>>,
    plan: Arc<Mutex<Plan>>,
}

impl Receiver {
    /// Listens on a free port.
    pub async fn start(plan: Plan) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Shared { inner: Arc::default(), plan: Arc::new(Mutex::new(plan)) };
        let app = Router::new().route("/{path}", post(take)).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { url, inner: shared.inner, plan: shared.plan, serving }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    /// From now on it does this.
    pub fn becomes(&self, plan: Plan) {
        *self.plan.lock().expect("no holder panicked") = plan;
    }

    /// What a path received so far.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let inner = self.inner.lock().expect("no holder panicked");
        inner.received.iter().filter(|it| it.path == path).cloned().collect()
    }

    /// Waits until what a path received is as it should be.
    pub async fn until(&self, path: &str, done: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let received = self.received(path);
            if done(&received) {
                return received;
            }
            assert!(Instant::now() < deadline, "{path} did not get there with {} requests", received.len());
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(
    State(shared): State<Shared>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let raw = String::from_utf8_lossy(&body).into_owned();
    let behaviour = {
        let mut inner = shared.inner.lock().expect("no holder panicked");
        let count = inner.counts.entry(path.clone()).or_default();
        let n = *count;
        *count += 1;
        let behaviour = shared.plan.lock().expect("no holder panicked")(&path, n);
        let taken = matches!(behaviour, Behaviour::Status(200..=299) | Behaviour::Slow(_) | Behaviour::Huge);
        inner.received.push(Received {
            path,
            id: text("webhook-id"),
            timestamp: text("webhook-timestamp"),
            signature: text("webhook-signature"),
            body: serde_json::from_str(&raw).unwrap_or(Value::Null),
            raw,
            taken,
        });
        behaviour
    };
    match behaviour {
        Behaviour::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, format!("I say {}", status.as_u16())).into_response()
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Slow(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            StatusCode::OK.into_response()
        }
        Behaviour::Huge => (StatusCode::OK, "x".repeat(8 << 20)).into_response(),
        Behaviour::RetryAfter(seconds) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Behaviour::Redirect => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/trap".to_owned())]).into_response()
        }
    }
}
