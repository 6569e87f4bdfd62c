//! Live streams of events: one order's or all of a tenant's, as server-sent events or over a WebSocket.
//!
//! A [`Source`] knows what comes next and where to resume; [`pump`] moves it into an [`Outlet`], which knows how it is
//! written. A reader that does not read holds back its own stream only: what is live passes it by and is read again
//! from row or log when it goes on; after [`STALL_MAX`] it is cut off, and resumes from the last place it saw.

mod all;
mod message;
mod offered;
mod one;
pub(crate) mod place;
mod slots;
mod sse;
mod ws;

pub(crate) use all::{Start, TenantSource};
pub(crate) use message::Message;
pub(crate) use offered::key_of as offered_key;
pub(crate) use one::OrderSource;
pub(crate) use slots::Streams;

use crate::Ingest;
use crate::problem::{Code, Problem};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::Response;
use futures::future::BoxFuture;
use http::{HeaderMap, header};
use slots::Slot;
use std::sync::Arc;
use std::time::Duration;
use tillstream_runtime::timeout;

/// How often a stream without events says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a reader may take nothing before it is cut off.
const STALL_MAX: Duration = Duration::from_secs(30);
const EVENT_STREAM: &str = "text/event-stream";

/// How the client wants events.
pub(crate) enum Wanted {
    /// As a page of JSON.
    Page,
    /// As server-sent events.
    EventStream,
    /// Over a WebSocket.
    WebSocket(Box<WebSocketUpgrade>),
}

impl Wanted {
    /// Reads it off the headers.
    ///
    /// # Errors
    /// 400 when a WebSocket is asked for in a way that cannot be one.
    pub(crate) fn of(
        headers: &HeaderMap,
        upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    ) -> Result<Self, Problem> {
        let is_websocket = |it: &http::HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"websocket");
        match upgrade {
            Ok(upgrade) => Ok(Self::WebSocket(Box::new(upgrade))),
            Err(error) if headers.get(header::UPGRADE).is_some_and(is_websocket) => Err(Problem::parameter(
                "Upgrade",
                format!("asks for a WebSocket that cannot be opened: {}", error.body_text()),
                "open it as RFC 6455 says: Connection: upgrade, Sec-WebSocket-Version: 13, Sec-WebSocket-Key",
            )),
            Err(_) => {
                let accept = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
                let mut types = accept.flat_map(|it| it.split(',')).filter_map(|it| it.split(';').next());
                let streamed = types.any(|it| it.trim().eq_ignore_ascii_case(EVENT_STREAM));
                Ok(if streamed { Self::EventStream } else { Self::Page })
            }
        }
    }
}

/// What a stream is made from.
pub(crate) trait Source: Send {
    /// The next messages, at least one, after which the stream can be resumed at the place of each. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// What ends the stream.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Message>, Problem>>;

    /// Where to resume when nothing more comes.
    fn place(&mut self) -> String;
}

/// How a stream is written.
trait Outlet: Send {
    /// Writes messages; `false` when the reader has gone.
    fn send(&mut self, messages: &[Message]) -> impl Future<Output = bool> + Send;

    /// Says that the stream is alive.
    fn beat(&mut self, place: &str) -> impl Future<Output = bool> + Send;

    /// Resolves when the reader has gone. Dropping the future loses nothing.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// Ends the stream as well as the reader lets it.
    fn end(self, ended: &Ended) -> impl Future<Output = ()> + Send;
}

/// Why a stream ended.
#[derive(Debug)]
enum Ended {
    /// The reader went.
    Gone,
    /// The reader took nothing for too long.
    Slow,
    /// The server stops.
    Drained,
    /// Events cannot be read on.
    Failed(Problem),
}

impl Ended {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Slow => "slow",
            Self::Drained => "drained",
            Self::Failed(_) => "failed",
        }
    }
}

/// Opens a stream as the client wants it.
///
/// # Errors
/// 429 when the tenant has too many open; and a source that fails at once.
pub(crate) fn open(
    ingest: &Arc<Ingest>,
    tenant: &str,
    wanted: Wanted,
    source: impl Source + 'static,
) -> Result<Response, Problem> {
    match wanted {
        Wanted::WebSocket(upgrade) => {
            let slot = ingest.streams.open(tenant, "websocket")?;
            Ok(ws::respond(ingest.clone(), slot, *upgrade, source))
        }
        Wanted::EventStream => {
            let slot = ingest.streams.open(tenant, "sse")?;
            Ok(sse::respond(ingest.clone(), slot, source))
        }
        Wanted::Page => Err(Problem::new(Code::Internal, "a page is no stream")),
    }
}

/// Moves a source into an outlet until one of them ends, or the server drains.
async fn pump(ingest: &Ingest, slot: Slot, mut source: impl Source, mut outlet: impl Outlet) {
    let mut draining = ingest.streams.draining();
    let ended = tokio::select! {
        biased;
        // The sender lives in `ingest`: this ends only by a drain.
        _ = draining.wait_for(|it| *it) => Ended::Drained,
        ended = flow(ingest, &mut source, &mut outlet) => ended,
    };
    slot.ended(ended.as_str());
    drop(source);
    // A reader that does not read does not hear the end either.
    let _ = timeout(&*ingest.clock, ingest.clock.deadline(Duration::from_secs(1)), outlet.end(&ended)).await;
}

async fn flow(ingest: &Ingest, source: &mut impl Source, outlet: &mut impl Outlet) -> Ended {
    let clock = &*ingest.clock;
    let place = source.place();
    // At once: proxies pass the head on, and the client has a place to resume at before the first event.
    if !outlet.beat(&place).await {
        return Ended::Gone;
    }
    loop {
        let beat_ns = clock.deadline(HEARTBEAT);
        let messages = tokio::select! {
            next = source.next() => match next {
                Ok(messages) => Some(messages),
                Err(problem) => return Ended::Failed(problem),
            },
            () = clock.sleep_until(beat_ns) => None,
            () = outlet.gone() => return Ended::Gone,
        };
        let sending = async {
            match &messages {
                Some(messages) => outlet.send(messages).await,
                None => outlet.beat(&source.place()).await,
            }
        };
        match timeout(clock, clock.deadline(STALL_MAX), sending).await {
            Some(true) => {}
            Some(false) => return Ended::Gone,
            None => return Ended::Slow,
        }
    }
}
