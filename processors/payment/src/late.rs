//! Answers to what was given up.
//!
//! "Unavailable" means that nothing happened, but a repeated one may be taken for the answer to a later attempt. What was
//! given up on such a word can still turn out to have reached the provider: then money counts, not our opinion.

use crate::turn::Turn;
use crate::{answers, retry};
use tillstream_schemas::order_command::{PaymentOperation, PaymentOutcome, PaymentResult};
use tillstream_schemas::order_state::PaymentStatus;

/// An authorization of a dead order that was given up, and may be open at the provider after all: cancelling settles it.
/// The provider's id tells this from a repeat.
pub(crate) fn authorization(turn: &mut Turn<'_>, result: &PaymentResult) {
    let ended = matches!(turn.state.status, PaymentStatus::Cancelled | PaymentStatus::Failed);
    if turn.state.unwinding && ended && turn.state.provider_ref.is_none() && turn.state.pending.is_none() {
        answers::remember_ref(turn, result);
        turn.status(PaymentStatus::RequiresAction);
    }
}

/// The answer to an earlier request of this payment.
pub(crate) fn judge(turn: &mut Turn<'_>, result: &PaymentResult) {
    match (result.operation, result.outcome) {
        (PaymentOperation::Capture, PaymentOutcome::Captured) => answers::captured_out_of_turn(turn, result),
        (PaymentOperation::Capture, PaymentOutcome::Unknown) => capture_again(turn, result),
        _ => {}
    }
}

/// A capture that was given up may have happened: the same key tells.
fn capture_again(turn: &mut Turn<'_>, result: &PaymentResult) {
    let state = &turn.state;
    let given_up = state.failure_code.as_deref() == Some(retry::PROVIDER_UNAVAILABLE);
    if state.status != PaymentStatus::Authorized || !given_up || state.pending.is_some() || state.unwinding {
        return;
    }
    turn.status(PaymentStatus::Capturing);
    turn.state.failure_code = None;
    turn.ask(PaymentOperation::Capture, result.request_key.clone(), result.amount_minor);
    if let Some(pending) = &mut turn.state.pending {
        pending.uncertain = true;
    }
}
