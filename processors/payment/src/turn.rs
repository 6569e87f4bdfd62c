//! One decision in the making.

use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation};
use tillstream_schemas::order_event::{CommandRefused, OrderEventPayload};
use tillstream_schemas::order_state::{PaymentState, PaymentStatus, PendingOperation};
use tillstream_stage::ids::derived_id;
use tillstream_stage::{Decision, Facts, TimerChange, TimerName};

/// The state as this input leaves it, and what it puts out.
pub(crate) struct Turn<'a> {
    pub facts: &'a Facts<'a>,
    pub state: PaymentState,
    out: Decision<PaymentState>,
}

impl<'a> Turn<'a> {
    pub fn new(state: &PaymentState, facts: &'a Facts<'a>) -> Self {
        Self { facts, state: state.clone(), out: Decision::none() }
    }

    pub fn emit(&mut self, event: impl Into<OrderEventPayload>) {
        self.out.events.push(event.into());
    }

    pub fn refuse(&mut self, command: &'static str, code: &'static str, message: &'static str) {
        let command_id = Text::from(self.facts.input_id);
        self.emit(CommandRefused {
            command_id,
            command: Text::const_new(command),
            code: Text::const_new(code),
            message: Text::const_new(message),
            rule: None,
        });
    }

    /// The merchant's capture mode; automatic where the order is not known. An order that somebody is to look at is
    /// only authorized, and not confirmed by that: capturing it approves it, cancelling it declines it.
    pub fn capture_mode(&self) -> CaptureMode {
        if self.state.review.is_some() {
            return CaptureMode::Manual;
        }
        self.facts.order.map_or(CaptureMode::Automatic, |it| it.payment.capture)
    }

    /// Whether the order is confirmed when its money is promised, and not when it is taken.
    pub fn confirmed_by_authorization(&self) -> bool {
        self.state.review.is_none() && self.capture_mode() == CaptureMode::Manual
    }

    /// Puts an operation in flight. The caller has made sure that none is.
    pub fn ask(&mut self, operation: PaymentOperation, request_key: Text, amount_minor: i64) {
        debug_assert!(self.state.pending.is_none(), "one request in flight per payment");
        self.state.attempt = 1;
        let pending = PendingOperation {
            operation,
            request_key,
            amount_minor,
            first_asked_at_ms: self.facts.now_ms,
            uncertain: false,
            waits: 0,
            retry_due_ms: None,
        };
        self.request(&pending);
        self.state.pending = Some(pending);
    }

    /// Writes the request of a pending operation, for the attempt the state stands at.
    pub fn request(&mut self, pending: &PendingOperation) {
        let refund_id = (pending.operation == PaymentOperation::Refund)
            .then(|| crate::refunds::asked(&self.state).map(|it| it.refund_id.clone()))
            .flatten();
        let (currency, method) =
            self.facts.order.map(|it| (it.currency.clone(), it.payment.method.clone())).unwrap_or_default();
        self.out.payment_requests.push(PaymentRequest {
            payment_id: self.state.payment_id.clone(),
            request_key: pending.request_key.clone(),
            attempt: self.state.attempt,
            operation: pending.operation,
            amount_minor: pending.amount_minor,
            currency,
            method,
            capture: self.capture_mode(),
            refund_id,
            first_asked_at_ms: pending.first_asked_at_ms,
        });
    }

    /// The operation in flight has its answer, or is dropped.
    pub fn settle(&mut self) {
        if let Some(pending) = self.state.pending.take()
            && pending.retry_due_ms.is_some()
        {
            self.timer(None);
        }
        self.state.attempt = 0;
    }

    pub fn timer(&mut self, due_ms: Option<i64>) {
        self.out.timers.push(TimerChange { name: TimerName::PaymentRetry, due_ms });
    }

    pub fn status(&mut self, status: PaymentStatus) {
        self.state.status = status;
    }

    /// The decision; without a state when nothing changed.
    pub fn finish(mut self, before: &PaymentState) -> Decision<PaymentState> {
        if self.state != *before {
            self.out.state = Some(self.state);
        }
        self.out
    }
}

/// The key of the one authorization of a payment: known without state, so that a webhook that carries it is recognised.
pub(crate) fn authorize_key(payment_id: &str) -> Text {
    derived_id("key_", &[payment_id, "authorize"])
}

/// The key of an operation that a payment may need more than once: `cause` is the input or the refund behind it.
pub(crate) fn operation_key(payment_id: &str, operation: &str, cause: &str) -> Text {
    derived_id("key_", &[payment_id, operation, cause])
}
