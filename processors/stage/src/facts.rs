//! What the shell knows and a stage may read.

use crate::rule::Verdict;
use tillstream_schemas::item::ProductState;
use tillstream_schemas::order_state::{HoldLine, PricedOrder};

/// The product rows a command needs, resolved by the shell before `decide`.
pub trait Catalog {
    /// The product in force, removed and inactive ones included; `None` when the SKU was never upserted.
    fn product(&self, tenant: &str, sku: &str) -> Option<std::sync::Arc<ProductState>>;
}

/// A catalog without products.
pub struct NoCatalog;

impl Catalog for NoCatalog {
    fn product(&self, _tenant: &str, _sku: &str) -> Option<std::sync::Arc<ProductState>> {
        None
    }
}

/// Facts of one decision.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The wall clock, ms since the epoch, read once per batch.
    pub now_ms: i64,
    /// The tenant.
    pub tenant: &'a str,
    /// The order (or credit).
    pub order_id: &'a str,
    /// The id of the command (or timer) that is being handled: output ids derive from it.
    pub input_id: &'a str,
    /// What the tenant's rule said, when `rule_call` asked.
    pub verdict: Option<&'a Verdict>,
    /// The priced order, once pricing has decided.
    pub order: Option<&'a PricedOrder>,
    /// What reservation holds for the order, with its locations, once it has decided.
    pub holds: &'a [HoldLine],
    /// Product rows.
    pub catalog: &'a dyn Catalog,
}
