//! Every call, in the order the document and `/docs` tell of them.

use super::{Call, json_call};
use crate::orders::{actions, bulk, credits, place, query};
use crate::{analytics, dead_letters, inventory, keys, ops, products, rules, sandbox, topics};

/// Every call there is; a test holds it against the route table.
pub(super) fn all() -> Vec<Call> {
    vec![
        place::place_call(),
        query::list_call(),
        bulk::bulk_call(),
        query::get_call(),
        query::events_call(),
        actions::cancel_call(),
        actions::capture_call(),
        actions::refund_call(),
        actions::give_back_call(),
        actions::ship_call(),
        actions::deliver_call(),
        credits::issue_call(),
        credits::get_call(),
        products::list_call(),
        products::put_call(),
        products::get_call(),
        products::remove_call(),
        inventory::get_call(),
        inventory::adjust_call(),
        analytics::revenue_call(),
        analytics::products_call(),
        analytics::funnel_call(),
        rules::list_call(),
        rules::get_call(),
        rules::retire_call(),
        rules::upload_call(),
        rules::versions_call(),
        rules::activate_call(),
        rules::roll_back_call(),
        keys::list_call(),
        keys::create_call(),
        keys::revoke_call(),
        sandbox::get_call(),
        sandbox::authenticate_call(),
        dead_letters::list_call(),
        dead_letters::redrive_call(),
        dead_letters::get_call(),
        dead_letters::redrive_one_call(),
        topics::list_call(),
        topics::records_call(),
        ops::healthz_call(),
        ops::readyz_call(),
        ops::metrics_call(),
        json_call(),
        ops::docs_call(),
    ]
}
