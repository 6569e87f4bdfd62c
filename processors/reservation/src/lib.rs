//! Reservation stage: a pure function from facts to a decision.
//!
//! All lines or none: asks stock for every distinct SKU of a priced order, waits for the answers, makes the holds
//! sales when the order is paid, and gives everything back on every way out.

mod answer;
mod holds;

use holds::give_back;
use tillstream_schemas::Text;
use tillstream_schemas::item::{CommitStock, ItemCommandPayload};
use tillstream_schemas::order_command::{OrderCommandPayload, PaymentOperation};
use tillstream_schemas::order_event::{OrderCancelled, OrderEventPayload};
use tillstream_schemas::order_state::{HoldStatus, ReservationPhase, ReservationState};
use tillstream_stage::rule::RuleCall;
use tillstream_stage::{
    Decision, Facts, OrderInput, OrderStage, StageError, StageName, TimerChange, TimerName,
};

/// How long goods are held for an order that is not paid, ms.
pub const HOLD_MS: i64 = 15 * 60_000;

/// The reservation stage. Its state is undecided while `expires_at_ms` is 0.
pub struct Reservation;

impl OrderStage for Reservation {
    type State = ReservationState;

    const NAME: StageName = StageName::Reservation;

    fn rule_call(state: &ReservationState, input: OrderInput<'_>, facts: &Facts<'_>) -> Option<RuleCall> {
        match input {
            OrderInput::Event(OrderEventPayload::OrderPriced(priced)) if undecided(state) => {
                holds::rule_input(priced, facts).map(RuleCall::Allocate)
            }
            _ => None,
        }
    }

    fn decide(
        state: &ReservationState,
        input: OrderInput<'_>,
        facts: &Facts<'_>,
    ) -> Result<Decision<ReservationState>, StageError> {
        use OrderEventPayload as Event;
        match input {
            OrderInput::Event(Event::OrderPriced(priced)) if undecided(state) => {
                Ok(holds::ask(priced, facts))
            }
            // Before pricing has decided there is nothing to hold, to sell or to give back.
            _ if undecided(state) => Ok(Decision::none()),
            OrderInput::Command(OrderCommandPayload::StockAnswer(answer)) => {
                answer::decide(state, answer, facts)
            }
            OrderInput::Event(Event::PaymentCaptured(captured)) if captured.confirms => commit(state, facts),
            OrderInput::Event(Event::PaymentAuthorized(it)) if it.confirms() => commit(state, facts),
            OrderInput::Event(Event::PaymentAuthorized(it)) if it.review.is_some() => Ok(keep(state)),
            OrderInput::Event(Event::PaymentFailed(it)) if it.operation == PaymentOperation::Authorize => {
                Ok(release(state, facts))
            }
            OrderInput::Event(Event::OrderRejected(_) | Event::OrderCancelled(_)) => {
                Ok(release(state, facts))
            }
            OrderInput::Timer(TimerName::HoldExpiry) => Ok(expire(state)),
            _ => Ok(Decision::none()),
        }
    }
}

fn undecided(state: &ReservationState) -> bool {
    state.expires_at_ms == 0
}

fn clear_expiry() -> TimerChange {
    TimerChange { name: TimerName::HoldExpiry, due_ms: None }
}

/// The order is paid: its holds become sales.
fn commit(state: &ReservationState, facts: &Facts<'_>) -> Result<Decision<ReservationState>, StageError> {
    match state.phase {
        ReservationPhase::Held => {}
        // Sold already; or paid too late, which payment unwinds.
        ReservationPhase::Committed | ReservationPhase::Released => return Ok(Decision::none()),
        ReservationPhase::Waiting => {
            return Err(StageError::Invariant {
                stage: "reservation",
                what: "an order was paid before its goods were held".to_owned(),
            });
        }
    }
    let mut state = state.clone();
    state.phase = ReservationPhase::Committed;
    let mut item_commands = Vec::with_capacity(state.holds.len());
    for hold in &mut state.holds {
        hold.status = HoldStatus::Committed;
        let command = CommitStock { order_id: Text::from(facts.order_id) };
        item_commands.push((hold.sku.clone(), ItemCommandPayload::CommitStock(command)));
    }
    Ok(Decision { state: Some(state), item_commands, timers: vec![clear_expiry()], ..Decision::default() })
}

/// Somebody looks at the order, and the money is promised: its goods wait for the answer, however long that takes.
fn keep(state: &ReservationState) -> Decision<ReservationState> {
    match state.phase {
        ReservationPhase::Held => Decision { timers: vec![clear_expiry()], ..Decision::default() },
        _ => Decision::none(),
    }
}

/// The order is dead: everything that is or may yet be held, or was sold, goes back.
fn release(state: &ReservationState, facts: &Facts<'_>) -> Decision<ReservationState> {
    if state.phase == ReservationPhase::Released {
        return Decision::none();
    }
    let mut state = state.clone();
    let item_commands = give_back(&mut state, facts.order_id);
    Decision { state: Some(state), item_commands, timers: vec![clear_expiry()], ..Decision::default() }
}

/// Nobody paid in time. The release follows by the event.
fn expire(state: &ReservationState) -> Decision<ReservationState> {
    match state.phase {
        ReservationPhase::Waiting | ReservationPhase::Held => Decision::none().event(OrderCancelled {
            code: Text::const_new("hold_expired"),
            message: Text::const_new("the order was not paid while its goods were held"),
        }),
        ReservationPhase::Committed | ReservationPhase::Released => Decision::none(),
    }
}
