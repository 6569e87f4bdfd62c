//! Commands, with the parts that a test does not care about filled in.

use super::{TENANT, World};
use tillstream_schemas::Text;
use tillstream_schemas::item::{AdjustStock, ItemCommandPayload};
use tillstream_schemas::order_command::{
    CaptureMode, OrderCommand, OrderCommandPayload, OrderLine, PaymentInstruction, PlaceOrder,
};

/// A client's command.
pub fn command(
    now_ms: i64,
    id: &str,
    order_id: &str,
    body: &str,
    payload: impl Into<OrderCommandPayload>,
) -> OrderCommand {
    OrderCommand {
        id: id.into(),
        tenant: TENANT.into(),
        order_id: order_id.into(),
        accepted_at_ms: now_ms,
        traceparent: None,
        fingerprint: body.into(),
        payload: payload.into(),
    }
}

/// A line at the order's own price; without one, at the catalog's.
pub fn line(sku: &str, quantity: i64, unit_price_minor: Option<i64>) -> OrderLine {
    OrderLine { sku: sku.into(), quantity, unit_price_minor, discount_minor: 0 }
}

/// An order for lines.
pub fn place(placed_at_ms: i64, method: &str, capture: CaptureMode, lines: Vec<OrderLine>) -> PlaceOrder {
    PlaceOrder {
        customer: Some("c-1".into()),
        currency: "GBP".into(),
        country: "GB".into(),
        placed_at_ms,
        lines,
        discounts: Vec::new(),
        shipping: None,
        payment: PaymentInstruction { method: method.into(), capture },
        metadata: Default::default(),
        ship_to: None,
        note: None,
    }
}

impl World {
    /// Receives (or loses) stock.
    pub fn adjust(&mut self, id: &str, sku: &str, location: &str, delta: i64) {
        let adjust = AdjustStock {
            delta,
            reason: "received".into(),
            location: location.into(),
            fingerprint: Text::from(format!("{delta}@{location}")),
        };
        self.send_item(id, sku, ItemCommandPayload::AdjustStock(adjust));
    }
}
