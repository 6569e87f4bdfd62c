//! One commit: the input offset, rows of feeds, lanes and deliveries, and the timers of lanes, in one step.

use super::Executor;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::webhook::{WebhookDeliveryStatus, WebhookFeedState};
use tillstream_stage::{Key, RowKey, TimerName};
use tillstream_state::{TaskCommit, Timer};
use tillstream_webhooks::rows::{lane_key, lane_row};
use tillstream_webhooks::{LaneChange, Source};

/// Delivery rows of one commit, at most: a database takes them in small bites.
const DELIVERIES_MAX: usize = 2_000;

/// What is left of feeds that are no more.
#[derive(Default)]
pub(super) struct Leftovers {
    pub rows: BTreeSet<RowKey>,
    /// Rows of their feeds, as they are to be left.
    pub feeds: BTreeMap<RowKey, Option<WebhookFeedState>>,
    pub timers: BTreeSet<Timer>,
}

impl Leftovers {
    /// A lane's row and timer are to go.
    pub fn lane(&mut self, source: Source, timer: &Timer) {
        self.rows.insert(RowKey::new(source.tables().lane, timer.key.clone()));
        self.timers.insert(timer.clone());
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.feeds.is_empty() && self.timers.is_empty()
    }
}

/// The timer of a lane.
pub(super) fn lane_timer(key: &Key, due_ms: i64) -> Timer {
    Timer { due_ms: due_ms.max(0), key: key.clone(), name: TimerName::WebhookAttempt }
}

impl Executor<'_> {
    /// Whether anything changed but the position.
    pub(super) fn has_changes(&self) -> bool {
        !self.touched.is_empty() || !self.deliveries.is_empty() || !self.leftovers.is_empty()
    }

    /// When the next commit may begin, monotonic ns; `None`: there is nothing to commit.
    pub(super) fn commit_due_ns(&self, draining: bool) -> Option<u64> {
        let wait = match (self.has_changes(), self.next > self.committed) {
            (false, false) => return None,
            _ if draining => return Some(0),
            (true, _) => self.settings.commit_interval,
            (false, true) => self.settings.position_interval,
        };
        let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Some(self.commit_ns.saturating_add(wait_ns))
    }

    /// Begins a commit if it is time and none is under way.
    pub(super) fn begin_commit(&mut self, draining: bool) {
        let now_ns = self.ports.clock.monotonic_ns();
        if self.committing.is_some() || self.commit_due_ns(draining).is_none_or(|it| it > now_ns) {
            return;
        }
        let mut commit = TaskCommit {
            task: self.task,
            from_offset: self.committed,
            next_offset: self.next,
            outputs: Vec::new(),
            rows: Vec::new(),
            timers_removed: Vec::new(),
            timers_set: Vec::new(),
        };
        if let Err(error) = self.gather(&mut commit) {
            // The types fit their schemas; a test holds that. A commit without a row would lose it.
            self.committing = Some((
                self.committed,
                Box::pin(std::future::ready(Err(tillstream_log::LogError::Io(format!(
                    "TS0903: a row of deliveries cannot be coded: {error}"
                ))))),
            ));
            return;
        }
        if commit.rows.is_empty()
            && commit.timers_removed.is_empty()
            && commit.timers_set.is_empty()
            && commit.next_offset == commit.from_offset
        {
            return;
        }
        self.commit_ns = now_ns;
        let stage = self.task.kind.as_str();
        self.ports.metrics.batch_records.with_label_values(&[stage]).observe(commit.rows.len() as f64);
        self.committing = Some((commit.next_offset, self.session.commit.commit(commit)));
    }

    fn gather(&mut self, commit: &mut TaskCommit) -> Result<(), CodecError> {
        let leftovers = std::mem::take(&mut self.leftovers);
        let mut rows: BTreeMap<RowKey, Option<Bytes>> =
            leftovers.rows.into_iter().map(|it| (it, None)).collect();
        for (key, row) in leftovers.feeds {
            let value = row.as_ref().map(codec::encode).transpose()?;
            rows.insert(key, value.map(Bytes::from));
        }
        let mut removed = leftovers.timers;
        let mut set = BTreeSet::new();
        for id in std::mem::take(&mut self.touched) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            for LaneChange { subject, was_due_ms, row } in entry.feed.changes() {
                let key = lane_key(&id.0, &subject, &id.1);
                removed.extend(was_due_ms.map(|it| lane_timer(&key, it)));
                set.extend(row.as_ref().map(|it| lane_timer(&key, it.next_attempt_ms)));
                let value = row.map(|it| codec::encode(&lane_row(&it))).transpose()?;
                rows.insert(RowKey::new(self.source.tables().lane, key), value.map(Bytes::from));
            }
            let desired = entry.desired_row(self.next);
            if desired != entry.row {
                let value = desired.as_ref().map(codec::encode).transpose()?;
                rows.insert(entry.row_key.clone(), value.map(Bytes::from));
                entry.row = desired;
            }
        }
        let mut left = DELIVERIES_MAX;
        while left > 0
            && let Some((key, row)) = self.deliveries.pop_first()
        {
            let value = row.as_ref().map(codec::encode).transpose()?;
            rows.insert(key, value.map(Bytes::from));
            left -= 1;
        }
        commit.timers_removed = removed.difference(&set).cloned().collect();
        commit.timers_set = set.into_iter().collect();
        commit.rows = rows.into_iter().collect();
        Ok(())
    }

    /// The commit under way is durable.
    pub(super) fn committed(&mut self) {
        let Some((next_offset, _)) = self.committing.take() else { return };
        self.committed = next_offset;
        let (metrics, clock) = (&self.ports.metrics, &self.ports.clock);
        let took_ns = clock.monotonic_ns().saturating_sub(self.commit_ns);
        let stage = self.task.kind.as_str();
        metrics.commit_seconds.with_label_values(&[stage]).observe(took_ns as f64 / 1e9);
        metrics.batch_seconds.with_label_values(&[stage]).observe(took_ns as f64 / 1e9);
        let now_ms = clock.now_ms();
        self.progress.committed(next_offset, now_ms);
        self.show_queue(now_ms);
    }

    fn show_queue(&self, now_ms: i64) {
        let partition = self.task.partition.to_string();
        let labels = [self.task.kind.as_str(), partition.as_str()];
        let entries = || self.active.iter().filter_map(|it| self.entries.get(it));
        let pending: usize = entries().map(|it| it.feed.pending()).sum();
        let retried = entries().flat_map(|it| it.rows.values());
        let oldest =
            retried.filter(|it| it.status == WebhookDeliveryStatus::Pending).map(|it| it.at_ms).min();
        let age_seconds = oldest.map_or(0, |it| now_ms.saturating_sub(it).max(0) / 1_000);
        let metrics = &self.ports.webhooks;
        metrics.pending.with_label_values(&labels).set(i64::try_from(pending).unwrap_or(i64::MAX));
        metrics.queue_age_seconds.with_label_values(&labels).set(age_seconds);
    }
}
