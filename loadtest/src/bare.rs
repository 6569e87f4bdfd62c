//! The yardstick of the HTTP benchmark: the least that a durable door does.
//!
//! The same web framework, the same calls. A body is parsed as JSON of any kind, appended to one file, and answered once
//! `fdatasync` has returned; one thread writes and syncs everything that waits, as the pipeline's own group commit does.
//! No key, no rules of an order, no idempotency, no log of partitions, no chain behind it.

use crate::BenchError;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use http::StatusCode;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Lines of a bulk body that are made durable together, as the server does.
const CHUNK_LINES: usize = 500;

/// What waits to be written, and who waits for it.
type Entry = (Vec<Bytes>, oneshot::Sender<()>);

#[derive(Clone)]
struct Journal(Arc<Mutex<Sender<Entry>>>);

impl Journal {
    async fn append(&self, bodies: Vec<Bytes>) -> bool {
        let (done, waiting) = oneshot::channel();
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner).send((bodies, done));
        sent.is_ok() && waiting.await.is_ok()
    }
}

/// Writes and syncs whatever waits, until nobody can send any more.
fn write_all(mut file: File, entries: &Receiver<Entry>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Ok(first) = entries.recv() {
        let mut waiting = Vec::new();
        for (bodies, done) in std::iter::once(first).chain(entries.try_iter()) {
            for body in bodies {
                buffer.extend_from_slice(&body);
                buffer.push(b'\n');
            }
            waiting.push(done);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        buffer.clear();
        for done in waiting {
            // Its connection may have gone.
            let _ = done.send(());
        }
    }
    Ok(())
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok()
}

async fn single(State(journal): State<Journal>, body: Bytes) -> Response {
    if !is_json(&body) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    if journal.append(vec![body]).await {
        (StatusCode::ACCEPTED, r#"{"id":"ord_0","status":"pending"}"#).into_response()
    } else {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}

async fn bulk(State(journal): State<Journal>, body: Bytes) -> Response {
    let lines: Vec<Bytes> =
        body.split(|it| *it == b'\n').filter(|it| !it.is_empty()).map(|it| body.slice_ref(it)).collect();
    let chunks: Vec<Vec<Bytes>> = lines.chunks(CHUNK_LINES).map(<[Bytes]>::to_vec).collect();
    let results = futures::stream::iter(chunks).then(move |chunk| {
        let journal = journal.clone();
        async move {
            let count = chunk.len();
            let taken = chunk.iter().all(|it| is_json(it)) && journal.append(chunk).await;
            let line: &[u8] = if taken { b"{\"status\":202}\n" } else { b"{\"status\":400}\n" };
            Ok::<_, Infallible>(Bytes::from(line.repeat(count)))
        }
    });
    Body::from_stream(results).into_response()
}

/// Serves until it is killed; the file is made in `dir`.
pub async fn run(address: SocketAddr, dir: &Path) -> Result<(), BenchError> {
    let file = File::create(dir.join("journal")).map_err(BenchError::io("the journal"))?;
    let (sender, entries) = channel();
    std::thread::spawn(move || write_all(file, &entries));
    let journal = Journal(Arc::new(Mutex::new(sender)));
    let app = Router::new()
        .route("/v1/orders", post(single))
        .route("/v1/orders/bulk", post(bulk))
        .route("/readyz", get(|| async { "ready" }))
        .layer(axum::extract::DefaultBodyLimit::max(100 << 20))
        .with_state(journal);
    let listener = tokio::net::TcpListener::bind(address).await.map_err(BenchError::io("listen"))?;
    axum::serve(listener, app).await.map_err(BenchError::io("serve"))
}
