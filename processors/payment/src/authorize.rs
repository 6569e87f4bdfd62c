//! From a reserved order to authorized or captured money.

use crate::turn::{Turn, authorize_key, operation_key};
use crate::{ledger, unwind};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentResult};
use tillstream_schemas::order_event::{
    OrderReserved, PaymentActionRequired, PaymentAuthorized, PaymentCaptured, PaymentFailed,
};
use tillstream_schemas::order_state::PaymentStatus;
use tillstream_stage::StageError;
use tillstream_stage::ids::derived_id;
use tillstream_stage::rule::{RuleAnswer, Verdict};

/// Every line is held: ask for the money.
pub(crate) fn start(turn: &mut Turn<'_>, reserved: &OrderReserved) -> Result<(), StageError> {
    if turn.state.status != PaymentStatus::None || turn.state.unwinding {
        return Ok(());
    }
    let order = turn.facts.order.ok_or_else(|| StageError::Invariant {
        stage: "payment",
        what: "an order is reserved that was never priced".to_owned(),
    })?;
    turn.state.amount_minor = order.total_minor;
    let speaks = |it: &&Verdict| it.answer != RuleAnswer::Pass || it.review.is_some();
    turn.state.rule = turn.facts.verdict.filter(speaks).map(|it| it.rule.clone());
    // Whoever asked for a look at the order first says why.
    let asked = order.review.as_ref().or(reserved.review.as_ref());
    turn.state.review = asked.or(turn.facts.verdict.and_then(|it| it.review.as_ref())).cloned();
    if order.total_minor > 0 {
        turn.state.payment_id = derived_id("pay_", &[turn.facts.order_id]);
    }
    if let Some(RuleAnswer::Refuse { code, message }) = turn.facts.verdict.map(|it| &it.answer) {
        fail(turn, code.clone(), message.clone());
    } else if order.total_minor == 0 && turn.state.review.is_some() {
        // No provider holds anything, yet the order waits for its capture like any other that is looked at.
        turn.status(PaymentStatus::Authorized);
        say_authorized(turn, 0);
    } else if order.total_minor == 0 {
        nothing_to_pay(turn);
    } else {
        turn.status(PaymentStatus::Authorizing);
        let key = authorize_key(&turn.state.payment_id);
        turn.ask(PaymentOperation::Authorize, key, order.total_minor);
    }
    Ok(())
}

/// The order is confirmed without a provider: its total is zero.
pub(crate) fn nothing_to_pay(turn: &mut Turn<'_>) {
    turn.status(PaymentStatus::NotNeeded);
    let rule = turn.state.rule.clone();
    turn.emit(PaymentCaptured {
        payment_id: Text::default(),
        amount_minor: 0,
        provider_ref: None,
        confirms: true,
        rule,
    });
}

/// The payment failed for good, and with it the order. Whatever the provider holds is given back.
pub(crate) fn fail(turn: &mut Turn<'_>, code: Text, message: Text) {
    turn.status(PaymentStatus::Failed);
    turn.state.failure_code = Some(code.clone());
    turn.state.action = None;
    turn.state.unwinding = true;
    let payment_id = turn.state.payment_id.clone();
    let rule = turn.state.rule.clone();
    turn.emit(PaymentFailed { payment_id, operation: PaymentOperation::Authorize, code, message, rule });
}

/// The provider said no, or the authorization is gone before the order was confirmed.
pub(crate) fn declined(turn: &mut Turn<'_>, result: &PaymentResult, fallback: &'static str) {
    if turn.state.unwinding {
        return unwind::nothing_held(turn);
    }
    let code = result.code.clone().unwrap_or(Text::const_new(fallback));
    let message = result.message.clone().unwrap_or(Text::const_new("The payment was declined."));
    fail(turn, code, message);
}

/// The customer must act. A dead order's customer need not: `unwind::proceed` cancels.
pub(crate) fn action_required(turn: &mut Turn<'_>, result: &PaymentResult) {
    turn.status(PaymentStatus::RequiresAction);
    if turn.state.unwinding {
        return;
    }
    let action = result.message.clone().or_else(|| result.code.clone()).unwrap_or_default();
    turn.state.action = Some(action.clone());
    let payment_id = turn.state.payment_id.clone();
    turn.emit(PaymentActionRequired { payment_id, action });
}

/// Money is promised. A dead order says nothing about it, since "authorized" would confirm it; it is given up next.
pub(crate) fn authorized(turn: &mut Turn<'_>, result: &PaymentResult) {
    let total_minor = turn.state.amount_minor;
    let said_minor = if result.amount_minor > 0 { result.amount_minor } else { total_minor };
    let amount_minor = said_minor.min(total_minor);
    ledger::authorize(&mut turn.state, amount_minor, turn.facts.now_ms);
    turn.state.action = None;
    if turn.state.unwinding {
        return;
    }
    turn.status(PaymentStatus::Authorized);
    say_authorized(turn, amount_minor);
    if turn.capture_mode() == CaptureMode::Automatic {
        // A provider that only authorized although it was asked to capture at once.
        turn.status(PaymentStatus::Capturing);
        let key = operation_key(&turn.state.payment_id, "capture", turn.facts.input_id);
        turn.ask(PaymentOperation::Capture, key, amount_minor);
    }
}

pub(crate) fn say_authorized(turn: &mut Turn<'_>, amount_minor: i64) {
    let event = PaymentAuthorized {
        payment_id: turn.state.payment_id.clone(),
        amount_minor,
        capture: turn.capture_mode(),
        provider_ref: turn.state.provider_ref.clone(),
        rule: turn.state.rule.clone(),
        review: turn.state.review.clone(),
    };
    turn.emit(event);
}
