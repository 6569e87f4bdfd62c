//! Top products of a window: a mergeable summary of bounded size.
//!
//! After Misra and Gries, in the mergeable form of P. K. Agarwal, G. Cormode, Z. Huang, J. M. Phillips, Z. Wei
//! and K. Yi, "Mergeable Summaries", PODS 2012: summaries are added entry by entry; one that has grown past
//! [`ENTRIES_MAX`] is cut to its [`ENTRIES_KEPT`] largest, and the largest count that was dropped is added to
//! the bound on the error. Any product's count is short by at most `undercount_units_max` and never too high;
//! while at most [`ENTRIES_MAX`] products are sold in a window, the counts are exact. The paper subtracts the
//! cut's count from what is kept; here kept counts stay as they are, which only lowers the error.

use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::analytics::{ProductSum, TopProductsState};

/// Entries a summary may have.
pub const ENTRIES_MAX: usize = 2_000;

/// Entries that are left after a cut.
pub const ENTRIES_KEPT: usize = 1_000;

/// Units and gross (minor units) per SKU.
pub type ProductChange = BTreeMap<Text, (i64, i64)>;

/// Adds sales to a window's summary. The entries stay sorted by SKU.
pub fn merged(state: Option<&TopProductsState>, change: &ProductChange) -> TopProductsState {
    let old = state.map(|it| it.products.as_slice()).unwrap_or_default();
    let mut products = Vec::with_capacity(old.len() + change.len());
    let mut old = old.iter().peekable();
    for (sku, (units, gross)) in change {
        while let Some(before) = old.next_if(|it| it.sku < *sku) {
            products.push(before.clone());
        }
        let mut product = ProductSum { sku: sku.clone(), units: *units, gross: *gross };
        if let Some(same) = old.next_if(|it| it.sku == *sku) {
            product.units = product.units.saturating_add(same.units);
            product.gross = product.gross.saturating_add(same.gross);
        }
        products.push(product);
    }
    products.extend(old.cloned());
    let mut merged =
        TopProductsState { products, undercount_units_max: state.map_or(0, |it| it.undercount_units_max) };
    if merged.products.len() > ENTRIES_MAX {
        cut(&mut merged);
    }
    merged
}

fn cut(state: &mut TopProductsState) {
    state.products.sort_by(|a, b| b.units.cmp(&a.units).then_with(|| a.sku.cmp(&b.sku)));
    if let Some(largest_dropped) = state.products.get(ENTRIES_KEPT) {
        state.undercount_units_max = state.undercount_units_max.saturating_add(largest_dropped.units);
    }
    state.products.truncate(ENTRIES_KEPT);
    state.products.sort_by(|a, b| a.sku.cmp(&b.sku));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sales(pairs: &[(u32, i64)]) -> ProductChange {
        let mut change = ProductChange::new();
        for (sku, units) in pairs {
            change.entry(Text::from(format!("s{sku:05}"))).or_default().0 += units;
        }
        change
    }

    #[test]
    fn sales_add_up_and_stay_sorted() {
        let first = merged(None, &sales(&[(2, 5), (1, 1)]));
        let second = merged(Some(&first), &sales(&[(3, 1), (2, 2), (0, 9)]));
        let found: Vec<_> = second.products.iter().map(|it| (it.sku.as_str(), it.units)).collect();
        assert_eq!(found, [("s00000", 9), ("s00001", 1), ("s00002", 7), ("s00003", 1)]);
        assert_eq!(second.undercount_units_max, 0);
    }

    #[test]
    fn one_entry_too_many_cuts_to_the_largest() {
        let many: Vec<_> = (0..=ENTRIES_MAX as u32).map(|it| (it, i64::from(it) + 1)).collect();
        let state = merged(None, &sales(&many));
        assert_eq!(state.products.len(), ENTRIES_KEPT);
        assert_eq!(state.undercount_units_max, 1_001);
        assert!(state.products.iter().all(|it| it.units > 1_001));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn a_count_is_never_too_high_and_short_by_at_most_the_bound(
            batches in prop::collection::vec(prop::collection::vec((0u32..6_000, 1i64..50), 500..1_500), 1..8),
        ) {
            let mut truth = ProductChange::new();
            let mut state = None;
            for batch in &batches {
                let change = sales(batch);
                for (sku, (units, _)) in &change {
                    truth.entry(sku.clone()).or_default().0 += units;
                }
                state = Some(merged(state.as_ref(), &change));
            }
            let state = state.unwrap();
            let counted: BTreeMap<_, _> = state.products.iter().map(|it| (it.sku.clone(), it.units)).collect();
            for (sku, (units, _)) in truth {
                let found = counted.get(&sku).copied().unwrap_or(0);
                prop_assert!(found <= units && units - found <= state.undercount_units_max);
            }
        }
    }
}
