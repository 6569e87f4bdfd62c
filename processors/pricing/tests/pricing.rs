#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! What an order costs, and when it cannot be.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_pricing::{Pricing, QUANTITY_MAX, preview};
use tillstream_schemas::item::ProductState;
use tillstream_schemas::order_command::{
    Discount, OrderCommandPayload, OrderLine, PaymentInstruction, PlaceOrder, ShippingCharge,
};
use tillstream_schemas::order_event::{OrderEventPayload, OrderPriced, OrderRejected, RuleRef};
use tillstream_schemas::order_state::{LineKind, PricedOrder};
use tillstream_stage::facts::{Catalog, Facts};
use tillstream_stage::money::AMOUNT_MINOR_MAX;
use tillstream_stage::rule::{LineAdjustment, RuleAnswer, RuleCall, Verdict};
use tillstream_stage::{Decision, OrderInput, OrderStage};

struct Products(BTreeMap<&'static str, Arc<ProductState>>);

impl Catalog for Products {
    fn product(&self, tenant: &str, sku: &str) -> Option<Arc<ProductState>> {
        (tenant == "demo").then(|| self.0.get(sku).cloned()).flatten()
    }
}

fn product(price_gbp: i64, tax_class: Option<&str>) -> ProductState {
    ProductState {
        version: 7,
        active: true,
        stocked: true,
        tax_class: tax_class.map(Into::into),
        category: Some("mugs".into()),
        prices: BTreeMap::from([("GBP".into(), price_gbp)]),
        ..ProductState::default()
    }
}

fn catalog() -> Products {
    let mut products = BTreeMap::new();
    products.insert("MUG", product(255, Some("standard")));
    products.insert("TEA", product(333, Some("reduced")));
    products.insert("BOOK", product(1_000, Some("zero")));
    products.insert("WRAP", ProductState { stocked: false, ..product(100, None) });
    products.insert("OLD", ProductState { active: false, ..product(100, None) });
    products.insert("GONE", ProductState { removed: true, ..product(100, None) });
    Products(products.into_iter().map(|(sku, it)| (sku, Arc::new(it))).collect())
}

fn line(sku: &str, quantity: i64) -> OrderLine {
    OrderLine { sku: sku.into(), quantity, unit_price_minor: None, discount_minor: 0 }
}

fn own(sku: &str, quantity: i64, unit_price_minor: i64) -> OrderLine {
    OrderLine { unit_price_minor: Some(unit_price_minor), ..line(sku, quantity) }
}

fn order(lines: Vec<OrderLine>) -> PlaceOrder {
    PlaceOrder {
        customer: Some("c-1".into()),
        currency: "GBP".into(),
        country: "GB".into(),
        placed_at_ms: 1_000,
        lines,
        discounts: Vec::new(),
        shipping: None,
        payment: PaymentInstruction::default(),
        metadata: BTreeMap::from([("source".into(), "test".into())]),
        ship_to: None,
        note: Some("ring twice".into()),
    }
}

fn amount(minor: i64) -> Discount {
    Discount { code: "A".into(), amount_minor: Some(minor), rate_bp: None }
}

fn percent(rate_bp: i32) -> Discount {
    Discount { code: "P".into(), amount_minor: None, rate_bp: Some(rate_bp) }
}

fn priced(order: &PlaceOrder) -> OrderPriced {
    preview(order, "demo", &catalog(), None).expect("priced")
}

fn rejected(order: &PlaceOrder) -> OrderRejected {
    *preview(order, "demo", &catalog(), None).expect_err("rejected")
}

fn verdict(answer: RuleAnswer) -> Verdict {
    let rule = RuleRef { name: "r".into(), version: "1".into(), digest: "d".into(), also: Vec::new() };
    Verdict::new(rule, answer)
}

/// An answer that takes so much off each line.
fn each_line(extra: Vec<i64>) -> RuleAnswer {
    let adjustment = |discount_minor| LineAdjustment { discount_minor, tax_rate_bp: None };
    RuleAnswer::Adjust(extra.into_iter().map(adjustment).collect())
}

fn facts<'a>(catalog: &'a Products, verdict: Option<&'a Verdict>) -> Facts<'a> {
    Facts {
        now_ms: 5_000,
        tenant: "demo",
        order_id: "ord_1",
        input_id: "cmd_1",
        verdict,
        order: None,
        catalog,
        holds: &[],
    }
}

fn decide(state: &PricedOrder, order: &PlaceOrder, verdict: Option<&Verdict>) -> Decision<PricedOrder> {
    let command = OrderCommandPayload::PlaceOrder(Box::new(order.clone()));
    Pricing::decide(state, OrderInput::Command(&command), &facts(&catalog(), verdict)).unwrap()
}

#[test]
fn lines_take_the_catalogs_price_unless_they_bring_their_own() {
    let it = priced(&order(vec![line("MUG", 2), own("MUG", 1, 200), own("FREE", 3, 0), line("WRAP", 1)]));
    let lines: Vec<_> = it
        .lines
        .iter()
        .map(|it| (it.unit_price_minor, it.gross_minor, it.product_version, it.kind))
        .collect();
    assert_eq!(
        lines,
        [
            (255, 510, Some(7), LineKind::Goods),
            (200, 200, None, LineKind::Goods),
            (0, 0, None, LineKind::Goods),
            (100, 100, Some(7), LineKind::Fee),
        ]
    );
    assert_eq!((it.gross_minor, it.tax_minor, it.total_minor), (810, 142, 952));
    assert_eq!(it.lines[1].category.as_deref(), Some("mugs"));
}

#[test]
fn tax_is_the_destinations_rate_for_the_products_class_rounded_half_even_per_line() {
    let lines = || vec![line("MUG", 1), line("TEA", 1), line("BOOK", 1), own("X", 1, 100)];
    let tax = |country: &str| -> Vec<i64> {
        let order = PlaceOrder { country: country.into(), ..order(lines()) };
        priced(&order).lines.iter().map(|it| it.tax_minor).collect()
    };
    assert_eq!(tax("GB"), [51, 17, 0, 0]);
    assert_eq!(tax("DE"), [48, 23, 0, 0]);
    assert_eq!(tax("US"), [0, 0, 0, 0]);
    assert_eq!(tax(""), [0, 0, 0, 0]);
}

#[test]
fn the_shipping_charge_is_a_taxed_line_that_no_discount_touches() {
    let mut order = order(vec![line("MUG", 2)]);
    order.shipping = Some(ShippingCharge { amount_minor: 500, tax_class: Some("standard".into()) });
    order.discounts = vec![amount(1_000_000)];
    let it = priced(&order);
    let shipping = &it.lines[1];
    assert_eq!(
        (shipping.sku.as_str(), shipping.kind, shipping.quantity),
        ("SHIPPING", LineKind::Shipping, 1)
    );
    assert_eq!((it.gross_minor, it.discount_minor, it.tax_minor, it.total_minor), (1_010, 510, 100, 600));
}

#[test]
fn order_discounts_are_taken_in_order_from_what_is_left_and_split_by_it() {
    let mut order = order(vec![own("A", 1, 1_000), own("B", 1, 500)]);
    order.lines[0].discount_minor = 400;
    let mut parts = |discounts: Vec<Discount>| -> Vec<i64> {
        order.discounts = discounts;
        priced(&order).lines.iter().map(|it| it.discount_minor).collect()
    };
    assert_eq!(parts(vec![]), [400, 0]);
    assert_eq!(parts(vec![percent(1_000)]), [460, 50]);
    assert_eq!(parts(vec![amount(11)]), [406, 5]);
    assert_eq!(parts(vec![amount(110), percent(1_000)]), [400 + 60 + 54, 50 + 45]);
    assert_eq!(parts(vec![percent(5_000), amount(10_000)]), [1_000, 500]);
    assert_eq!(parts(vec![percent(20_000)]), [1_000, 500]);
}

#[test]
fn a_lines_own_discount_never_makes_it_negative() {
    let mut order = order(vec![line("MUG", 1)]);
    order.lines[0].discount_minor = 10_000;
    let it = priced(&order);
    assert_eq!((it.discount_minor, it.tax_minor, it.total_minor), (255, 0, 0));
}

#[test]
fn an_order_that_cannot_be_says_why_and_about_which_skus() {
    let with = |change: fn(&mut PlaceOrder)| {
        let mut order = order(vec![line("MUG", 1)]);
        change(&mut order);
        order
    };
    let cases: Vec<(PlaceOrder, &str, &[&str])> = vec![
        (
            order(vec![line("NOPE", 1), line("MUG", 1), line("NADA", 1), line("NOPE", 2)]),
            "unknown_product",
            &["NOPE", "NADA"],
        ),
        (order(vec![line("OLD", 1), line("GONE", 1)]), "product_inactive", &["OLD", "GONE"]),
        (order(vec![own("OLD", 1, 5)]), "product_inactive", &["OLD"]),
        (with(|it| it.currency = "EUR".into()), "no_price", &["MUG"]),
        (order(vec![]), "no_lines", &[]),
        (order(vec![own("A", 0, 5)]), "amount_out_of_range", &["A"]),
        (order(vec![own("A", -1, 5)]), "amount_out_of_range", &["A"]),
        (order(vec![own("A", QUANTITY_MAX + 1, 0)]), "amount_out_of_range", &["A"]),
        (order(vec![own("A", 1, -5)]), "amount_out_of_range", &["A"]),
        (order(vec![own("A", 2, i64::MAX)]), "amount_out_of_range", &["A"]),
        (order(vec![own("A", 1, AMOUNT_MINOR_MAX), own("B", 1, 1)]), "amount_out_of_range", &[]),
        (with(|it| it.lines[0].unit_price_minor = Some(AMOUNT_MINOR_MAX)), "amount_out_of_range", &[]),
        (with(|it| it.lines[0].discount_minor = -1), "amount_out_of_range", &["MUG"]),
        (with(|it| it.discounts = vec![amount(-1)]), "amount_out_of_range", &[]),
        (with(|it| it.discounts = vec![percent(-1)]), "amount_out_of_range", &[]),
        (
            with(|it| it.shipping = Some(ShippingCharge { amount_minor: -1, tax_class: None })),
            "amount_out_of_range",
            &[],
        ),
    ];
    for (order, code, skus) in cases {
        let it = rejected(&order);
        assert_eq!((it.code.as_str(), it.placed_at_ms), (code, 1_000), "{order:?}");
        assert_eq!(it.skus, skus, "{order:?}");
        assert!(!it.message.is_empty());
    }
}

#[test]
fn the_stage_decides_once_and_keeps_what_it_said() {
    let order = order(vec![line("MUG", 2)]);
    let first = decide(&PricedOrder::default(), &order, None);
    let state = first.state.unwrap();
    let [OrderEventPayload::OrderPriced(event)] = first.events.as_slice() else { panic!("one event") };
    assert_eq!((&state.lines, state.total_minor), (&event.lines, event.total_minor));
    assert_eq!((state.note.as_deref(), state.metadata.len()), (Some("ring twice"), 1));
    assert_eq!(decide(&state, &order, None), Decision::none());
    let event = OrderInput::Event(&first.events[0]);
    assert_eq!(
        Pricing::decide(&PricedOrder::default(), event, &facts(&catalog(), None)).unwrap(),
        Decision::none()
    );
}

#[test]
fn a_rejected_order_is_decided_too_and_has_no_lines() {
    let order = order(vec![line("NOPE", 1)]);
    let first = decide(&PricedOrder::default(), &order, None);
    let state = first.state.unwrap();
    assert!(matches!(first.events.as_slice(), [OrderEventPayload::OrderRejected(_)]));
    assert_eq!((state.lines.len(), state.currency.as_str()), (0, "GBP"));
    assert_eq!(decide(&state, &order, None), Decision::none());
}

#[test]
fn an_order_without_a_currency_is_no_order() {
    let order = PlaceOrder { currency: "".into(), ..order(vec![line("MUG", 1)]) };
    let command = OrderCommandPayload::PlaceOrder(Box::new(order));
    let catalog = catalog();
    let facts = facts(&catalog, None);
    assert!(Pricing::decide(&PricedOrder::default(), OrderInput::Command(&command), &facts).is_err());
}

#[test]
fn the_price_rule_is_asked_about_orders_that_can_be_priced_and_only_once() {
    let catalog = catalog();
    let facts = facts(&catalog, None);
    let call = |state: &PricedOrder, order: PlaceOrder| {
        let command = OrderCommandPayload::PlaceOrder(Box::new(order));
        Pricing::rule_call(state, OrderInput::Command(&command), &facts)
    };
    let undecided = PricedOrder::default();
    let Some(RuleCall::Price(input)) = call(&undecided, order(vec![line("MUG", 2), own("X", 1, 5)])) else {
        panic!("asked");
    };
    assert_eq!(
        (input.lines.len(), input.lines[0].unit_price_minor, input.lines[0].tax_rate_bp),
        (2, 255, 2_000)
    );
    assert_eq!(call(&undecided, order(vec![line("NOPE", 1)])), None);
    let decided = PricedOrder { currency: "GBP".into(), ..PricedOrder::default() };
    assert_eq!(call(&decided, order(vec![line("MUG", 2)])), None);
}

#[test]
fn a_rule_discounts_lines_within_what_they_cost_and_signs_only_what_it_shaped() {
    let order = order(vec![own("A", 1, 100), own("B", 1, 50)]);
    let cases: [(Vec<i64>, [i64; 2], bool); 5] = [
        (vec![30, 80], [30, 50], true),
        (vec![0, 0], [0, 0], false),
        (vec![10], [0, 0], false),
        (vec![10, -1], [0, 0], false),
        (vec![i64::MAX, i64::MAX], [100, 50], true),
    ];
    for (answer, discounts, signed) in cases {
        let verdict = verdict(each_line(answer.clone()));
        let it = preview(&order, "demo", &catalog(), Some(&verdict)).unwrap();
        assert_eq!(it.lines.iter().map(|it| it.discount_minor).collect::<Vec<_>>(), discounts, "{answer:?}");
        assert_eq!(it.rule.is_some(), signed, "{answer:?}");
    }
}

#[test]
fn a_rule_puts_its_tax_rates_in_force() {
    let order = order(vec![own("A", 1, 1_000), line("MUG", 1)]);
    let rates = |rates: [Option<i32>; 2]| {
        let adjustment = |tax_rate_bp| LineAdjustment { discount_minor: 0, tax_rate_bp };
        let verdict = verdict(RuleAnswer::Adjust(rates.map(adjustment).to_vec()));
        let it = preview(&order, "demo", &catalog(), Some(&verdict)).unwrap();
        (it.lines.iter().map(|it| it.tax_rate_bp).collect::<Vec<_>>(), it.tax_minor, it.rule.is_some())
    };
    assert_eq!(rates([Some(550), None]), (vec![550, 2_000], 55 + 51, true));
    assert_eq!(
        rates([None, Some(2_000)]),
        (vec![0, 2_000], 51, false),
        "a rate that was in force shapes nothing"
    );
    assert_eq!(
        rates([Some(-1), None]),
        (vec![0, 2_000], 51, false),
        "an answer that does not fit is passed over"
    );
}

#[test]
fn an_order_that_is_to_be_looked_at_says_so_and_by_whom() {
    let mut verdict = verdict(RuleAnswer::Pass);
    verdict.review = Some("the rule failed".into());
    let decision = decide(&PricedOrder::default(), &order(vec![line("MUG", 1)]), Some(&verdict));
    let [OrderEventPayload::OrderPriced(event)] = decision.events.as_slice() else { panic!("one event") };
    assert_eq!((&event.review, &event.rule), (&verdict.review, &Some(verdict.rule.clone())));
    assert_eq!(decision.state.unwrap().review, verdict.review);
}

#[test]
fn a_rule_may_refuse_an_order_in_its_own_words() {
    let verdict = verdict(RuleAnswer::Refuse { code: "too_many_mugs".into(), message: "no".into() });
    let first = decide(&PricedOrder::default(), &order(vec![line("MUG", 2)]), Some(&verdict));
    let [OrderEventPayload::OrderRejected(event)] = first.events.as_slice() else { panic!("one event") };
    assert_eq!((event.code.as_str(), event.rule.as_ref()), ("too_many_mugs", Some(&verdict.rule)));
    assert_eq!(first.state.unwrap().lines.len(), 0);
}

fn any_line() -> impl Strategy<Value = OrderLine> {
    let sku = prop::sample::select(vec!["MUG", "TEA", "BOOK", "WRAP", "X"]);
    (sku, 1i64..10_000, prop::option::of(0i64..1_000_000), 0i64..100_000).prop_map(
        |(sku, quantity, price, discount_minor)| OrderLine {
            sku: sku.into(),
            quantity,
            unit_price_minor: if sku == "X" { price.or(Some(1)) } else { price },
            discount_minor,
        },
    )
}

fn any_discount() -> impl Strategy<Value = Discount> {
    prop_oneof![(0i64..10_000_000).prop_map(amount), (0i32..12_000).prop_map(percent)]
}

proptest! {
    #[test]
    fn totals_are_exactly_the_lines_sums(
        lines in prop::collection::vec(any_line(), 1..40),
        discounts in prop::collection::vec(any_discount(), 0..4),
        shipping in prop::option::of(0i64..10_000),
        extra in prop::collection::vec(0i64..10_000, 0..40),
        country in prop::sample::select(vec!["GB", "DE", "FI", "US", ""]),
    ) {
        let mut order = order(lines);
        order.country = country.into();
        order.discounts = discounts;
        order.shipping = shipping.map(|amount_minor| ShippingCharge { amount_minor, tax_class: Some("standard".into()) });
        let verdict = verdict(each_line(extra));
        let it = preview(&order, "demo", &catalog(), Some(&verdict)).expect("priced");
        let sum = |part: fn(&tillstream_schemas::order_state::PricedLine) -> i64| it.lines.iter().map(part).sum::<i64>();
        prop_assert_eq!(it.gross_minor, sum(|it| it.gross_minor));
        prop_assert_eq!(it.discount_minor, sum(|it| it.discount_minor));
        prop_assert_eq!(it.tax_minor, sum(|it| it.tax_minor));
        prop_assert_eq!(it.total_minor, it.gross_minor - it.discount_minor + it.tax_minor);
        for line in &it.lines {
            prop_assert_eq!(line.gross_minor, line.quantity * line.unit_price_minor);
            prop_assert!(line.discount_minor >= 0 && line.discount_minor <= line.gross_minor);
            prop_assert!(line.tax_minor >= 0);
        }
    }

    #[test]
    fn no_input_panics_or_leaves_the_range(
        lines in prop::collection::vec((any::<i64>(), any::<Option<i64>>(), any::<i64>()), 0..5),
        amounts in prop::collection::vec((any::<Option<i64>>(), any::<Option<i32>>()), 0..3),
        shipping in any::<Option<i64>>(),
    ) {
        let mut order = order(lines.into_iter().map(|(quantity, unit_price_minor, discount_minor)| {
            OrderLine { sku: "MUG".into(), quantity, unit_price_minor, discount_minor }
        }).collect());
        order.discounts = amounts.into_iter()
            .map(|(amount_minor, rate_bp)| Discount { code: "X".into(), amount_minor, rate_bp }).collect();
        order.shipping = shipping.map(|amount_minor| ShippingCharge { amount_minor, tax_class: None });
        match preview(&order, "demo", &catalog(), None) {
            Ok(it) => prop_assert!((0..=AMOUNT_MINOR_MAX).contains(&it.total_minor)),
            Err(it) => prop_assert!(it.skus.len() <= 1, "a SKU is named once: {:?}", it.skus),
        }
    }
}
