//! Refunds: asked for by the merchant, by a return, or by the unwinding; one at a time to the provider.

use crate::ledger;
use crate::turn::{Turn, operation_key};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{PaymentOperation, RefundOrder};
use tillstream_schemas::order_event::{OrderReturned, PaymentRefunded, RefundFailed, RefundRequested};
use tillstream_schemas::order_state::{PaymentState, PaymentStatus, Refund, RefundStatus};
use tillstream_stage::ids::derived_id;

/// Captured, not refunded, and not promised to a refund that is still under way; minor units.
fn left_minor(state: &PaymentState) -> i64 {
    let under_way = |it: &&Refund| matches!(it.status, RefundStatus::Queued | RefundStatus::Pending);
    let promised: i64 = state.refunds.iter().filter(under_way).map(|it| it.amount_minor).sum();
    state.captured_minor - state.refunded_minor - promised
}

fn is_known(state: &PaymentState, refund_id: &str) -> bool {
    state.refunds.iter().any(|it| it.refund_id == refund_id)
}

/// The refund the provider has, or is to be asked for again.
pub(crate) fn asked(state: &PaymentState) -> Option<&Refund> {
    state.refunds.iter().find(|it| it.status == RefundStatus::Pending)
}

/// A merchant refunds.
pub(crate) fn command(turn: &mut Turn<'_>, command: &RefundOrder) {
    if is_known(&turn.state, &command.refund_id) {
        return;
    }
    if turn.state.captured_minor == 0 {
        return turn.refuse(
            "refund",
            "nothing_captured",
            "Nothing was captured, so nothing can be refunded.",
        );
    }
    let left = left_minor(&turn.state);
    let amount_minor = command.amount_minor.unwrap_or(left);
    if amount_minor > left || left <= 0 {
        return turn.refuse(
            "refund",
            "amount_exceeds_captured",
            "The amount is more than what is left to refund.",
        );
    }
    if amount_minor <= 0 {
        return turn.refuse("refund", "amount_not_positive", "The amount to refund must be above zero.");
    }
    let refunded_at_ms = command.refunded_at_ms.unwrap_or(turn.facts.now_ms);
    queue(
        turn,
        Refund {
            refund_id: command.refund_id.clone(),
            amount_minor,
            status: RefundStatus::Queued,
            refunded_at_ms,
            reason: command.reason.clone(),
            return_id: None,
        },
    );
}

/// Goods came back: their amount is refunded, in the window of the return, as far as there is money left. With nothing
/// left (not captured yet, or refunded already) there is no refund; the return's own event keeps its amount.
pub(crate) fn returned(turn: &mut Turn<'_>, returned: &OrderReturned) {
    let amount_minor = returned.amount_minor.min(left_minor(&turn.state));
    if amount_minor <= 0 || is_known(&turn.state, &returned.return_id) {
        return;
    }
    queue(
        turn,
        Refund {
            refund_id: returned.return_id.clone(),
            amount_minor,
            status: RefundStatus::Queued,
            refunded_at_ms: returned.returned_at_ms,
            reason: Some(Text::const_new("returned")),
            return_id: Some(returned.return_id.clone()),
        },
    );
}

/// The id of the unwinding's own refund, were it the `index`th of the payment.
fn unwinding_id(payment_id: &str, index: usize) -> Text {
    derived_id("rfd_", &[payment_id, "unwind", &index.to_string()])
}

/// The order is dead: all that is left goes back. Once the provider has declined that for good it is not asked for
/// again: `RefundFailed` says so, and the ledger shows what is still held.
pub(crate) fn queue_rest(turn: &mut Turn<'_>) {
    let amount_minor = left_minor(&turn.state);
    if amount_minor <= 0 {
        return;
    }
    let state = &turn.state;
    let declined = |(index, it): (usize, &Refund)| {
        it.status == RefundStatus::Failed && it.refund_id == unwinding_id(&state.payment_id, index)
    };
    if state.refunds.iter().enumerate().any(declined) {
        return;
    }
    let refund = Refund {
        refund_id: unwinding_id(&state.payment_id, state.refunds.len()),
        amount_minor,
        status: RefundStatus::Queued,
        refunded_at_ms: turn.facts.now_ms,
        reason: Some(Text::const_new("order_ended")),
        return_id: None,
    };
    queue(turn, refund);
}

fn queue(turn: &mut Turn<'_>, refund: Refund) {
    let event = RefundRequested {
        refund_id: refund.refund_id.clone(),
        amount_minor: refund.amount_minor,
        reason: refund.reason.clone(),
    };
    turn.state.refunds.push(refund);
    turn.emit(event);
}

/// Asks for the oldest queued refund, when nothing is in flight.
pub(crate) fn ask_next(turn: &mut Turn<'_>) {
    if turn.state.pending.is_some() {
        return;
    }
    let Some(refund) = turn.state.refunds.iter_mut().find(|it| it.status == RefundStatus::Queued) else {
        return;
    };
    refund.status = RefundStatus::Pending;
    let amount_minor = refund.amount_minor;
    let key = operation_key(&turn.state.payment_id, "refund", &refund.refund_id);
    turn.ask(PaymentOperation::Refund, key, amount_minor);
}

fn asked_mut(state: &mut PaymentState) -> Option<&mut Refund> {
    state.refunds.iter_mut().find(|it| it.status == RefundStatus::Pending)
}

/// The money of the refund in flight went back.
pub(crate) fn done(turn: &mut Turn<'_>) {
    let Some(refund) = asked_mut(&mut turn.state) else { return };
    refund.status = RefundStatus::Succeeded;
    let event = PaymentRefunded {
        refund_id: refund.refund_id.clone(),
        amount_minor: refund.amount_minor,
        refunded_at_ms: refund.refunded_at_ms,
        return_id: refund.return_id.clone(),
    };
    ledger::refund(&mut turn.state, event.amount_minor, turn.facts.now_ms);
    let all = turn.state.refunded_minor == turn.state.captured_minor;
    turn.status(if all { PaymentStatus::Refunded } else { PaymentStatus::PartiallyRefunded });
    turn.emit(event);
}

/// The provider will not make the refund in flight.
pub(crate) fn fail(turn: &mut Turn<'_>, code: Text, message: Text) {
    let Some(refund) = asked_mut(&mut turn.state) else { return };
    refund.status = RefundStatus::Failed;
    let refund_id = refund.refund_id.clone();
    turn.emit(RefundFailed { refund_id, code, message });
}
