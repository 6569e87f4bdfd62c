//! The begin of a life: position, feeds and lanes, as they were committed.

use super::entry::{Entry, FeedId};
use super::{Executor, ExecutorPorts, ExecutorSettings, WebhooksError};
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tillstream_log::TopicPartition;
use tillstream_runtime::TaskProgress;
use tillstream_schemas::codec;
use tillstream_schemas::webhook::{WebhookFeedState, WebhookLaneState};
use tillstream_stage::{RowKey, TimerName};
use tillstream_state::{Session, TaskId, Timer};
use tillstream_webhooks::rows::{feed_key, lane_of, parse_lane_key};
use tillstream_webhooks::{Endpoint, Feed, Health, Source};

/// Rows read at once.
const ROWS: usize = 500;
/// Timers lie at most so far ahead, ms.
const TIMERS_MS: i64 = 40 * 24 * 3_600_000;
/// The first look at how old the delivery log is: not while everything starts.
const FIRST_SWEEP_MS: i64 = 60_000;
/// Lanes are bounded per endpoint; this is past what any number of endpoints comes to.
const TIMERS_MAX: usize = 10_000_000;

impl<'a> Executor<'a> {
    pub(super) async fn load(
        task: TaskId,
        source: Source,
        session: &'a Session,
        ports: &'a ExecutorPorts,
        settings: &'a ExecutorSettings,
        progress: &'a TaskProgress,
    ) -> Result<Self, WebhooksError> {
        let input = TopicPartition::new(task.kind.input(), task.partition);
        let committed = session.state.committed(task).await?;
        session.log.refresh(&[input]).await?;
        let (start, end) = (session.log.start_offset(input)?, session.log.end_offset(input)?);
        // Nobody had endpoints before this task ran for the first time: what retention took before is nobody's.
        let next = if committed == 0 { start } else { committed };
        if committed > end || (committed > 0 && committed < start) {
            return Err(WebhooksError::OffsetsLost { task, committed, start, end });
        }
        ports.endpoints.caught_up().await?;
        let mut executor = Self {
            task,
            source,
            input,
            partitions: session.log.partitions(input.topic),
            session,
            ports,
            settings,
            progress,
            entries: BTreeMap::new(),
            active: BTreeSet::new(),
            touched: BTreeSet::new(),
            deliveries: BTreeMap::new(),
            leftovers: super::commit::Leftovers::default(),
            next,
            committed,
            commit_ns: 0,
            committing: None,
            reading: None,
            catching: FuturesUnordered::new(),
            attempts: FuturesUnordered::new(),
            errands: FuturesUnordered::new(),
            book_revision: 0,
            requests: BTreeMap::new(),
            next_sweep_ms: ports.clock.now_ms().saturating_add(FIRST_SWEEP_MS),
            gated_until_ns: None,
        };
        executor.load_feeds().await?;
        executor.load_lanes().await?;
        progress.started(committed);
        tracing::debug!(%task, committed, end, endpoints = executor.entries.len(), "the webhooks executor begins");
        Ok(executor)
    }

    async fn load_feeds(&mut self) -> Result<(), WebhooksError> {
        let book = self.ports.endpoints.book();
        let all: Vec<&Arc<Endpoint>> = book.all().collect();
        for endpoints in all.chunks(ROWS) {
            let keys: Vec<RowKey> = endpoints.iter().map(|it| self.feed_key(it)).collect();
            let rows = self.session.state.get_many(&keys).await?;
            for (endpoint, row) in endpoints.iter().zip(rows) {
                let row = row.map(|it| codec::decode::<WebhookFeedState>(&it)).transpose()?;
                if endpoint.is_on() {
                    let entry = self.entry((*endpoint).clone(), row);
                    self.insert(entry);
                } else {
                    let id = (endpoint.tenant.clone(), endpoint.id.clone());
                    self.requests.insert(id, row.map_or(0, |it| it.request));
                }
            }
        }
        Ok(())
    }

    pub(super) fn feed_key(&self, endpoint: &Endpoint) -> RowKey {
        feed_key(self.source, &endpoint.tenant, &endpoint.id, self.task.partition, self.partitions)
    }

    /// An endpoint's entry, from the row that is kept of it. A row of an earlier life, before it was last switched on, tells
    /// nothing but what was asked for.
    pub(super) fn entry(&self, endpoint: Arc<Endpoint>, row: Option<WebhookFeedState>) -> Entry {
        let same_life = row.as_ref().is_some_and(|it| it.active_since_ms == endpoint.active_since_ms);
        let current = row.as_ref().filter(|_| same_life);
        let health = current.map_or_else(Health::default, |it| Health {
            failing_since_ms: it.failing_since_ms,
            last_success_ms: it.last_success_ms,
        });
        let position = current.and_then(|it| it.next_offset).map(i64::unsigned_abs);
        Entry {
            feed: Feed::new(self.settings.limits, position.unwrap_or(self.next), health),
            live: position.is_none_or(|it| it >= self.next),
            reading: false,
            seeking: false,
            from_ms: current.map_or(endpoint.active_since_ms, |it| it.from_ms),
            request: row.as_ref().map_or(0, |it| it.request),
            row_key: self.feed_key(&endpoint),
            row,
            events: BTreeMap::new(),
            rows: BTreeMap::new(),
            next_judgement_ms: 0,
            endpoint,
        }
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let id: FeedId = (entry.endpoint.tenant.clone(), entry.endpoint.id.clone());
        self.active.insert(id.clone());
        self.touched.insert(id.clone());
        self.entries.insert(id, entry);
    }

    /// Every lane has a timer: that is how it is found.
    async fn load_lanes(&mut self) -> Result<(), WebhooksError> {
        let until_ms = self.ports.clock.now_ms().saturating_add(TIMERS_MS);
        let timers = self.session.state.timers_due(self.task, 0, until_ms, TIMERS_MAX).await?;
        let mut timers: Vec<Timer> =
            timers.into_iter().filter(|it| it.name == TimerName::WebhookAttempt).collect();
        timers.sort();
        for timers in timers.chunks(ROWS) {
            let lane = self.source.tables().lane;
            let keys: Vec<RowKey> = timers.iter().map(|it| RowKey::new(lane, it.key.clone())).collect();
            let rows = self.session.state.get_many(&keys).await?;
            for (timer, row) in timers.iter().zip(rows) {
                let lane = match row {
                    Some(row) => lane_of(&codec::decode::<WebhookLaneState>(&row)?),
                    None => None,
                };
                self.restore(timer, lane);
            }
        }
        Ok(())
    }

    fn restore(&mut self, timer: &Timer, lane: Option<tillstream_webhooks::StoredLane>) {
        let Some((tenant, subject, endpoint)) = parse_lane_key(&timer.key) else { return };
        let id: FeedId = (tenant.into(), endpoint.into());
        // An endpoint that was switched on anew begins without what waited in its life before.
        let same_life = |it: &&mut Entry| {
            it.row.as_ref().is_some_and(|row| row.active_since_ms == it.endpoint.active_since_ms)
        };
        match (self.entries.get_mut(&id).filter(same_life), lane) {
            (Some(entry), Some(lane)) => entry.feed.restore(subject.into(), lane),
            _ => self.leftovers.lane(self.source, timer),
        }
    }
}
