//! Fulfillment stage: a pure function from facts to a decision.
//!
//! It opens when the order is confirmed and closes for good when the order ends. It alone knows the shipments, so it
//! also judges whether an order may still be cancelled.

mod cancel;
mod credit;
mod goods;
mod returns;
mod shipments;

use tillstream_schemas::Text;
use tillstream_schemas::order_command::{OrderCommandPayload as Command, PaymentOperation};
use tillstream_schemas::order_event::{CommandRefused, OrderEventPayload as Event, RuleRef};
use tillstream_schemas::order_state::FulfillmentState;
use tillstream_stage::rule::RuleCall;
use tillstream_stage::{Decision, Facts, OrderInput, OrderStage, StageError, StageName};

/// The fulfillment stage.
pub struct Fulfillment;

/// What this stage decides.
type Outcome = Decision<FulfillmentState>;

impl OrderStage for Fulfillment {
    type State = FulfillmentState;

    const NAME: StageName = StageName::Fulfillment;

    /// Asks the ship hook about a shipment that would be created.
    fn rule_call(state: &FulfillmentState, input: OrderInput<'_>, facts: &Facts<'_>) -> Option<RuleCall> {
        let OrderInput::Command(Command::CreateShipment(it)) = input else { return None };
        shipments::rule_call(state, it, facts)
    }

    /// # Errors
    /// [`StageError::Overflow`] when the amounts of a return or credit leave the range of money.
    fn decide(
        state: &FulfillmentState,
        input: OrderInput<'_>,
        facts: &Facts<'_>,
    ) -> Result<Outcome, StageError> {
        match input {
            OrderInput::Event(event) => Ok(follow(state, event)),
            OrderInput::Timer(_) => Ok(Decision::none()),
            OrderInput::Command(command) => match command {
                Command::CancelOrder(it) => Ok(cancel::decide(state, it, facts)),
                Command::CreateShipment(it) => Ok(shipments::create(state, it, facts)),
                Command::DeliverShipment(it) => Ok(shipments::deliver(state, it, facts)),
                Command::ReturnOrder(it) => returns::decide(state, it, facts),
                Command::IssueCredit(it) => credit::decide(it, facts),
                _ => Ok(Decision::none()),
            },
        }
    }
}

/// Opens with the order's confirmation, closes with its end.
fn follow(state: &FulfillmentState, event: &Event) -> Outcome {
    let (opens, closes) = match event {
        Event::PaymentCaptured(it) => (it.confirms, false),
        Event::PaymentAuthorized(it) => (it.confirms(), false),
        Event::OrderCancelled(_) | Event::OrderRejected(_) => (false, true),
        Event::PaymentFailed(it) => (false, it.operation == PaymentOperation::Authorize),
        _ => (false, false),
    };
    if closes && !state.closed {
        Decision::state(FulfillmentState { open: false, closed: true, ..state.clone() })
    } else if opens && !state.closed && !state.open {
        Decision::state(FulfillmentState { open: true, ..state.clone() })
    } else {
        Decision::none()
    }
}

/// A command that cannot be taken, and why.
#[derive(Clone, Debug, PartialEq)]
struct Refusal {
    code: Text,
    message: Text,
}

impl Refusal {
    const fn new(code: &'static str, message: &'static str) -> Self {
        Self { code: Text::const_new(code), message: Text::const_new(message) }
    }

    fn of(self, command: &'static str, facts: &Facts<'_>) -> Outcome {
        self.by(command, None, facts)
    }

    fn by(self, command: &'static str, rule: Option<RuleRef>, facts: &Facts<'_>) -> Outcome {
        Decision::none().event(CommandRefused {
            command_id: facts.input_id.into(),
            command: Text::const_new(command),
            code: self.code,
            message: self.message,
            rule,
        })
    }
}

/// The order ended before the command came.
const ALREADY_ENDED: Refusal = Refusal::new("already_ended", "The order is cancelled or has failed.");
/// A line asks for no units, or fewer.
const QUANTITY_NOT_POSITIVE: Refusal =
    Refusal::new("quantity_not_positive", "A line's quantity must be above zero.");
/// A line asks for more than there is.
const QUANTITY_EXCEEDS_ORDERED: Refusal =
    Refusal::new("quantity_exceeds_ordered", "More was asked for than is left of what was ordered.");
