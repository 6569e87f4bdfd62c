//! `/v1/topics`: what topics there are, and their records as JSON.

use crate::Ingest;
use crate::auth::Caller;
use crate::cursor;
use crate::moment::Moment;
use crate::openapi::answer::AnyJson;
use crate::openapi::{Answer, Call, Page};
use crate::params::{self, Params, Query, Segments, Wanted, query, rows, words};
use crate::problem::{Code, Problem};
use crate::shape::{Kind, quoted};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::future::select_all;
use http::Uri;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{LogError, ReadLimit, Record, TopicPartition};
use tillstream_runtime::timeout;
use tillstream_schemas::{Topic, codec};

/// The most records one call looks at per partition.
const SCANNED_RECORDS_MAX: usize = 10_000;
const STEP: ReadLimit = ReadLimit { records_max: 500, bytes_max: 4 << 20 };

/// The longest a call waits for the first record, seconds.
const WAIT_SECONDS_MAX: u64 = 30;
const FROMS: [(&str, bool); 2] = [("beginning", false), ("end", true)];
const FROM: [&str; 2] = words(&FROMS);
const RECORDS: &[Query] = &[
    query("partition", Wanted::Whole { min: 0, max: u32::MAX as u64 }, "Only this partition"),
    query("offset", Wanted::Whole { min: 0, max: u64::MAX }, "From this offset; needs `partition`"),
    query("from", Wanted::Choice(&FROM), "Where to start; left out: beginning"),
    query("wait", Wanted::Whole { min: 0, max: WAIT_SECONDS_MAX }, "Seconds to wait for the first record"),
    params::cursor('t'),
    rows(50, 1_000),
];

/// A topic.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Topic")]
struct TopicShown {
    /// Its short name.
    name: &'static str,
    /// Its name on the broker.
    full_name: &'static str,
    /// Whether only the last record of a key is kept.
    compacted: bool,
    /// Its partitions.
    partitions: Vec<PartitionShown>,
}

/// A partition of a topic.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Partition")]
struct PartitionShown {
    /// Its number.
    partition: u32,
    /// The first offset that is kept.
    start_offset: u64,
    /// The offset that comes next.
    end_offset: u64,
}

/// A record.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Record")]
struct RecordShown {
    /// Its topic.
    topic: &'static str,
    /// Its partition.
    partition: u32,
    /// Its offset.
    offset: u64,
    /// When it was appended.
    timestamp: Moment,
    /// Its key.
    key: String,
    /// Its headers.
    headers: BTreeMap<String, String>,
    /// Its value; where it cannot be decoded, in hex.
    #[schemars(with = "AnyJson")]
    value: Value,
}

/// Whether a log key is the tenant's: `tenant` or `tenant/…`.
pub(crate) fn owns(tenant: &str, key: &[u8]) -> bool {
    key.strip_prefix(tenant.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A record's value as JSON; what cannot be decoded is shown in hex, with the reason.
pub(crate) fn rendered(value: &[u8]) -> Value {
    match codec::to_json(value) {
        Ok(json) => json,
        Err(error) => {
            let hex: String = value.iter().take(4_096).map(|it| format!("{it:02x}")).collect();
            json!({ "error": error.to_string(), "hex": hex, "bytes": value.len() })
        }
    }
}

fn parse(name: &str) -> Result<Topic, Problem> {
    Topic::parse(name).ok_or_else(|| Problem::not_found("topic", name))
}

/// `GET /v1/topics`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/topics", "listTopics", "operations", "List topics, with their partitions and offsets")
        .answer(Answer::json::<Page<TopicShown>>(200, "The topics"))
        .reads()
}

/// `GET /v1/topics`
pub(crate) async fn list(State(ingest): State<Arc<Ingest>>, _caller: Caller) -> Result<Response, Problem> {
    let mut data = Vec::new();
    for topic in Topic::ALL {
        let mut partitions = Vec::new();
        for partition in 0..ingest.log.partitions(topic) {
            let at = TopicPartition::new(topic, partition);
            partitions.push(PartitionShown {
                partition,
                start_offset: ingest.log.start_offset(at)?,
                end_offset: ingest.log.end_offset(at)?,
            });
        }
        data.push(TopicShown {
            name: topic.short_name(),
            full_name: topic.name(),
            compacted: topic.compacted(),
            partitions,
        });
    }
    Ok(Json(Page::whole(data)).into_response())
}

/// What is read of a topic.
struct Tail {
    topic: Topic,
    tenant: String,
    limit: usize,
    /// Partition to the next offset.
    next: BTreeMap<u32, u64>,
}

/// A record that was found.
struct Found {
    partition: u32,
    record: Record,
}

/// `GET /v1/topics/{topic}/records`
pub(crate) fn records_call() -> Call {
    let path = "/v1/topics/{topic}/records";
    Call::get(path, "listRecords", "operations", "Read the tenant's records of a topic as JSON")
        .about("Oldest first. With `wait`, an empty answer waits so many seconds for the first new record.")
        .segment("topic", Kind::Text { min: 1, max: 100 }, "Full or short name", "orders.events")
        .query(RECORDS)
        .answer(Answer::json::<Page<RecordShown>>(200, "Records; there is always a `next_cursor`"))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/topics/{topic}/records`: the tenant's records, oldest first. With `wait`, an empty answer waits so many
/// seconds for the first new record.
pub(crate) async fn records(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(name): Segments<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let topic = parse(&name)?;
    if topic.is_registry() {
        // They hold secrets and hashes of secrets; what they amount to has calls of its own.
        let detail =
            format!("records of {} are not shown: see /v1/keys and its neighbours", topic.short_name());
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let mut params = Params::read(&uri, RECORDS)?;
    let partition = params.number("partition", 0, u64::from(ingest.log.partitions(topic).saturating_sub(1)));
    let offset = params.whole("offset");
    let limit = params.rows();
    let from_end = params.choice("from", &FROMS).unwrap_or(false);
    let cursor = params.text("cursor");
    let wait = Duration::from_secs(params.whole("wait").unwrap_or(0));
    params.finish()?;
    let partition = partition.and_then(|it| u32::try_from(it).ok());
    if offset.is_some() && partition.is_none() {
        return Err(Problem::parameter("offset", "needs its partition", "send partition too"));
    }
    let next = match cursor {
        Some(cursor) => from_cursor(&ingest, topic, &cursor)?,
        None => start(&ingest, topic, partition, offset, from_end)?,
    };
    let mut tail = Tail { topic, tenant: caller.tenant.to_string(), limit, next };
    let deadline = ingest.clock.deadline(wait);
    let mut found = tail.read(&ingest).await?;
    while found.is_empty() && !wait.is_zero() && tail.wait(&ingest, deadline).await? {
        found = tail.read(&ingest).await?;
    }
    let data = found.iter().map(|it| shown(topic, it)).collect();
    let place: Vec<String> =
        tail.next.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    Ok(Json(Page { data, next_cursor: Some(cursor::encode('t', &place.join(","))) }).into_response())
}

fn shown(topic: Topic, found: &Found) -> RecordShown {
    let record = &found.record;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    RecordShown {
        topic: topic.short_name(),
        partition: found.partition,
        offset: record.offset,
        timestamp: Moment(record.timestamp_ms),
        key: text(&record.key),
        headers: record.headers.iter().map(|it| (text(&it.name), text(&it.value))).collect(),
        value: rendered(&record.value),
    }
}

fn start(
    ingest: &Ingest,
    topic: Topic,
    partition: Option<u32>,
    offset: Option<u64>,
    from_end: bool,
) -> Result<BTreeMap<u32, u64>, Problem> {
    let mut next = BTreeMap::new();
    for it in 0..ingest.log.partitions(topic) {
        if partition.is_some_and(|wanted| wanted != it) {
            continue;
        }
        let at = TopicPartition::new(topic, it);
        let (first, end) = (ingest.log.start_offset(at)?, ingest.log.end_offset(at)?);
        let from = match offset {
            Some(offset) if offset > end => {
                let message = format!("{offset} is past the end");
                return Err(Problem::parameter("offset", message, format!("send {first} to {end}")));
            }
            Some(offset) => offset.max(first),
            None if from_end => end,
            None => first,
        };
        next.insert(it, from);
    }
    Ok(next)
}

fn from_cursor(ingest: &Ingest, topic: Topic, cursor: &str) -> Result<BTreeMap<u32, u64>, Problem> {
    let refuse = || {
        let message = format!("{} is not a cursor of this topic", quoted(cursor));
        Problem::parameter("cursor", message, "send next_cursor of the answer before, unchanged")
    };
    let place = cursor::decode('t', cursor)?;
    let mut next = BTreeMap::new();
    for part in place.split(',') {
        let (partition, offset) = part.split_once(':').ok_or_else(refuse)?;
        let partition: u32 = partition.parse().map_err(|_| refuse())?;
        let offset: u64 = offset.parse().map_err(|_| refuse())?;
        if partition >= ingest.log.partitions(topic) {
            return Err(refuse());
        }
        let at = TopicPartition::new(topic, partition);
        if offset > ingest.log.end_offset(at)? {
            return Err(refuse());
        }
        next.insert(partition, offset.max(ingest.log.start_offset(at)?));
    }
    Ok(next)
}

impl Tail {
    /// The oldest records of all partitions from where they stand, at most `limit`, by append time.
    async fn read(&mut self, ingest: &Ingest) -> Result<Vec<Found>, Problem> {
        let mut all = Vec::new();
        for (partition, next) in &mut self.next {
            let at = TopicPartition::new(self.topic, *partition);
            let (mut matched, mut scanned) = (0, 0);
            while matched < self.limit && scanned < SCANNED_RECORDS_MAX {
                let (records, read_to) = match ingest.log.read_on(at, *next, STEP).await {
                    Ok(read) => read,
                    Err(LogError::Corrupt { next_offset, .. }) => {
                        *next = next_offset.max(*next + 1);
                        continue;
                    }
                    // Retention was faster than the reader.
                    Err(LogError::OutOfRange { start, .. }) if start > *next => {
                        *next = start;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                if records.is_empty() {
                    // Past offsets that hold no record; where there is nothing at all, it stays.
                    let stays = read_to == *next;
                    *next = read_to;
                    if stays {
                        break;
                    }
                    continue;
                }
                for record in records {
                    if matched == self.limit {
                        break;
                    }
                    *next = record.offset + 1;
                    scanned += 1;
                    if owns(&self.tenant, &record.key) {
                        matched += 1;
                        all.push(Found { partition: *partition, record });
                    }
                }
            }
        }
        all.sort_by_key(|it| (it.record.timestamp_ms, it.partition, it.record.offset));
        // Those that did not fit are read again next time.
        for left in all.drain(self.limit.min(all.len())..).rev() {
            self.next.insert(left.partition, left.record.offset);
        }
        Ok(all)
    }

    /// Waits for a record past where any partition stands; `false` when the time is over.
    async fn wait(&self, ingest: &Ingest, deadline_ns: u64) -> Result<bool, Problem> {
        let waits: Vec<_> = self
            .next
            .iter()
            .map(|(partition, next)| ingest.log.wait_past(TopicPartition::new(self.topic, *partition), *next))
            .collect();
        if waits.is_empty() {
            return Ok(false);
        }
        match timeout(&*ingest.clock, deadline_ns, select_all(waits)).await {
            Some((result, _, _)) => result.map(|()| true).map_err(Problem::from),
            None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_own_tenants_only() {
        assert!(owns("demo", b"demo"));
        assert!(owns("demo", b"demo/ord_1"));
        assert!(!owns("demo", b"demo2/ord_1"));
        assert!(!owns("demo2", b"demo/ord_1"));
        assert!(!owns("demo", b""));
    }
}
