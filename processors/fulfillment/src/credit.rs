//! A return or credit that names no order.

use crate::Outcome;
use crate::returns::{overflow, receive};
use tillstream_schemas::order_command::IssueCredit;
use tillstream_schemas::order_event::CreditIssued;
use tillstream_stage::money::plus;
use tillstream_stage::{Decision, Facts, StageError};

/// Says the credit and sends its goods back to their items. Whether a SKU holds stock at all is the item's to know, and
/// whether the credit came before is the chain's: nothing is kept here. No provider is asked for anything.
pub(crate) fn decide(command: &IssueCredit, facts: &Facts<'_>) -> Result<Outcome, StageError> {
    if facts.order.is_some() {
        return Ok(Decision::none());
    }
    let mut amount_minor = 0;
    for line in &command.lines {
        amount_minor = plus(amount_minor, line.amount_minor.unwrap_or_default()).map_err(|_| overflow())?;
    }
    let back = |it: &&tillstream_schemas::order_command::ReturnLine| it.restock && it.quantity > 0;
    let item_commands =
        command.lines.iter().filter(back).map(|it| receive(it, facts.order_id, facts.order_id)).collect();
    let decision = Decision { item_commands, ..Decision::none() };
    Ok(decision.event(CreditIssued {
        customer: command.customer.clone(),
        currency: command.currency.clone(),
        country: command.country.clone(),
        lines: command.lines.clone(),
        amount_minor,
        returned_at_ms: command.returned_at_ms,
    }))
}
