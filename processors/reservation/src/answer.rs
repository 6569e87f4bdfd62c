//! Stock's answers, in any order and any number of times.

use crate::clear_expiry;
use crate::holds::{give_back, release, reserved};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::StockAnswer;
use tillstream_schemas::order_event::OrderRejected;
use tillstream_schemas::order_state::{HoldStatus, ReservationPhase, ReservationState};
use tillstream_stage::{Decision, Facts, StageError};

/// Takes one answer. What was answered before, or was never asked, changes nothing.
pub(crate) fn decide(
    state: &ReservationState,
    answer: &StockAnswer,
    facts: &Facts<'_>,
) -> Result<Decision<ReservationState>, StageError> {
    let Some(index) = state.holds.iter().position(|it| it.sku == answer.sku) else {
        return Ok(Decision::none());
    };
    match (state.phase, &answer.refused) {
        (ReservationPhase::Waiting, refused) if state.holds[index].status == HoldStatus::Asked => {
            match refused {
                None => Ok(held(state, index, answer)),
                Some(code) => refuse(state, index, answer, code, facts),
            }
        }
        // Held, though the order is dead: the release may have been overtaken. Stock takes it any number of times.
        (ReservationPhase::Released, None) => {
            let mut decision = Decision::none();
            decision.item_commands.push(release(&answer.sku, state.expires_at_ms, facts.order_id));
            Ok(decision)
        }
        _ => Ok(Decision::none()),
    }
}

fn held(state: &ReservationState, index: usize, answer: &StockAnswer) -> Decision<ReservationState> {
    let mut state = state.clone();
    let hold = &mut state.holds[index];
    hold.status = HoldStatus::Held;
    hold.allocations.clone_from(&answer.allocations);
    if state.holds.iter().any(|it| it.status != HoldStatus::Held) {
        return Decision::state(state);
    }
    state.phase = ReservationPhase::Held;
    let event = reserved(&state);
    Decision::state(state).event(event)
}

/// One refusal ends the order: all lines or none. The other answers are not waited for.
fn refuse(
    state: &ReservationState,
    index: usize,
    answer: &StockAnswer,
    code: &Text,
    facts: &Facts<'_>,
) -> Result<Decision<ReservationState>, StageError> {
    let order = facts.order.ok_or_else(|| StageError::Invariant {
        stage: "reservation",
        what: "an answer for an order that was never priced".to_owned(),
    })?;
    let mut state = state.clone();
    state.holds[index].status = HoldStatus::Refused;
    let item_commands = give_back(&mut state, facts.order_id);
    let message = match code.as_str() {
        "out_of_stock" => {
            format!("{}: {} units ordered, {} available", answer.sku, answer.quantity, answer.available)
        }
        _ => format!("{}: stock did not hold {} units ({code})", answer.sku, answer.quantity),
    };
    let event = OrderRejected {
        code: code.clone(),
        message: message.into(),
        skus: vec![answer.sku.clone()],
        placed_at_ms: order.placed_at_ms,
        // A rule that only ranked the locations did not refuse.
        rule: None,
    };
    let decision = Decision { item_commands, timers: vec![clear_expiry()], ..Decision::state(state) };
    Ok(decision.event(event))
}
