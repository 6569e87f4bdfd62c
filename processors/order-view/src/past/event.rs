//! From a timeline entry back to the event it was made from, as far as the order view reads it.

use tillstream_schemas::Text;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation};
use tillstream_schemas::order_event::{self as events, OrderEventPayload as Event};
use tillstream_schemas::order_state::{OrderState, OrderStatus, PricedOrder, TimelineEntry};

/// The event of an entry; `before` is the status it met. `None` for a kind that this build does not know.
pub(super) fn unfold(row: &OrderState, entry: &TimelineEntry, before: OrderStatus) -> Option<Event> {
    let detail = || entry.detail.clone().unwrap_or_default();
    let amount_minor = entry.amount_minor.unwrap_or_default();
    let payment_id = || row.payment.as_ref().map(|it| it.payment_id.clone()).unwrap_or_default();
    let capture = row.order.as_ref().map_or(CaptureMode::Automatic, |it| it.payment.capture);
    let review = || row.payment.as_ref().and_then(|it| it.review.clone());
    // Only the event that ended the order has a sentence of its own in the row.
    let ends = !crate::is_dead(before) && crate::is_dead(entry.status);
    let message = || if ends { row.view.reason.clone().unwrap_or_default() } else { Text::default() };
    Some(match entry.kind.as_str() {
        "order.priced" => priced(row.order.as_ref()?).into(),
        "order.rejected" => events::OrderRejected {
            code: detail(),
            message: message(),
            skus: Vec::new(),
            placed_at_ms: row.order.as_ref().map_or(0, |it| it.placed_at_ms),
            rule: None,
        }
        .into(),
        "order.reserved" => {
            let expires_at_ms = row.reservation.as_ref().map_or(0, |it| it.expires_at_ms);
            events::OrderReserved { holds: Vec::new(), expires_at_ms, rule: None, review: None }.into()
        }
        "order.cancelled" => events::OrderCancelled { code: detail(), message: message() }.into(),
        "payment.authorized" => events::PaymentAuthorized {
            payment_id: detail(),
            amount_minor,
            capture,
            provider_ref: None,
            rule: None,
            review: review(),
        }
        .into(),
        "payment.action_required" => {
            events::PaymentActionRequired { payment_id: payment_id(), action: detail() }.into()
        }
        "payment.captured" => events::PaymentCaptured {
            payment_id: detail(),
            amount_minor,
            provider_ref: None,
            confirms: before == OrderStatus::Pending && entry.status == OrderStatus::Confirmed,
            rule: None,
        }
        .into(),
        "payment.failed" => events::PaymentFailed {
            payment_id: payment_id(),
            operation: if ends { PaymentOperation::Authorize } else { PaymentOperation::Capture },
            code: detail(),
            message: message(),
            rule: None,
        }
        .into(),
        _ => return later(entry, detail(), amount_minor),
    })
}

/// What happens once an order is paid, or never was to be.
fn later(entry: &TimelineEntry, detail: Text, amount_minor: i64) -> Option<Event> {
    Some(match entry.kind.as_str() {
        "payment.cancelled" => events::PaymentCancelled { payment_id: detail, amount_minor }.into(),
        "payment.refund_requested" => {
            events::RefundRequested { refund_id: detail, amount_minor, reason: None }.into()
        }
        "payment.refunded" => {
            events::PaymentRefunded { refund_id: detail, amount_minor, refunded_at_ms: 0, return_id: None }
                .into()
        }
        "payment.refund_failed" => {
            events::RefundFailed { refund_id: Text::default(), code: detail, message: Text::default() }.into()
        }
        "shipment.shipped" => events::ShipmentShipped {
            shipment_id: detail,
            lines: Vec::new(),
            carrier: None,
            tracking: None,
            all_shipped: entry.status == OrderStatus::Shipped,
            rule: None,
            location: None,
            promised_at_ms: None,
        }
        .into(),
        "shipment.delivered" => {
            events::ShipmentDelivered { shipment_id: detail, delivered_at_ms: entry.at_ms }.into()
        }
        "order.completed" => events::OrderCompleted { shipments: 0 }.into(),
        "order.returned" => events::OrderReturned {
            return_id: detail,
            lines: Vec::new(),
            amount_minor,
            returned_at_ms: entry.at_ms,
        }
        .into(),
        "command.conflicted" => events::CommandConflicted { command_id: detail }.into(),
        "command.refused" => events::CommandRefused {
            command_id: Text::default(),
            command: Text::default(),
            code: detail,
            message: Text::default(),
            rule: None,
        }
        .into(),
        _ => return None,
    })
}

fn priced(order: &PricedOrder) -> events::OrderPriced {
    events::OrderPriced {
        customer: order.customer.clone(),
        currency: order.currency.clone(),
        country: order.country.clone(),
        placed_at_ms: order.placed_at_ms,
        lines: Vec::new(),
        gross_minor: order.gross_minor,
        discount_minor: order.discount_minor,
        tax_minor: order.tax_minor,
        total_minor: order.total_minor,
        rule: None,
        review: None,
        dimensions: Default::default(),
    }
}
