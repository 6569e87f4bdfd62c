//! Endpoints come, change and go; replays and redeliveries are asked for.

use super::Executor;
use super::attempts::given_up;
use super::commit::lane_timer;
use super::entry::FeedId;
use std::sync::Arc;
use tillstream_schemas::webhook::WebhookFeedState;
use tillstream_stage::RowKey;
use tillstream_webhooks::rows::lane_key;
use tillstream_webhooks::{Endpoint, Source};

impl Executor<'_> {
    /// Makes the entries what the book says, if it has changed.
    pub(super) fn follow_book(&mut self) {
        let book = self.ports.endpoints.book();
        if book.revision() == self.book_revision {
            return;
        }
        self.book_revision = book.revision();
        let gone: Vec<FeedId> = self
            .entries
            .iter()
            .filter(|(id, entry)| {
                let now = book.get(&id.0, &id.1).filter(|it| it.is_on());
                now.is_none_or(|it| it.active_since_ms != entry.endpoint.active_since_ms)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.end(&id, book.get(&id.0, &id.1).is_none());
        }
        for endpoint in book.all().filter(|it| it.is_on()) {
            let id = (endpoint.tenant.clone(), endpoint.id.clone());
            match self.entries.get_mut(&id) {
                Some(entry) => entry.endpoint = endpoint.clone(),
                None => self.begin(&id, endpoint),
            }
            self.take_on_requests(&id);
        }
        if self.source == Source::Orders && self.task.partition == 0 {
            let failed = |it: &&Arc<Endpoint>| {
                it.disabled.as_ref().is_some_and(|why| why.code != tillstream_webhooks::book::REQUESTED)
            };
            let count = book.all().filter(failed).count();
            self.ports.webhooks.disabled_endpoints.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// An endpoint is new or on again: it takes what the input brings from here on.
    fn begin(&mut self, id: &FeedId, endpoint: &Arc<Endpoint>) {
        let request = self.requests.get(id).copied().unwrap_or(0);
        let mut entry = self.entry(endpoint.clone(), None);
        entry.request = request;
        self.insert(entry);
    }

    /// An endpoint is off or gone: nothing of it is sent any more.
    fn end(&mut self, id: &FeedId, deleted: bool) {
        let Some(mut entry) = self.entries.remove(id) else { return };
        self.active.remove(id);
        self.touched.remove(id);
        let now_ms = self.ports.clock.now_ms();
        let dropped = entry.feed.stop();
        for change in entry.feed.changes() {
            let key = lane_key(&id.0, &change.subject, &id.1);
            if let Some(due_ms) = change.was_due_ms {
                self.leftovers.timers.insert(lane_timer(&key, due_ms));
            }
            self.leftovers.rows.insert(RowKey::new(self.source.tables().lane, key));
        }
        self.requests.insert(id.clone(), entry.request);
        let row = (!deleted && entry.request > 0).then(|| WebhookFeedState {
            request: entry.request,
            active_since_ms: entry.endpoint.active_since_ms,
            ..WebhookFeedState::default()
        });
        self.leftovers.feeds.insert(entry.row_key.clone(), row);
        self.ports.webhooks.deliveries.with_label_values(&["disabled"]).inc_by(dropped.len() as u64);
        if deleted {
            self.forget(&entry.endpoint);
            return;
        }
        let mut unknown = Vec::new();
        for (_, item) in dropped {
            match entry.rows.remove(&item.offset) {
                Some(row) => {
                    let key = self.delivery_key(id, &row);
                    self.deliveries.insert(key, Some(given_up(row, "disabled", now_ms)));
                }
                None => unknown.push(item.offset),
            }
        }
        self.give_up(entry.endpoint, unknown);
    }

    /// Takes on what was asked for since: a replay first, then single events.
    pub(super) fn take_on_requests(&mut self, id: &FeedId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.seeking || entry.endpoint.requests <= entry.request {
            return;
        }
        let endpoint = entry.endpoint.clone();
        if let Some(replay) = endpoint.replay.as_ref().filter(|it| it.request > entry.request) {
            entry.seeking = true;
            self.seek(id.clone(), replay.request, replay.from_ms);
            return;
        }
        self.take_on_redeliveries(id, &endpoint);
    }

    fn take_on_redeliveries(&mut self, id: &FeedId, endpoint: &Endpoint) {
        let now_ms = self.ports.clock.now_ms();
        let (items, partition) = (self.source == Source::Items, self.task.partition);
        let Some(entry) = self.entries.get_mut(id) else { return };
        for asked in endpoint.redeliveries.iter().filter(|it| it.request > entry.request) {
            if asked.item == items && asked.partition == partition {
                entry.feed.redeliver(&asked.subject, asked.offset, now_ms);
            }
        }
        entry.request = endpoint.requests;
        self.active.insert(id.clone());
        self.touched.insert(id.clone());
    }

    /// Where a replay begins is known: everything from there on is offered again.
    pub(super) fn sought(&mut self, id: &FeedId, request: i64, from_ms: i64, offset: u64) {
        let next = self.next;
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.seeking = false;
        if entry.live {
            entry.feed.skip_to(next);
        }
        entry.feed.rewind(offset);
        entry.feed.forgive();
        entry.from_ms = entry.from_ms.min(from_ms);
        entry.live = entry.feed.next() >= next;
        entry.reading = false;
        entry.events.retain(|it, _| *it < offset);
        let endpoint = entry.endpoint.clone();
        if endpoint.replay.as_ref().is_some_and(|it| it.request > request) {
            // Another one was asked for meanwhile.
            entry.request = request;
        } else {
            self.take_on_redeliveries(id, &endpoint);
        }
        self.active.insert(id.clone());
        self.touched.insert(id.clone());
        self.take_on_requests(id);
    }
}
