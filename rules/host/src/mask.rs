//! Takes what may be a person out of a sample before it leaves the call.
//!
//! What a rule decides from must stay: amounts, quantities, SKUs, country, currency, and metadata that is a number, a flag
//! or a plain word. Of everything else only that it was there stays.

use std::collections::BTreeSet;
use tillstream_schemas::Text;
use tillstream_stage::rule::{RuleCall, RuleOrder};

/// What stands in the place of a masked value.
const MASK: &str = "***";
/// A word, and not a name or a sentence.
const WORD_CHARS_MAX: usize = 32;
/// So many digits in a row may be a telephone, a card or a birthday.
const DIGITS_MAX: usize = 5;
/// Metadata whose name has one of these is masked whatever its value is.
const PERSONAL: [&str; 14] = [
    "name", "mail", "phone", "mobile", "fax", "street", "address", "city", "zip", "postal", "birth", "ip",
    "iban", "token",
];

/// A call without persons.
#[derive(Debug)]
pub(crate) struct Masked {
    /// What the rule was asked.
    pub call: RuleCall,
    /// What is masked, such as `order.customer`.
    pub fields: Vec<Text>,
    /// The values that are, longest first: they may come again in what the rule says.
    values: Vec<Text>,
}

impl Masked {
    pub(crate) fn new(call: &RuleCall) -> Self {
        let mut masked = Self { call: call.clone(), fields: Vec::new(), values: Vec::new() };
        let mut values = BTreeSet::new();
        masked.fields = mask_order(order_of(&mut masked.call), &mut values);
        masked.values = values.into_iter().filter(|it| it.chars().count() > 1).collect();
        masked.values.sort_by_key(|it| std::cmp::Reverse(it.len()));
        masked
    }

    /// A text that a rule made of its input, without what is masked in that.
    pub(crate) fn text(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, it| text.replace(it.as_str(), MASK))
    }
}

fn order_of(call: &mut RuleCall) -> &mut RuleOrder {
    match call {
        RuleCall::Price(it) => &mut it.order,
        RuleCall::Allocate(it) => &mut it.order,
        RuleCall::Risk(it) => &mut it.order,
        RuleCall::Ship(it) => &mut it.order,
        RuleCall::Measure(it) => &mut it.order,
    }
}

fn mask_order(order: &mut RuleOrder, values: &mut BTreeSet<Text>) -> Vec<Text> {
    let mut fields = Vec::new();
    let mut mask = |name: Text, value: &mut Text| {
        if value != MASK {
            values.insert(std::mem::replace(value, Text::const_new(MASK)));
            fields.push(name);
        }
    };
    for (name, place) in [
        ("order.customer", &mut order.customer),
        ("order.city", &mut order.city),
        ("order.postal_code", &mut order.postal_code),
    ] {
        if let Some(value) = place {
            mask(Text::const_new(name), value);
        }
    }
    for (name, value) in &mut order.metadata {
        if may_be_a_person(name, value) {
            mask(format!("order.metadata.{name}").into(), value);
        }
    }
    fields
}

fn may_be_a_person(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts = name.split(|it: char| !it.is_ascii_alphanumeric());
    let says_so =
        |part: &str| PERSONAL.iter().any(|it| if it.len() < 3 { part == *it } else { part.contains(it) });
    let digits = value.split(|it: char| !it.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, '_' | '-' | '.');
    let is_plain = value.len() <= WORD_CHARS_MAX && value.chars().all(plain) && digits <= DIGITS_MAX;
    parts.into_iter().any(says_so) || !is_plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::rule::RiskInput;

    fn call(metadata: &[(&str, &str)]) -> RuleCall {
        let order = RuleOrder {
            country: "GB".into(),
            currency: "GBP".into(),
            customer: Some("c-17850".into()),
            city: Some("Ely".into()),
            metadata: metadata.iter().map(|it| (it.0.into(), it.1.into())).collect(),
            ..RuleOrder::default()
        };
        RuleCall::Risk(RiskInput {
            order,
            total_minor: 700,
            units: 1,
            lines: 1,
            method: "pm_card_visa".into(),
        })
    }

    #[test]
    fn what_is_a_person_is_masked_and_what_a_rule_decides_from_stays() {
        let masked = Masked::new(&call(&[]));
        let order = masked.call.order();
        assert_eq!((order.customer.as_deref(), order.city.as_deref()), (Some("***"), Some("***")));
        assert_eq!(
            (order.postal_code.as_deref(), order.country.as_str()),
            (None, "GB"),
            "what was not there is not"
        );
        assert_eq!(masked.fields, ["order.customer", "order.city"]);
        let RuleCall::Risk(risk) = &masked.call else { unreachable!() };
        assert_eq!(risk.total_minor, 700);
    }

    #[test]
    fn metadata_stays_where_it_is_a_number_a_flag_or_a_plain_word() {
        let stays = [
            ("customer.tier", "gold"),
            ("attempts", "3"),
            ("weight", "1.25"),
            ("gift", "true"),
            ("channel", "web-2"),
        ];
        let goes = [
            ("customer.e-mail", "x"),
            ("ip", "1"),
            ("full_name", "ann"),
            ("note", "Call Ann"),
            ("who", "Ann"),
            ("contact", "a@b.example"),
            ("ref", "447700900123"),
            ("long", "abcdefghijklmnopqrstuvwxyzabcdefgh"),
        ];
        let masked = Masked::new(&call(&[&stays[..], &goes[..]].concat()));
        let metadata = &masked.call.order().metadata;
        let of = |name: &str| metadata.iter().find(|it| it.0 == name).unwrap().1.as_str();
        assert!(stays.iter().all(|(name, value)| of(name) == *value), "{metadata:?}");
        assert!(goes.iter().all(|(name, _)| of(name) == MASK), "{metadata:?}");
    }

    #[test]
    fn what_is_masked_in_the_question_is_masked_in_what_is_said_of_it() {
        let masked = Masked::new(&call(&[("note", "Call Ann in Ely")]));
        let said = r#"{"message":"c-17850 of Ely: Call Ann in Ely"}"#;
        assert_eq!(masked.text(said), r#"{"message":"*** of ***: ***"}"#);
    }
}
