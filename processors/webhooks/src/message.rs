//! What is sent: an event in its public form, under an id that is the same for every attempt.

use crate::filter::PING_KIND;
use serde_json::{Map, Value, json};
use tillstream_order_view::{amount_of, detail_of};
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::item::{ItemEvent, ItemEventPayload};
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::derived_id;
use tillstream_stage::task::TaskKind;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// `orders.events`
    Orders,
    /// `items.events`
    Items,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Orders, Self::Items];

    /// The topic.
    pub fn topic(self) -> Topic {
        match self {
            Self::Orders => Topic::OrderEvents,
            Self::Items => Topic::ItemEvents,
        }
    }

    /// The task that reads it.
    pub fn task(self) -> TaskKind {
        match self {
            Self::Orders => TaskKind::OrderWebhooks,
            Self::Items => TaskKind::ItemWebhooks,
        }
    }

    /// The source that a task reads.
    pub fn of(kind: TaskKind) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.task() == kind)
    }

    fn letter(self) -> char {
        match self {
            Self::Orders => 'o',
            Self::Items => 'i',
        }
    }
}

/// A message's id: where its event stands in the log, and a hash of event and endpoint. The same event for the same
/// endpoint has the same id in every attempt, redelivery and replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// Where the event comes from.
    pub source: Source,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    hash: Text,
}

impl MessageId {
    /// The id of an event for an endpoint.
    pub fn new(source: Source, partition: u32, offset: u64, endpoint: &str, event_id: &str) -> Self {
        Self { source, partition, offset, hash: derived_id("", &[endpoint, event_id]) }
    }

    /// Reads `msg_…`; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("msg_")?;
        let source = Source::ALL.into_iter().find(|it| rest.starts_with(it.letter()))?;
        let mut parts = rest[1..].splitn(3, '_');
        let partition = u32::from_str_radix(parts.next()?, 16).ok()?;
        let offset = u64::from_str_radix(parts.next()?, 16).ok()?;
        let hash = parts.next()?;
        let id = Self { source, partition, offset, hash: hash.into() };
        (id.to_text() == text).then_some(id)
    }

    /// As `webhook-id` has it: `msg_…`.
    pub fn to_text(&self) -> Text {
        let Self { source, partition, offset, hash } = self;
        format!("msg_{}{partition:x}_{offset:x}_{hash}", source.letter()).into()
    }
}

/// An event as the world may see it: the form that `GET /v1/orders/{id}/events` answers, with what it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicEvent {
    /// The event's id.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The order or SKU.
    pub subject: Text,
    /// The event's type.
    pub kind: Text,
    /// When it happened, ms since the epoch.
    pub at_ms: i64,
    data: Map<String, Value>,
}

impl PublicEvent {
    /// Reads a record of the source's topic.
    ///
    /// # Errors
    /// As [`codec::decode`].
    pub fn read(source: Source, value: &[u8]) -> Result<Self, CodecError> {
        Ok(match source {
            Source::Orders => of_order(&codec::decode(value)?),
            Source::Items => of_item(&codec::decode(value)?),
        })
    }

    /// The body of its message.
    pub fn payload(&self) -> Vec<u8> {
        payload(&self.kind, self.at_ms, &self.data)
    }
}

/// The body of a message that only tests an endpoint.
pub fn ping_payload(endpoint: &str, at_ms: i64) -> Vec<u8> {
    let data = Map::from_iter([("endpoint".to_owned(), json!(endpoint))]);
    payload(PING_KIND, at_ms, &data)
}

fn payload(kind: &str, at_ms: i64, data: &Map<String, Value>) -> Vec<u8> {
    json!({ "type": kind, "timestamp": to_rfc3339(at_ms), "data": data }).to_string().into_bytes()
}

fn of_order(event: &OrderEvent) -> PublicEvent {
    let kind = event.payload.kind();
    let data = json!({
        "id": event.id,
        "type": kind,
        "at": to_rfc3339(event.at_ms),
        "version": event.version,
        "status": event.status,
        "amount": amount_of(&event.payload),
        "detail": detail_of(&event.payload),
        "order_id": event.order_id,
    });
    PublicEvent {
        id: event.id.clone(),
        tenant: event.tenant.clone(),
        subject: event.order_id.clone(),
        kind: Text::const_new(kind),
        at_ms: event.at_ms,
        data: object(data),
    }
}

fn of_item(event: &ItemEvent) -> PublicEvent {
    let kind = event.payload.kind();
    let facts = match &event.payload {
        ItemEventPayload::StockLevelChanged(it) => {
            json!({ "available": it.available, "on_hand": it.on_hand, "reserved": it.reserved, "version": it.version })
        }
        ItemEventPayload::LowStock(it) => {
            json!({ "available": it.available, "low_stock_threshold": it.threshold })
        }
        ItemEventPayload::StockAdjusted(it) => json!({
            "delta": it.delta, "reason": it.reason, "location": it.location, "on_hand": it.on_hand,
        }),
        ItemEventPayload::AdjustmentRefused(it) => json!({ "code": it.code, "message": it.message }),
    };
    let mut data = object(json!({
        "id": event.id, "type": kind, "at": to_rfc3339(event.at_ms), "sku": event.sku,
    }));
    data.extend(object(facts));
    PublicEvent {
        id: event.id.clone(),
        tenant: event.tenant.clone(),
        subject: event.sku.clone(),
        kind: Text::const_new(kind),
        at_ms: event.at_ms,
        data,
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Writes a time as the API does.
pub fn to_rfc3339(at_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000)
        .ok()
        .and_then(|it| it.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
