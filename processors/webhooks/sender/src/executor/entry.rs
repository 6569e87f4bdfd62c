//! One endpoint in one partition, as the executor holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::{WebhookDeliveryState, WebhookFeedState};
use tillstream_stage::RowKey;
use tillstream_webhooks::rows::{last_success, signed};
use tillstream_webhooks::{Endpoint, Feed, PublicEvent};

/// A tenant and one of its endpoints.
pub(super) type FeedId = (Text, Text);

/// One endpoint in one partition.
pub(super) struct Entry {
    pub endpoint: Arc<Endpoint>,
    pub feed: Feed,
    /// Whether it takes events as the input brings them; else it reads the log from its own position.
    pub live: bool,
    /// A read of its own is under way.
    pub reading: bool,
    /// A search for where a replay begins is under way.
    pub seeking: bool,
    /// Events appended before are not sent, ms since the epoch.
    pub from_ms: i64,
    /// The endpoint's last request that was taken on.
    pub request: i64,
    pub row_key: RowKey,
    /// The row as the last commit left it.
    pub row: Option<WebhookFeedState>,
    /// Events that wait for their first attempt, so that they need not be read again.
    pub events: BTreeMap<u64, Arc<PublicEvent>>,
    /// Rows of events that are tried again, so that an attempt adds to what is not committed yet.
    pub rows: BTreeMap<u64, WebhookDeliveryState>,
    /// The next look whether it has failed for too long, ms since the epoch.
    pub next_judgement_ms: i64,
}

impl Entry {
    /// Where a new life goes on; `None`: where the input is.
    fn position(&self, next: u64) -> Option<u64> {
        let position = match self.live && self.feed.is_settled() {
            true => next,
            false => self.feed.position(),
        };
        (position < next).then_some(position)
    }

    /// Its row as the next commit must leave it, when the input stands at `next`.
    pub fn desired_row(&self, next: u64) -> Option<WebhookFeedState> {
        let row = WebhookFeedState {
            next_offset: self.position(next).map(signed),
            from_ms: self.from_ms,
            failing_since_ms: self.feed.health().failing_since_ms,
            last_success_ms: last_success(&self.feed),
            request: self.request,
            active_since_ms: self.endpoint.active_since_ms,
        };
        let plain =
            row.next_offset.is_none() && row.failing_since_ms.is_none() && row.last_success_ms.is_none();
        // What was asked for is remembered, so that it is not done twice.
        (!plain || row.request > 0).then_some(row)
    }

    /// Whether it has nothing to do and waits for nothing.
    pub fn is_idle(&self) -> bool {
        self.live && self.feed.pending() == 0
    }
}
