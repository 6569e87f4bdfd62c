use super::*;
use crate::problem::Code;
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW_MS: i64 = 1_700_000_000_000;

fn order() -> Value {
    json!({
        "customer": "c-17850", "currency": "GBP", "placed_at": "2010-12-01T08:26:00Z", "country": "GB",
        "lines": [{"sku": "85123A", "quantity": 6, "unit_price": 255, "discount": 30}],
        "discounts": [{"code": "SPRING", "rate_bp": 1000}],
        "shipping": {"amount": 500},
        "payment": {"method": "pm_card_visa", "capture": "automatic"},
        "metadata": {"source": "import"}, "ship_to": {"city": "Leeds", "country": "GB"}, "note": "two\nlines"
    })
}

/// `order()` with one place set to a value, or removed.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut order = order();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match (order.pointer_mut(parent).unwrap(), value) {
        (Value::Object(object), Some(value)) => drop(object.insert(name.to_owned(), value)),
        (Value::Object(object), None) => drop(object.remove(name)),
        (other, _) => panic!("{pointer} is in {other}"),
    }
    order
}

fn fields(value: &Value) -> Vec<String> {
    match parse(value.to_string().as_bytes(), NOW_MS) {
        Ok(_) => Vec::new(),
        Err(problem) => {
            assert_eq!(problem.code, Code::InvalidFields, "{problem:?}");
            assert!(problem.errors.iter().all(|it| !it.message.is_empty() && !it.fix.is_empty()));
            problem.errors.into_iter().map(|it| it.field).collect()
        }
    }
}

#[test]
fn a_good_order_is_taken_as_it_is() {
    let parsed = parse(order().to_string().as_bytes(), NOW_MS).unwrap();
    assert_eq!(parsed.order.placed_at_ms, 1_291_191_960_000);
    assert!(parsed.placed_at_given);
    assert_eq!(parsed.order.lines[0].unit_price_minor, Some(255));
    assert_eq!(parsed.order.lines[0].discount_minor, 30);
    assert_eq!(parsed.order.country, "GB");
}

#[test]
fn what_may_be_left_out_has_its_default() {
    let body = json!({"currency": "JPY", "lines": [{"sku": "a", "quantity": 1}], "payment": {"method": "pm_card_visa"}});
    let parsed = parse(body.to_string().as_bytes(), NOW_MS).unwrap();
    assert_eq!(parsed.order.placed_at_ms, NOW_MS);
    assert!(!parsed.placed_at_given);
    assert_eq!((parsed.order.customer, parsed.order.country.as_str()), (None, ""));
    assert_eq!(parsed.order.payment.capture, CaptureMode::Automatic);
}

#[test]
fn every_field_that_cannot_be_taken_is_named() {
    let long = "x".repeat(65);
    let lines = |count: usize| Value::from(vec![json!({"sku": "a", "quantity": 1}); count]);
    let cases: Vec<(&str, Option<Value>, &str)> = vec![
        ("/currency", Some(json!("XYZ")), "currency"),
        ("/currency", None, "currency"),
        ("/country", Some(json!("UK")), "country"),
        ("/placed_at", Some(json!("2010-12-01 08:26")), "placed_at"),
        ("/placed_at", Some(json!("2123-01-01T00:00:00Z")), "placed_at"),
        ("/lines", Some(json!([])), "lines"),
        ("/lines", Some(lines(1_001)), "lines"),
        ("/lines/0/sku", Some(json!(long)), "lines[0].sku"),
        ("/lines/0/sku", Some(json!("a\u{0}b")), "lines[0].sku"),
        ("/lines/0/quantity", Some(json!(0)), "lines[0].quantity"),
        ("/lines/0/quantity", Some(json!(1_000_001)), "lines[0].quantity"),
        ("/lines/0/quantity", Some(json!(1.5)), "lines[0].quantity"),
        ("/lines/0/quantity", Some(json!("6")), "lines[0].quantity"),
        ("/lines/0/unit_price", Some(json!(-1)), "lines[0].unit_price"),
        ("/lines/0/unit_price", Some(json!(2.55)), "lines[0].unit_price"),
        ("/lines/0/unit_price", Some(json!(u64::MAX)), "lines[0].unit_price"),
        ("/lines/0/unit_price", Some(json!(1e300)), "lines[0].unit_price"),
        ("/lines/0/unit_price", Some(json!(AMOUNT_MINOR_MAX)), "lines"),
        ("/lines/0/discount", Some(json!(1_531)), "lines[0].discount"),
        ("/lines/0/colour", Some(json!("red")), "lines[0].colour"),
        ("/payment/method", None, "payment.method"),
        ("/payment/capture", Some(json!("later")), "payment.capture"),
        ("/metadata/source", Some(json!(1)), "metadata.source"),
        ("/ship_to/country", Some(json!("England")), "ship_to.country"),
        ("/customer", Some(json!("c".repeat(256))), "customer"),
        ("/idempotency_key", Some(json!("k")), "idempotency_key"),
        ("/total", Some(json!(1)), "total"),
    ];
    for (pointer, value, field) in cases {
        assert_eq!(fields(&with(pointer, value.clone())), [field], "{pointer} {value:?}");
    }
    let both = with("/discounts", Some(json!([{"code": "a", "amount": 1, "rate_bp": 1}, {"code": "b"}])));
    assert_eq!(fields(&both), ["discounts[0]", "discounts[1]"]);
}

#[test]
fn limits_themselves_are_taken() {
    for (pointer, value) in [
        ("/lines", Value::from(vec![json!({"sku": "a", "quantity": 1_000_000, "unit_price": 0}); 1_000])),
        ("/lines/0/sku", json!("ä".repeat(64))),
        ("/lines/0/discount", json!(1_530)),
        ("/customer", Value::Null),
    ] {
        assert_eq!(fields(&with(pointer, Some(value))), Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn many_errors_come_together() {
    let body = json!({"currency": "gbp", "lines": [{"quantity": -1}, 7], "payment": [], "nope": 1});
    let mut found = fields(&body);
    found.sort();
    assert_eq!(found, ["currency", "lines[0].quantity", "lines[0].sku", "lines[1]", "nope", "payment"]);
}

#[test]
fn a_field_that_stands_there_twice_is_refused() {
    let body = br#"{"currency":"GBP","currency":"USD","lines":[{"sku":"a","quantity":1}],"payment":{"method":"pm_card_visa"}}"#;
    let problem = parse(body, NOW_MS).unwrap_err();
    assert_eq!(problem.code, Code::MalformedJson);
    assert!(problem.detail.contains("currency") && problem.detail.contains("line 1"), "{}", problem.detail);
}

#[test]
fn a_bulk_line_carries_its_key() {
    let line = with("/idempotency_key", Some(json!("k-1")));
    assert_eq!(parse_bulk_line(line.to_string().as_bytes(), NOW_MS).unwrap().key, "k-1");
    for bad in [json!("a b"), json!(""), json!("k".repeat(256)), json!(1), Value::Null] {
        let line = with("/idempotency_key", Some(bad.clone()));
        let problem = parse_bulk_line(line.to_string().as_bytes(), NOW_MS).unwrap_err();
        let fields: Vec<&str> = problem.errors.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(fields, ["idempotency_key"], "{bad}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2_i64..2_000_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,70}".prop_map(Value::from),
        "[A-Z]{2,3}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{"sku": "a", "quantity": 1}])),
    ]
}

proptest! {
    #[test]
    fn the_fast_way_takes_exactly_what_the_walk_finds_no_fault_with(
        pointer in prop::sample::select(vec![
            "/customer", "/currency", "/country", "/placed_at", "/lines", "/lines/0/sku", "/lines/0/quantity",
            "/lines/0/unit_price", "/lines/0/discount", "/discounts", "/shipping", "/shipping/amount",
            "/shipping/tax_class", "/payment", "/payment/method", "/payment/capture", "/metadata", "/metadata/source",
            "/ship_to", "/ship_to/city", "/ship_to/country", "/note", "/unknown",
        ]),
        value in any_value(),
    ) {
        let body = with(pointer, Some(value));
        let walk = Walk::over(&body, &Kind::Object(FIELDS));
        match parse(body.to_string().as_bytes(), NOW_MS) {
            Ok(_) => prop_assert!(walk.is_empty(), "{body}: {walk:?}"),
            Err(problem) => {
                prop_assert_eq!(problem.code, Code::InvalidFields);
                prop_assert!(!problem.errors.is_empty());
                let contradiction = problem.errors.iter().all(|it| it.field.starts_with("lines") || it.field == "placed_at");
                prop_assert!(!walk.is_empty() || contradiction, "{}: {:?}", body, problem);
            }
        }
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, NOW_MS);
        let _ = parse_bulk_line(&bytes, NOW_MS);
    }
}
