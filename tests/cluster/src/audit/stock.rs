//! Stock: what was received is on the shelf, held, or sold.

use super::{Findings, Seen, number, text};
use serde_json::Value;
use std::collections::BTreeMap;

/// Units that orders took for good: those of orders that live, less what came back.
fn gone(seen: &Seen<'_>) -> BTreeMap<String, i64> {
    let mut gone: BTreeMap<String, i64> = BTreeMap::new();
    for (id, row) in &seen.orders {
        if matches!(text(&row["view"]["status"]), "cancelled" | "failed") {
            continue;
        }
        for (sku, units) in &seen.book[id].units {
            *gone.entry(sku.clone()).or_default() += units;
        }
        for line in row["fulfillment"]["returned"].as_array().into_iter().flatten() {
            if line["restock"] == true {
                *gone.entry(text(&line["sku"]).to_owned()).or_default() -= number(&line["quantity"]);
            }
        }
    }
    gone
}

fn sum<'a>(rows: impl Iterator<Item = &'a Value>, name: &str) -> i64 {
    rows.map(|it| number(&it[name])).sum()
}

pub(super) fn check(seen: &Seen<'_>, findings: &mut Findings) {
    let gone = gone(seen);
    for (sku, received) in seen.received {
        let Some(row) = seen.stock.get(sku) else {
            findings.problems.push(format!("{sku} has no stock row"));
            continue;
        };
        let locations = || row["locations"].as_array().into_iter().flatten();
        let (on_hand, reserved) = (sum(locations(), "on_hand"), sum(locations(), "reserved"));
        let prefix = format!("{sku}/");
        let open =
            seen.holds.iter().filter(|(key, hold)| key.starts_with(&prefix) && hold["phase"] == "open");
        let held = sum(open.map(|(_, hold)| hold), "quantity");
        let sold = gone.get(sku).copied().unwrap_or(0);
        findings.expect(on_hand - reserved + held + sold == *received, || {
            format!("{sku}: {received} received, but {on_hand} on hand, {reserved} reserved, {held} held, {sold} sold: {row}")
        });
        findings.expect(reserved == held && held == 0, || {
            format!("{sku}: {reserved} reserved, {held} held at rest")
        });
        findings.expect(on_hand >= 0, || format!("{sku} was oversold: {row}"));
    }
    let strange = seen.stock.keys().filter(|it| !seen.received.contains_key(*it));
    findings.problems.extend(strange.map(|it| format!("{it} has stock that nobody of {} sent", seen.tag)));
}
