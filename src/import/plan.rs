//! Rows → what to post. Pure: the same file gives the same plan and the same idempotency keys, which is what
//! makes an import restartable.

use super::rows::{BadRow, File, Row};
use std::collections::{BTreeMap, BTreeSet};

/// Codes that are not goods: fees hold no stock.
const FEES: [&str; 8] = ["POST", "DOT", "M", "D", "C2", "S", "BANK CHARGES", "AMAZONFEE"];

/// Whether a SKU is a fee.
pub fn is_fee(sku: &str) -> bool {
    FEES.contains(&sku)
}

/// Rows of one invoice that belong together.
#[derive(Clone, Debug)]
pub struct Invoice {
    /// Its number.
    pub number: String,
    /// Its rows, in file order.
    pub rows: Vec<Row>,
}

impl Invoice {
    /// The date: that of the first row.
    pub fn at(&self) -> &str {
        self.rows.first().map_or("", |it| it.at.as_str())
    }

    /// The date in ms since the epoch.
    pub fn at_ms(&self) -> i64 {
        self.rows.first().map_or(0, |it| it.at_ms)
    }

    /// The customer, if named.
    pub fn customer(&self) -> Option<&str> {
        self.rows.first().and_then(|it| it.customer.as_deref())
    }

    /// ISO 3166 alpha-2.
    pub fn country(&self) -> &str {
        self.rows.first().map_or("", |it| it.country.as_str())
    }
}

/// A row that is not posted, and why.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its line in the file.
    pub line: u64,
    /// Its invoice.
    pub invoice: String,
    /// Its SKU.
    pub sku: String,
    /// Why.
    pub reason: String,
}

/// What to post.
#[derive(Debug, Default)]
pub struct Plan {
    /// Every SKU, with the last description seen.
    pub products: BTreeMap<String, String>,
    /// Orders, in file order.
    pub orders: Vec<Invoice>,
    /// Rows of other invoices with a quantity ≤ 0: stock adjustments.
    pub adjustments: Vec<Row>,
    /// `C` invoices, in file order; quantities made positive.
    pub returns: Vec<Invoice>,
    /// Rows held back because another row of their invoice is malformed, or that say nothing.
    pub held: Vec<Held>,
    /// Malformed lines.
    pub bad: Vec<BadRow>,
}

/// Sorts a file's rows into what to post. An invoice with a malformed row is held back whole: half an order is
/// worse than none, and the report says which line to mend.
pub fn plan(file: File) -> Plan {
    let broken: BTreeMap<String, u64> =
        file.bad.iter().filter_map(|it| it.invoice.clone().map(|invoice| (invoice, it.line))).rev().collect();
    let mut plan = Plan { bad: file.bad, ..Plan::default() };
    let mut place: BTreeMap<(bool, String), usize> = BTreeMap::new();
    for mut row in file.rows {
        let held = |row: &Row, reason: String| Held {
            line: row.line,
            invoice: row.invoice.clone(),
            sku: row.sku.clone(),
            reason,
        };
        if let Some(line) = broken.get(&row.invoice) {
            plan.held.push(held(&row, format!("line {line} of the same invoice is malformed")));
            continue;
        }
        let is_return = row.invoice.starts_with('C');
        if is_return && row.quantity >= 0 {
            plan.held.push(held(&row, "a return needs a negative quantity".into()));
            continue;
        }
        if !is_return && row.quantity == 0 {
            plan.held.push(held(&row, "a quantity of zero changes nothing".into()));
            continue;
        }
        let name = plan.products.entry(row.sku.clone()).or_default();
        if !row.description.is_empty() && row.quantity > 0 {
            name.clone_from(&row.description);
        }
        if !is_return && row.quantity < 0 {
            plan.adjustments.push(row);
            continue;
        }
        row.quantity = row.quantity.abs();
        let list = if is_return { &mut plan.returns } else { &mut plan.orders };
        let index = *place.entry((is_return, row.invoice.clone())).or_insert_with(|| {
            list.push(Invoice { number: row.invoice.clone(), rows: Vec::new() });
            list.len() - 1
        });
        list[index].rows.push(row);
    }
    plan
}

/// An order that was confirmed, as returns are matched against it.
#[derive(Clone, Debug)]
pub struct Sold {
    /// The order's id.
    pub order_id: String,
    /// When it was placed.
    pub at_ms: i64,
    /// The customer.
    pub customer: String,
    /// Units left to return, per SKU.
    pub units: BTreeMap<String, i64>,
    /// What is left to refund, minor units.
    pub refundable_minor: i64,
}

/// Part of a return that one order (or, without one, a credit) answers for.
#[derive(Clone, Debug)]
pub struct ReturnPart {
    /// The `C` invoice.
    pub invoice: String,
    /// The order it is matched to; `None`: a credit.
    pub order_id: Option<String>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// Matches returns to their customers' earlier orders where SKU, quantity and amount allow, the latest order
/// first; what matches nothing becomes one credit per invoice. `sold` is in time order.
pub fn match_returns(returns: &[Invoice], sold: &mut [Sold]) -> Vec<ReturnPart> {
    let mut parts = Vec::new();
    for invoice in returns {
        let mut by_order: BTreeMap<Option<String>, Vec<Row>> = BTreeMap::new();
        for row in &invoice.rows {
            let amount = row.quantity.saturating_mul(row.unit_price_minor);
            let hit = sold.iter_mut().rev().find(|it| {
                row.customer.as_deref() == Some(it.customer.as_str())
                    && it.at_ms <= row.at_ms
                    && it.refundable_minor >= amount
                    && it.units.get(&row.sku).is_some_and(|left| *left >= row.quantity)
            });
            let order_id = hit.map(|it| {
                it.refundable_minor -= amount;
                if let Some(left) = it.units.get_mut(&row.sku) {
                    *left -= row.quantity;
                }
                it.order_id.clone()
            });
            by_order.entry(order_id).or_default().push(row.clone());
        }
        parts.extend(by_order.into_iter().map(|(order_id, rows)| ReturnPart {
            invoice: invoice.number.clone(),
            order_id,
            rows,
        }));
    }
    parts
}

/// Every SKU that holds stock.
pub fn stocked(plan: &Plan) -> BTreeSet<&str> {
    plan.products.keys().map(String::as_str).filter(|it| !is_fee(it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: u64, invoice: &str, sku: &str, quantity: i64) -> Row {
        Row {
            line,
            invoice: invoice.into(),
            sku: sku.into(),
            description: String::new(),
            quantity,
            at: "2010-12-01T08:26:00Z".into(),
            at_ms: 1_291_191_960_000 + line as i64,
            unit_price_minor: 100,
            customer: Some("1".into()),
            country: "GB".into(),
        }
    }

    #[test]
    fn rows_become_orders_adjustments_and_returns() {
        let rows =
            vec![row(2, "1", "a", 3), row(3, "1", "a", 1), row(4, "2", "b", -5), row(5, "C3", "a", -2)];
        let plan = plan(File { rows, bad: vec![] });
        assert_eq!(plan.orders.len(), 1);
        assert_eq!(plan.orders[0].rows.len(), 2);
        assert_eq!(plan.adjustments.len(), 1);
        assert_eq!(plan.returns[0].rows[0].quantity, 2);
    }

    #[test]
    fn an_invoice_with_a_malformed_row_is_held_back_whole() {
        let bad = vec![BadRow { line: 3, invoice: Some("1".into()), problem: "x".into() }];
        let plan = plan(File { rows: vec![row(2, "1", "a", 3), row(4, "2", "b", 1)], bad });
        assert_eq!(plan.orders.len(), 1);
        assert_eq!((plan.held[0].line, plan.held[0].reason.contains("line 3")), (2, true));
    }

    #[test]
    fn a_return_is_matched_once_and_the_rest_is_credited() {
        let returns =
            vec![Invoice { number: "C9".into(), rows: vec![row(9, "C9", "a", 2), row(10, "C9", "a", 2)] }];
        let mut sold = vec![Sold {
            order_id: "ord_1".into(),
            at_ms: 0,
            customer: "1".into(),
            units: [("a".to_owned(), 3)].into(),
            refundable_minor: 300,
        }];
        let parts = match_returns(&returns, &mut sold);
        let found: Vec<_> = parts.iter().map(|it| (it.order_id.as_deref(), it.rows[0].line)).collect();
        assert_eq!(found, [(None, 10), (Some("ord_1"), 9)]);
        assert_eq!((sold[0].units["a"], sold[0].refundable_minor), (1, 100));
    }

    #[test]
    fn a_return_is_never_matched_to_a_later_order_or_another_customer() {
        let returns = vec![Invoice { number: "C9".into(), rows: vec![row(9, "C9", "a", 1)] }];
        for (at_ms, customer) in [(i64::MAX, "1"), (0, "2")] {
            let mut sold = vec![Sold {
                order_id: "ord_1".into(),
                at_ms,
                customer: customer.into(),
                units: [("a".to_owned(), 3)].into(),
                refundable_minor: 300,
            }];
            assert!(match_returns(&returns, &mut sold)[0].order_id.is_none());
        }
    }
}
