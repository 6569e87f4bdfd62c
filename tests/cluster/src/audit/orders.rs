//! Every acknowledged order stands once in what each stage wrote.

use super::{Findings, Seen, number, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tillstream_schemas::Topic;

/// What an order may have at most one event of.
const ONCE: [&str; 8] = [
    "OrderRejected",
    "OrderReserved",
    "PaymentAuthorized",
    "PaymentCancelled",
    "PaymentFailed",
    "OrderCancelled",
    "OrderCompleted",
    "PaymentCaptured",
];

pub(super) fn check(seen: &Seen<'_>, findings: &mut Findings) {
    let mut events: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in seen.of(Topic::OrderEvents) {
        events.entry(text(&event["order_id"])).or_default().push(event);
    }
    let mut requests: BTreeMap<&str, BTreeSet<(&str, i64)>> = BTreeMap::new();
    for request in seen.of(Topic::EffectRequests) {
        let payload = &request["payload"];
        let key = (text(&payload["request_key"]), number(&payload["attempt"]));
        let fresh = requests.entry(text(&request["order_id"])).or_default().insert(key);
        findings.expect(fresh, || format!("a request stands twice: {request}"));
    }
    for id in seen.book.keys() {
        let events = events.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let Some(row) = seen.orders.get(id) else {
            findings.problems.push(format!("{id} has no row; its events: {:?}", kinds(events)));
            continue;
        };
        check_events(id, events, row, findings);
        check_row(id, row, findings);
        *findings.statuses.entry(text(&row["view"]["status"]).to_owned()).or_default() += 1;
    }
    // Nobody else places orders meanwhile.
    for id in events.keys().filter(|id| !seen.book.contains_key(**id)) {
        findings.problems.push(format!("{id} has events, and no client placed it"));
    }
}

fn kinds<'a>(events: &[&'a Value]) -> Vec<&'a str> {
    events.iter().map(|it| text(&it["payload"]["kind"])).collect()
}

fn check_events(id: &str, events: &[&Value], row: &Value, findings: &mut Findings) {
    let kinds = kinds(events);
    let count = |kind: &str| kinds.iter().filter(|it| **it == kind).count();
    findings.expect(count("OrderPriced") == 1, || {
        format!("{id} was priced {} times: {kinds:?}", count("OrderPriced"))
    });
    for kind in ONCE {
        findings.expect(count(kind) <= 1, || format!("{id} has {} of {kind}: {kinds:?}", count(kind)));
    }
    for (kind, name) in [
        ("PaymentRefunded", "refund_id"),
        ("RefundRequested", "refund_id"),
        ("ShipmentShipped", "shipment_id"),
        ("OrderReturned", "return_id"),
    ] {
        let all: Vec<&str> = events
            .iter()
            .filter(|it| it["payload"]["kind"] == kind)
            .map(|it| text(&it["payload"][name]))
            .collect();
        let distinct: BTreeSet<&str> = all.iter().copied().collect();
        findings.expect(all.len() == distinct.len(), || format!("{id} has a {kind} twice: {all:?}"));
    }
    let versions: Vec<i64> = events.iter().map(|it| number(&it["version"])).collect();
    let expected: Vec<i64> = (1..=events.len() as i64).collect();
    findings.expect(versions == expected, || format!("{id} has versions {versions:?} of {kinds:?}"));
    let last = events.last().map(|it| (text(&it["status"]), number(&it["version"])));
    let view = &row["view"];
    findings.expect(last == Some((text(&view["status"]), number(&view["version"]))), || {
        format!("{id}: the last event says {last:?}, its row {view}")
    });
}

fn check_row(id: &str, row: &Value, findings: &mut Findings) {
    let (view, payment) = (&row["view"], &row["payment"]);
    findings.expect(view["status"] != "pending", || format!("{id} is still pending at {}", view["stage"]));
    findings.expect(payment["pending"].is_null(), || format!("{id} waits for {}", payment["pending"]));
    let waiting = |it: &&Value| matches!(text(&it["status"]), "queued" | "pending");
    let refunds = payment["refunds"].as_array().into_iter().flatten().filter(waiting).count();
    findings.expect(refunds == 0, || format!("{id} has {refunds} refunds under way"));
}
