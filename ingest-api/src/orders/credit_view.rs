//! A credit as the API shows it.

use super::view;
use crate::moment::Moment;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tillstream_schemas::order_state::{CreditState, OrderState};

/// A return or credit that names no order. One that was just accepted has no more than id, status and links.
#[derive(Serialize, JsonSchema)]
pub(super) struct Credit<'a> {
    /// Its id.
    id: &'a str,
    /// Whether it is issued already.
    status: CreditStatus,
    /// Where it is.
    links: CreditLinks,
    #[serde(flatten)]
    issued: Option<Issued<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum CreditStatus {
    Accepted,
    Credited,
}

/// Where a credit is.
#[derive(Serialize, JsonSchema)]
struct CreditLinks {
    /// The credit.
    #[serde(rename = "self")]
    this: String,
}

#[derive(Serialize, JsonSchema)]
struct Issued<'a> {
    /// The merchant's customer id.
    customer: Option<&'a str>,
    /// ISO 4217.
    currency: &'a str,
    /// ISO 3166-1 alpha-2.
    country: Option<&'a str>,
    /// The event time that analytics use.
    returned_at: Moment,
    /// When the API took it.
    accepted_at: Moment,
    /// All lines together, minor units.
    amount: i64,
    /// What came back.
    lines: Vec<CreditLine<'a>>,
    /// Why.
    reason: Option<&'a str>,
}

/// A line of a credit.
#[derive(Serialize, JsonSchema)]
struct CreditLine<'a> {
    /// The SKU.
    sku: &'a str,
    /// Units.
    quantity: i64,
    /// Minor units.
    amount: Option<i64>,
    /// Whether the goods are stock again.
    restock: bool,
}

/// A credit that is durable, and no more is known.
pub(super) fn accepted(id: &str) -> Value {
    view::value(&Credit { id, status: CreditStatus::Accepted, links: credit_links(id), issued: None })
}

/// A credit without an order.
pub(super) fn issued(row: &OrderState, credit: &CreditState) -> Value {
    view::value(&Credit {
        id: &row.order_id,
        status: CreditStatus::Credited,
        links: credit_links(&row.order_id),
        issued: Some(Issued {
            customer: credit.customer.as_deref(),
            currency: &credit.currency,
            country: view::some(&credit.country),
            returned_at: Moment(credit.returned_at_ms),
            accepted_at: Moment(row.accepted_at_ms),
            amount: credit.amount_minor,
            lines: credit
                .lines
                .iter()
                .map(|it| CreditLine {
                    sku: &it.sku,
                    quantity: it.quantity,
                    amount: it.amount_minor,
                    restock: it.restock,
                })
                .collect(),
            reason: credit.reason.as_deref(),
        }),
    })
}

fn credit_links(id: &str) -> CreditLinks {
    CreditLinks { this: format!("/v1/returns/{id}") }
}
