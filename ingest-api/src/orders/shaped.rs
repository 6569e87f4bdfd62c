//! Which of the tenant's rules shaped an order.

use schemars::JsonSchema;
use serde::Serialize;
use tillstream_schemas::order_event::{RuleRef, RuleStep};
use tillstream_schemas::order_state::OrderState;
use tillstream_stage::StageName;

/// A version of a rule that shaped an order.
#[derive(PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "OrderRule")]
pub(super) struct ShapedBy<'a> {
    /// What it shaped: `pricing` (analytics dimensions included), `reservation`, `payment`, `fulfillment`.
    stage: &'static str,
    /// The rule's name.
    name: &'a str,
    /// The rule's version.
    version: &'a str,
    /// SHA-256 of its module, in hex.
    digest: &'a str,
}

/// Those of every stage, in the order they were asked.
pub(super) fn of(row: &OrderState) -> Vec<ShapedBy<'_>> {
    let pricing = row.order.as_ref().and_then(|it| it.rule.as_ref());
    let reservation = row.reservation.as_ref().and_then(|it| it.rule.as_ref());
    let payment = row.payment.as_ref().and_then(|it| it.rule.as_ref());
    let decided =
        [(StageName::Pricing, pricing), (StageName::Reservation, reservation), (StageName::Payment, payment)];
    let mut shaped: Vec<_> = decided
        .into_iter()
        .filter_map(|(stage, rule)| Some((stage.as_str(), rule?)))
        .flat_map(|(stage, rule)| by_stage(stage, rule))
        .collect();
    // Every shipment asks anew: a version stands once, however many it shaped.
    let shipments = row.fulfillment.iter().flat_map(|it| &it.shipments).filter_map(|it| it.rule.as_ref());
    for it in shipments.flat_map(|it| by_stage(StageName::Fulfillment.as_str(), it)) {
        if !shaped.contains(&it) {
            shaped.push(it);
        }
    }
    shaped
}

fn by_stage<'a>(stage: &'static str, rule: &'a RuleRef) -> impl Iterator<Item = ShapedBy<'a>> {
    let first = ShapedBy { stage, name: &rule.name, version: &rule.version, digest: &rule.digest };
    let further =
        move |it: &'a RuleStep| ShapedBy { stage, name: &it.name, version: &it.version, digest: &it.digest };
    std::iter::once(first).chain(rule.also.iter().map(further))
}

/// A version of a rule that shaped an event.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OrderEventRule")]
pub(super) struct EventRule<'a> {
    /// The rule's name.
    name: &'a str,
    /// The rule's version.
    version: &'a str,
    /// SHA-256 of its module, in hex.
    digest: &'a str,
}

impl<'a> From<&'a RuleStep> for EventRule<'a> {
    fn from(step: &'a RuleStep) -> Self {
        Self { name: &step.name, version: &step.version, digest: &step.digest }
    }
}
