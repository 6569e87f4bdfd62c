//! Who buys many of one thing pays less for each.
//!
//! Settings: `{"from_quantity": 10, "rate_bp": 1000}` takes 10 % off every line of 10 units or more.

use serde::Deserialize;
use tillstream_rules::price::{Adjustment, Answer, Line, Request, Rule};
use tillstream_rules::{export_price, settings, share};

#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    from_quantity: i64,
    rate_bp: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { from_quantity: 10, rate_bp: 1_000 }
    }
}

struct VolumeDiscount;

impl Rule for VolumeDiscount {
    fn decide(request: Request) -> Answer {
        let settings: Settings = settings(&request.order).unwrap_or_default();
        let lines = request.lines.iter().zip(0..);
        let adjustments: Vec<Adjustment> =
            lines.filter_map(|(it, line)| discounted(it, line, &settings)).collect();
        if adjustments.is_empty() { Answer::Pass } else { Answer::Adjust(adjustments) }
    }
}

fn discounted(it: &Line, line: u32, settings: &Settings) -> Option<Adjustment> {
    if it.quantity < settings.from_quantity {
        return None;
    }
    let left = it.unit_price.checked_mul(it.quantity)? - it.discount;
    let discount = share(left, settings.rate_bp);
    (discount > 0).then_some(Adjustment { line, discount, tax_rate: None })
}

export_price!(VolumeDiscount);

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_rules::testing;

    fn decide(quantities: &[i64], settings: &str) -> Vec<(u32, i64)> {
        let line = |quantity: &i64| Line {
            sku: "71053".into(),
            quantity: *quantity,
            unit_price: 339,
            discount: 0,
            tax_rate: "0.2".into(),
            category: None,
        };
        let order = testing::order("GB", settings);
        match VolumeDiscount::decide(Request { order, lines: quantities.iter().map(line).collect() }) {
            Answer::Adjust(it) => it.into_iter().map(|it| (it.line, it.discount)).collect(),
            Answer::Pass | Answer::Refuse(_) => Vec::new(),
        }
    }

    #[test]
    fn ten_and_more_cost_a_tenth_less() {
        assert_eq!(decide(&[9, 10, 12], "{}"), [(1, 339), (2, 407)]);
        assert_eq!(decide(&[1, 2], "{}"), []);
    }

    #[test]
    fn settings_move_both_bounds() {
        assert_eq!(decide(&[2], r#"{"from_quantity":2,"rate_bp":5000}"#), [(0, 339)]);
        assert_eq!(decide(&[9], r#"{"rate_bp":"high"}"#), [], "settings of another shape are as none");
    }
}
