//! Goods of an order come back.

use crate::{Outcome, QUANTITY_EXCEEDS_ORDERED, QUANTITY_NOT_POSITIVE, Refusal};
use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::item::{ItemCommandPayload, ReceiveStock};
use tillstream_schemas::order_command::{ReturnLine, ReturnOrder};
use tillstream_schemas::order_event::OrderReturned;
use tillstream_schemas::order_state::{FulfillmentState, LineKind, PricedOrder};
use tillstream_stage::money::{plus, share};
use tillstream_stage::{Decision, Facts, StageError};

/// What was sold of one SKU over all its lines, and what came back of it.
#[derive(Default)]
struct Sold {
    units: i64,
    paid_minor: i64,
    returned_units: i64,
    goods: bool,
}

impl Sold {
    /// What was paid for the next `quantity` units. Rounded over all that came back so far, so that single returns of
    /// every unit sum to exactly what was paid.
    fn paid_for(&self, quantity: i64) -> i64 {
        let up_to = |units| share(self.paid_minor, units, self.units);
        up_to(self.returned_units + quantity) - up_to(self.returned_units)
    }
}

fn sold<'a>(order: &'a PricedOrder, state: &FulfillmentState) -> Result<BTreeMap<&'a str, Sold>, StageError> {
    let mut sold: BTreeMap<&str, Sold> = BTreeMap::new();
    for line in &order.lines {
        let entry = sold.entry(&line.sku).or_default();
        entry.units += line.quantity;
        entry.goods |= line.kind == LineKind::Goods;
        let paid = line.gross_minor - line.discount_minor + line.tax_minor;
        entry.paid_minor = plus(entry.paid_minor, paid).map_err(|_| overflow())?;
    }
    for line in &state.returned {
        if let Some(entry) = sold.get_mut(line.sku.as_str()) {
            entry.returned_units += line.quantity;
        }
    }
    Ok(sold)
}

pub(crate) fn overflow() -> StageError {
    StageError::Overflow { stage: "fulfillment", what: "the amount of a return" }
}

/// Every line is taken, or none: the return is said with its amounts, and the goods that are to be stock again go to
/// their items. Payment refunds on the event.
pub(crate) fn decide(
    state: &FulfillmentState,
    command: &ReturnOrder,
    facts: &Facts<'_>,
) -> Result<Outcome, StageError> {
    let Some(order) = facts.order.filter(|_| state.open && !state.closed) else {
        let refusal = Refusal::new("not_returnable", "Only a confirmed order's goods can come back.");
        return Ok(refusal.of("return", facts));
    };
    let mut sold = sold(order, state)?;
    let mut next = state.clone();
    let mut lines = Vec::with_capacity(command.lines.len());
    let mut amount_minor = 0;
    let mut decision = Decision::none();
    for line in &command.lines {
        let entry = match judge(line, sold.get_mut(line.sku.as_str())) {
            Ok(entry) => entry,
            Err(refusal) => return Ok(refusal.of("return", facts)),
        };
        let line_minor = line.amount_minor.unwrap_or_else(|| entry.paid_for(line.quantity));
        entry.returned_units += line.quantity;
        amount_minor = plus(amount_minor, line_minor).map_err(|_| overflow())?;
        let restock = line.restock && entry.goods;
        let line = ReturnLine { amount_minor: Some(line_minor), restock, ..line.clone() };
        if restock {
            decision.item_commands.push(receive(&line, facts.order_id, &command.return_id));
        }
        remember(&mut next.returned, &line)?;
        lines.push(line);
    }
    decision.state = Some(next);
    Ok(decision.event(OrderReturned {
        return_id: command.return_id.clone(),
        lines,
        amount_minor,
        returned_at_ms: command.returned_at_ms,
    }))
}

fn judge<'a>(line: &ReturnLine, entry: Option<&'a mut Sold>) -> Result<&'a mut Sold, Refusal> {
    if line.quantity <= 0 {
        return Err(QUANTITY_NOT_POSITIVE);
    }
    if line.amount_minor.is_some_and(|it| it < 0) {
        return Err(Refusal::new("amount_negative", "A line's amount must not be below zero."));
    }
    entry.filter(|it| line.quantity <= it.units - it.returned_units).ok_or(QUANTITY_EXCEEDS_ORDERED)
}

/// Adds a line to what came back: one entry per SKU and whether it is stock again.
fn remember(returned: &mut Vec<ReturnLine>, line: &ReturnLine) -> Result<(), StageError> {
    let same = |it: &&mut ReturnLine| it.sku == line.sku && it.restock == line.restock;
    let Some(entry) = returned.iter_mut().find(same) else {
        returned.push(line.clone());
        return Ok(());
    };
    entry.quantity += line.quantity;
    let (before, now) = (entry.amount_minor.unwrap_or_default(), line.amount_minor.unwrap_or_default());
    entry.amount_minor = Some(plus(before, now).map_err(|_| overflow())?);
    Ok(())
}

/// The goods of a line go back to where they were sold from.
pub(crate) fn receive(line: &ReturnLine, order_id: &str, return_id: &str) -> (Text, ItemCommandPayload) {
    let command = ReceiveStock {
        order_id: order_id.into(),
        return_id: return_id.into(),
        quantity: line.quantity,
        location: None,
    };
    (line.sku.clone(), ItemCommandPayload::ReceiveStock(command))
}
