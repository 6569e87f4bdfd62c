//! All of a tenant's events: from the log up to where the live feed begins, then live, without a gap or a repeat.
//!
//! Order holds within each order (its events stand in one partition), not between orders. When the feed is lost because
//! the reader was slow, the log is read again from where the reader stands.

use super::message::{Message, of_event};
use super::{Source, place};
use crate::Ingest;
use crate::ports::{PlacedEvent, TenantEvents};
use crate::problem::{Code, Problem};
use crate::topics::owns;
use futures::future::BoxFuture;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{LogError, ReadLimit, Record, TopicPartition};
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::{Text, Topic, codec};

const STEP: ReadLimit = ReadLimit { records_max: 200, bytes_max: 256 << 10 };
/// Records that one page looks at.
const PAGE_SCANNED_MAX: usize = 20_000;
/// How soon the log is asked again when it does not give what it said it has.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// Where a stream begins.
pub(crate) enum Start {
    /// Where the log begins.
    Beginning,
    /// With what happens from now on.
    End,
    /// Where another one left off.
    After(String),
}

/// A stream of a tenant.
pub(crate) struct TenantSource {
    ingest: Arc<Ingest>,
    tenant: Text,
    /// Kinds of events that are wanted; all when empty.
    kinds: Vec<&'static str>,
    /// Per partition, the next offset.
    next: Vec<u64>,
    /// Per partition, up to where the log is read; what is past it comes live.
    goal: Vec<u64>,
    live: Option<Box<dyn TenantEvents>>,
    /// Taken out of the feed, not handed on.
    held: VecDeque<PlacedEvent>,
    /// The partition that is read next, so that all of them get on.
    turn: usize,
    scanned: usize,
}

impl TenantSource {
    /// A stream from `start` on, of these kinds (of all, when there are none).
    ///
    /// # Errors
    /// 400 for a place that no such stream gave out; the log's.
    pub(crate) async fn new(
        ingest: &Arc<Ingest>,
        tenant: &Text,
        kinds: Vec<&'static str>,
        start: Start,
    ) -> Result<Self, Problem> {
        let partitions: Vec<TopicPartition> = (0..ingest.log.partitions(Topic::OrderEvents))
            .map(|it| TopicPartition::new(Topic::OrderEvents, it))
            .collect();
        ingest.log.refresh(&partitions).await?;
        let ends: Result<Vec<u64>, LogError> =
            partitions.iter().map(|it| ingest.log.end_offset(*it)).collect();
        let ends = ends?;
        let next = match start {
            Start::End => ends.clone(),
            Start::Beginning => {
                let starts: Result<Vec<u64>, LogError> =
                    partitions.iter().map(|it| ingest.log.start_offset(*it)).collect();
                starts?
            }
            Start::After(place) => {
                let next = place::decode(&place, partitions.len())?;
                if next.iter().zip(&ends).any(|(next, end)| next > end) {
                    return Err(place::refused());
                }
                next
            }
        };
        Ok(Self {
            ingest: ingest.clone(),
            tenant: tenant.clone(),
            kinds,
            next,
            goal: ends,
            live: None,
            held: VecDeque::new(),
            turn: 0,
            scanned: 0,
        })
    }

    /// What is in the log by now, at most `limit` messages, and where to go on.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn page(mut self, limit: usize) -> Result<(Vec<Message>, String), Problem> {
        let mut all = Vec::new();
        while all.len() < limit && self.scanned < PAGE_SCANNED_MAX {
            let Some(partition) = self.behind() else { break };
            all.extend(self.read(partition).await?);
        }
        if all.len() > limit {
            all.truncate(limit);
            let place = all.last().map(|it: &Message| it.place.clone()).unwrap_or_default();
            return Ok((all, place));
        }
        let place = place::encode(&self.next);
        Ok((all, place))
    }

    /// The next partition that has not been read up to its goal.
    fn behind(&mut self) -> Option<usize> {
        let count = self.next.len();
        let found = (0..count)
            .map(|step| (self.turn + step) % count)
            .find(|partition| self.next[*partition] < self.goal[*partition])?;
        self.turn = found + 1;
        Some(found)
    }

    /// Reads on in one partition, up to its goal.
    async fn read(&mut self, partition: usize) -> Result<Vec<Message>, Problem> {
        let at = TopicPartition::new(Topic::OrderEvents, partition as u32);
        let from = self.next[partition];
        let (records, read_to) = match self.ingest.log.read_on(at, from, STEP).await {
            Ok(read) => read,
            Err(LogError::Corrupt { next_offset, .. }) => return Ok(self.skip(partition, next_offset)),
            // Retention was faster than the reader.
            Err(LogError::OutOfRange { start, .. }) if start > from => return Ok(self.skip(partition, start)),
            Err(error) => return Err(error.into()),
        };
        if records.is_empty() && read_to <= from {
            self.ingest.clock.sleep(READ_AGAIN).await;
            return Ok(Vec::new());
        }
        let goal = self.goal[partition];
        let mut messages = Vec::new();
        self.scanned += records.len();
        for record in records.iter().take_while(|it| it.offset < goal) {
            self.next[partition] = record.offset + 1;
            // By its key, before anything is decoded.
            if owns(&self.tenant, &record.key)
                && let Some(event) = decoded(at, record)
            {
                messages.extend(self.message(&event));
            }
        }
        self.next[partition] = self.next[partition].max(read_to.min(goal));
        Ok(messages)
    }

    /// Goes on past offsets that cannot be read any more, and says so.
    fn skip(&mut self, partition: usize, to: u64) -> Vec<Message> {
        let from = std::mem::replace(&mut self.next[partition], to);
        self.next[partition] = to.max(from + 1);
        self.goal[partition] = self.goal[partition].max(self.next[partition]);
        let data =
            json!({ "partition": partition, "from_offset": from, "to_offset": self.next[partition] - 1 });
        vec![Message::gap(place::encode(&self.next), data)]
    }

    fn message(&self, event: &OrderEvent) -> Option<Message> {
        let kind = event.payload.kind();
        let wanted = self.kinds.is_empty() || self.kinds.contains(&kind);
        wanted.then(|| Message {
            place: place::encode(&self.next),
            kind: Text::const_new(kind),
            data: of_event(event),
        })
    }

    /// A live event, unless it was read from the log already.
    fn take(&mut self, it: &PlacedEvent) -> Option<Message> {
        let next = self.next.get_mut(it.partition as usize)?;
        if it.offset < *next {
            return None;
        }
        *next = it.offset + 1;
        self.message(&it.event)
    }

    async fn advance(&mut self) -> Result<Vec<Message>, Problem> {
        loop {
            if self.live.is_none() {
                self.follow()?;
            }
            if let Some(partition) = self.behind() {
                let messages = self.read(partition).await?;
                if !messages.is_empty() {
                    return Ok(messages);
                }
                continue;
            }
            let event = match self.held.pop_front() {
                Some(event) => Some(event),
                None => match &mut self.live {
                    Some(live) => live.next().await,
                    None => None,
                },
            };
            match event {
                Some(event) => {
                    if let Some(message) = self.take(&event) {
                        return Ok(vec![message]);
                    }
                }
                None => self.live = None,
            }
        }
    }

    /// Begins (again) to follow what is live; up to there the log is read.
    fn follow(&mut self) -> Result<(), Problem> {
        let live = self.ingest.order_events.subscribe_tenant(&self.tenant).ok_or_else(|| {
            Problem::new(Code::Stopped, "events are not followed any more; resume on another server")
                .retry_after(2)
        })?;
        for (goal, from) in self.goal.iter_mut().zip(live.from_offsets()) {
            *goal = from;
        }
        self.held.clear();
        self.live = Some(live);
        Ok(())
    }
}

fn decoded(at: TopicPartition, record: &Record) -> Option<OrderEvent> {
    codec::decode(&record.value)
        .inspect_err(|error| tracing::warn!(partition = %at, offset = record.offset, %error, "no such event"))
        .ok()
}

impl Source for TenantSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Message>, Problem>> {
        Box::pin(self.advance())
    }

    /// Past what other tenants wrote meanwhile: a client that resumes here need not have it read again.
    fn place(&mut self) -> String {
        if let Some(live) = &mut self.live {
            let positions = live.positions();
            self.held.extend(std::iter::from_fn(|| live.try_next()));
            if self.held.is_empty() {
                for (partition, position) in positions.into_iter().enumerate() {
                    if self.next[partition] >= self.goal[partition] {
                        self.next[partition] = self.next[partition].max(position);
                    }
                }
            }
        }
        place::encode(&self.next)
    }
}
