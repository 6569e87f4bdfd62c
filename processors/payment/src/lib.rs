//! Payment stage: a pure function from facts to a decision.
//!
//! One payment per order, one provider request in flight per payment. An answer is judged by what is pending; what
//! nobody asked for (a webhook) by the status. Once the order is dead the payment *unwinds*: whatever the provider
//! holds, or still turns out to hold, is given back, and that is never given up.

mod answers;
mod authorize;
mod capture;
mod late;
pub mod ledger;
mod refunds;
pub mod retry;
mod turn;
mod unwind;

use tillstream_schemas::order_command::{OrderCommandPayload, PaymentOperation};
use tillstream_schemas::order_event::OrderEventPayload;
use tillstream_schemas::order_state::{LineKind, PaymentState, PaymentStatus};
use tillstream_stage::rule::{RiskInput, RuleCall, RuleOrder};
use tillstream_stage::{Decision, Facts, OrderInput, OrderStage, StageError, StageName, TimerName};
use turn::Turn;

/// The payment stage.
pub struct Payment;

impl OrderStage for Payment {
    type State = PaymentState;

    const NAME: StageName = StageName::Payment;

    /// Asks the risk hook when a reserved order is about to be paid.
    fn rule_call(state: &PaymentState, input: OrderInput<'_>, facts: &Facts<'_>) -> Option<RuleCall> {
        let OrderInput::Event(OrderEventPayload::OrderReserved(_)) = input else { return None };
        if state.status != PaymentStatus::None || state.unwinding {
            return None;
        }
        let order = facts.order?;
        let sold = order.lines.iter().filter(|it| it.kind != LineKind::Shipping);
        let (lines, units) =
            sold.fold((0, 0_i64), |(lines, units), it| (lines + 1, units.saturating_add(it.quantity)));
        Some(RuleCall::Risk(RiskInput {
            order: RuleOrder::from(order),
            total_minor: order.total_minor,
            units,
            lines,
            method: order.payment.method.clone(),
        }))
    }

    /// # Errors
    /// [`StageError::Invariant`] when an order is reserved that was never priced.
    fn decide(
        state: &PaymentState,
        input: OrderInput<'_>,
        facts: &Facts<'_>,
    ) -> Result<Decision<PaymentState>, StageError> {
        if !concerns(input) {
            return Ok(Decision::none());
        }
        let mut turn = Turn::new(state, facts);
        match input {
            OrderInput::Event(OrderEventPayload::OrderReserved(it)) => authorize::start(&mut turn, it)?,
            OrderInput::Event(OrderEventPayload::OrderReturned(it)) => refunds::returned(&mut turn, it),
            OrderInput::Event(_) => unwind::begin(&mut turn),
            OrderInput::Command(OrderCommandPayload::CapturePayment(it)) => capture::command(&mut turn, it),
            OrderInput::Command(OrderCommandPayload::RefundOrder(it)) => refunds::command(&mut turn, it),
            OrderInput::Command(OrderCommandPayload::PaymentResult(it)) => answers::judge(&mut turn, it),
            OrderInput::Command(_) => {}
            OrderInput::Timer(_) => retry::fired(&mut turn),
        }
        unwind::proceed(&mut turn);
        refunds::ask_next(&mut turn);
        Ok(turn.finish(state))
    }
}

/// Whether payment looks at this input at all: spares copying the state for the rest.
fn concerns(input: OrderInput<'_>) -> bool {
    match input {
        OrderInput::Command(it) => matches!(
            it,
            OrderCommandPayload::CapturePayment(_)
                | OrderCommandPayload::RefundOrder(_)
                | OrderCommandPayload::PaymentResult(_)
        ),
        OrderInput::Event(it) => match it {
            OrderEventPayload::OrderReserved(_)
            | OrderEventPayload::OrderRejected(_)
            | OrderEventPayload::OrderCancelled(_)
            | OrderEventPayload::OrderReturned(_) => true,
            // Our own, handed back by the chain: the unwinding has begun already, unless another stage said it.
            OrderEventPayload::PaymentFailed(failed) => failed.operation == PaymentOperation::Authorize,
            _ => false,
        },
        OrderInput::Timer(name) => name == TimerName::PaymentRetry,
    }
}
