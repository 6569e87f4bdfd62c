//! `/v1/dead-letters`: what no stage could take; list, show, redrive.

pub(crate) mod redrive;

pub(crate) use redrive::{redrive, redrive_call, redrive_one, redrive_one_call};

use crate::Ingest;
use crate::auth::Caller;
use crate::cursor;
use crate::moment::Moment;
use crate::openapi::answer::AnyJson;
use crate::openapi::{Answer, Call, Page};
use crate::params::{self, Params, Query, Segments, Wanted, query, rows};
use crate::problem::{Code, Problem};
use crate::shape::{self, Kind};
use crate::topics::{owns, rendered};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use tillstream_log::headers::{self, FIRST_ORIGIN, REDRIVE_COUNT, REDRIVEN_FROM};
use tillstream_log::{LogError, ReadLimit, Record, TopicPartition};
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::{Text, Topic};

/// The most dead letters one call looks at.
const SCANNED_RECORDS_MAX: usize = 20_000;
const STEP: ReadLimit = ReadLimit { records_max: 200, bytes_max: 4 << 20 };

const LIST: &[Query] = &[
    query("topic", Wanted::Text, "Only of this topic: a dead-letter topic, or its source"),
    query("reason", Wanted::Text, "Only for this reason"),
    params::cursor('d'),
    rows(50, 500),
];

/// A dead letter where it stands.
struct Found {
    at: TopicPartition,
    record: Record,
    letter: DeadLetter,
    /// Its key names no tenant.
    unowned: bool,
}

/// Which letters a caller may see: its tenant's own, and as the operator also those that are no tenant's.
struct Sight {
    tenant: Text,
    /// Every tenant, where the caller is the operator.
    tenants: Option<BTreeSet<Text>>,
}

impl Sight {
    fn of(ingest: &Ingest, caller: &Caller) -> Self {
        let operator = ingest.operator_tenant.as_ref() == Some(&caller.tenant);
        Self { tenant: caller.tenant.clone(), tenants: operator.then(|| ingest.keys.tenants()) }
    }

    /// The letter, if the caller may see it.
    fn found(&self, at: TopicPartition, record: Record) -> Option<Result<Found, CodecError>> {
        let own = owns(&self.tenant, &record.key);
        let unowned =
            !own && self.tenants.as_ref().is_some_and(|all| !all.iter().any(|it| owns(it, &record.key)));
        (own || unowned)
            .then(|| codec::decode(&record.value).map(|letter| Found { at, record, letter, unowned }))
    }
}

/// A place in the list of all dead letters: topic, partition, offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    topic: Topic,
    partition: u32,
    offset: u64,
}

impl Place {
    fn text(self) -> String {
        format!("{}/{}/{}", self.topic as u8, self.partition, self.offset)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(|it| it.parse::<u64>().ok());
        let (topic, partition, offset) = (parts.next()??, parts.next()??, parts.next()??);
        let topic = u8::try_from(topic).ok().and_then(Topic::from_id).filter(|it| it.is_dlq())?;
        Some(Self { topic, partition: u32::try_from(partition).ok()?, offset })
    }

    fn encode(self) -> String {
        cursor::encode('d', &self.text())
    }

    fn decode(text: &str) -> Result<Self, Problem> {
        Self::parse(&cursor::decode('d', text)?).ok_or_else(no_such_cursor)
    }
}

fn no_such_cursor() -> Problem {
    Problem::parameter("cursor", "is not a cursor of this list", "send next_cursor, unchanged")
}

struct Filter {
    topic: Option<Topic>,
    reason: Option<String>,
    limit: usize,
    from: Option<Place>,
    /// Only letters that were given up no later, ms since the epoch.
    until_ms: Option<i64>,
}

impl Filter {
    fn takes(&self, letter: &DeadLetter) -> bool {
        self.reason.as_ref().is_none_or(|reason| letter.reason == *reason)
            && self.until_ms.is_none_or(|until| letter.failed_at_ms <= until)
    }
}

/// Finds a dead-letter topic by its own name or its source's.
fn dlq_of(name: &str) -> Option<Topic> {
    let topic = Topic::parse(name)?;
    if topic.is_dlq() { Some(topic) } else { topic.dlq() }
}

fn no_such_topic(name: &str) -> Problem {
    let names: Vec<&str> = Topic::ALL.into_iter().filter(|it| it.is_dlq()).map(Topic::short_name).collect();
    let message = format!("{} has no dead letters", shape::quoted(name));
    Problem::parameter("topic", message, format!("send one of: {}", names.join(", ")))
}

/// The caller's dead letters from a place on, and where to go on.
async fn find(
    ingest: &Ingest,
    sight: &Sight,
    filter: &Filter,
) -> Result<(Vec<Found>, Option<Place>), Problem> {
    let mut found = Vec::new();
    let mut scanned = 0;
    let topics =
        Topic::ALL.into_iter().filter(|it| it.is_dlq() && filter.topic.is_none_or(|wanted| *it == wanted));
    let all: Vec<TopicPartition> = topics
        .flat_map(|topic| (0..ingest.log.partitions(topic)).map(move |it| TopicPartition::new(topic, it)))
        .filter(|at| filter.from.is_none_or(|from| (at.topic, at.partition) >= (from.topic, from.partition)))
        .collect();
    ingest.log.refresh(&all).await?;
    for at in all {
        let TopicPartition { topic, partition } = at;
        let (mut offset, end) = (ingest.log.start_offset(at)?, ingest.log.end_offset(at)?);
        if let Some(from) = filter.from.filter(|it| (topic, partition) == (it.topic, it.partition)) {
            offset = offset.max(from.offset);
        }
        // Not past where the letters end now: they may come faster than they are read.
        while offset < end {
            let (records, next_offset) = read(ingest, at, offset).await?;
            for record in records {
                if found.len() == filter.limit || scanned == SCANNED_RECORDS_MAX {
                    return Ok((found, Some(Place { topic, partition, offset: record.offset })));
                }
                scanned += 1;
                let Some(Ok(it)) = sight.found(at, record) else { continue };
                if filter.takes(&it.letter) {
                    found.push(it);
                }
            }
            if next_offset == offset {
                break;
            }
            offset = next_offset;
        }
    }
    Ok((found, None))
}

/// Some records, and where to go on; a batch that does not match its checksum is passed over.
async fn read(ingest: &Ingest, at: TopicPartition, offset: u64) -> Result<(Vec<Record>, u64), Problem> {
    match ingest.log.read_on(at, offset, STEP).await {
        Ok(read) => Ok(read),
        Err(LogError::Corrupt { next_offset, .. }) => Ok((Vec::new(), next_offset.max(offset + 1))),
        Err(error) => Err(error.into()),
    }
}

/// A record that no stage could take.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
struct Shown<'a> {
    /// Its id, derived from where the record stood.
    id: &'a str,
    /// The dead-letter topic.
    topic: &'static str,
    /// Its partition.
    partition: u32,
    /// Its offset.
    offset: u64,
    /// Where the record stood.
    origin: Origin<'a>,
    /// The record's key.
    key: String,
    /// The stage that could not take it.
    stage: &'a str,
    /// A stable code.
    code: &'a str,
    /// `decode`, `stage`, `panic`, `partition`, `overflow` or `corrupt`.
    reason: &'a str,
    /// A sentence.
    message: &'a str,
    /// How often it was tried.
    attempts: i32,
    /// The version that gave it up.
    version: &'a str,
    /// When the record was appended.
    appended_at: Moment,
    /// When it was given up.
    failed_at: Moment,
    /// How often it was sent back.
    redrive_count: u32,
    /// The dead letter it was last sent back from: topic/partition/offset.
    redriven_from: Option<&'a str>,
    /// Where a redriven record first stood: topic/partition/offset.
    first_origin: Option<&'a str>,
    /// Its key names no tenant that has an API key; only the deployment's own tenant sees such letters.
    unowned: bool,
    /// Size of the record's value.
    value_bytes: usize,
    /// Where the letter is.
    links: Links,
    /// The record's value; where it cannot be decoded, in hex. Only in the answer for one letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AnyJson>")]
    value: Option<Value>,
}

/// Where a record stood.
#[derive(Serialize, JsonSchema)]
struct Origin<'a> {
    /// Its topic.
    topic: &'a str,
    /// Its partition.
    partition: i32,
    /// Its offset.
    offset: i64,
}

/// Where a dead letter is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetterLinks")]
struct Links {
    /// The letter.
    #[serde(rename = "self")]
    this: String,
}

fn shown(found: &Found) -> Shown<'_> {
    let letter = &found.letter;
    Shown {
        id: &letter.id,
        topic: found.at.topic.short_name(),
        partition: found.at.partition,
        offset: found.record.offset,
        origin: Origin { topic: &letter.topic, partition: letter.partition, offset: letter.offset },
        key: String::from_utf8_lossy(&letter.key).into_owned(),
        stage: &letter.stage,
        code: &letter.code,
        reason: &letter.reason,
        message: &letter.message,
        attempts: letter.attempts,
        version: &letter.version,
        appended_at: Moment(letter.appended_at_ms),
        failed_at: Moment(letter.failed_at_ms),
        redrive_count: redrive_count(&found.record),
        redriven_from: headers::find(&found.record.headers, REDRIVEN_FROM),
        first_origin: headers::find(&found.record.headers, FIRST_ORIGIN),
        unowned: found.unowned,
        value_bytes: letter.value.len(),
        links: Links { this: path_of(found.at, found.record.offset) },
        value: None,
    }
}

/// The path parameters that say where a letter is.
fn placed(call: Call) -> Call {
    let about = "A dead-letter topic, or its source";
    call.segment("topic", Kind::Text { min: 1, max: 100 }, about, "orders.commands")
        .number_segment("partition", "Its partition")
        .number_segment("offset", "Its offset")
}

fn path_of(at: TopicPartition, offset: u64) -> String {
    format!("/v1/dead-letters/{}/{}/{offset}", at.topic.short_name(), at.partition)
}

fn redrive_count(record: &Record) -> u32 {
    headers::find(&record.headers, REDRIVE_COUNT).and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// `GET /v1/dead-letters`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/dead-letters", "listDeadLetters", "operations", "List dead letters")
        .about(
            "Oldest first within a partition. A tenant sees its own. Letters whose record key names no tenant that has an \
             API key (garbage, a stored batch that cannot be read) are the operator's: only the deployment's own tenant \
             (demo) sees them, marked unowned, and may redrive them.",
        )
        .query(LIST)
        .answer(Answer::json::<Page<Shown<'_>>>(200, "A page"))
        .reads()
}

/// `GET /v1/dead-letters`, oldest first within a partition.
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, LIST)?;
    let topic = params.text("topic");
    let reason = params.text("reason");
    let limit = params.rows();
    let cursor = params.text("cursor");
    params.finish()?;
    let topic = topic.map(|it| dlq_of(&it).ok_or_else(|| no_such_topic(&it))).transpose()?;
    let from = cursor.map(|it| Place::decode(&it)).transpose()?;
    let (found, next) =
        find(&ingest, &Sight::of(&ingest, &caller), &Filter { topic, reason, limit, from, until_ms: None })
            .await?;
    let data = found.iter().map(shown).collect();
    Ok(Json(Page { data, next_cursor: next.map(Place::encode) }).into_response())
}

/// The caller's dead letter at a place.
async fn one(ingest: &Ingest, sight: &Sight, place: &(String, String, String)) -> Result<Found, Problem> {
    let (topic, partition, offset) = place;
    let missing = || Problem::not_found("dead letter", &format!("{topic}/{partition}/{offset}"));
    let topic = dlq_of(topic).ok_or_else(|| no_such_topic(topic))?;
    let partition: u32 = partition.parse().map_err(|_| missing())?;
    let offset: u64 = offset.parse().map_err(|_| missing())?;
    if partition >= ingest.log.partitions(topic) {
        return Err(missing());
    }
    let at = TopicPartition::new(topic, partition);
    ingest.log.refresh(&[at]).await?;
    let (start, end) = (ingest.log.start_offset(at)?, ingest.log.end_offset(at)?);
    if start == end {
        return Err(missing());
    }
    // An offset that holds nothing costs a read too: else it could be told from one that holds another tenant's letter.
    let from = offset.clamp(start, end - 1);
    let records = ingest.log.read(at, from, ReadLimit { records_max: 1, bytes_max: 1 }).await?;
    let record = records.into_iter().next().filter(|it| it.offset == offset).ok_or_else(missing)?;
    Ok(sight.found(at, record).ok_or_else(missing)??)
}

/// `GET /v1/dead-letters/{topic}/{partition}/{offset}`
pub(crate) fn get_call() -> Call {
    let path = "/v1/dead-letters/{topic}/{partition}/{offset}";
    placed(Call::get(path, "getDeadLetter", "operations", "Show a dead letter"))
        .answer(Answer::json::<Shown<'_>>(200, "The dead letter, with the record's value"))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/dead-letters/{topic}/{partition}/{offset}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(place): Segments<(String, String, String)>,
) -> Result<Response, Problem> {
    let found = one(&ingest, &Sight::of(&ingest, &caller), &place).await?;
    let letter = Shown { value: Some(rendered(&found.letter.value)), ..shown(&found) };
    Ok(Json(letter).into_response())
}
