//! The payment as an order's events tell it.

use super::has;
use tillstream_schemas::order_command::CaptureMode;
use tillstream_schemas::order_state::{
    OrderState, OrderStatus, PaymentState, PaymentStatus, Refund, RefundStatus, TimelineEntry,
};

/// The payment after these events; `None` before the order was reserved, since nothing was asked of a provider then.
pub(super) fn as_of(row: &OrderState, events: &[TimelineEntry], time_ms: i64) -> Option<PaymentState> {
    let now = row.payment.as_ref()?;
    if !has(events, "order.reserved") {
        return None;
    }
    let mut past = PaymentState {
        payment_id: now.payment_id.clone(),
        amount_minor: now.amount_minor,
        rule: now.rule.clone(),
        review: now.review.clone(),
        ledger: now.ledger.iter().take_while(|it| it.at_ms <= time_ms).cloned().collect(),
        refunds: refunds(&now.refunds, events),
        ..PaymentState::default()
    };
    let manual = row.order.as_ref().is_some_and(|it| it.payment.capture == CaptureMode::Manual);
    // An order that somebody looks at is only authorized too.
    let manual = manual || now.review.is_some();
    for entry in events {
        follow(&mut past, entry, manual);
    }
    if past.status != PaymentStatus::Authorizing {
        past.provider_ref.clone_from(&now.provider_ref);
    }
    Some(past)
}

fn follow(payment: &mut PaymentState, entry: &TimelineEntry, manual: bool) {
    let amount_minor = entry.amount_minor.unwrap_or_default();
    let open = matches!(
        payment.status,
        PaymentStatus::Authorizing
            | PaymentStatus::RequiresAction
            | PaymentStatus::Authorized
            | PaymentStatus::Capturing
    );
    match entry.kind.as_str() {
        "order.reserved" => payment.status = PaymentStatus::Authorizing,
        "payment.action_required" => {
            payment.status = PaymentStatus::RequiresAction;
            payment.action.clone_from(&entry.detail);
        }
        "payment.authorized" => {
            payment.status = if manual { PaymentStatus::Authorized } else { PaymentStatus::Capturing };
            payment.authorized_minor += amount_minor;
            payment.action = None;
        }
        // The order's total was zero.
        "payment.captured" if entry.detail.is_none() => payment.status = PaymentStatus::NotNeeded,
        "payment.captured" => {
            payment.status = PaymentStatus::Captured;
            payment.captured_minor += amount_minor;
            payment.authorized_minor = 0;
            payment.action = None;
        }
        "payment.failed" => {
            payment.status = if entry.status == OrderStatus::Failed {
                PaymentStatus::Failed
            } else {
                PaymentStatus::Authorized
            };
            payment.action = None;
            payment.failure_code.clone_from(&entry.detail);
        }
        "payment.cancelled" => {
            payment.status = PaymentStatus::Cancelled;
            payment.authorized_minor = 0;
            payment.action = None;
        }
        "payment.refunded" => {
            payment.refunded_minor += amount_minor;
            let all = payment.refunded_minor == payment.captured_minor;
            payment.status = if all { PaymentStatus::Refunded } else { PaymentStatus::PartiallyRefunded };
        }
        // Whatever the provider holds of a dead order is given back.
        "order.cancelled" if open => {
            payment.status = PaymentStatus::Cancelling;
            payment.action = None;
        }
        _ => {}
    }
}

/// The refunds that were asked for by then. The provider has one at a time, in the order in which they were asked for.
fn refunds(now: &[Refund], events: &[TimelineEntry]) -> Vec<Refund> {
    let about = |kind: &str, id: &str| {
        events.iter().any(|it| it.kind == kind && it.detail.as_deref().is_some_and(|detail| detail == id))
    };
    let mut failed_left = events.iter().filter(|it| it.kind == "payment.refund_failed").count();
    let mut in_flight = false;
    let mut past = Vec::new();
    for refund in now.iter().filter(|it| about("payment.refund_requested", &it.refund_id)) {
        let status = if about("payment.refunded", &refund.refund_id) {
            RefundStatus::Succeeded
        } else if refund.status == RefundStatus::Failed && failed_left > 0 {
            // The entry of a failed refund names the reason, not the refund: they fail in the order of their turns.
            failed_left -= 1;
            RefundStatus::Failed
        } else if in_flight {
            RefundStatus::Queued
        } else {
            in_flight = true;
            RefundStatus::Pending
        };
        past.push(Refund { status, ..refund.clone() });
    }
    past
}
