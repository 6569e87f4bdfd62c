//! One order's history, then what happens to it, without a gap or a repeat.
//!
//! Every event of an order raises its version by one, so a version is a place. History comes from the order's row; what
//! is live only says that there is more, or is the next version itself. Whatever does not follow on is read from the row
//! again: an event that was missed, a subscription that was too slow, a row that follows its events on a cluster.

use super::message::{Message, of_event};
use super::{HEARTBEAT, Source};
use crate::Ingest;
use crate::orders::view;
use crate::ports::OrderEvents;
use crate::problem::Problem;
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tillstream_runtime::timeout;
use tillstream_schemas::Text;
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload};
use tillstream_schemas::order_state::OrderState;
use tillstream_stage::{Table, ids};

/// Messages handed on at a time.
const BATCH: usize = 100;
/// How soon a row is looked at again when it lacks an event that was heard of.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How soon it is looked at after the stream has begun; each look waits twice as long, up to a heartbeat.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// A stream of one order.
pub(crate) struct OrderSource {
    ingest: Arc<Ingest>,
    tenant: Text,
    order_id: Text,
    feed: Box<dyn OrderEvents>,
    /// The last version that was handed on.
    said: i64,
    /// A version that was heard of.
    heard: i64,
    /// Whether the row is to be read before anything is waited for.
    look: bool,
    look_wait: Duration,
    look_ns: u64,
}

impl OrderSource {
    /// Events after version `after`. Subscribe first: `feed` must be older than the row this reads.
    pub(crate) fn new(
        ingest: &Arc<Ingest>,
        tenant: &Text,
        order_id: &str,
        after: i64,
        feed: Box<dyn OrderEvents>,
    ) -> Self {
        Self {
            ingest: ingest.clone(),
            tenant: tenant.clone(),
            order_id: order_id.into(),
            feed,
            said: after,
            heard: after,
            look: true,
            look_wait: FIRST_LOOK,
            look_ns: ingest.clock.deadline(FIRST_LOOK),
        }
    }

    /// What the row has after what was said.
    async fn look(&mut self) -> Result<Vec<Message>, Problem> {
        let key = ids::key(&self.tenant, &self.order_id);
        let row: Option<OrderState> = self.ingest.row(Table::Order, key).await?;
        let Some(row) = row else { return Ok(Vec::new()) };
        Ok(after(&row, &mut self.said))
    }

    /// The live event, if it is what comes next.
    fn take(&mut self, event: &OrderEvent) -> Option<Message> {
        // A command that was not taken is told with the version it met, and is no part of the order's history then:
        // the row knows.
        let told_by_row = matches!(
            event.payload,
            OrderEventPayload::CommandConflicted(_) | OrderEventPayload::CommandRefused(_)
        );
        if event.version == self.said + 1 && !told_by_row {
            self.said = event.version;
            let kind = Text::const_new(event.payload.kind());
            return Some(Message { place: self.said.to_string(), kind, data: of_event(event) });
        }
        self.heard = self.heard.max(event.version);
        None
    }

    async fn advance(&mut self) -> Result<Vec<Message>, Problem> {
        loop {
            if self.look || self.heard > self.said {
                let messages = self.look().await?;
                self.look = false;
                if !messages.is_empty() {
                    // There may be more than one batch.
                    self.look = true;
                    return Ok(messages);
                }
                if self.heard > self.said {
                    self.ingest.clock.sleep(LOOK_AGAIN).await;
                    continue;
                }
            }
            let wait_ns = if self.ingest.rows_follow_the_log { self.look_ns } else { u64::MAX };
            match timeout(&*self.ingest.clock, wait_ns, self.feed.next()).await {
                Some(Some(event)) => {
                    if let Some(message) = self.take(&event) {
                        return Ok(vec![message]);
                    }
                }
                Some(None) => self.subscribe_again().await,
                None => {
                    self.look = true;
                    self.look_wait = (self.look_wait * 2).min(HEARTBEAT);
                    self.look_ns = self.ingest.clock.deadline(self.look_wait);
                }
            }
        }
    }

    /// The feed ended: this reader was too slow, or nothing is followed any more.
    async fn subscribe_again(&mut self) {
        self.look = true;
        let key = ids::key(&self.tenant, &self.order_id);
        self.feed = self.ingest.order_events.subscribe(&key);
        self.ingest.clock.sleep(LOOK_AGAIN).await;
    }
}

impl Source for OrderSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Message>, Problem>> {
        Box::pin(self.advance())
    }

    fn place(&mut self) -> String {
        self.said.to_string()
    }
}

/// The messages of a row after version `said`, a batch of them at most, and where that leads.
fn after(row: &OrderState, said: &mut i64) -> Vec<Message> {
    let mut messages = Vec::new();
    for entry in row.view.timeline.iter().filter(|it| it.version > *said).take(BATCH) {
        let first = messages.is_empty();
        if first && entry.version > *said + 1 {
            let data = json!({ "order_id": row.order_id, "from_version": *said + 1, "to_version": entry.version - 1 });
            messages.push(Message::gap((entry.version - 1).to_string(), data));
        } else if !first && entry.version > last_version(&messages) + 1 {
            // The rest comes with the next batch, behind a gap of its own.
            break;
        }
        messages.push(Message {
            place: entry.version.to_string(),
            kind: entry.kind.clone(),
            data: view::event(&row.order_id, entry, row.view.rules_of(entry)),
        });
    }
    if !messages.is_empty() {
        *said = last_version(&messages);
    }
    messages
}

fn last_version(messages: &[Message]) -> i64 {
    messages.last().and_then(|it| it.place.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_schemas::order_state::TimelineEntry;

    fn row(versions: &[i64]) -> OrderState {
        let entry = |version: &i64| TimelineEntry {
            event_id: format!("evt_{version}").into(),
            kind: "order.returned".into(),
            at_ms: 0,
            version: *version,
            status: Default::default(),
            amount_minor: None,
            detail: None,
            rules: Vec::new(),
        };
        let mut row = OrderState::default();
        row.view.timeline = versions.iter().map(entry).collect();
        row
    }

    fn places(row: &OrderState, mut said: i64) -> Vec<(String, Text)> {
        let mut all = Vec::new();
        loop {
            let messages = after(row, &mut said);
            if messages.is_empty() {
                return all;
            }
            all.extend(messages.into_iter().map(|it| (it.place, it.kind)));
        }
    }

    #[test]
    fn history_goes_on_after_any_version_and_a_forgotten_part_is_said() {
        let long: Vec<i64> = (1..=250).collect();
        assert_eq!(places(&row(&long), 0).len(), 250);
        assert_eq!(places(&row(&long), 248).len(), 2);
        assert_eq!(places(&row(&long), 250), []);
        let event = |version: &str| (version.to_owned(), Text::from("order.returned"));
        let gap = ("5".to_owned(), Text::from(super::super::message::GAP));
        assert_eq!(places(&row(&[1, 6, 7]), 0), [event("1"), gap.clone(), event("6"), event("7")]);
        assert_eq!(places(&row(&[1, 6, 7]), 3), [gap, event("6"), event("7")]);
        assert_eq!(places(&row(&[1, 6, 7]), 6), [event("7")]);
    }
}
