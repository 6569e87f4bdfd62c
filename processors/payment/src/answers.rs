//! What a provider's answer means: by the request it answers, else by where the payment stands.

use crate::turn::{Turn, authorize_key};
use crate::{authorize, capture, late, ledger, refunds, retry, unwind};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{PaymentOperation, PaymentOutcome, PaymentResult};
use tillstream_schemas::order_state::PaymentStatus;

/// The code of a declined `Capture` or `Cancel` whose money is taken.
const ALREADY_CAPTURED: &str = "already_captured";

/// Judges one answer. Stale and repeated answers change nothing.
pub(crate) fn judge(turn: &mut Turn<'_>, result: &PaymentResult) {
    let never_asked = matches!(turn.state.status, PaymentStatus::None | PaymentStatus::NotNeeded);
    if never_asked || (!result.payment_id.is_empty() && result.payment_id != turn.state.payment_id) {
        return;
    }
    let key = &result.request_key;
    let pending = turn.state.pending.as_ref().filter(|it| !key.is_empty() && it.request_key == *key);
    if let Some((operation, amount_minor)) = pending.map(|it| (it.operation, it.amount_minor)) {
        remember_ref(turn, result);
        answered(turn, result, operation, amount_minor);
    } else if key.is_empty() || *key == authorize_key(&turn.state.payment_id) {
        by_state(turn, result);
    } else if result.payment_id == turn.state.payment_id {
        late::judge(turn, result);
    }
}

pub(crate) fn remember_ref(turn: &mut Turn<'_>, result: &PaymentResult) {
    // A refund has an id of its own; the payment's is the one of the charge.
    let answered = !matches!(result.outcome, PaymentOutcome::Unavailable | PaymentOutcome::Unknown);
    if answered && result.operation != PaymentOperation::Refund && result.provider_ref.is_some() {
        turn.state.provider_ref.clone_from(&result.provider_ref);
    }
}

/// The answer to what is in flight. What answers another question than the one asked settles nothing: it is asked again.
fn answered(turn: &mut Turn<'_>, result: &PaymentResult, operation: PaymentOperation, asked_minor: i64) {
    use PaymentOperation as Op;
    use PaymentOutcome as Out;
    // A webhook may have told it all before the answer came.
    let taken = turn.state.captured_minor > 0;
    match (operation, result.outcome) {
        (Op::Authorize, Out::Authorized) => settle_with(turn, |turn| authorize::authorized(turn, result)),
        (Op::Authorize, Out::RequiresAction) => {
            settle_with(turn, |turn| authorize::action_required(turn, result))
        }
        (Op::Authorize, Out::Declined) => {
            settle_with(turn, |turn| authorize::declined(turn, result, "declined"))
        }
        (Op::Authorize, Out::Cancelled) => {
            settle_with(turn, |turn| authorize::declined(turn, result, "authorization_cancelled"));
        }
        (Op::Authorize | Op::Capture, Out::Captured) => {
            settle_with(turn, |turn| capture::captured(turn, result, asked_minor));
        }
        (Op::Capture, Out::Declined) if result.code.as_deref() == Some(ALREADY_CAPTURED) => {
            settle_with(turn, |turn| capture::captured(turn, result, asked_minor));
        }
        (Op::Capture, Out::Declined) => settle_with(turn, |turn| {
            let (code, message) = reason(result, "capture_declined", "The capture was declined.");
            capture::fail(turn, code, message);
        }),
        (Op::Capture, Out::Cancelled) => settle_with(turn, |turn| authorization_lost(turn, result)),
        (Op::Cancel, Out::Cancelled) => settle_with(turn, unwind::cancelled),
        (Op::Cancel, Out::Captured) if taken => turn.settle(),
        (Op::Cancel, Out::Captured) => settle_with(turn, |turn| capture::captured(turn, result, asked_minor)),
        (Op::Cancel, Out::Declined) => {
            settle_with(turn, |turn| unwind::cancel_declined(turn, result, asked_minor));
        }
        (Op::Refund, Out::Refunded) => settle_with(turn, refunds::done),
        (Op::Refund, Out::Declined) => settle_with(turn, |turn| {
            let (code, message) = reason(result, "refund_declined", "The refund was declined.");
            refunds::fail(turn, code, message);
        }),
        _ => retry::unanswered(turn, result),
    }
}

fn settle_with(turn: &mut Turn<'_>, then: impl FnOnce(&mut Turn<'_>)) {
    turn.settle();
    then(turn);
}

fn reason(result: &PaymentResult, code: &'static str, message: &'static str) -> (Text, Text) {
    (
        result.code.clone().unwrap_or(Text::const_new(code)),
        result.message.clone().unwrap_or(Text::const_new(message)),
    )
}

/// An authorization ran out at the provider. An order that it had not confirmed yet fails with it.
fn authorization_lost(turn: &mut Turn<'_>, result: &PaymentResult) {
    let unconfirmed = !turn.confirmed_by_authorization();
    capture::authorization_gone(turn);
    if unconfirmed && !turn.state.unwinding {
        authorize::declined(turn, result, "authorization_cancelled");
    }
}

/// A webhook, or the authorization's answer once more: the status says whether it is news.
fn by_state(turn: &mut Turn<'_>, result: &PaymentResult) {
    use PaymentStatus as At;
    let at = turn.state.status;
    let open = matches!(at, At::Authorizing | At::RequiresAction);
    match result.outcome {
        PaymentOutcome::Captured => captured_out_of_turn(turn, result),
        PaymentOutcome::Authorized if !ledger::was_authorized(&turn.state) => {
            remember_ref(turn, result);
            settle_unless_cancelling(turn);
            authorize::authorized(turn, result);
        }
        PaymentOutcome::RequiresAction if at == At::Authorizing => {
            remember_ref(turn, result);
            settle_with(turn, |turn| authorize::action_required(turn, result));
        }
        PaymentOutcome::RequiresAction | PaymentOutcome::Unknown => late::authorization(turn, result),
        PaymentOutcome::Declined if open => {
            remember_ref(turn, result);
            settle_with(turn, |turn| authorize::declined(turn, result, "declined"));
        }
        PaymentOutcome::Cancelled if open => {
            settle_with(turn, |turn| authorize::declined(turn, result, "authorization_cancelled"));
        }
        PaymentOutcome::Cancelled if at == At::Authorized && turn.state.pending.is_none() => {
            authorization_lost(turn, result);
        }
        _ => {}
    }
}

/// Money was taken, and the answer is not one we wait for.
pub(crate) fn captured_out_of_turn(turn: &mut Turn<'_>, result: &PaymentResult) {
    if turn.state.captured_minor > 0 {
        return;
    }
    let asked_minor = asked_of_capture(turn);
    remember_ref(turn, result);
    settle_unless_cancelling(turn);
    capture::captured(turn, result, asked_minor);
}

/// What a capture that nobody here asked for (or that answers ours out of turn) takes when it names no amount.
fn asked_of_capture(turn: &Turn<'_>) -> i64 {
    match &turn.state.pending {
        Some(it) if it.operation == PaymentOperation::Capture => it.amount_minor,
        _ => turn.state.amount_minor,
    }
}

/// A cancel in flight keeps its turn: what must follow (a refund, another cancel) waits for its answer.
fn settle_unless_cancelling(turn: &mut Turn<'_>) {
    if turn.state.pending.as_ref().is_some_and(|it| it.operation != PaymentOperation::Cancel) {
        turn.settle();
    }
}
