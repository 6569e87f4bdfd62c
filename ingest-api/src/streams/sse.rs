//! A stream as server-sent events.

use super::message::Message;
use super::slots::Slot;
use super::{EVENT_STREAM, Ended, Outlet, Source, pump};
use crate::Ingest;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, header};
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Blocks that may wait for the reader.
const BLOCKS_AHEAD: usize = 2;

struct EventStream {
    sender: mpsc::Sender<Bytes>,
    begun: bool,
}

impl Outlet for EventStream {
    async fn send(&mut self, messages: &[Message]) -> bool {
        let mut out = Vec::with_capacity(messages.len() * 256);
        for message in messages {
            message.write_sse(&mut out);
        }
        self.sender.send(out.into()).await.is_ok()
    }

    async fn beat(&mut self, place: &str) -> bool {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"retry: 2000\n");
        }
        // Without data it is no event, but a client that reconnects sends the id.
        let _ = write!(out, ": heartbeat\nid: {place}\n\n");
        self.sender.send(out.into()).await.is_ok()
    }

    async fn gone(&mut self) {
        self.sender.closed().await;
    }

    async fn end(self, ended: &Ended) {
        if let Ended::Failed(problem) = ended
            && let Ok(data) = serde_json::to_string(problem)
        {
            // The reader may have gone meanwhile.
            let _ = self.sender.send(format!("event: stream.error\ndata: {data}\n\n").into()).await;
        }
    }
}

/// Answers with the stream; it runs beside the connection, which takes from it as fast as the reader reads.
pub(super) fn respond(ingest: Arc<Ingest>, slot: Slot, source: impl Source + 'static) -> Response {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    tokio::spawn(async move { pump(&ingest, slot, source, EventStream { sender, begun: false }).await });
    let blocks = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|block| (Ok::<_, Infallible>(block), receiver))
    });
    let mut response = Body::from_stream(blocks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies of the nginx kind pass on what they have instead of gathering it.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
