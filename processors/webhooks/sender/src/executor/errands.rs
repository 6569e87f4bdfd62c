//! What takes a while and must not hold the executor up: where a replay begins, whether an endpoint is to be switched off,
//! and what the delivery log may forget.

use super::Executor;
use super::attempts::{Facts, given_up};
use super::entry::FeedId;
use crate::endpoints::Disablement;
use std::sync::Arc;
use tillstream_log::{Log, LogError, ReadLimit, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_schemas::codec;
use tillstream_schemas::webhook::{WebhookDeliveryState, WebhookFeedState};
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::State;
use tillstream_state::layout::shard_of;
use tillstream_webhooks::message::to_rfc3339;
use tillstream_webhooks::rows::{endpoint_prefix, moment_of};
use tillstream_webhooks::{Endpoint, Source};

/// Rows of one page.
const PAGE: usize = 500;
/// Rows that one sweep forgets, at most; the next comes soon then.
const SWEPT_MAX: usize = 5_000;
/// The next sweep, where one did not get to the end, ms.
const SWEEP_AGAIN_MS: i64 = 10_000;
/// Between two judgements of an endpoint that fails, ms.
const JUDGEMENT_MS: i64 = 60_000;

/// An errand that is done.
pub(super) enum Errand {
    /// A replay begins at `offset`.
    Sought { id: FeedId, request: i64, from_ms: i64, offset: u64 },
    /// These rows may go; whether more may.
    Swept { keys: Vec<RowKey>, more: bool },
    /// These were given up.
    GaveUp(Vec<(RowKey, WebhookDeliveryState)>),
    /// It did all there is to do; the endpoint was switched off for this reason.
    Disabled(Option<&'static str>),
}

impl Executor<'_> {
    pub(super) fn errand_done(&mut self, errand: Errand) {
        match errand {
            Errand::Sought { id, request, from_ms, offset } => self.sought(&id, request, from_ms, offset),
            Errand::Swept { keys, more } => {
                self.deliveries.extend(keys.into_iter().map(|it| (it, None)));
                if more {
                    self.next_sweep_ms = self.ports.clock.now_ms().saturating_add(SWEEP_AGAIN_MS);
                }
            }
            Errand::GaveUp(rows) => {
                for (key, row) in rows {
                    self.deliveries.entry(key).or_insert(Some(row));
                }
            }
            Errand::Disabled(code) => {
                if let Some(code) = code {
                    self.ports.webhooks.disablements.with_label_values(&[code]).inc();
                }
            }
        }
    }

    /// Looks for where a replay begins.
    pub(super) fn seek(&mut self, id: FeedId, request: i64, from_ms: i64) {
        let (log, input, end) = (&self.ports.log, self.input, self.next);
        self.errands.push(Box::pin(async move {
            let offset = offset_of(&**log, input, from_ms, end).await?;
            Ok(Errand::Sought { id, request, from_ms, offset })
        }));
    }

    /// Switches an endpoint off.
    pub(super) fn disable(&mut self, disablement: Disablement) {
        let endpoints = &self.ports.endpoints;
        tracing::warn!(
            endpoint = %disablement.endpoint, tenant = %disablement.tenant, code = disablement.code,
            "a webhook endpoint is switched off"
        );
        self.errands.push(Box::pin(async move {
            let code = disablement.code;
            match endpoints.disable(disablement).await {
                // It fails on, and is judged again.
                Err(LogError::Unavailable(_)) => Ok(Errand::Disabled(None)),
                other => other.map(|()| Errand::Disabled(Some(code))),
            }
        }));
    }

    /// Switches an endpoint off if it has only failed for too long, wherever its events come from.
    pub(super) fn judge(&mut self, id: &FeedId, now_ms: i64) {
        let after_ms = i64::try_from(self.settings.disable_after.as_millis()).unwrap_or(i64::MAX);
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(since_ms) = entry.feed.health().failing_since_ms else { return };
        if now_ms.saturating_sub(since_ms) < after_ms || now_ms < entry.next_judgement_ms {
            return;
        }
        entry.next_judgement_ms = now_ms.saturating_add(JUDGEMENT_MS.min(after_ms));
        let endpoint = entry.endpoint.clone();
        let (state, ports) = (&self.session.state, self.ports);
        self.errands.push(Box::pin(async move {
            match succeeded_since(&**state, &endpoint, now_ms - after_ms).await {
                Ok(false) => {}
                Ok(true) | Err(LogError::Unavailable(_)) => return Ok(Errand::Disabled(None)),
                Err(error) => return Err(error),
            }
            let message = format!(
                "Every attempt has failed since {}, so nothing more is sent. Switch the endpoint on again with \
                 replay_from to get what it has missed.",
                to_rfc3339(since_ms)
            );
            let disablement = Disablement {
                tenant: endpoint.tenant.clone(),
                endpoint: endpoint.id.clone(),
                active_since_ms: endpoint.active_since_ms,
                code: "failing",
                message,
            };
            tracing::warn!(endpoint = %endpoint.id, tenant = %endpoint.tenant, "a webhook endpoint is switched off");
            match ports.endpoints.disable(disablement).await {
                Err(LogError::Unavailable(_)) => Ok(Errand::Disabled(None)),
                other => other.map(|()| Errand::Disabled(Some("failing"))),
            }
        }));
    }

    /// Notes in the delivery log that these events were given up because the endpoint is off.
    pub(super) fn give_up(&mut self, endpoint: Arc<Endpoint>, offsets: Vec<u64>) {
        if offsets.is_empty() {
            return;
        }
        let (source, input, session, ports) = (self.source, self.input, self.session, self.ports);
        self.errands.push(Box::pin(async move {
            let facts = Facts { source, input, log: &*ports.log, state: &*session.state };
            let mut rows = Vec::new();
            for offset in offsets {
                // The log of deliveries is told as well as can be: an event that is gone has no row to tell.
                let Ok(Some(event)) = facts.event(offset).await else { continue };
                let Ok((_, key, row)) = facts.row(&endpoint, offset, &event, None).await else { continue };
                rows.push((key, given_up(row, "disabled", ports.clock.now_ms())));
            }
            Ok(Errand::GaveUp(rows))
        }));
    }

    /// Forgets every delivery of an endpoint that was deleted.
    pub(super) fn forget(&mut self, endpoint: &Endpoint) {
        let sweep = Sweep {
            table: self.source.tables().delivery,
            prefixes: vec![endpoint_prefix(&endpoint.tenant, &endpoint.id)],
            after: None,
            partition: self.task.partition,
            partitions: self.partitions,
        };
        let state = &self.session.state;
        self.errands.push(Box::pin(async move { sweep.run(&**state).await }));
    }

    /// Once in a while, forgets what the delivery log need not remember any longer.
    pub(super) fn begin_sweep(&mut self) {
        let now_ms = self.ports.clock.now_ms();
        if now_ms < self.next_sweep_ms || self.entries.is_empty() {
            return;
        }
        let interval_ms = i64::try_from(self.settings.sweep_interval.as_millis()).unwrap_or(i64::MAX);
        self.next_sweep_ms = now_ms.saturating_add(interval_ms);
        let kept_ms = i64::try_from(self.settings.log_kept.as_millis()).unwrap_or(i64::MAX);
        let sweep = Sweep {
            table: self.source.tables().delivery,
            prefixes: self.entries.keys().map(|id| endpoint_prefix(&id.0, &id.1)).collect(),
            after: Some(moment_of(now_ms.saturating_sub(kept_ms))),
            partition: self.task.partition,
            partitions: self.partitions,
        };
        let (state, task, clock) = (&self.session.state, self.task, &self.ports.clock);
        self.errands.push(Box::pin(async move {
            // Lets the store know that no timer before now is left.
            let now_ms = Clock::now_ms(&**clock);
            state.timers_due(task, now_ms, now_ms, 1).await?;
            sweep.run(&**state).await
        }));
    }
}

/// Whether any of the endpoint's feeds, of orders or items, has succeeded since then.
async fn succeeded_since(state: &dyn State, endpoint: &Endpoint, since_ms: i64) -> Result<bool, LogError> {
    let prefix = endpoint_prefix(&endpoint.tenant, &endpoint.id);
    for source in Source::ALL {
        let mut after: Option<Key> = None;
        loop {
            let page = state.scan(source.tables().feed, &prefix, after.as_deref(), PAGE).await?;
            for (key, row) in page.rows {
                let row = codec::decode::<WebhookFeedState>(&row).unwrap_or_default();
                let same_life = row.active_since_ms == endpoint.active_since_ms;
                if same_life && row.last_success_ms.is_some_and(|it| it > since_ms) {
                    return Ok(true);
                }
                after = Some(key);
            }
            if !page.more {
                break;
            }
        }
    }
    Ok(false)
}

/// The first offset whose event was appended at or after `from_ms`, or one before it: append times never fall.
async fn offset_of(log: &dyn Log, input: TopicPartition, from_ms: i64, end: u64) -> Result<u64, LogError> {
    let limit = ReadLimit { records_max: 1, bytes_max: 1 };
    log.refresh(&[input]).await?;
    let (mut low, mut high) = (log.start_offset(input)?, end);
    while low < high {
        let middle = low + (high - low) / 2;
        match log.read_on(input, middle, limit).await {
            Ok((records, _)) => match records.first() {
                Some(record) if record.timestamp_ms < from_ms => low = record.offset + 1,
                _ => high = middle,
            },
            Err(LogError::OutOfRange { start, .. }) if start > middle => low = start,
            Err(LogError::Corrupt { .. }) => high = middle,
            Err(error) => return Err(error),
        }
    }
    Ok(low.min(end))
}

/// What a sweep goes over.
struct Sweep {
    table: Table,
    prefixes: Vec<Key>,
    /// The moment from which on rows are old; `None`: all are.
    after: Option<String>,
    partition: u32,
    partitions: u32,
}

impl Sweep {
    /// The old rows of this partition.
    async fn run(self, state: &dyn State) -> Result<Errand, LogError> {
        let mut keys = Vec::new();
        for prefix in &self.prefixes {
            let mut after = self.after.as_ref().map(|it| Key::from(format!("{prefix}{it}")));
            loop {
                let page = match state.scan(self.table, prefix, after.as_deref(), PAGE).await {
                    Err(LogError::Unavailable(_)) => return Ok(Errand::Swept { keys, more: true }),
                    page => page?,
                };
                after = page.rows.last().map(|it| it.0.clone());
                let found = page.rows.into_iter().map(|it| RowKey::new(self.table, it.0));
                keys.extend(found.filter(|it| shard_of(it, self.partitions) == self.partition));
                if keys.len() >= SWEPT_MAX {
                    return Ok(Errand::Swept { keys, more: true });
                }
                if !page.more || after.is_none() {
                    break;
                }
            }
        }
        Ok(Errand::Swept { keys, more: false })
    }
}
