//! Money: the ledger sums to zero per currency, the provider agrees, analytics counts each order once.

use super::{Findings, Seen, number, text};
use serde_json::Value;
use std::collections::BTreeMap;
use tillstream_schemas::Topic;

pub(super) fn check(seen: &Seen<'_>, findings: &mut Findings) {
    check_ledger(seen, findings);
    check_provider(seen, findings);
    check_analytics(seen, findings);
}

fn check_ledger(seen: &Seen<'_>, findings: &mut Findings) {
    let mut currencies: BTreeMap<&str, i64> = BTreeMap::new();
    for (id, row) in &seen.orders {
        let mut postings: BTreeMap<i64, i64> = BTreeMap::new();
        for line in row["payment"]["ledger"].as_array().into_iter().flatten() {
            *postings.entry(number(&line["posting"])).or_default() += number(&line["amount_minor"]);
            *currencies.entry(text(&row["order"]["currency"])).or_default() += number(&line["amount_minor"]);
        }
        findings.expect(postings.values().all(|it| *it == 0), || format!("{id} has postings {postings:?}"));
    }
    findings.expect(currencies.values().all(|it| *it == 0), || format!("the ledger sums to {currencies:?}"));
}

/// One charge per payment, and the amounts of events, rows and provider are the same.
fn check_provider(seen: &Seen<'_>, findings: &mut Findings) {
    let mut charges: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for payment in &seen.payments {
        charges.entry(text(&payment["order_id"])).or_default().push(payment);
    }
    let mut told: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for event in seen.of(Topic::OrderEvents) {
        let amounts = told.entry(text(&event["order_id"])).or_default();
        let amount = number(&event["payload"]["amount_minor"]);
        match text(&event["payload"]["kind"]) {
            "PaymentCaptured" => amounts.0 += amount,
            "PaymentRefunded" => amounts.1 += amount,
            _ => {}
        }
    }
    for (id, row) in &seen.orders {
        let payment = &row["payment"];
        let ours = (number(&payment["captured_minor"]), number(&payment["refunded_minor"]));
        let events = told.get(id.as_str()).copied().unwrap_or_default();
        findings.expect(events == ours, || {
            format!("{id}: events say {events:?}, the row {ours:?} (captured, refunded)")
        });
        let charges = charges.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        findings.expect(charges.len() <= 1, || format!("{id} has {} payments: {charges:?}", charges.len()));
        let one = charges.iter().all(|it| it["charges"].as_array().is_some_and(|it| it.len() <= 1));
        findings.expect(one, || format!("{id} was charged more than once: {charges:?}"));
        let sum = |name: &str| charges.iter().map(|it| number(&it[name])).sum::<i64>();
        let theirs = (sum("captured_minor"), sum("refunded_minor"));
        findings.expect(theirs == ours, || format!("{id}: the provider says {charges:?}, the row {payment}"));
        let total = number(&row["order"]["total_minor"]);
        findings
            .expect(theirs.0 == 0 || theirs.0 == total, || format!("{id}: {} captured of {total}", theirs.0));
        if matches!(text(&row["view"]["status"]), "cancelled" | "failed") {
            findings.expect(ours.0 == ours.1, || format!("{id} is dead and keeps money: {payment}"));
        }
    }
}

/// (orders, placed, priced, units, gross) per currency.
type Sums = BTreeMap<String, [i64; 5]>;

fn add(into: &mut Sums, currency: &str, sums: &Value) {
    let entry = into.entry(currency.to_owned()).or_default();
    for (sum, name) in entry.iter_mut().zip(["orders", "placed", "priced", "units", "gross"]) {
        *sum += number(&sums[name]);
    }
}

fn check_analytics(seen: &Seen<'_>, findings: &mut Findings) {
    let (mut deltas, mut windows, mut expected) = (Sums::new(), Sums::new(), Sums::new());
    for delta in seen.of(Topic::AnalyticsDeltas) {
        let windows = delta["windows"].as_array().into_iter().flatten();
        for it in windows.filter(|it| number(&it["minute_start_ms"]) == seen.minute_ms) {
            add(&mut deltas, text(&it["currency"]), &it["sums"]);
        }
    }
    for row in seen.windows.values() {
        add(&mut windows, text(&row["currency"]), &row["sums"]);
    }
    for event in seen.of(Topic::OrderEvents) {
        let Some(placed) = seen.book.get(text(&event["order_id"])) else { continue };
        let entry = expected.entry(placed.currency.to_owned()).or_default();
        let payload = &event["payload"];
        // Captured for an order that is cancelled, it goes back and was never revenue.
        let alive = !matches!(text(&event["status"]), "cancelled" | "failed");
        if payload["kind"] == "OrderPriced" {
            entry[1] += 1;
            entry[2] += 1;
        }
        if payload["kind"] == "PaymentCaptured" && alive {
            entry[0] += 1;
            entry[3] += placed.units.values().sum::<i64>();
            entry[4] += placed.gross;
        }
    }
    findings.expect(deltas == expected, || {
        format!("analytics deltas come to {deltas:?}, the events to {expected:?} (orders, placed, priced, units, gross)")
    });
    findings
        .expect(windows == expected, || format!("windows come to {windows:?}, the events to {expected:?}"));
}
