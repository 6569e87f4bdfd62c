//! Events in: as the input brings them, and from the log for endpoints that lag.

use super::entry::{Entry, FeedId};
use super::{Executor, WebhooksError};
use futures::future::BoxFuture;
use std::sync::Arc;
use tillstream_log::headers::CE_TYPE;
use tillstream_log::{LogError, ReadLimit, Record};
use tillstream_schemas::Text;
use tillstream_webhooks::{PublicEvent, Source};

/// One read of the input.
const LIVE: ReadLimit = ReadLimit { records_max: 1_000, bytes_max: 1 << 20 };
/// One read of an endpoint that lags.
const BEHIND: ReadLimit = ReadLimit { records_max: 500, bytes_max: 1 << 20 };
/// Endpoints that read at once.
const READERS_MAX: usize = 4;

/// What an endpoint that lags has read.
pub(super) struct CaughtUp {
    id: FeedId,
    epoch: u64,
    read: Result<(Vec<Record>, u64), LogError>,
}

impl Executor<'_> {
    /// Begins a read of the input if none is under way. Endpoints are looked at once the records are there, so that none
    /// is older than an endpoint it is held against.
    pub(super) fn begin_read(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let (log, input, next) = (&self.session.log, self.input, self.next);
        let endpoints = &self.ports.endpoints;
        let read: BoxFuture<'_, _> = Box::pin(async move {
            log.wait_past(input, next).await?;
            let records = log.read(input, next, LIVE).await?;
            endpoints.caught_up().await?;
            Ok(records)
        });
        self.reading = Some(read);
    }

    /// Offers records of the input to every endpoint that is up to date.
    pub(super) fn take_in(&mut self, records: &[Record]) {
        self.follow_book();
        for record in records {
            self.take_in_one(record);
            self.next = record.offset + 1;
        }
    }

    fn take_in_one(&mut self, record: &Record) {
        let Some(tenant) = tenant_of(record) else { return };
        let first = (tenant.clone(), Text::default());
        let mut read = Reading::new(self.source, record);
        let theirs = self.entries.range_mut(first..).take_while(|(id, _)| id.0 == tenant);
        for (id, entry) in theirs.filter(|(_, entry)| entry.live) {
            if !read.is_wanted(entry) {
                continue;
            }
            entry.feed.skip_to(record.offset);
            match read.offer(entry) {
                Offered::Taken => {}
                Offered::Unreadable => self.ports.webhooks.deliveries.with_label_values(&["lost"]).inc(),
                Offered::Full => entry.live = false,
            }
            self.active.insert(id.clone());
            self.touched.insert(id.clone());
        }
    }

    /// Begins reads for endpoints that lag and have room.
    pub(super) fn begin_catch_up(&mut self) {
        for id in &self.active {
            if self.catching.len() >= READERS_MAX {
                return;
            }
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.live || entry.reading || entry.seeking || !entry.feed.has_room() {
                continue;
            }
            entry.reading = true;
            let (log, input) = (&self.ports.log, self.input);
            let (id, epoch, from) = (id.clone(), entry.feed.epoch(), entry.feed.next());
            self.catching.push(Box::pin(async move {
                let read = log.read_on(input, from, BEHIND).await;
                CaughtUp { id, epoch, read }
            }));
        }
    }

    /// Offers what an endpoint that lagged has read, up to where the input is.
    pub(super) fn caught_up(&mut self, caught_up: CaughtUp) -> Result<(), WebhooksError> {
        let CaughtUp { id, epoch, read } = caught_up;
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(()) };
        if entry.feed.epoch() != epoch {
            return Ok(());
        }
        entry.reading = false;
        let (records, mut read_to) = match read {
            Ok(read) => read,
            Err(LogError::Corrupt { next_offset, .. }) => (Vec::new(), next_offset),
            // What retention took cannot be sent any more.
            Err(LogError::OutOfRange { start, .. }) if start > entry.feed.next() => {
                let lost = start - entry.feed.next();
                tracing::warn!(task = %self.task, endpoint = %id.1, lost, "retention has overtaken an endpoint");
                self.ports.webhooks.deliveries.with_label_values(&["lost"]).inc_by(lost);
                (Vec::new(), start)
            }
            Err(LogError::Unavailable(reason)) => {
                tracing::debug!(task = %self.task, reason, "an endpoint that lags reads again");
                (Vec::new(), entry.feed.next())
            }
            Err(error) => return Err(error.into()),
        };
        for record in records.iter().take_while(|it| it.offset < self.next) {
            if tenant_of(record).as_ref() != Some(&id.0) {
                continue;
            }
            let mut read = Reading::new(self.source, record);
            if !read.is_wanted(entry) {
                continue;
            }
            match read.offer(entry) {
                Offered::Taken => {}
                Offered::Unreadable => self.ports.webhooks.deliveries.with_label_values(&["lost"]).inc(),
                Offered::Full => {
                    read_to = record.offset;
                    break;
                }
            }
        }
        entry.feed.skip_to(read_to.min(self.next));
        entry.live = entry.feed.next() >= self.next;
        self.touched.insert(id);
        Ok(())
    }

    /// A stored batch of the input cannot be read: nothing of it can be sent.
    pub(super) fn skip_corrupt(&mut self, error: LogError) -> Result<(), WebhooksError> {
        let LogError::Corrupt { offset, next_offset, .. } = error else {
            return Err(error.into());
        };
        tracing::error!(task = %self.task, offset, next_offset, %error, "events that cannot be read are not sent");
        let next = next_offset.max(self.next + 1);
        self.ports.webhooks.deliveries.with_label_values(&["lost"]).inc_by(next - self.next);
        self.next = next;
        Ok(())
    }
}

/// The tenant of an event's key, `tenant/…`.
fn tenant_of(record: &Record) -> Option<Text> {
    let key = std::str::from_utf8(&record.key).ok()?;
    key.split_once('/').map(|(tenant, _)| tenant.into())
}

/// What became of an offer.
enum Offered {
    Taken,
    Full,
    Unreadable,
}

/// A record, decoded once for all endpoints that want it.
struct Reading<'r> {
    source: Source,
    record: &'r Record,
    kind: Option<Text>,
    event: Option<Option<Arc<PublicEvent>>>,
}

impl<'r> Reading<'r> {
    fn new(source: Source, record: &'r Record) -> Self {
        let header = record.headers.iter().find(|it| it.name == CE_TYPE);
        let kind = header.and_then(|it| std::str::from_utf8(&it.value).ok()).map(Text::from);
        Self { source, record, kind, event: None }
    }

    /// The type is in the headers; where it is not, the event tells.
    fn is_wanted(&mut self, entry: &Entry) -> bool {
        if self.record.timestamp_ms < entry.from_ms {
            return false;
        }
        if self.kind.is_none() {
            self.kind = self.event().map(|it| it.kind.clone());
        }
        self.kind.as_ref().is_none_or(|it| entry.endpoint.filter.matches(it))
    }

    fn event(&mut self) -> Option<Arc<PublicEvent>> {
        let (source, record) = (self.source, self.record);
        let read = || match PublicEvent::read(source, &record.value) {
            Ok(event) => Some(Arc::new(event)),
            Err(error) => {
                tracing::error!(offset = record.offset, %error, "an event cannot be read and is not sent");
                None
            }
        };
        self.event.get_or_insert_with(read).clone()
    }

    fn offer(&mut self, entry: &mut Entry) -> Offered {
        let Some(event) = self.event() else { return Offered::Unreadable };
        let offset = self.record.offset;
        if offset < entry.feed.next() {
            return Offered::Taken;
        }
        if !entry.feed.offer(offset, Some(&event.subject)) {
            return Offered::Full;
        }
        entry.events.insert(offset, event);
        Offered::Taken
    }
}
