//! Orders: place, read, list, act on, in bulk.

pub(crate) mod actions;
mod address;
pub(crate) mod bulk;
mod command_answer;
mod credit_view;
pub(crate) mod credits;
pub(crate) mod events;
pub(crate) mod examples;
pub(crate) mod input;
pub(crate) mod place;
pub(crate) mod query;
mod shaped;
pub(crate) mod view;
pub(crate) mod written;

use tillstream_schemas::order_state::{OrderState, OrderStatus, PaymentStatus};

/// Whether `Prefer: wait` on a new order is over: it left `pending`, or somebody must act, who may take longer.
fn is_settled(row: &OrderState) -> bool {
    row.view.status != OrderStatus::Pending
        || row.payment.as_ref().is_some_and(|it| match it.status {
            PaymentStatus::RequiresAction => true,
            PaymentStatus::Authorized => it.review.is_some(),
            _ => false,
        })
}

/// Characters of an id, its prefix included.
pub(crate) const ID_CHARACTERS: usize = 24;

/// Ids as the examples of the contract have them.
pub(crate) struct IdExamples {
    pub order: &'static str,
    pub credit: &'static str,
    pub shipment: &'static str,
    pub refund: &'static str,
    pub payment: &'static str,
}

/// Ids as the examples of the contract have them.
pub(crate) const ID_EXAMPLES: IdExamples = IdExamples {
    order: "ord_3nvb8xkq1zmr5tgw0ayc",
    credit: "crd_8skq2fwv0anmxz4trbyd",
    shipment: "shp_6hjd9pwe2vns4cmk7rxa",
    refund: "rfd_1qgz5bty8pvf3nkh0jme",
    payment: "pay_4crm7nxs9jvp2dwj6vtb",
};

/// Whether a text can be an id with this prefix: what cannot is not looked up.
fn is_id(prefix: &str, text: &str) -> bool {
    text.len() == ID_CHARACTERS
        && text.starts_with(prefix)
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}
