//! `POST /v1/orders/bulk`: orders as NDJSON in, a result line per order line out, both streamed.
//!
//! At most [`CHUNKS_AHEAD`] chunks of lines are in memory: the next one is read only when the client has taken the
//! results before it, so a slow reader slows its own writing down.

use super::place::Placement;
use super::{ID_EXAMPLES, examples, input};
use crate::Ingest;
use crate::auth::Caller;
use crate::body::{BULK_BYTES_MAX, content_length, media_type, too_large, too_slow};
use crate::commands::Append;
use crate::encoding::{self, Pieces};
use crate::idempotency::conflict;
use crate::in_flight::{Claim, Judged};
use crate::observe::Trace;
use crate::openapi::{Answer, Call};
use crate::problem::{Code, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::{RowKey, Table};
use tokio::time::Instant;

/// Lines that are appended together.
const CHUNK_LINES_MAX: usize = 500;
/// Bytes of lines that are appended together.
const CHUNK_BYTES_MAX: usize = 512 << 10;
/// The longest line: what a single order may have.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Chunks that are worked on at a time: some are read and judged while those before become durable.
const CHUNKS_AHEAD: usize = 4;
/// How long the next whole line may take.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a chunk waits for the tasks to catch up before its lines are refused.
const PATIENCE: Duration = Duration::from_secs(30);
const NDJSON: &str = "application/x-ndjson";

/// Takes orders in bulk.
pub(crate) async fn bulk(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    media_type(&headers, &[NDJSON, "application/ndjson", "application/jsonl", "application/json"])?;
    if content_length(&headers).is_some_and(|it| it > BULK_BYTES_MAX) {
        return Err(too_large(BULK_BYTES_MAX));
    }
    let pieces = encoding::pieces(&headers, body, BULK_BYTES_MAX)?;
    ingest.check_ready()?;
    let results = chunks(pieces)
        .map(move |chunk| {
            let (ingest, tenant, trace) = (ingest.clone(), caller.tenant.clone(), trace.clone());
            async move { Ok::<_, Infallible>(take(&ingest, &tenant, &trace, chunk).await) }
        })
        .buffered(CHUNKS_AHEAD);
    let mut response = Body::from_stream(results).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(response)
}

/// One line of the body, or why it cannot be read.
struct Line {
    number: u64,
    content: Result<Bytes, Problem>,
}

/// Cuts a body into lines.
struct Lines {
    pieces: Pieces,
    buffer: BytesMut,
    /// So many bytes of the buffer hold no line break: they are not looked at again when more comes.
    searched: usize,
    number: u64,
    /// The rest of a line that is too long is skipped.
    skipping: bool,
    ended: bool,
}

fn chunks(pieces: Pieces) -> impl Stream<Item = Vec<Line>> + Send {
    let lines =
        Lines { pieces, buffer: BytesMut::new(), searched: 0, number: 0, skipping: false, ended: false };
    stream::unfold(lines, |mut lines| async move {
        let mut chunk = Vec::new();
        let mut chunk_bytes = 0;
        // Until a line is whole, however many bytes of it drip in: so a slow client holds a connection for so long at most.
        let deadline = Instant::now() + SILENCE_MAX;
        while chunk.len() < CHUNK_LINES_MAX && chunk_bytes < CHUNK_BYTES_MAX {
            if let Some(line) = lines.cut() {
                chunk_bytes += line.content.as_ref().map_or(0, Bytes::len);
                chunk.push(line);
            } else if lines.ended {
                break;
            } else if let Some(problem) = lines.fill(chunk.is_empty().then_some(deadline)).await {
                match problem {
                    Some(problem) => chunk.push(Line { number: lines.number + 1, content: Err(problem) }),
                    // Nothing more is here yet: what was read is not kept waiting for it.
                    None => break,
                }
            }
        }
        (!chunk.is_empty()).then_some((chunk, lines))
    })
}

impl Lines {
    /// The next line that is whole; empty ones are passed over.
    fn cut(&mut self) -> Option<Line> {
        loop {
            let rest = &self.buffer[self.searched..];
            let end = rest.iter().position(|it| *it == b'\n').map(|it| self.searched + it);
            self.searched = if end.is_some() { 0 } else { self.buffer.len() };
            let line = match end {
                Some(end) => self.buffer.split_to(end + 1).freeze().slice(..end),
                None if self.ended && !self.buffer.is_empty() => {
                    self.searched = 0;
                    self.buffer.split().freeze()
                }
                None if self.buffer.len() > LINE_BYTES_MAX => {
                    self.searched = 0;
                    self.buffer.clear();
                    let first = !self.skipping;
                    self.skipping = true;
                    if first {
                        return Some(Line { number: self.number + 1, content: Err(line_too_long()) });
                    }
                    return None;
                }
                None => return None,
            };
            self.number += 1;
            if std::mem::take(&mut self.skipping) || line.trim_ascii().is_empty() {
                continue;
            }
            let content = if line.len() > LINE_BYTES_MAX { Err(line_too_long()) } else { Ok(line) };
            return Some(Line { number: self.number, content });
        }
    }

    /// Reads on. `None`: there is more now. `Some(None)`: not at this moment (only without `patience`).
    /// `Some(Some(_))`: the body cannot be read any further.
    async fn fill(&mut self, patience: Option<Instant>) -> Option<Option<Problem>> {
        let next = if let Some(deadline) = patience {
            match tokio::time::timeout_at(deadline, self.pieces.next()).await {
                Ok(next) => next,
                Err(_) => return self.end(too_slow("brought no whole line for 60 s")),
            }
        } else {
            match futures::FutureExt::now_or_never(self.pieces.next()) {
                Some(next) => next,
                None => return Some(None),
            }
        };
        match next {
            Some(Ok(bytes)) => {
                self.buffer.extend_from_slice(&bytes);
                None
            }
            Some(Err(problem)) => self.end(problem),
            None => {
                self.ended = true;
                None
            }
        }
    }

    fn end(&mut self, problem: Problem) -> Option<Option<Problem>> {
        self.ended = true;
        self.searched = 0;
        self.buffer.clear();
        Some(Some(problem))
    }
}

/// A line as it was cut: its number and its bytes, or why it cannot be read.
#[doc(hidden)]
pub type Cut = (u64, Result<Bytes, Problem>);

/// Cuts a body that arrives in `parts` into lines, without a socket.
#[doc(hidden)]
pub async fn cut_lines(parts: Vec<Bytes>) -> Vec<Cut> {
    let parts = stream::iter(parts.into_iter().map(Ok)).boxed();
    let chunks: Vec<Vec<Line>> = chunks(parts).collect().await;
    chunks.into_iter().flatten().map(|it| (it.number, it.content)).collect()
}

fn line_too_long() -> Problem {
    let message = format!("is longer than {LINE_BYTES_MAX} bytes");
    Problem::about(
        Code::BodyTooLarge,
        "(line)",
        message,
        "send an order of at most 1,000 lines, and one per line",
    )
}

/// What became of a line.
enum Fate {
    Accepted(Text),
    Refused(Problem),
    /// Judged, not appended yet.
    Open(Box<Placement>, Claim),
}

/// What became of one line.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BulkResult")]
struct ResultLine<'a> {
    /// The line's number, from 1.
    line: u64,
    /// The status the order alone would have had.
    status: u16,
    /// The order's id, where it is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// Why not, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::problem::Body<'static>>")]
    problem: Option<&'a Problem>,
}

/// `POST /v1/orders/bulk`
pub(crate) fn bulk_call() -> Call {
    let mut line = examples::sent();
    line["idempotency_key"] = "order-1".into();
    Call::post("/v1/orders/bulk", "placeOrders", "orders", "Place many orders, streamed both ways")
        .about(
            "A result line per order line, in their order. A line carries its own `idempotency_key`; the same key as a \
             single call's is the same order. One bad line never harms the others. At most 100 MiB, decoded; empty \
             lines are passed over. The body may be gzip or zstd. Read results while you write: the server reads no \
             further than two thousand lines ahead of the results you have taken.",
        )
        .lines("BulkLine", NDJSON, input::BULK_FIELDS, line)
        .answer(
            Answer::lines::<ResultLine<'_>>(200, "A result line per order line", NDJSON)
                .example(json!({ "line": 1, "status": 202, "id": ID_EXAMPLES.order })),
        )
        .problem(Code::NotReady)
}

/// Judges and appends one chunk; a bad line never harms the others.
async fn take(ingest: &Arc<Ingest>, tenant: &Text, trace: &Trace, chunk: Vec<Line>) -> Bytes {
    let now_ms = ingest.clock.now_ms();
    let mut fates: Vec<(u64, Fate)> = Vec::with_capacity(chunk.len());
    for line in chunk {
        let fate = match line.content.and_then(|it| first_judgement(ingest, tenant, trace, &it, now_ms)) {
            Ok(fate) => fate,
            Err(problem) => Fate::Refused(problem),
        };
        fates.push((line.number, fate));
    }
    if let Err(problem) = second_judgement(ingest, &mut fates).await {
        refuse_open(&mut fates, &problem);
    }
    append(ingest, &mut fates).await;
    let mut out = Vec::with_capacity(fates.len() * 80);
    for (line, fate) in &fates {
        let result = match fate {
            Fate::Accepted(id) => ResultLine { line: *line, status: 202, id: Some(id), problem: None },
            Fate::Refused(problem) => ResultLine {
                line: *line,
                status: problem.code.status().as_u16(),
                id: None,
                problem: Some(problem),
            },
            Fate::Open(..) => continue,
        };
        if serde_json::to_writer(&mut out, &result).is_ok() {
            out.push(b'\n');
        }
    }
    out.into()
}

/// By the line itself and by what is in flight.
fn first_judgement(
    ingest: &Ingest,
    tenant: &Text,
    trace: &Trace,
    line: &[u8],
    now_ms: i64,
) -> Result<Fate, Problem> {
    let parsed = input::parse_bulk_line(line, now_ms)?;
    let key = parsed.key.clone();
    let placement = Placement::new(tenant, &key, parsed, trace, now_ms)?;
    match ingest.claim(tenant, &placement.order_id, &placement.fingerprint) {
        Judged::Open(claim) => Ok(Fate::Open(Box::new(placement), claim)),
        Judged::Durable => Ok(Fate::Accepted(placement.order_id)),
        Judged::Conflict => Err(conflict()),
    }
}

/// By the rows, read at once.
async fn second_judgement(ingest: &Ingest, fates: &mut [(u64, Fate)]) -> Result<(), Problem> {
    let keys: Vec<RowKey> = fates
        .iter()
        .filter_map(|(_, fate)| match fate {
            Fate::Open(placement, _) => Some(RowKey::new(Table::Order, placement.key.clone())),
            Fate::Accepted(_) | Fate::Refused(_) => None,
        })
        .collect();
    let mut rows = ingest.readable(&keys).await?.into_iter();
    for (_, fate) in fates.iter_mut() {
        let Fate::Open(placement, _) = fate else { continue };
        if let Some(bytes) = rows.next().flatten() {
            let row: OrderState = codec::decode(&bytes)?;
            *fate = if row.fingerprint == placement.fingerprint {
                Fate::Accepted(placement.order_id.clone())
            } else {
                Fate::Refused(conflict())
            };
        }
    }
    Ok(())
}

async fn append(ingest: &Arc<Ingest>, fates: &mut [(u64, Fate)]) {
    let mut appends = Vec::with_capacity(fates.len());
    let mut open = Vec::with_capacity(fates.len());
    for (index, (_, fate)) in fates.iter_mut().enumerate() {
        let judged = std::mem::replace(fate, Fate::Accepted(Text::default()));
        match judged {
            Fate::Open(placement, claim) => {
                open.push(index);
                let Placement { order_id, key, value, .. } = *placement;
                *fate = Fate::Accepted(order_id);
                let record = ingest.record(Topic::OrderCommands, &key, value);
                appends.push(Append { claim: Some(claim), record });
            }
            other => *fate = other,
        }
    }
    if appends.is_empty() {
        return;
    }
    let written = match patiently(ingest, &appends).await {
        Ok(()) => ingest.append(appends).await.map(|_| ()),
        Err(problem) => Err(problem),
    };
    if let Err(problem) = written {
        for index in open {
            fates[index].1 = Fate::Refused(problem.clone());
        }
    }
}

/// Waits until the tasks behind the chunk's partitions can take more.
async fn patiently(ingest: &Ingest, appends: &[Append]) -> Result<(), Problem> {
    let mut places: Vec<TopicPartition> = appends.iter().map(|it| it.record.to).collect();
    places.sort_unstable();
    places.dedup();
    let deadline = ingest.clock.deadline(PATIENCE);
    ingest.check_ready()?;
    while let Some(strain) = places.iter().find_map(|it| ingest.strain_of(*it)) {
        if ingest.clock.monotonic_ns() >= deadline {
            return Err(ingest.overload.refuse(strain));
        }
        ingest.clock.sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn refuse_open(fates: &mut [(u64, Fate)], problem: &Problem) {
    for (_, fate) in fates.iter_mut() {
        if matches!(fate, Fate::Open(..)) {
            *fate = Fate::Refused(problem.clone());
        }
    }
}
