use super::*;
use crate::rule::{GoodsLine, LineAdjustment, MeasureInput, PriceInput, RuleLine, RuleOrder, ShipInput};

fn price(lines: usize) -> RuleCall {
    let line = RuleLine {
        sku: "a".into(),
        quantity: 1,
        unit_price_minor: 100,
        discount_minor: 0,
        tax_rate_bp: 0,
        category: None,
    };
    RuleCall::Price(PriceInput { order: RuleOrder::default(), lines: vec![line; lines] })
}

fn ship(units: &[i64]) -> RuleCall {
    let line = |quantity: &i64| ShipLine {
        goods: GoodsLine { sku: "a".into(), quantity: *quantity, category: None },
        held: Vec::new(),
    };
    let lines = units.iter().map(line).collect();
    RuleCall::Ship(ShipInput { order: RuleOrder::default(), lines, carrier: None })
}

fn parcel(contents: &[(u32, i64)]) -> Parcel {
    Parcel { contents: contents.to_vec(), ..Parcel::default() }
}

#[test]
fn an_adjustment_is_an_amount_and_a_rate() {
    let adjust = |discount_minor, tax_rate_bp| {
        fit(&price(1), &RuleAnswer::Adjust(vec![LineAdjustment { discount_minor, tax_rate_bp }]))
    };
    assert_eq!(adjust(5, Some(2_000)), Ok(()));
    for (discount, rate) in [(-1, None), (i64::MAX, None), (0, Some(-1)), (0, Some(RATE_BP_MAX + 1))] {
        assert!(matches!(adjust(discount, rate), Err(Misfit::Value { .. })), "{discount} {rate:?}");
    }
    let short = RuleAnswer::Adjust(Vec::new());
    assert!(matches!(fit(&price(1), &short), Err(Misfit::Count { .. })));
}

#[test]
fn an_answer_belongs_to_its_hook() {
    assert_eq!(fit(&price(1), &RuleAnswer::Approve), Err(Misfit::Hook("price")));
    assert_eq!(fit(&ship(&[1]), &RuleAnswer::Adjust(Vec::new())), Err(Misfit::Hook("ship")));
    let measure =
        RuleCall::Measure(MeasureInput { order: RuleOrder::default(), total_minor: 0, lines: Vec::new() });
    let refuse = RuleAnswer::Refuse { code: "no".into(), message: "No.".into() };
    assert_eq!(fit(&measure, &refuse), Err(Misfit::Hook("measure")));
}

#[test]
fn parcels_hold_exactly_what_is_shipped() {
    let judge = |parcels: Vec<Parcel>| fit(&ship(&[3, 2]), &RuleAnswer::Split(parcels));
    assert_eq!(judge(vec![parcel(&[(0, 1), (1, 2)]), parcel(&[(0, 2)])]), Ok(()));
    for wrong in [
        vec![],
        vec![parcel(&[])],
        vec![parcel(&[(0, 3)])],
        vec![parcel(&[(0, 3), (1, 3)])],
        vec![parcel(&[(0, 3), (1, 2), (2, 1)])],
        vec![parcel(&[(0, 4), (0, -1), (1, 2)])],
        vec![parcel(&[(0, i64::MAX), (0, i64::MAX), (1, 2)])],
    ] {
        assert!(judge(wrong.clone()).is_err(), "{wrong:?}");
    }
}

#[test]
fn words_are_short_and_clean() {
    let refuse = |code: &str, message: &str| {
        fit(&price(1), &RuleAnswer::Refuse { code: code.into(), message: message.into() })
    };
    assert_eq!(refuse("too_many", "At most 5."), Ok(()));
    let long = "x".repeat(TEXT_CHARS_MAX + 1);
    for (code, message) in [("", "m"), ("Too", "m"), ("a b", "m"), ("ok", "\u{0}"), ("ok", &long)] {
        assert!(refuse(code, message).is_err(), "{code:?} {message:?}");
    }
}
