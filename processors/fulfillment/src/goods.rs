//! Units per SKU.

use std::collections::BTreeMap;
use tillstream_schemas::order_command::ShipmentLine;
use tillstream_schemas::order_state::{FulfillmentState, LineKind, PricedOrder};

/// Goods that have not left yet: units per SKU, in the order of the SKUs, without those of which nothing is left.
pub(crate) fn left_to_ship<'a>(order: &'a PricedOrder, state: &FulfillmentState) -> BTreeMap<&'a str, i64> {
    let mut left: BTreeMap<&str, i64> = BTreeMap::new();
    for line in order.lines.iter().filter(|it| it.kind == LineKind::Goods) {
        *left.entry(&line.sku).or_default() += line.quantity;
    }
    for line in state.shipments.iter().flat_map(|it| &it.lines) {
        if let Some(units) = left.get_mut(line.sku.as_str()) {
            *units -= line.quantity;
        }
    }
    left.retain(|_, units| *units > 0);
    left
}

/// One line per SKU, in the order in which the SKUs first come.
pub(crate) fn merged(lines: &[ShipmentLine]) -> Vec<ShipmentLine> {
    let mut merged: Vec<ShipmentLine> = Vec::with_capacity(lines.len());
    let mut at: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        if let Some(index) = at.get(line.sku.as_str()) {
            merged[*index].quantity = merged[*index].quantity.saturating_add(line.quantity);
        } else {
            at.insert(&line.sku, merged.len());
            merged.push(line.clone());
        }
    }
    merged
}
