//! What a query reads after which events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use proptest::prelude::*;
use tillstream_order_view::{TIMELINE_MAX, apply};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation};
use tillstream_schemas::order_event::{
    CommandConflicted, CommandRefused, CreditIssued, OrderCancelled, OrderCompleted,
    OrderEventPayload as Event, OrderPriced, OrderRejected, OrderReserved, OrderReturned,
    PaymentActionRequired, PaymentAuthorized, PaymentCancelled, PaymentCaptured, PaymentFailed,
    PaymentRefunded, RefundFailed, RefundRequested, RuleRef, RuleStep, ShipmentDelivered, ShipmentShipped,
};
use tillstream_schemas::order_state::{OrderStatus as At, OrderView};

fn text(it: &str) -> Text {
    it.into()
}

/// One event of every kind, by a short name.
fn event(name: &str) -> Event {
    match name {
        "priced" => OrderPriced {
            customer: None,
            currency: text("GBP"),
            country: text("GB"),
            placed_at_ms: 1,
            lines: Vec::new(),
            gross_minor: 500,
            discount_minor: 0,
            tax_minor: 0,
            total_minor: 500,
            rule: None,
            review: None,
            dimensions: Default::default(),
        }
        .into(),
        "rejected" => OrderRejected {
            code: text("out_of_stock"),
            message: text("No stock."),
            skus: Vec::new(),
            placed_at_ms: 1,
            rule: None,
        }
        .into(),
        "reserved" => OrderReserved { holds: Vec::new(), expires_at_ms: 9, rule: None, review: None }.into(),
        "authorized" | "authorized, automatic" | "looked at" => PaymentAuthorized {
            payment_id: text("pay_1"),
            amount_minor: 500,
            capture: if name == "authorized, automatic" {
                CaptureMode::Automatic
            } else {
                CaptureMode::Manual
            },
            provider_ref: None,
            rule: None,
            review: (name == "looked at").then(|| text("odd")),
        }
        .into(),
        "action" => PaymentActionRequired { payment_id: text("pay_1"), action: text("url") }.into(),
        "captured" | "captured later" => PaymentCaptured {
            payment_id: text("pay_1"),
            amount_minor: 500,
            provider_ref: None,
            confirms: name == "captured",
            rule: None,
        }
        .into(),
        "payment failed" | "capture failed" => PaymentFailed {
            payment_id: text("pay_1"),
            operation: match name {
                "payment failed" => PaymentOperation::Authorize,
                _ => PaymentOperation::Capture,
            },
            code: text("card_declined"),
            message: text("Declined."),
            rule: None,
        }
        .into(),
        "payment cancelled" => PaymentCancelled { payment_id: text("pay_1"), amount_minor: 500 }.into(),
        "refund asked" => RefundRequested { refund_id: text("r"), amount_minor: 5, reason: None }.into(),
        "refunded" => {
            PaymentRefunded { refund_id: text("r"), amount_minor: 5, refunded_at_ms: 3, return_id: None }
                .into()
        }
        "refund failed" => RefundFailed { refund_id: text("r"), code: text("c"), message: text("m") }.into(),
        other => event_of_goods(other),
    }
}

fn event_of_goods(name: &str) -> Event {
    match name {
        "cancelled" => OrderCancelled { code: text("requested"), message: text("Changed my mind.") }.into(),
        "shipped in part" | "shipped" => ShipmentShipped {
            shipment_id: text("shp_1"),
            lines: Vec::new(),
            carrier: None,
            tracking: None,
            all_shipped: name == "shipped",
            rule: None,
            location: None,
            promised_at_ms: None,
        }
        .into(),
        "arrived" => ShipmentDelivered { shipment_id: text("shp_1"), delivered_at_ms: 4 }.into(),
        "completed" => OrderCompleted { shipments: 1 }.into(),
        "returned" => {
            OrderReturned { return_id: text("ret_1"), lines: Vec::new(), amount_minor: 5, returned_at_ms: 4 }
                .into()
        }
        "credit" => CreditIssued {
            customer: None,
            currency: text("GBP"),
            country: text("GB"),
            lines: Vec::new(),
            amount_minor: 5,
            returned_at_ms: 4,
        }
        .into(),
        "conflicted" => CommandConflicted { command_id: text("cmd_1") }.into(),
        "refused" => CommandRefused {
            command_id: text("cmd_1"),
            command: text("cancel"),
            code: text("already_shipped"),
            message: text("m"),
            rule: None,
        }
        .into(),
        other => panic!("{other}"),
    }
}

const NAMES: [&str; 24] = [
    "priced",
    "rejected",
    "reserved",
    "authorized",
    "authorized, automatic",
    "action",
    "captured",
    "captured later",
    "payment failed",
    "capture failed",
    "payment cancelled",
    "refund asked",
    "refunded",
    "refund failed",
    "cancelled",
    "shipped in part",
    "shipped",
    "arrived",
    "completed",
    "returned",
    "credit",
    "conflicted",
    "refused",
    "arrived",
];

fn fold(names: &[&str]) -> OrderView {
    let mut view = OrderView::default();
    for (index, name) in names.iter().enumerate() {
        apply(&mut view, &event(name), &text(&format!("evt_{index}")), index as i64 + 10);
    }
    view
}

#[test]
fn an_entry_names_the_rules_that_shaped_its_event_and_the_view_keeps_each_version_once() {
    let step =
        |name: &str, version: &str| RuleStep { name: text(name), version: text(version), digest: text("d") };
    let rule = |version: &str, also: Vec<RuleStep>| {
        Some(RuleRef { name: text("tiers"), version: text(version), digest: text("d"), also })
    };
    let mut view = OrderView::default();
    for (name, by) in [
        ("priced", rule("1", vec![step("vat", "2")])),
        ("reserved", None),
        ("shipped in part", rule("2", Vec::new())),
        ("shipped", rule("1", Vec::new())),
        ("refused", rule("2", Vec::new())),
    ] {
        let mut event = event(name);
        match &mut event {
            Event::OrderPriced(it) => it.rule = by,
            Event::ShipmentShipped(it) => it.rule = by,
            Event::CommandRefused(it) => it.rule = by,
            _ => {}
        }
        apply(&mut view, &event, &text(name), 1);
    }
    assert_eq!(view.rules, [step("tiers", "1"), step("vat", "2"), step("tiers", "2")]);
    let named = |it| view.rules_of(it).map(|it| (it.name.as_str(), it.version.as_str())).collect::<Vec<_>>();
    let named: Vec<_> = view.timeline.iter().map(named).collect();
    let expected: [&[_]; 5] =
        [&[("tiers", "1"), ("vat", "2")], &[], &[("tiers", "2")], &[("tiers", "1")], &[("tiers", "2")]];
    assert_eq!(named, expected);
}

#[test]
fn status_and_stage_follow_the_events() {
    let cases: [(&[&str], At, &str); 26] = [
        (&["priced"], At::Pending, "reservation"),
        (&["priced", "reserved"], At::Pending, "payment"),
        (&["priced", "reserved", "action"], At::Pending, "customer_action"),
        (&["priced", "reserved", "action", "captured"], At::Confirmed, "fulfillment"),
        (&["priced", "reserved", "authorized, automatic"], At::Pending, "payment"),
        (&["priced", "reserved", "authorized"], At::Confirmed, "capture"),
        (&["priced", "reserved", "authorized", "captured later"], At::Confirmed, "fulfillment"),
        (&["priced", "reserved", "authorized", "capture failed"], At::Confirmed, "capture"),
        (&["priced", "reserved", "authorized", "payment cancelled"], At::Confirmed, "fulfillment"),
        (&["priced", "reserved", "looked at"], At::Pending, "review"),
        (&["priced", "reserved", "looked at", "capture failed"], At::Pending, "review"),
        (&["priced", "reserved", "looked at", "captured"], At::Confirmed, "fulfillment"),
        (&["authorized", "shipped", "arrived", "completed"], At::Delivered, "capture"),
        (&["authorized", "shipped", "captured later"], At::Shipped, "delivery"),
        (&["captured", "shipped in part"], At::Processing, "fulfillment"),
        (&["captured", "shipped in part", "shipped"], At::Shipped, "delivery"),
        (&["captured", "shipped", "arrived"], At::Shipped, "delivery"),
        (&["captured", "shipped", "arrived", "completed", "returned", "refunded"], At::Delivered, "done"),
        (&["rejected"], At::Failed, "done"),
        (&["priced", "reserved", "payment failed", "captured"], At::Failed, "done"),
        (&["priced", "cancelled", "captured later", "refund asked", "refunded"], At::Cancelled, "done"),
        (&["priced", "cancelled", "rejected"], At::Cancelled, "done"),
        (&["captured", "refused", "conflicted"], At::Confirmed, "fulfillment"),
        (&["captured", "refund asked", "refund failed"], At::Confirmed, "fulfillment"),
        (&["refused"], At::Pending, "pricing"),
        (&["credit"], At::Confirmed, "done"),
    ];
    for (names, status, stage) in cases {
        let view = fold(names);
        assert_eq!((view.status, view.stage.as_str()), (status, stage), "{names:?}");
    }
}

#[test]
fn the_first_reason_stays() {
    let view = fold(&["priced", "cancelled", "payment failed"]);
    assert_eq!(view.reason_code.as_deref(), Some("requested"));
    assert_eq!(view.reason.as_deref(), Some("Changed my mind."));
    assert_eq!(fold(&["captured", "refused"]).reason_code, None);
}

#[test]
fn the_timeline_says_what_happened_when() {
    let view = fold(&["priced", "captured", "refused"]);
    assert_eq!((view.version, view.updated_at_ms), (3, 12));
    let last = &view.timeline[2];
    assert_eq!(
        (last.event_id.as_str(), last.kind.as_str(), last.at_ms, last.version),
        ("evt_2", "command.refused", 12, 3)
    );
    assert_eq!((last.status, last.detail.as_deref()), (At::Confirmed, Some("already_shipped")));
    assert_eq!(view.timeline[1].amount_minor, Some(500));
}

#[test]
fn a_long_timeline_loses_its_oldest_entries_but_the_first() {
    let mut names = vec!["priced"];
    names.resize(TIMELINE_MAX + 40, "refused");
    let view = fold(&names);
    assert_eq!(view.timeline.len(), TIMELINE_MAX);
    let versions: Vec<i64> = view.timeline.iter().map(|it| it.version).collect();
    let expected: Vec<i64> = std::iter::once(1).chain(42..=540).collect();
    assert_eq!(versions, expected);
}

proptest! {
    #[test]
    fn a_dead_order_stays_dead(names in prop::collection::vec(prop::sample::select(&NAMES[..]), 0..40)) {
        let mut dead = None;
        for end in 0..=names.len() {
            let view = fold(&names[..end]);
            prop_assert_eq!(view.version, end as i64);
            if let Some(before) = dead {
                prop_assert_eq!((view.status, view.reason_code.clone()), before);
            }
            let is_dead = matches!(view.status, At::Cancelled | At::Failed);
            dead = is_dead.then(|| (view.status, view.reason_code.clone()));
            prop_assert!(!is_dead || view.stage == "done");
        }
    }
}
