//! Attempts out, and what became of them.

use super::Executor;
use super::entry::FeedId;
use crate::endpoints::Disablement;
use crate::gate::Permit;
use crate::transport::{Post, Reply};
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{Log, LogError, ReadLimit, TopicPartition};
use tillstream_schemas::Text;
use tillstream_schemas::codec;
use tillstream_schemas::webhook::{WebhookDeliveryState, WebhookDeliveryStatus};
use tillstream_stage::RowKey;
use tillstream_state::State;
use tillstream_webhooks::rows::{delivery_key, new_delivery, note_attempt};
use tillstream_webhooks::{Endpoint, MessageId, Outcome, PublicEvent, Send, Source, Verdict};

/// Before an attempt that could not even begin is begun again.
const PATIENCE: Duration = Duration::from_secs(1);
/// While a gate is shut, it is looked at again after so long, ns.
const GATE_NS: u64 = 20_000_000;

/// An attempt that is over.
pub(super) struct Finished {
    id: FeedId,
    send: Send,
    made: Made,
    /// Held until now.
    _permit: Permit,
}

enum Made {
    /// It was made.
    Attempt(Box<Attempted>),
    /// There is nothing to send: the event is gone, or cannot be read.
    Lost,
    /// It could not be made: the log or the database does not answer.
    NotMade(LogError),
}

struct Attempted {
    message_id: Text,
    key: RowKey,
    row: WebhookDeliveryState,
    reply: Reply,
    took_ns: u64,
}

/// What an event's row and message are made from.
pub(super) struct Facts<'a> {
    pub source: Source,
    pub input: TopicPartition,
    pub log: &'a dyn Log,
    pub state: &'a dyn State,
}

impl Facts<'_> {
    /// Reads an event again; `None`: it is gone, or cannot be read.
    pub async fn event(&self, offset: u64) -> Result<Option<Arc<PublicEvent>>, LogError> {
        let limit = ReadLimit { records_max: 1, bytes_max: 1 };
        let records = match self.log.read(self.input, offset, limit).await {
            Ok(records) => records,
            Err(LogError::OutOfRange { .. } | LogError::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = records.first().filter(|it| it.offset == offset);
        Ok(found.and_then(|it| PublicEvent::read(self.source, &it.value).ok()).map(Arc::new))
    }

    /// The event's id and row for an endpoint; a new row where there is none.
    pub async fn row(
        &self,
        endpoint: &Endpoint,
        offset: u64,
        event: &PublicEvent,
        known: Option<WebhookDeliveryState>,
    ) -> Result<(Text, RowKey, WebhookDeliveryState), LogError> {
        let id = MessageId::new(self.source, self.input.partition, offset, &endpoint.id, &event.id).to_text();
        let (tenant, subject) = (&endpoint.tenant, &event.subject);
        let key = delivery_key(self.source, tenant, &endpoint.id, event.at_ms, &id, subject);
        let row = match known {
            Some(row) => row,
            None => {
                let stored =
                    self.state.get_many(std::slice::from_ref(&key)).await?.into_iter().next().flatten();
                // A row that cannot be read begins anew: the delivery matters more than its log.
                let stored = stored.and_then(|it| codec::decode::<WebhookDeliveryState>(&it).ok());
                stored.unwrap_or_else(|| new_delivery(&id, &event.id, &event.kind, subject, event.at_ms))
            }
        };
        Ok((id, key, row))
    }
}

impl Executor<'_> {
    /// Begins every attempt that may be made now.
    pub(super) fn dispatch(&mut self) {
        let (now_ms, now_ns) = (self.ports.clock.now_ms(), self.ports.clock.monotonic_ns());
        self.gated_until_ns = None;
        let ids: Vec<FeedId> = self.active.iter().cloned().collect();
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else {
                self.active.remove(&id);
                continue;
            };
            while self.attempts.len() < self.settings.in_flight_max
                && let Some(send) = entry.feed.take(now_ms)
            {
                match self.ports.gates.enter(&entry.endpoint, now_ns) {
                    Ok(permit) => {
                        let event = entry.events.get(&send.item.offset).cloned();
                        let row = entry.rows.get(&send.item.offset).cloned();
                        let endpoint = entry.endpoint.clone();
                        let (session, ports) = (self.session, self.ports);
                        let (source, input) = (self.source, self.input);
                        let (id, made) = (id.clone(), send.clone());
                        self.attempts.push(Box::pin(async move {
                            let facts = Facts { source, input, log: &*ports.log, state: &*session.state };
                            let made_of = make(&facts, ports, &endpoint, made.item.offset, event, row).await;
                            Finished { id, send: made, made: made_of, _permit: permit }
                        }));
                    }
                    Err(at_ns) => {
                        entry.feed.untake(send);
                        let at_ns = at_ns.unwrap_or(now_ns + GATE_NS);
                        self.gated_until_ns = Some(self.gated_until_ns.map_or(at_ns, |it| it.min(at_ns)));
                        break;
                    }
                }
            }
            if entry.is_idle() && !self.touched.contains(&id) {
                self.active.remove(&id);
            }
        }
        self.ports.webhooks.in_flight.set(self.ports.gates.in_flight());
    }

    /// Takes note of what became of an attempt.
    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished { id, send, made, _permit } = finished;
        self.active.insert(id.clone());
        self.touched.insert(id.clone());
        match made {
            Made::Attempt(attempted) => self.attempted(&id, &send, *attempted),
            Made::Lost => {
                tracing::warn!(task = %self.task, endpoint = %id.1, offset = send.item.offset, "an event to send is gone");
                self.ports.webhooks.deliveries.with_label_values(&["lost"]).inc();
                let now_ms = self.ports.clock.now_ms();
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.feed.answered(&send, Verdict::Lost, "", &self.settings.schedule, now_ms);
                    entry.events.remove(&send.item.offset);
                    if let Some(row) = entry.rows.remove(&send.item.offset) {
                        let key = self.delivery_key(&id, &row);
                        self.deliveries.insert(key, Some(given_up(row, "expired", now_ms)));
                    }
                }
            }
            Made::NotMade(error) => {
                tracing::debug!(task = %self.task, endpoint = %id.1, %error, "an attempt could not begin");
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.feed.untake(send);
                }
            }
        }
    }

    pub(super) fn delivery_key(&self, id: &FeedId, row: &WebhookDeliveryState) -> RowKey {
        delivery_key(self.source, &id.0, &id.1, row.at_ms, &row.message_id, &row.subject)
    }

    fn attempted(&mut self, id: &FeedId, send: &Send, attempted: Attempted) {
        let Attempted { message_id, key, row, reply, took_ns } = attempted;
        self.ports.webhooks.attempt_seconds.observe(took_ns as f64 / 1e9);
        let now_ms = self.ports.clock.now_ms();
        let verdict = reply.verdict();
        let Some(entry) = self.entries.get_mut(id) else {
            // Switched off or deleted meanwhile: what has arrived has arrived.
            if self.ports.endpoints.book().get(&id.0, &id.1).is_some() {
                let row = match verdict {
                    Verdict::Delivered => delivered(row),
                    _ => given_up(row, "disabled", now_ms),
                };
                self.deliveries.insert(key, Some(row));
            }
            return;
        };
        let offset = send.item.offset;
        let outcome = entry.feed.answered(send, verdict, &message_id, &self.settings.schedule, now_ms);
        entry.events.remove(&offset);
        entry.rows.remove(&offset);
        let (label, row) = match outcome {
            Outcome::Delivered => ("delivered", delivered(row)),
            Outcome::Stale if verdict == Verdict::Delivered => ("delivered", delivered(row)),
            Outcome::Retry { at_ms } => {
                let row = WebhookDeliveryState { next_attempt_ms: Some(at_ms), ..pending(row) };
                entry.rows.insert(offset, row.clone());
                ("retried", row)
            }
            Outcome::Stale => ("retried", pending(row)),
            Outcome::Exhausted => ("exhausted", given_up(row, "exhausted", now_ms)),
            Outcome::Lost => ("lost", given_up(row, "expired", now_ms)),
        };
        self.deliveries.insert(key, Some(row));
        self.ports.webhooks.deliveries.with_label_values(&[label]).inc();
        if reply.is_gone() {
            self.end_gone(id);
        } else if verdict != Verdict::Delivered {
            self.judge(id, now_ms);
        }
    }

    /// 410: the receiver wants nothing any more.
    fn end_gone(&mut self, id: &FeedId) {
        let Some(entry) = self.entries.get(id) else { return };
        let disablement = Disablement {
            tenant: id.0.clone(),
            endpoint: id.1.clone(),
            active_since_ms: entry.endpoint.active_since_ms,
            code: "gone",
            message: "The endpoint answered 410 Gone, so nothing more is sent to it.".to_owned(),
        };
        self.disable(disablement);
    }
}

/// Makes an attempt.
async fn make(
    facts: &Facts<'_>,
    ports: &super::ExecutorPorts,
    endpoint: &Endpoint,
    offset: u64,
    event: Option<Arc<PublicEvent>>,
    known: Option<WebhookDeliveryState>,
) -> Made {
    let prepared = async {
        let event = match event {
            Some(event) => event,
            None => match facts.event(offset).await? {
                Some(event) => event,
                None => return Ok(None),
            },
        };
        let (id, key, row) = facts.row(endpoint, offset, &event, known).await?;
        Ok(Some((event, id, key, row)))
    };
    let (event, message_id, key, mut row) = match prepared.await {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Made::Lost,
        Err(error) => {
            ports.clock.sleep(PATIENCE).await;
            return Made::NotMade(error);
        }
    };
    let (at_ms, began_ns) = (ports.clock.now_ms(), ports.clock.monotonic_ns());
    let post = Post::new(endpoint, message_id.clone(), event.payload(), at_ms);
    let reply = ports.transport.post(post).await;
    let took_ns = ports.clock.monotonic_ns().saturating_sub(began_ns);
    let latency_ms = i64::try_from(took_ns / 1_000_000).unwrap_or(i64::MAX);
    note_attempt(&mut row, reply.to_attempt(at_ms, latency_ms));
    Made::Attempt(Box::new(Attempted { message_id, key, row, reply, took_ns }))
}

fn pending(row: WebhookDeliveryState) -> WebhookDeliveryState {
    WebhookDeliveryState {
        status: WebhookDeliveryStatus::Pending,
        reason: None,
        next_attempt_ms: None,
        ..row
    }
}

fn delivered(row: WebhookDeliveryState) -> WebhookDeliveryState {
    WebhookDeliveryState { status: WebhookDeliveryStatus::Delivered, ..pending(row) }
}

/// A row of an event that is sent no more.
pub(super) fn given_up(row: WebhookDeliveryState, reason: &'static str, now_ms: i64) -> WebhookDeliveryState {
    WebhookDeliveryState {
        status: WebhookDeliveryStatus::Failed,
        reason: Some(Text::const_new(reason)),
        next_attempt_ms: None,
        updated_at_ms: now_ms,
        ..row
    }
}
