//! Goods leave and arrive.

use crate::goods::{left_to_ship, merged};
use crate::{ALREADY_ENDED, Outcome, QUANTITY_EXCEEDS_ORDERED, QUANTITY_NOT_POSITIVE, Refusal};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{CreateShipment, DeliverShipment, ShipmentLine};
use tillstream_schemas::order_event::{OrderCompleted, ShipmentDelivered, ShipmentShipped};
use tillstream_schemas::order_state::{FulfillmentState, Shipment, ShipmentStatus};
use tillstream_stage::rule::{RuleAnswer, RuleCall, ShipInput};
use tillstream_stage::{Decision, Facts};

/// What goes into a shipment.
struct Plan {
    lines: Vec<ShipmentLine>,
    /// Whether nothing is left after it.
    all: bool,
}

fn plan(state: &FulfillmentState, command: &CreateShipment, facts: &Facts<'_>) -> Result<Plan, Refusal> {
    if state.closed {
        return Err(ALREADY_ENDED);
    }
    let Some(order) = facts.order.filter(|_| state.open) else {
        return Err(Refusal::new("not_confirmed", "The order is not confirmed, so nothing may leave."));
    };
    let left = left_to_ship(order, state);
    if left.is_empty() {
        return Err(Refusal::new("nothing_to_ship", "No goods of this order are left to ship."));
    }
    if command.lines.is_empty() {
        let line = |(sku, quantity)| ShipmentLine { sku: Text::from(sku), quantity };
        return Ok(Plan { lines: left.into_iter().map(line).collect(), all: true });
    }
    if command.lines.iter().any(|it| it.quantity <= 0) {
        return Err(QUANTITY_NOT_POSITIVE);
    }
    let lines = merged(&command.lines);
    if lines.iter().any(|it| left.get(it.sku.as_str()).is_none_or(|units| it.quantity > *units)) {
        return Err(QUANTITY_EXCEEDS_ORDERED);
    }
    let all =
        lines.len() == left.len() && lines.iter().all(|it| left.get(it.sku.as_str()) == Some(&it.quantity));
    Ok(Plan { lines, all })
}

fn is_known(state: &FulfillmentState, shipment_id: &str) -> bool {
    state.shipments.iter().any(|it| it.shipment_id == shipment_id)
}

/// What to ask the ship hook: nothing about a shipment that is refused anyway.
pub(crate) fn rule_call(
    state: &FulfillmentState,
    command: &CreateShipment,
    facts: &Facts<'_>,
) -> Option<RuleCall> {
    if is_known(state, &command.shipment_id) {
        return None;
    }
    let plan = plan(state, command, facts).ok()?;
    Some(RuleCall::Ship(ShipInput {
        country: facts.order.map(|it| it.country.clone()).unwrap_or_default(),
        lines: plan.lines.into_iter().map(|it| (it.sku, it.quantity)).collect(),
        carrier: command.carrier.clone(),
    }))
}

/// A shipment leaves.
pub(crate) fn create(state: &FulfillmentState, command: &CreateShipment, facts: &Facts<'_>) -> Outcome {
    if is_known(state, &command.shipment_id) {
        return Decision::none();
    }
    let Plan { lines, all } = match plan(state, command, facts) {
        Ok(plan) => plan,
        Err(refusal) => return refusal.of("shipment", facts),
    };
    let mut carrier = command.carrier.clone();
    let mut rule = None;
    if let Some(verdict) = facts.verdict {
        match &verdict.answer {
            RuleAnswer::Refuse { code, message } => {
                let (code, message) = (code.clone(), message.clone());
                return Refusal { code, message }.of("shipment", facts);
            }
            RuleAnswer::Carrier(it) => {
                carrier = Some(it.clone());
                rule = Some(verdict.rule.clone());
            }
            _ => {}
        }
    }
    let mut next = state.clone();
    next.shipments.push(Shipment {
        shipment_id: command.shipment_id.clone(),
        status: ShipmentStatus::Shipped,
        lines: lines.clone(),
        carrier: carrier.clone(),
        tracking: command.tracking.clone(),
        shipped_at_ms: facts.now_ms,
        delivered_at_ms: None,
    });
    Decision::state(next).event(ShipmentShipped {
        shipment_id: command.shipment_id.clone(),
        lines,
        carrier,
        tracking: command.tracking.clone(),
        all_shipped: all,
        rule,
    })
}

/// A shipment arrives; with the last one of the whole order, the order is completed.
pub(crate) fn deliver(state: &FulfillmentState, command: &DeliverShipment, facts: &Facts<'_>) -> Outcome {
    let Some(index) = state.shipments.iter().position(|it| it.shipment_id == command.shipment_id) else {
        return Refusal::new("unknown_shipment", "The order has no such shipment.").of("deliver", facts);
    };
    if state.shipments[index].status == ShipmentStatus::Delivered {
        return Refusal::new("already_delivered", "The shipment has arrived before.").of("deliver", facts);
    }
    let delivered_at_ms = command.delivered_at_ms.unwrap_or(facts.now_ms);
    let mut next = state.clone();
    next.shipments[index].status = ShipmentStatus::Delivered;
    next.shipments[index].delivered_at_ms = Some(delivered_at_ms);
    let all_arrived = next.shipments.iter().all(|it| it.status == ShipmentStatus::Delivered);
    let all_shipped = facts.order.is_some_and(|it| left_to_ship(it, &next).is_empty());
    let completes = all_arrived && all_shipped && !next.completed;
    next.completed |= completes;
    let shipments = i32::try_from(next.shipments.len()).unwrap_or(i32::MAX);
    let shipment_id = command.shipment_id.clone();
    let decision = Decision::state(next).event(ShipmentDelivered { shipment_id, delivered_at_ms });
    if completes { decision.event(OrderCompleted { shipments }) } else { decision }
}
