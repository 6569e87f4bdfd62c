//! A stream over a WebSocket.

use super::message::Message;
use super::offered::PROTOCOL;
use super::slots::Slot;
use super::{Ended, Outlet, Source, pump};
use crate::Ingest;
use axum::extract::ws::{CloseFrame, Message as Frame, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;

/// The reader only ever pongs and closes: what it says is small.
const HEARD_BYTES_MAX: usize = 4 << 10;
/// What may wait to be written.
const WRITTEN_BYTES_MAX: usize = 1 << 20;
/// Pings without any answer after which the reader is gone.
const PINGS_UNANSWERED_MAX: u32 = 2;

struct Socket {
    socket: WebSocket,
    /// Pings since the reader was last heard.
    unanswered: u32,
}

impl Outlet for Socket {
    async fn send(&mut self, messages: &[Message]) -> bool {
        for message in messages {
            if self.socket.send(Frame::Text(message.to_json().into())).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn beat(&mut self, place: &str) -> bool {
        if self.unanswered >= PINGS_UNANSWERED_MAX {
            return false;
        }
        self.unanswered += 1;
        let text = json!({ "place": place, "type": "stream.heartbeat" }).to_string();
        self.socket.send(Frame::Text(text.into())).await.is_ok()
            && self.socket.send(Frame::Ping(Bytes::new())).await.is_ok()
    }

    async fn gone(&mut self) {
        // Pings are answered and closes are returned by the library as they are read.
        while let Some(Ok(frame)) = self.socket.recv().await {
            if matches!(frame, Frame::Close(_)) {
                return;
            }
            self.unanswered = 0;
        }
    }

    async fn end(mut self, ended: &Ended) {
        let (code, reason) = match ended {
            Ended::Gone => return,
            Ended::Slow => (close_code::POLICY, "you read too slowly: resume from the last place".to_owned()),
            Ended::Drained => {
                (close_code::RESTART, "the server stops: resume from the last place".to_owned())
            }
            Ended::Failed(problem) => (close_code::ERROR, problem.code.as_str().to_owned()),
        };
        let frame = CloseFrame { code, reason: Utf8Bytes::from(reason) };
        // The reader may have gone meanwhile.
        let _ = self.socket.send(Frame::Close(Some(frame))).await;
    }
}

/// Switches protocols, and streams.
pub(super) fn respond(
    ingest: Arc<Ingest>,
    slot: Slot,
    upgrade: WebSocketUpgrade,
    source: impl Source + 'static,
) -> Response {
    upgrade
        .protocols([PROTOCOL])
        .max_message_size(HEARD_BYTES_MAX)
        .max_frame_size(HEARD_BYTES_MAX)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITTEN_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            pump(&ingest, slot, source, Socket { socket, unanswered: 0 }).await;
        })
}
