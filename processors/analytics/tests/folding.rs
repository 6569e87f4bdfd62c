//! Deltas and windows: whatever the order and the batches, the same rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use tillstream_analytics::fold::{
    BatchFold, Contribution, EventContext, WindowId, contribution, counts_revenue,
};
use tillstream_analytics::windows::{TenantChanges, WindowRowId, changed, corrected};
use tillstream_schemas::analytics::{
    AnalyticsDelta, Granularity, ProductSum, Sums, WatermarkState, WindowState,
};
use tillstream_schemas::order_command::{CaptureMode, ReturnLine};
use tillstream_schemas::order_event::{
    CreditIssued, OrderEventPayload as Event, OrderRejected, OrderReserved, PaymentAuthorized,
    PaymentCaptured, PaymentRefunded,
};
use tillstream_schemas::order_state::{LineKind, OrderStatus, PricedLine, PricedOrder};

const MINUTE: i64 = 60_000;

fn line(sku: &str, kind: LineKind, quantity: i64, gross_minor: i64) -> PricedLine {
    PricedLine {
        sku: sku.into(),
        kind,
        quantity,
        unit_price_minor: gross_minor / quantity,
        gross_minor,
        discount_minor: 0,
        tax_rate_bp: 0,
        tax_minor: 0,
        product_version: None,
        category: None,
    }
}

fn order() -> PricedOrder {
    PricedOrder {
        currency: "GBP".into(),
        country: "GB".into(),
        placed_at_ms: 10 * MINUTE + 1,
        lines: vec![
            line("A", LineKind::Goods, 3, 300),
            line("POSTAGE", LineKind::Fee, 1, 18),
            line("SHIPPING", LineKind::Shipping, 1, 50),
        ],
        gross_minor: 368,
        discount_minor: 8,
        tax_minor: 4,
        total_minor: 364,
        ..PricedOrder::default()
    }
}

fn context(order: &PricedOrder, status: OrderStatus, revenue_counted: bool) -> EventContext<'_> {
    EventContext { tenant: "demo", order: Some(order), status, revenue_counted, trace: Some(7) }
}

fn captured(confirms: bool) -> Event {
    PaymentCaptured {
        payment_id: "pay_1".into(),
        amount_minor: 364,
        provider_ref: None,
        confirms,
        rule: None,
    }
    .into()
}

fn refunded() -> Event {
    let refunded_at_ms = 99 * MINUTE;
    PaymentRefunded { refund_id: "rfd_1".into(), amount_minor: 50, refunded_at_ms, return_id: None }.into()
}

#[test]
fn revenue_stands_in_the_minute_of_the_order() {
    let order = order();
    let found = contribution(&captured(true), &context(&order, OrderStatus::Confirmed, false)).unwrap();
    assert_eq!(found.window.minute_start_ms, 10 * MINUTE);
    let expected = Sums { orders: 1, units: 4, gross: 368, discount: 8, tax: 4, paid: 1, ..Sums::default() };
    assert_eq!(found.sums, expected);
    let products: Vec<_> = found.products.iter().map(|it| (it.sku.as_str(), it.units, it.gross)).collect();
    assert_eq!(products, [("A", 3, 300), ("POSTAGE", 1, 18)]);
}

#[test]
fn a_manual_order_is_paid_when_authorized_and_revenue_when_captured() {
    let order = order();
    let authorized: Event = PaymentAuthorized {
        payment_id: "pay_1".into(),
        amount_minor: 364,
        capture: CaptureMode::Manual,
        provider_ref: None,
        rule: None,
        review: None,
    }
    .into();
    let paid = contribution(&authorized, &context(&order, OrderStatus::Confirmed, false)).unwrap();
    assert_eq!(paid.sums, Sums { paid: 1, ..Sums::default() });
    let revenue = contribution(&captured(false), &context(&order, OrderStatus::Confirmed, false)).unwrap();
    assert_eq!((revenue.sums.orders, revenue.sums.paid), (1, 0));
}

#[test]
fn a_capture_counts_once_and_never_for_a_dead_order() {
    let order = order();
    for (status, counted_before) in
        [(OrderStatus::Cancelled, false), (OrderStatus::Failed, false), (OrderStatus::Shipped, true)]
    {
        let context = context(&order, status, counted_before);
        assert!(!counts_revenue(&captured(true), &context));
        assert_eq!(contribution(&captured(true), &context), None);
    }
}

#[test]
fn a_refund_stands_in_its_own_minute_and_only_against_counted_revenue() {
    let order = order();
    let found = contribution(&refunded(), &context(&order, OrderStatus::Cancelled, true)).unwrap();
    assert_eq!(found.window.minute_start_ms, 99 * MINUTE);
    assert_eq!(found.sums, Sums { refunded: 50, refunds: 1, ..Sums::default() });
    assert_eq!(contribution(&refunded(), &context(&order, OrderStatus::Cancelled, false)), None);
}

#[test]
fn a_credit_is_a_refund_without_an_order() {
    let lines = vec![ReturnLine { sku: "A".into(), quantity: 1, amount_minor: Some(90), restock: true }];
    let credit: Event = CreditIssued {
        customer: None,
        currency: "EUR".into(),
        country: "DE".into(),
        lines,
        amount_minor: 90,
        returned_at_ms: 5 * MINUTE,
    }
    .into();
    let context = EventContext {
        tenant: "demo",
        order: None,
        status: OrderStatus::Confirmed,
        revenue_counted: false,
        trace: None,
    };
    let found = contribution(&credit, &context).unwrap();
    let id = WindowId {
        tenant: "demo".into(),
        minute_start_ms: 5 * MINUTE,
        currency: "EUR".into(),
        country: "DE".into(),
    };
    assert_eq!((found.window, found.sums.refunded, found.sums.refunds), (id, 90, 1));
}

#[test]
fn an_order_that_pricing_refused_was_placed_by_its_refusal() {
    let rejected = |code: &str| -> Event {
        OrderRejected { code: code.into(), message: "".into(), skus: Vec::new(), placed_at_ms: 0, rule: None }
            .into()
    };
    let unpriced = PricedOrder { lines: Vec::new(), ..order() };
    let found = contribution(&rejected("no_price"), &context(&unpriced, OrderStatus::Failed, false)).unwrap();
    assert_eq!((found.sums.placed, found.sums.priced, found.sums.failed), (1, 0, 1));
    assert_eq!(found.refusal.as_deref(), Some("no_price"));
    let order = order();
    let found =
        contribution(&rejected("out_of_stock"), &context(&order, OrderStatus::Failed, false)).unwrap();
    assert_eq!((found.sums.placed, found.sums.failed), (0, 1));
}

fn delta(minute: i64, gross: i64, decided_at_ms: i64) -> AnalyticsDelta {
    let mut fold = BatchFold::default();
    fold.add(Contribution {
        window: WindowId {
            tenant: "demo".into(),
            minute_start_ms: minute * MINUTE,
            currency: "GBP".into(),
            country: "GB".into(),
        },
        event_time_ms: minute * MINUTE,
        sums: Sums { orders: 1, gross, ..Sums::default() },
        refusal: None,
        products: vec![ProductSum { sku: "A".into(), units: 1, gross }],
        trace: None,
    });
    fold.into_deltas("batch", 0, decided_at_ms).remove(0)
}

#[test]
fn a_late_delta_changes_its_window_and_leaves_a_correction() {
    let mut changes = TenantChanges::new(WatermarkState::default());
    let now_ms = 1_000 * MINUTE;
    changes.add(&delta(10, 1, now_ms), now_ms);
    changes.add(&delta(11, 1, now_ms), now_ms);
    assert!(changes.corrections.is_empty(), "the watermark stands at the start of minute 11");
    changes.add(&delta(10, 5, now_ms), now_ms);
    let late: Vec<_> =
        changes.corrections.values().map(|it| (it.minute_start_ms, it.sums.gross, it.count)).collect();
    assert_eq!(late, [(10 * MINUTE, 5, 1)]);
    changes.add(&delta(10, 7, now_ms), now_ms);
    let again = changes.corrections.values().next().unwrap();
    assert_eq!((again.sums.gross, again.count), (12, 2));
    let row = corrected(Some(again), again);
    assert_eq!((row.sums.gross, row.count), (24, 4));
    let minute = WindowRowId {
        granularity: Granularity::Minute,
        start_ms: 10 * MINUTE,
        currency: "GBP".into(),
        country: "GB".into(),
    };
    assert_eq!(changes.windows[&minute].sums.gross, 13);
}

#[test]
fn very_many_products_are_split_over_deltas_of_their_own_ids() {
    let mut fold = BatchFold::default();
    for minute in 0..5 {
        fold.add(Contribution {
            window: WindowId {
                tenant: "demo".into(),
                minute_start_ms: minute * MINUTE,
                currency: "GBP".into(),
                country: "".into(),
            },
            event_time_ms: minute * MINUTE,
            sums: Sums::default(),
            refusal: None,
            products: (0..3_000)
                .map(|it| ProductSum { sku: format!("s{it}").into(), units: 1, gross: 1 })
                .collect(),
            trace: Some(minute as u128 % 4),
        });
    }
    let deltas = fold.into_deltas("batch", 0, 0);
    let windows: Vec<_> = deltas.iter().map(|it| it.windows.len()).collect();
    assert_eq!(windows, [2, 2, 1]);
    assert!(deltas[0].id != deltas[1].id && deltas[1].id != deltas[2].id);
    let traces: Vec<_> = deltas.iter().map(|it| it.traces.len()).collect();
    assert_eq!(traces, [2, 2, 1], "each names the calls of its own windows");
}

#[test]
fn a_delta_names_every_call_it_folds_once_and_what_no_call_caused_not_at_all() {
    let order = order();
    let reserved =
        Event::OrderReserved(OrderReserved { holds: Vec::new(), expires_at_ms: 1, rule: None, review: None });
    let mut fold = BatchFold::default();
    for trace in [Some(0xfeed), None, Some(0xbeef), Some(0xfeed)] {
        let context = EventContext { trace, ..context(&order, OrderStatus::Pending, false) };
        fold.add(contribution(&reserved, &context).unwrap());
    }
    let delta = fold.into_deltas("batch", 0, 0).remove(0);
    assert_eq!(delta.windows[0].sums.reserved, 4);
    assert_eq!(delta.traces, ["0000000000000000000000000000beef", "0000000000000000000000000000feed"]);
}

fn rows(deltas: &[AnalyticsDelta], batch: usize) -> BTreeMap<WindowRowId, WindowState> {
    let mut rows = BTreeMap::new();
    let mut watermark = WatermarkState::default();
    for batch in deltas.chunks(batch) {
        let mut changes = TenantChanges::new(watermark);
        for delta in batch {
            changes.add(delta, 0);
        }
        for (id, change) in &changes.windows {
            let row = changed(rows.get(id), "demo", id, change);
            rows.insert(id.clone(), WindowState { version: 0, ..row });
        }
        watermark = changes.watermark;
    }
    rows
}

proptest! {
    #[test]
    fn batches_do_not_change_the_rows(
        minutes in prop::collection::vec((0..3_000_i64, 1..100_i64), 1..60),
        batch in 1..20_usize,
    ) {
        let deltas: Vec<_> = minutes.iter().map(|(minute, gross)| delta(*minute, *gross, 0)).collect();
        let (one_by_one, batched) = (rows(&deltas, 1), rows(&deltas, batch));
        prop_assert_eq!(&one_by_one, &batched);
        let total: i64 = minutes.iter().map(|it| it.1).sum();
        for granularity in Granularity::ALL {
            let sum: i64 = batched.values().filter(|it| it.granularity == granularity).map(|it| it.sums.gross).sum();
            prop_assert_eq!(sum, total);
        }
    }

    #[test]
    fn the_watermark_never_moves_back(steps in prop::collection::vec((0..3_i32, 0..1_000_i64, 0..200_i64), 1..80)) {
        let mut changes = TenantChanges::new(WatermarkState::default());
        let mut now_ms = 0;
        let mut before = 0;
        for (partition, minute, seconds) in steps {
            now_ms += seconds * 1_000;
            let delta = AnalyticsDelta { source_partition: partition, ..delta(minute, 1, now_ms) };
            changes.add(&delta, now_ms);
            prop_assert!(changes.watermark.watermark_ms >= before);
            before = changes.watermark.watermark_ms;
            prop_assert!(before <= now_ms + 5 * MINUTE);
        }
    }
}
