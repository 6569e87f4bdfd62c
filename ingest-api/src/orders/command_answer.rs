//! What a command to an order answers.

use super::ID_EXAMPLES;
use super::view::Order;
use crate::openapi::{Answer, Call};
use crate::problem::Code;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// A command to an order: durable, and judged where the order stands beside it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CommandAccepted")]
pub(super) struct CommandAnswer<'a> {
    /// The id of what was made (refund, return, shipment), else the command's.
    pub id: &'a str,
    /// The order.
    pub order_id: &'a str,
    /// Whether it was judged in the time that was waited.
    pub status: CommandStatus,
    /// Where the order's resources are.
    pub links: CommandLinks,
    /// The order after it, where it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Order<'static>>")]
    pub order: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CommandStatus {
    Accepted,
    Done,
}

/// Where the order of a command is.
#[derive(Serialize, JsonSchema)]
pub(super) struct CommandLinks {
    /// The order.
    order: String,
    /// Its history.
    events: String,
}

impl CommandLinks {
    /// Where the order of a command is.
    pub(super) fn of(order_id: &str) -> Self {
        Self { order: format!("/v1/orders/{order_id}"), events: format!("/v1/orders/{order_id}/events") }
    }
}

/// What all commands to an order have in common; `made` is an id as the example has it.
pub(super) fn command(call: Call, made: &'static str) -> Call {
    let example = CommandAnswer {
        id: made,
        order_id: ID_EXAMPLES.order,
        status: CommandStatus::Accepted,
        links: CommandLinks::of(ID_EXAMPLES.order),
        order: None,
    };
    call.id_segment("id", "ord_", "The order's id", ID_EXAMPLES.order)
        .idempotent()
        .waits()
        .answer(
            Answer::json::<CommandAnswer<'_>>(202, "Accepted and durable")
                .example(json!(example))
                .header("Location", "The order")
                .header("Preference-Applied", "`wait=…`, where it was heard")
                .link("getOrder", &[("id", "$response.body#/order_id")])
                .link("listOrderEvents", &[("id", "$response.body#/order_id")]),
        )
        .answer(
            Answer::json::<CommandAnswer<'_>>(200, "Judged (with `Prefer: wait`)")
                .header("Location", "The order")
                .header("Preference-Applied", "`wait=…`"),
        )
        .problem(Code::NotFound)
        .problem(Code::CommandRefused)
        .writes()
}
