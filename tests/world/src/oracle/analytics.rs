//! Analytics: the windows must say what the orders say.

use super::orders::Order;
use super::seen::Seen;
use super::{Checked, Violation, expect};
use std::collections::BTreeMap;
use tillstream_schemas::analytics::{Granularity, Sums, WindowState};
use tillstream_schemas::order_state::OrderStatus;
use tillstream_schemas::{Text, Topic, codec};

/// Tenant, granularity, start and country.
type Place = (Text, Granularity, i64, Text);

fn numbers(sums: &Sums) -> [i64; 14] {
    let Sums {
        orders,
        units,
        gross,
        discount,
        tax,
        refunded,
        refunds,
        placed,
        priced,
        reserved,
        paid,
        completed,
        failed,
        cancelled,
    } = *sums;
    [
        orders, units, gross, discount, tax, refunded, refunds, placed, priced, reserved, paid, completed,
        failed, cancelled,
    ]
}

fn add(windows: &mut BTreeMap<Place, [i64; 14]>, tenant: &str, at_ms: i64, country: &Text, sums: [i64; 14]) {
    for granularity in Granularity::ALL {
        let start_ms = at_ms.div_euclid(granularity.width_ms()) * granularity.width_ms();
        let window = windows.entry((tenant.into(), granularity, start_ms, country.clone())).or_default();
        window.iter_mut().zip(sums).for_each(|(sum, it)| *sum += it);
    }
}

fn of_order(order: &Order) -> [i64; 14] {
    let mut sums = Sums { placed: 1, ..Sums::default() };
    sums.priced = i64::from(!order.lines.is_empty());
    sums.reserved = i64::from(order.reserved);
    sums.completed = i64::from(order.completed);
    sums.paid = i64::from(order.confirmed);
    sums.failed = i64::from(order.dead == Some(OrderStatus::Failed));
    sums.cancelled = i64::from(order.dead == Some(OrderStatus::Cancelled));
    if order.revenue {
        sums.orders = 1;
        for line in &order.lines {
            sums.units += if line.sku == "SHIPPING" { 0 } else { line.quantity };
            sums.gross += line.gross;
            sums.discount += line.off;
            sums.tax += line.tax;
        }
    }
    numbers(&sums)
}

/// Compares every window.
pub(super) fn judge(seen: &Seen, orders: &BTreeMap<Text, Order>) -> Checked {
    let mut expected = BTreeMap::new();
    for (of, order) in orders {
        let Some(placed) = &order.placed else { continue };
        let tenant = of.split_once('/').map_or("", |it| it.0);
        add(&mut expected, tenant, placed.placed_at_ms, &placed.country, of_order(order));
        for (at_ms, amount) in order.refunds.iter().filter(|_| order.revenue) {
            let sums = Sums { refunded: *amount, refunds: 1, ..Sums::default() };
            add(&mut expected, tenant, *at_ms, &placed.country, numbers(&sums));
        }
    }
    let mut found = BTreeMap::new();
    for ((topic, key), value) in &seen.rows {
        if let (Topic::AnalyticsChangelog, true, Some(value)) = (topic, key.starts_with(b"window/"), value) {
            let row: WindowState = codec::decode(value)
                .map_err(|error| Violation(format!("a window cannot be decoded: {error}")))?;
            let place = (row.tenant.clone(), row.granularity, row.window_start_ms, row.country.clone());
            found.insert(place, numbers(&row.sums));
        }
    }
    for (place, sums) in &expected {
        let row = found.remove(place);
        expect(row.as_ref() == Some(sums), || {
            format!("the window {place:?} says {row:?}, the model {sums:?}")
        })?;
    }
    expect(found.is_empty(), || format!("windows of nothing: {found:?}"))
}
