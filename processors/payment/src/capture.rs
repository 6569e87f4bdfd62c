//! Taking the money.

use crate::turn::{Turn, operation_key};
use crate::{authorize, ledger};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{CaptureMode, CapturePayment, PaymentOperation, PaymentResult};
use tillstream_schemas::order_event::{PaymentCancelled, PaymentCaptured, PaymentFailed};
use tillstream_schemas::order_state::PaymentStatus;

/// A merchant captures.
pub(crate) fn command(turn: &mut Turn<'_>, command: &CapturePayment) {
    if turn.state.status != PaymentStatus::Authorized || turn.state.unwinding || turn.state.pending.is_some()
    {
        return turn.refuse(
            "capture",
            "not_authorized",
            "The payment is not authorized, so nothing can be captured.",
        );
    }
    let amount_minor = command.amount_minor.unwrap_or(turn.state.authorized_minor);
    if amount_minor == 0 && turn.state.amount_minor == 0 {
        return authorize::nothing_to_pay(turn);
    }
    if amount_minor <= 0 {
        return turn.refuse("capture", "amount_not_positive", "The amount to capture must be above zero.");
    }
    if amount_minor > turn.state.authorized_minor {
        return turn.refuse(
            "capture",
            "amount_exceeds_authorized",
            "The amount is more than what is authorized.",
        );
    }
    turn.status(PaymentStatus::Capturing);
    turn.state.failure_code = None;
    let key = operation_key(&turn.state.payment_id, "capture", turn.facts.input_id);
    turn.ask(PaymentOperation::Capture, key, amount_minor);
}

/// Money is taken; `asked_minor` holds where the provider names no amount.
pub(crate) fn captured(turn: &mut Turn<'_>, result: &PaymentResult, asked_minor: i64) {
    let promised =
        if turn.state.authorized_minor > 0 { turn.state.authorized_minor } else { turn.state.amount_minor };
    let said_minor = if result.amount_minor > 0 { result.amount_minor } else { asked_minor };
    let amount_minor = said_minor.min(promised);
    let live = !turn.state.unwinding;
    let manual = turn.capture_mode() == CaptureMode::Manual;
    let confirms = live && !turn.confirmed_by_authorization();
    if live && manual && !ledger::was_authorized(&turn.state) {
        // Captured out of our sight before it was authorized in it: what an authorization confirms, it confirms now.
        authorize::say_authorized(turn, amount_minor);
    }
    ledger::capture(&mut turn.state, amount_minor, turn.facts.now_ms);
    turn.status(PaymentStatus::Captured);
    turn.state.action = None;
    let event = PaymentCaptured {
        payment_id: turn.state.payment_id.clone(),
        amount_minor,
        provider_ref: turn.state.provider_ref.clone(),
        confirms,
        rule: turn.state.rule.clone(),
    };
    turn.emit(event);
}

/// The provider will not capture. A manual order, and one that somebody looks at, keeps its authorization and may be
/// captured again; an automatic one was never confirmed and fails; a dead one goes on to give the authorization up.
pub(crate) fn fail(turn: &mut Turn<'_>, code: Text, message: Text) {
    turn.status(PaymentStatus::Authorized);
    if turn.state.unwinding {
        return;
    }
    if turn.capture_mode() == CaptureMode::Automatic {
        return authorize::fail(turn, code, message);
    }
    turn.state.failure_code = Some(code.clone());
    let event = PaymentFailed {
        payment_id: turn.state.payment_id.clone(),
        operation: PaymentOperation::Capture,
        code,
        message,
        rule: turn.state.rule.clone(),
    };
    turn.emit(event);
}

/// The authorization is gone: given up by us, or run out at the provider.
pub(crate) fn authorization_gone(turn: &mut Turn<'_>) {
    let amount_minor = ledger::release(&mut turn.state, turn.facts.now_ms);
    turn.status(PaymentStatus::Cancelled);
    turn.state.action = None;
    let payment_id = turn.state.payment_id.clone();
    turn.emit(PaymentCancelled { payment_id, amount_minor });
}
