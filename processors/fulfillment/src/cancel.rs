//! Whether an order may still be cancelled.

use crate::{ALREADY_ENDED, Outcome, Refusal};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::CancelOrder;
use tillstream_schemas::order_event::OrderCancelled;
use tillstream_schemas::order_state::FulfillmentState;
use tillstream_stage::{Decision, Facts};

/// Until something shipped, an order that lives is cancelled at once; the other stages give back what they took.
pub(crate) fn decide(state: &FulfillmentState, command: &CancelOrder, facts: &Facts<'_>) -> Outcome {
    let refusal = if state.closed {
        ALREADY_ENDED
    } else if facts.order.is_none_or(|it| it.lines.is_empty()) {
        Refusal::new("not_cancellable", "There is no order here that could be cancelled.")
    } else if !state.shipments.is_empty() {
        Refusal::new("already_shipped", "Goods have left; they can be returned, not cancelled.")
    } else {
        let message = command.reason.clone().unwrap_or(Text::const_new("The merchant cancelled the order."));
        return Decision::none().event(OrderCancelled { code: Text::const_new("requested"), message });
    };
    refusal.of("cancel", facts)
}
