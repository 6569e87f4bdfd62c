//! Asking again: exponential backoff, and when to stop.

use crate::turn::Turn;
use crate::{authorize, capture, unwind};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{PaymentOperation, PaymentOutcome, PaymentResult};

/// The wait after the first answer that was not final, ms.
pub const BACKOFF_BASE_MS: i64 = 200;
/// The longest wait, ms.
pub const BACKOFF_MAX_MS: i64 = 30_000;
/// Provider calls after which an unreachable provider is not asked for money any more.
pub const ATTEMPTS_MAX: i32 = 8;
/// The executor's circuit breaker answered; the provider was not called.
pub const BREAKER_OPEN: &str = "breaker_open";
/// Why a payment failed when its provider could not be reached.
pub const PROVIDER_UNAVAILABLE: &str = "provider_unavailable";

/// The wait after the `waits`th answer that was not final (≥ 1), ms: 200, 400, 800 … 30,000.
pub fn backoff_ms(waits: i32) -> i64 {
    let doublings = waits.saturating_sub(1).clamp(0, 20);
    (BACKOFF_BASE_MS << doublings).min(BACKOFF_MAX_MS)
}

/// The provider could not be asked, or did not answer.
pub(crate) fn unanswered(turn: &mut Turn<'_>, result: &PaymentResult) {
    let Some(pending) = &mut turn.state.pending else { return };
    // A second copy of the answer that this wait comes from.
    if pending.retry_due_ms.is_some() && result.outcome == PaymentOutcome::Unavailable {
        return;
    }
    if result.outcome == PaymentOutcome::Unavailable {
        if result.code.as_deref() == Some(BREAKER_OPEN) {
            turn.state.attempt -= 1;
        }
        let operation = pending.operation;
        let certain = !pending.uncertain;
        if certain && unwind::is_moot(turn, operation) {
            return unwind::drop_pending(turn);
        }
        if certain && turn.state.attempt >= ATTEMPTS_MAX && may_give_up(turn, operation) {
            return give_up(turn, operation);
        }
    } else {
        // Whatever the other outcome was, it does not settle what was asked: it may have happened.
        let waiting = pending.retry_due_ms.is_some();
        pending.uncertain = true;
        if waiting {
            return;
        }
    }
    wait(turn);
}

fn wait(turn: &mut Turn<'_>) {
    let Some(pending) = &mut turn.state.pending else { return };
    pending.waits = pending.waits.saturating_add(1);
    let due_ms = turn.facts.now_ms + backoff_ms(pending.waits);
    pending.retry_due_ms = Some(due_ms);
    turn.timer(Some(due_ms));
}

/// Only what would take money is given up. What gives it back (a refund, a cancel) is asked for until it has gone.
fn may_give_up(turn: &Turn<'_>, operation: PaymentOperation) -> bool {
    matches!(operation, PaymentOperation::Authorize | PaymentOperation::Capture) && !turn.state.unwinding
}

fn give_up(turn: &mut Turn<'_>, operation: PaymentOperation) {
    let code = Text::const_new(PROVIDER_UNAVAILABLE);
    let message = Text::const_new("The payment provider could not be reached.");
    turn.settle();
    if operation == PaymentOperation::Capture {
        capture::fail(turn, code, message);
    } else {
        authorize::fail(turn, code, message);
    }
}

/// The timer fired: the same request again, under the same key.
pub(crate) fn fired(turn: &mut Turn<'_>) {
    let Some(mut pending) = turn.state.pending.take() else { return };
    if pending.retry_due_ms.take().is_some() {
        turn.state.attempt += 1;
        turn.request(&pending);
    }
    turn.state.pending = Some(pending);
}
