//! Pricing stage: a pure function from facts to a decision.
//!
//! The first stage of an order. It decides once, on `PlaceOrder`: what every line costs, what is taken off, what
//! tax is added, or that the order cannot be.

mod price;
pub mod tax;

pub use price::{QUANTITY_MAX, SHIPPING_SKU, preview, question, recorded_lines, resolve, settle};

use tillstream_schemas::order_command::{OrderCommandPayload, PlaceOrder};
use tillstream_schemas::order_event::{OrderPriced, OrderRejected};
use tillstream_schemas::order_state::PricedOrder;
use tillstream_stage::rule::RuleCall;
use tillstream_stage::{Decision, Facts, OrderInput, OrderStage, StageError, StageName};

/// The pricing stage. Its state is undecided while the currency is empty.
pub struct Pricing;

impl OrderStage for Pricing {
    type State = PricedOrder;

    const NAME: StageName = StageName::Pricing;

    fn rule_call(state: &PricedOrder, input: OrderInput<'_>, facts: &Facts<'_>) -> Option<RuleCall> {
        let order = undecided(state, input)?;
        // An order that cannot be priced is refused without the rule's word.
        let input = price::rule_input(order, facts.tenant, facts.catalog).ok()?;
        Some(RuleCall::Price(input))
    }

    fn decide(
        state: &PricedOrder,
        input: OrderInput<'_>,
        facts: &Facts<'_>,
    ) -> Result<Decision<PricedOrder>, StageError> {
        let Some(order) = undecided(state, input) else {
            return Ok(Decision::none());
        };
        if order.currency.is_empty() {
            // The currency is also the mark that pricing has decided, so it may not be empty.
            return Err(StageError::Invariant {
                stage: "pricing",
                what: "an order without a currency".to_owned(),
            });
        }
        Ok(match preview(order, facts.tenant, facts.catalog, facts.verdict) {
            Ok(priced) => accepted(order, priced),
            Err(rejected) => refused(order, *rejected),
        })
    }
}

/// The order to price, when that is still to do.
fn undecided<'a>(state: &PricedOrder, input: OrderInput<'a>) -> Option<&'a PlaceOrder> {
    match input {
        OrderInput::Command(OrderCommandPayload::PlaceOrder(order)) if state.currency.is_empty() => {
            Some(order)
        }
        _ => None,
    }
}

/// The state of an order without its prices.
fn header(order: &PlaceOrder) -> PricedOrder {
    PricedOrder {
        customer: order.customer.clone(),
        currency: order.currency.clone(),
        country: order.country.clone(),
        placed_at_ms: order.placed_at_ms,
        payment: order.payment.clone(),
        metadata: order.metadata.clone(),
        ship_to: order.ship_to.clone(),
        note: order.note.clone(),
        ..PricedOrder::default()
    }
}

/// The state of an order that was priced so: what the stages behind this one are told of it.
pub fn priced_order(order: &PlaceOrder, priced: &OrderPriced) -> PricedOrder {
    PricedOrder {
        lines: priced.lines.clone(),
        gross_minor: priced.gross_minor,
        discount_minor: priced.discount_minor,
        tax_minor: priced.tax_minor,
        total_minor: priced.total_minor,
        rule: priced.rule.clone(),
        review: priced.review.clone(),
        ..header(order)
    }
}

fn accepted(order: &PlaceOrder, priced: OrderPriced) -> Decision<PricedOrder> {
    Decision::state(priced_order(order, &priced)).event(priced)
}

fn refused(order: &PlaceOrder, rejected: OrderRejected) -> Decision<PricedOrder> {
    let state = PricedOrder { rule: rejected.rule.clone(), ..header(order) };
    Decision::state(state).event(rejected)
}
