//! Giving everything back once the order is dead.

use crate::turn::{Turn, operation_key};
use crate::{capture, ledger, refunds};
use tillstream_schemas::order_command::{PaymentOperation, PaymentResult};
use tillstream_schemas::order_state::PaymentStatus;

/// Codes of a declined `Cancel` that mean that there is nothing left to cancel.
const GONE: [&str; 4] = ["already_cancelled", "not_found", "resource_missing", "unknown_payment"];

/// The order is dead. What is in flight gets its answer first; what waits for a retry and surely did not happen is dropped.
pub(crate) fn begin(turn: &mut Turn<'_>) {
    if turn.state.unwinding {
        return;
    }
    turn.state.unwinding = true;
    if turn.state.status == PaymentStatus::Authorized && turn.state.amount_minor == 0 {
        // It cost nothing and was looked at: there is no authorization to give up.
        turn.status(PaymentStatus::NotNeeded);
    }
    let Some(pending) = &turn.state.pending else { return };
    let certain = pending.retry_due_ms.is_some() && !pending.uncertain;
    let operation = pending.operation;
    if certain && is_moot(turn, operation) {
        drop_pending(turn);
    }
}

/// Whether an operation need not be asked again because the order is dead.
pub(crate) fn is_moot(turn: &Turn<'_>, operation: PaymentOperation) -> bool {
    turn.state.unwinding && matches!(operation, PaymentOperation::Authorize | PaymentOperation::Capture)
}

/// Forgets an operation that surely did not happen.
pub(crate) fn drop_pending(turn: &mut Turn<'_>) {
    turn.settle();
    if turn.state.authorized_minor > 0 {
        turn.status(PaymentStatus::Authorized);
    } else {
        nothing_held(turn);
    }
}

/// The order is dead and the provider holds nothing.
pub(crate) fn nothing_held(turn: &mut Turn<'_>) {
    capture::authorization_gone(turn);
}

/// What the unwinding does next, once nothing is in flight.
pub(crate) fn proceed(turn: &mut Turn<'_>) {
    if !turn.state.unwinding {
        return;
    }
    refunds::queue_rest(turn);
    let held = turn.state.authorized_minor > 0 || turn.state.status == PaymentStatus::RequiresAction;
    if held && turn.state.pending.is_none() {
        // Also while the customer is still to act: a later authentication must not take the money.
        turn.status(PaymentStatus::Cancelling);
        turn.state.action = None;
        let amount_minor = if turn.state.authorized_minor > 0 {
            turn.state.authorized_minor
        } else {
            turn.state.amount_minor
        };
        let key = operation_key(&turn.state.payment_id, "cancel", turn.facts.input_id);
        turn.ask(PaymentOperation::Cancel, key, amount_minor);
    }
}

/// The provider will not cancel. Unless there is nothing to cancel, that is because the money was taken: it is refunded.
pub(crate) fn cancel_declined(turn: &mut Turn<'_>, result: &PaymentResult, asked_minor: i64) {
    if turn.state.captured_minor > 0 {
        // A webhook told us of the capture first.
        return;
    }
    if result.code.as_deref().is_some_and(|it| GONE.contains(&it)) {
        return capture::authorization_gone(turn);
    }
    capture::captured(turn, result, asked_minor);
}

/// The provider gave the authorization up.
pub(crate) fn cancelled(turn: &mut Turn<'_>) {
    if turn.state.captured_minor == 0 {
        capture::authorization_gone(turn);
    } else {
        ledger::release(&mut turn.state, turn.facts.now_ms);
    }
}
