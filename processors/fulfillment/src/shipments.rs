//! Goods leave and arrive.

use crate::goods::{left_to_ship, merged};
use crate::{ALREADY_ENDED, Outcome, QUANTITY_EXCEEDS_ORDERED, QUANTITY_NOT_POSITIVE, Refusal};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{CreateShipment, DeliverShipment, ShipmentLine};
use tillstream_schemas::order_event::{OrderCompleted, RuleRef, ShipmentDelivered, ShipmentShipped};
use tillstream_schemas::order_state::{FulfillmentState, Shipment, ShipmentStatus};
use tillstream_stage::ids::derived_id;
use tillstream_stage::rule::{GoodsLine, Parcel, RuleAnswer, RuleCall, RuleOrder, ShipInput, ShipLine, fit};
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
    Some(RuleCall::Ship(rule_input(&plan.lines, command, facts)?))
}

fn rule_input(lines: &[ShipmentLine], command: &CreateShipment, facts: &Facts<'_>) -> Option<ShipInput> {
    let order = facts.order?;
    let category_of = |sku: &Text| order.lines.iter().find(|it| it.sku == *sku)?.category.clone();
    let held_of = |sku: &Text| {
        let hold = facts.holds.iter().find(|it| it.sku == *sku);
        let taken = hold.map_or(&[][..], |it| it.allocations.as_slice());
        taken.iter().map(|it| (it.location.clone(), it.quantity)).collect()
    };
    let line = |it: &ShipmentLine| ShipLine {
        goods: GoodsLine { sku: it.sku.clone(), quantity: it.quantity, category: category_of(&it.sku) },
        held: held_of(&it.sku),
    };
    let (lines, carrier) = (lines.iter().map(line).collect(), command.carrier.clone());
    Some(ShipInput { order: RuleOrder::from(order), lines, carrier })
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
    let (parcels, rule) = match facts.verdict.map(|it| (&it.answer, &it.rule)) {
        Some((RuleAnswer::Refuse { code, message }, rule)) => {
            let refusal = Refusal { code: code.clone(), message: message.clone() };
            return refusal.by("shipment", Some(rule.clone()), facts);
        }
        // A split that does not fit the goods says nothing about them.
        Some((answer @ RuleAnswer::Split(parcels), rule)) if fits(&lines, answer, command, facts) => {
            (parcels.iter().map(|it| leaving(it, &lines)).collect(), Some(rule.clone()))
        }
        _ => (vec![Leaving { lines, ..Leaving::default() }], None),
    };
    ship(state, command, facts, &parcels, all, rule.as_ref())
}

fn fits(lines: &[ShipmentLine], answer: &RuleAnswer, command: &CreateShipment, facts: &Facts<'_>) -> bool {
    rule_input(lines, command, facts).is_some_and(|it| fit(&RuleCall::Ship(it), answer).is_ok())
}

/// Goods that leave together.
#[derive(Clone, Debug, Default)]
struct Leaving {
    lines: Vec<ShipmentLine>,
    location: Option<Text>,
    carrier: Option<Text>,
    promised_at_ms: Option<i64>,
}

fn leaving(parcel: &Parcel, lines: &[ShipmentLine]) -> Leaving {
    let line = |(line, quantity): &(u32, i64)| {
        let sku = lines.get(*line as usize)?.sku.clone();
        Some(ShipmentLine { sku, quantity: *quantity })
    };
    let contents: Vec<_> = parcel.contents.iter().filter_map(line).collect();
    Leaving {
        lines: merged(&contents),
        location: parcel.location.clone(),
        carrier: parcel.carrier.clone(),
        promised_at_ms: parcel.promised_at_ms,
    }
}

/// The first shipment has the command's id and tracking number, the others an id derived from it.
fn ship(
    state: &FulfillmentState,
    command: &CreateShipment,
    facts: &Facts<'_>,
    parcels: &[Leaving],
    all: bool,
    rule: Option<&RuleRef>,
) -> Outcome {
    let mut next = state.clone();
    let mut events = Vec::with_capacity(parcels.len());
    for (index, parcel) in parcels.iter().enumerate() {
        let first = index == 0;
        let shipment_id = if first {
            command.shipment_id.clone()
        } else {
            derived_id("shp_", &[&command.shipment_id, &index.to_string()])
        };
        let carrier = parcel.carrier.clone().or_else(|| command.carrier.clone());
        let tracking = command.tracking.clone().filter(|_| first);
        next.shipments.push(Shipment {
            shipment_id: shipment_id.clone(),
            status: ShipmentStatus::Shipped,
            lines: parcel.lines.clone(),
            carrier: carrier.clone(),
            tracking: tracking.clone(),
            shipped_at_ms: facts.now_ms,
            delivered_at_ms: None,
            location: parcel.location.clone(),
            promised_at_ms: parcel.promised_at_ms,
            rule: rule.cloned(),
        });
        events.push(ShipmentShipped {
            shipment_id,
            lines: parcel.lines.clone(),
            carrier,
            tracking,
            all_shipped: all && index + 1 == parcels.len(),
            rule: rule.cloned(),
            location: parcel.location.clone(),
            promised_at_ms: parcel.promised_at_ms,
        });
    }
    events.into_iter().fold(Decision::state(next), Decision::event)
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
