//! One message of a stream, in the words of both transports.

use crate::orders::view;
use serde_json::{Value, json};
use std::io::Write;
use tillstream_schemas::Text;
use tillstream_schemas::order_event::{OrderEvent, RuleRef};
use tillstream_schemas::order_state::OrderStatus;

/// The kind of a message that tells of events that are not kept any more.
pub(crate) const GAP: &str = "stream.gap";

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// Where to resume after it.
    pub place: String,
    /// The event's type, or one of the stream's own.
    pub kind: Text,
    /// The event.
    pub data: Value,
}

impl Message {
    /// As a block of an event stream.
    pub(crate) fn write_sse(&self, out: &mut Vec<u8>) {
        // JSON has no raw line breaks, and neither have kinds and places: each is one line.
        let _ = write!(out, "id: {}\nevent: {}\ndata: {}\n\n", self.place, self.kind, self.data);
    }

    /// As a text message of a WebSocket.
    pub(crate) fn to_json(&self) -> String {
        json!({ "place": self.place, "type": self.kind, "data": self.data }).to_string()
    }

    /// Events were here that are not kept any more.
    pub(crate) fn gap(place: String, data: Value) -> Self {
        Self { place, kind: Text::const_new(GAP), data }
    }
}

/// An event of the log, in the shape it has in its order's history.
pub(crate) fn of_event(event: &OrderEvent) -> Value {
    // A refusal about an order that does not exist has no status; what nothing is known of is pending.
    let status = OrderStatus::parse(&event.status).unwrap_or_default();
    let entry = tillstream_order_view::entry(&event.payload, &event.id, event.at_ms, event.version, status);
    let rules: Vec<_> =
        tillstream_order_view::rule_of(&event.payload).into_iter().flat_map(RuleRef::steps).collect();
    view::event(&event.order_id, &entry, rules.iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_block_or_one_text() {
        let data = json!({ "detail": "two\nlines" });
        let message = Message { place: "7".into(), kind: "order.priced".into(), data };
        let mut out = Vec::new();
        message.write_sse(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "id: 7\nevent: order.priced\ndata: {\"detail\":\"two\\nlines\"}\n\n");
        let json: Value = serde_json::from_str(&message.to_json()).unwrap();
        assert_eq!((&json["place"], &json["type"]), (&json!("7"), &json!("order.priced")));
    }
}
