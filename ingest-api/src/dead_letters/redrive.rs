//! Sends dead letters back to the topics they came from, so many a second, each with its history.
//!
//! A command that is sent back twice is judged by its id and done once. Analytics deltas have no such judge, for they
//! only add: a letter of theirs is sent back once, and a second time is refused, by what stands in their topic.

use super::{Filter, Found, Place, Sight, dlq_of, find, no_such_cursor, one, placed, read, redrive_count};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::cursor;
use crate::openapi::{Answer, Call};
use crate::params::Segments;
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{self, Field, Kind, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tillstream_log::headers::{self, FIRST_ORIGIN, REDRIVE_COUNT, REDRIVEN_FROM, header};
use tillstream_log::{Log, LogError, NewRecord, Record, TopicPartition};
use tillstream_schemas::{Topic, codec};
use tillstream_stage::partition::partition_of;
use tokio::sync::MutexGuard;

/// Letters one call sends back where it names no number.
const LIMIT: usize = 100;
/// Letters a second where a call names no rate.
const RATE: u32 = 100;
/// How long one call may take its time for, seconds; what is left is for the next one.
const CALL_SECONDS_MAX: usize = 5;
/// Steps a second, where the rate allows so many: tasks see a trickle, not gushes.
const STEPS_PER_SECOND: u32 = 10;

const REDRIVE: &[Field] = &[
    optional("topic", Kind::Text { min: 1, max: 100 }),
    optional("reason", Kind::Text { min: 1, max: 64 }),
    optional("limit", Kind::Integer { min: 1, max: 1_000 })
        .about("Letters this call sends back at most; left out: 100"),
    optional("rate", Kind::Integer { min: 1, max: 10_000 })
        .about("Letters a second; left out: 100; every caller has a rate of its own"),
    optional("cursor", Kind::Text { min: 1, max: 200 })
        .about("`next_cursor` of the answer before, unchanged"),
];

#[derive(Deserialize)]
struct RedriveInput {
    topic: Option<String>,
    reason: Option<String>,
    limit: Option<usize>,
    rate: Option<u32>,
    cursor: Option<String>,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<RedriveInput>(bytes, REDRIVE).map(drop)
}

/// What was sent back, and what was not.
#[derive(Serialize, JsonSchema)]
struct Redriven<'a> {
    /// How many letters.
    redriven: usize,
    /// Letters that cannot be sent back.
    refused: Vec<Refused<'a>>,
    /// Send it, unchanged, as `cursor` for the rest; null: there is none.
    next_cursor: Option<String>,
}

/// A letter that cannot be sent back.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RedriveRefused")]
struct Refused<'a> {
    /// Its id.
    id: &'a str,
    /// Where it stands: topic/partition/offset.
    place: String,
    /// Why.
    #[schemars(with = "crate::problem::Body<'static>")]
    problem: Problem,
}

/// One letter that was sent back.
#[derive(Serialize, JsonSchema)]
struct RedrivenOne<'a> {
    /// Always 1.
    redriven: usize,
    /// The letter's id.
    id: &'a str,
    /// The topic it came from and went back to.
    to: &'a str,
}

/// Where a redrive of many goes on. It began at `until_ms`: what failed (again) since then is not its own, or it would
/// never end.
struct Run {
    from: Option<Place>,
    until_ms: i64,
}

impl Run {
    fn encode(from: Place, until_ms: i64) -> String {
        cursor::encode('r', &format!("{until_ms}/{}", from.text()))
    }

    fn decode(text: &str) -> Result<Self, Problem> {
        let text = cursor::decode('r', text)?;
        let (until, place) = text.split_once('/').ok_or_else(no_such_cursor)?;
        let until_ms = until.parse().map_err(|_| no_such_cursor())?;
        Ok(Self { from: Some(Place::parse(place).ok_or_else(no_such_cursor)?), until_ms })
    }
}

/// The topic a letter came from.
fn source(found: &Found) -> Option<Topic> {
    Topic::parse(&found.letter.topic).filter(|it| it.dlq() == Some(found.at.topic))
}

/// Whether a record of the topic adds whenever it is taken.
fn adds(topic: Topic) -> bool {
    topic == Topic::AnalyticsDeltas
}

/// Where the letter stands, as the header of what is sent back names it.
fn place_text(found: &Found) -> String {
    format!("{}/{}/{}", found.at.topic, found.at.partition, found.record.offset)
}

/// Back to where it came from, once more counted.
fn again(log: &dyn Log, found: &Found, sent_before: &BTreeSet<String>) -> Result<NewRecord, Problem> {
    let refuse = |detail: String| Problem::new(Code::NotRedrivable, detail);
    let letter = &found.letter;
    let Some(source) = source(found) else {
        return Err(refuse(format!("its source topic {:?} is not one this version reads", letter.topic)));
    };
    if letter.value.is_empty() {
        return Err(refuse("it holds no record: a timer, or a stored batch that cannot be read".to_owned()));
    }
    let from = place_text(found);
    if sent_before.contains(&from) {
        return Err(refuse("it was sent back before, and its sums would be added twice".to_owned()));
    }
    let origin = format!("{}/{}/{}", letter.topic, letter.partition, letter.offset);
    let first = headers::find(&found.record.headers, FIRST_ORIGIN).map_or(origin, str::to_owned);
    let mut headers = found.record.headers.clone();
    headers.retain(|it| it.name == headers::TRACEPARENT.as_bytes());
    headers.push(header(REDRIVE_COUNT, (redrive_count(&found.record) + 1).to_string()));
    headers.push(header(FIRST_ORIGIN, first));
    headers.push(header(REDRIVEN_FROM, from));
    Ok(NewRecord {
        to: target(log, source, found),
        key: letter.key.clone().into(),
        value: letter.value.clone().into(),
        headers,
    })
}

fn target(log: &dyn Log, source: Topic, found: &Found) -> TopicPartition {
    TopicPartition::new(source, partition_of(&found.letter.key, log.partitions(source)))
}

/// What a redrive of the letter that stands there writes, whoever asks.
///
/// # Errors
/// It is no letter, or one that cannot be sent back.
pub(crate) fn write(log: &dyn Log, at: TopicPartition, record: Record) -> Result<NewRecord, Problem> {
    let letter = codec::decode(&record.value)?;
    again(log, &Found { at, record, letter, unowned: false }, &BTreeSet::new())
}

/// Held, where it matters, so that no other call of this process sends the same letters back meanwhile.
async fn alone<'a>(ingest: &'a Ingest, letters: &[Found]) -> Option<MutexGuard<'a, ()>> {
    if letters.iter().filter_map(source).any(adds) { Some(ingest.redriving.lock().await) } else { None }
}

/// Which of these letters, where it matters, were sent back before: what was sent back stands behind what had failed.
async fn sent_before(ingest: &Ingest, letters: &[Found]) -> Result<BTreeSet<String>, Problem> {
    let mut begins: BTreeMap<TopicPartition, u64> = BTreeMap::new();
    for found in letters {
        let Some(source) = source(found).filter(|it| adds(*it)) else { continue };
        let to = target(&*ingest.log, source, found);
        let own = i64::from(to.partition) == i64::from(found.letter.partition);
        let behind = u64::try_from(found.letter.offset).ok().filter(|_| own).map_or(0, |it| it + 1);
        begins.entry(to).and_modify(|it| *it = behind.min(*it)).or_insert(behind);
    }
    let mut sent = BTreeSet::new();
    ingest.log.refresh(&begins.keys().copied().collect::<Vec<_>>()).await?;
    for (at, begin) in begins {
        let (mut offset, end) = (begin.max(ingest.log.start_offset(at)?), ingest.log.end_offset(at)?);
        while offset < end {
            let (records, next_offset) = read(ingest, at, offset).await?;
            let froms = records.iter().filter_map(|it| headers::find(&it.headers, REDRIVEN_FROM));
            sent.extend(froms.map(str::to_owned));
            if next_offset == offset {
                break;
            }
            offset = next_offset;
        }
    }
    Ok(sent)
}

/// `POST /v1/dead-letters/{topic}/{partition}/{offset}/redrive`
pub(crate) fn redrive_one_call() -> Call {
    let path = "/v1/dead-letters/{topic}/{partition}/{offset}/redrive";
    placed(Call::post(path, "redriveDeadLetter", "operations", "Send a dead letter back to its topic"))
        .about(
            "A command is judged by its id and done once, so it may be sent back twice; an analytics delta only adds, so \
             its letter is sent back once and refused after (409). The record keeps its history in the headers \
             `tillstream_redrive_count`, `tillstream_first_origin` and `tillstream_redriven_from`; so does its dead letter, \
             if it fails again.",
        )
        .answer(Answer::json::<RedrivenOne<'_>>(200, "Sent back").example(
            json!({ "redriven": 1, "id": "dlq_1wqk8zcx5fyt2bnr7hvm", "to": "orders.order.commands.v1" }),
        ))
        .problem(Code::NotFound)
        .problem(Code::NotRedrivable)
        .problem(Code::DiskFull)
        .reads()
}

/// `POST /v1/dead-letters/{topic}/{partition}/{offset}/redrive`
pub(crate) async fn redrive_one(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(place): Segments<(String, String, String)>,
) -> Result<Response, Problem> {
    let found = [one(&ingest, &Sight::of(&ingest, &caller), &place).await?];
    let _alone = alone(&ingest, &found).await;
    let sent_before = sent_before(&ingest, &found).await?;
    let [found] = found;
    let record = again(&*ingest.log, &found, &sent_before)?;
    ingest.log.append(vec![record]).await?;
    let done = RedrivenOne { redriven: 1, id: &found.letter.id, to: &found.letter.topic };
    Ok(Json(done).into_response())
}

/// Appends the records at `rate` a second, and takes the last one's time, too: calls in a row keep the rate. Returns how
/// many there are in the log, and why not all.
async fn send(ingest: &Ingest, records: Vec<NewRecord>, rate: u32) -> (usize, Option<LogError>) {
    let began_ns = ingest.clock.monotonic_ns();
    let step = (rate / STEPS_PER_SECOND).max(1) as usize;
    let mut sent = 0;
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let some: Vec<NewRecord> = records.by_ref().take(step).collect();
        let count = some.len();
        if let Err(error) = ingest.log.append(some).await {
            return (sent, Some(error));
        }
        sent += count;
        ingest.clock.sleep_until(began_ns + sent as u64 * 1_000_000_000 / u64::from(rate)).await;
    }
    (sent, None)
}

/// `POST /v1/dead-letters/redrive`
pub(crate) fn redrive_call() -> Call {
    let summary = "Send the dead letters a filter finds back to their topics";
    Call::post("/v1/dead-letters/redrive", "redriveDeadLetters", "operations", summary)
        .about(
            "Sends at most `limit` letters back, `rate` a second, and answers when they are sent, after 5 s at most. Send \
             `next_cursor`, unchanged, for the rest; what fails again after the first call is not sent again. What may be \
             sent back twice is said at the call for one letter.",
        )
        .body("RedriveInput", REDRIVE, json!({ "topic": "orders.commands", "reason": "stage", "limit": 100 }))
        .answer(
            Answer::json::<Redriven<'_>>(200, "What was sent back")
                .example(json!({ "redriven": 100, "refused": [], "next_cursor": null })),
        )
        .problem(Code::InvalidParameters)
        .problem(Code::DiskFull)
        .reads()
}

/// `POST /v1/dead-letters/redrive`: those a filter finds.
pub(crate) async fn redrive(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: RedriveInput = shape::read(&body::json(&headers, body).await?, REDRIVE)?;
    let topic = match &input.topic {
        None => None,
        Some(name) => Some(dlq_of(name).ok_or_else(|| {
            let error =
                FieldError::new("topic", "has no dead letters", "send a topic that GET /v1/topics names");
            Problem::invalid_fields(vec![error])
        })?),
    };
    let Run { from, until_ms } = match &input.cursor {
        Some(cursor) => Run::decode(cursor)?,
        None => Run { from: None, until_ms: ingest.clock.now_ms() },
    };
    let rate = input.rate.unwrap_or(RATE);
    let limit = input.limit.unwrap_or(LIMIT).min(rate as usize * CALL_SECONDS_MAX);
    let filter = Filter { topic, reason: input.reason, limit, from, until_ms: Some(until_ms) };
    let (found, next) = find(&ingest, &Sight::of(&ingest, &caller), &filter).await?;
    let _alone = alone(&ingest, &found).await;
    let sent_before = sent_before(&ingest, &found).await?;
    let (mut records, mut places, mut refused) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
    for found in &found {
        let TopicPartition { topic, partition } = found.at;
        match again(&*ingest.log, found, &sent_before) {
            Ok(record) => {
                records.push(record);
                places.push(Place { topic, partition, offset: found.record.offset });
            }
            Err(problem) => {
                refused.push(Refused { id: &found.letter.id, place: place_text(found), problem });
            }
        }
    }
    let (redriven, failure) = send(&ingest, records, rate).await;
    let next = match failure {
        Some(error) if redriven == 0 => return Err(error.into()),
        // What is sent is told; the next call goes on with the first that is not, and fails if nothing has changed.
        Some(_) => places.get(redriven).copied(),
        None => next,
    };
    let next_cursor = next.map(|it| Run::encode(it, until_ms));
    Ok(Json(Redriven { redriven, refused, next_cursor }).into_response())
}
