//! Orders: place, read, list, act on, in bulk.

pub(crate) mod actions;
pub(crate) mod bulk;
pub(crate) mod credits;
pub(crate) mod input;
pub(crate) mod place;
pub(crate) mod query;
mod view;

use tillstream_schemas::order_state::{OrderState, OrderStatus, PaymentStatus};

/// Whether `Prefer: wait` on a new order is over: it left `pending`, or the customer must act.
fn is_settled(row: &OrderState) -> bool {
    row.view.status != OrderStatus::Pending
        || row.payment.as_ref().is_some_and(|it| it.status == PaymentStatus::RequiresAction)
}

/// Whether a text can be an id with this prefix: what cannot is not looked up.
fn is_id(prefix: &str, text: &str) -> bool {
    text.len() == 24
        && text.starts_with(prefix)
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}
