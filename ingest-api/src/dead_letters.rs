//! `/v1/dead-letters`: what no stage could take; list, show, redrive.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::cursor;
use crate::moment::to_rfc3339;
use crate::params::{Params, Segments};
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{self, Field, Kind, optional};
use crate::topics::{owns, rendered};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tillstream_log::headers::{self, REDRIVE_COUNT, header};
use tillstream_log::{LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::partition::partition_of;

/// The most dead letters one call looks at.
const SCANNED_RECORDS_MAX: usize = 20_000;
const STEP: ReadLimit = ReadLimit { records_max: 200, bytes_max: 4 << 20 };

const REDRIVE: &[Field] = &[
    optional("topic", Kind::Text { min: 1, max: 100 }),
    optional("reason", Kind::Text { min: 1, max: 64 }),
    optional("limit", Kind::Integer { min: 1, max: 1_000 }),
    optional("cursor", Kind::Text { min: 1, max: 200 }),
];

#[derive(Deserialize)]
struct RedriveInput {
    topic: Option<String>,
    reason: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

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
    fn encode(self) -> String {
        cursor::encode('d', &format!("{}/{}/{}", self.topic as u8, self.partition, self.offset))
    }

    fn decode(text: &str) -> Result<Self, Problem> {
        let place = cursor::decode('d', text)?;
        let mut parts = place.split('/');
        let mut next = || parts.next().and_then(|it| it.parse::<u64>().ok());
        match (next(), next(), next()) {
            (Some(topic), Some(partition), Some(offset)) => {
                let topic = u8::try_from(topic).ok().and_then(Topic::from_id).filter(|it| it.is_dlq());
                let partition = u32::try_from(partition).ok();
                topic.zip(partition).map(|(topic, partition)| Self { topic, partition, offset })
            }
            _ => None,
        }
        .ok_or_else(|| {
            Problem::parameter("cursor", "is not a cursor of this list", "send next_cursor, unchanged")
        })
    }
}

struct Filter {
    topic: Option<Topic>,
    reason: Option<String>,
    limit: usize,
    from: Option<Place>,
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
    for topic in topics {
        for partition in 0..ingest.log.partitions(topic) {
            let at = TopicPartition::new(topic, partition);
            let mut offset = ingest.log.start_offset(at)?;
            match filter.from {
                Some(from) if (topic, partition) < (from.topic, from.partition) => continue,
                Some(from) if (topic, partition) == (from.topic, from.partition) => {
                    offset = offset.max(from.offset)
                }
                _ => {}
            }
            loop {
                let records = read(ingest, at, &mut offset).await?;
                if records.is_empty() && offset >= ingest.log.end_offset(at)? {
                    break;
                }
                for record in records {
                    if found.len() == filter.limit || scanned == SCANNED_RECORDS_MAX {
                        return Ok((found, Some(Place { topic, partition, offset: record.offset })));
                    }
                    scanned += 1;
                    offset = record.offset + 1;
                    let Some(Ok(it)) = sight.found(at, record) else { continue };
                    if filter.reason.as_ref().is_none_or(|reason| it.letter.reason == *reason) {
                        found.push(it);
                    }
                }
            }
        }
    }
    Ok((found, None))
}

/// Reads on; a batch that does not match its checksum is passed over.
async fn read(ingest: &Ingest, at: TopicPartition, offset: &mut u64) -> Result<Vec<Record>, Problem> {
    match ingest.log.read(at, *offset, STEP).await {
        Ok(records) => Ok(records),
        Err(LogError::Corrupt { next_offset, .. }) => {
            *offset = next_offset.max(*offset + 1);
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

fn shown(found: &Found) -> Value {
    let letter = &found.letter;
    json!({
        "id": letter.id,
        "topic": found.at.topic.short_name(),
        "partition": found.at.partition,
        "offset": found.record.offset,
        "origin": { "topic": letter.topic, "partition": letter.partition, "offset": letter.offset },
        "key": String::from_utf8_lossy(&letter.key),
        "stage": letter.stage,
        "code": letter.code,
        "reason": letter.reason,
        "message": letter.message,
        "attempts": letter.attempts,
        "version": letter.version,
        "appended_at": to_rfc3339(letter.appended_at_ms),
        "failed_at": to_rfc3339(letter.failed_at_ms),
        "redrive_count": redrive_count(&found.record),
        "unowned": found.unowned,
        "value_bytes": letter.value.len(),
        "links": { "self": path_of(found.at, found.record.offset) },
    })
}

fn path_of(at: TopicPartition, offset: u64) -> String {
    format!("/v1/dead-letters/{}/{}/{offset}", at.topic.short_name(), at.partition)
}

fn redrive_count(record: &Record) -> u32 {
    headers::find(&record.headers, REDRIVE_COUNT).and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// `GET /v1/dead-letters`, oldest first within a partition.
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::of(&uri, &["topic", "reason", "cursor", "limit"])?;
    let topic = params.text("topic");
    let reason = params.text("reason");
    let limit = params.limit(50, 500);
    let cursor = params.text("cursor");
    params.finish()?;
    let topic = topic.map(|it| dlq_of(&it).ok_or_else(|| no_such_topic(&it))).transpose()?;
    let from = cursor.map(|it| Place::decode(&it)).transpose()?;
    let (found, next) =
        find(&ingest, &Sight::of(&ingest, &caller), &Filter { topic, reason, limit, from }).await?;
    let data: Vec<Value> = found.iter().map(shown).collect();
    Ok(Json(json!({ "data": data, "next_cursor": next.map(Place::encode) })))
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
    if !(ingest.log.start_offset(at)?..ingest.log.end_offset(at)?).contains(&offset) {
        return Err(missing());
    }
    let records = ingest.log.read(at, offset, ReadLimit { records_max: 1, bytes_max: 1 }).await?;
    let record = records.into_iter().next().filter(|it| it.offset == offset).ok_or_else(missing)?;
    Ok(sight.found(at, record).ok_or_else(missing)??)
}

/// `GET /v1/dead-letters/{topic}/{partition}/{offset}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(place): Segments<(String, String, String)>,
) -> Result<Json<Value>, Problem> {
    let found = one(&ingest, &Sight::of(&ingest, &caller), &place).await?;
    let mut body = shown(&found);
    body["value"] = rendered(&found.letter.value);
    Ok(Json(body))
}

/// Back to where it came from, once more counted.
fn again(ingest: &Ingest, found: &Found) -> Result<NewRecord, Problem> {
    let source = Topic::parse(&found.letter.topic).filter(|it| it.dlq() == Some(found.at.topic));
    let Some(source) = source else {
        let detail = format!("its source topic {:?} is not one this version reads", found.letter.topic);
        return Err(Problem::new(Code::NotRedrivable, detail));
    };
    if found.letter.value.is_empty() {
        let detail = "it holds no record: a timer, or a stored batch that cannot be read";
        return Err(Problem::new(Code::NotRedrivable, detail));
    }
    let mut headers = found.record.headers.clone();
    headers.retain(|it| it.name == headers::TRACEPARENT.as_bytes());
    headers.push(header(REDRIVE_COUNT, (redrive_count(&found.record) + 1).to_string()));
    Ok(NewRecord {
        to: TopicPartition::new(source, partition_of(&found.letter.key, ingest.log.partitions(source))),
        key: found.letter.key.clone().into(),
        value: found.letter.value.clone().into(),
        headers,
    })
}

/// `POST /v1/dead-letters/{topic}/{partition}/{offset}/redrive`
pub(crate) async fn redrive_one(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(place): Segments<(String, String, String)>,
) -> Result<Json<Value>, Problem> {
    let found = one(&ingest, &Sight::of(&ingest, &caller), &place).await?;
    let record = again(&ingest, &found)?;
    ingest.log.append(vec![record]).await?;
    Ok(Json(json!({ "redriven": 1, "id": found.letter.id, "to": found.letter.topic })))
}

/// `POST /v1/dead-letters/redrive`: those a filter finds.
pub(crate) async fn redrive(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let input: RedriveInput = shape::read(&body::json(&headers, body).await?, REDRIVE)?;
    let topic = match &input.topic {
        None => None,
        Some(name) => Some(dlq_of(name).ok_or_else(|| {
            let error =
                FieldError::new("topic", "has no dead letters", "send a topic that GET /v1/topics names");
            Problem::invalid_fields(vec![error])
        })?),
    };
    let from = input.cursor.map(|it| Place::decode(&it)).transpose()?;
    let filter = Filter { topic, reason: input.reason, limit: input.limit.unwrap_or(100), from };
    let (found, next) = find(&ingest, &Sight::of(&ingest, &caller), &filter).await?;
    let (mut records, mut refused) = (Vec::with_capacity(found.len()), Vec::new());
    for found in &found {
        match again(&ingest, found) {
            Ok(record) => records.push(record),
            Err(problem) => refused.push(json!({ "id": found.letter.id, "problem": problem })),
        }
    }
    let redriven = records.len();
    if redriven > 0 {
        ingest.log.append(records).await?;
    }
    Ok(Json(json!({ "redriven": redriven, "refused": refused, "next_cursor": next.map(Place::encode) })))
}
