//! More units cost less each, and things bought together cost less together.
//!
//! Settings:
//!
//! ```json
//! {"tiers": [{"from": 10, "rate_bp": 500}, {"from": 50, "rate_bp": 1000}],
//!  "bundles": [{"skus": ["22720", "22722"], "off": 200}]}
//! ```
//!
//! A tier holds for a SKU whose units, over all lines of the order, reach `from`; the highest that is reached counts.
//! `rate_bp` is in basis points: 500 is 5 %. A bundle takes `off` minor units off each complete set of its SKUs, shared out
//! over its lines by what they cost. Bundles come off first, tiers off what is left. Without settings there are the tiers
//! above and no bundle.

use serde::Deserialize;
use tillstream_rules::price::{Adjustment, Answer, Line, Request, Rule};
use tillstream_rules::{export_price, settings, share};

#[derive(Deserialize)]
#[serde(default)]
struct Settings<'a> {
    tiers: Vec<Tier>,
    #[serde(borrow)]
    bundles: Vec<Bundle<'a>>,
}

#[derive(Clone, Copy, Deserialize)]
struct Tier {
    from: i64,
    rate_bp: i64,
}

#[derive(Deserialize)]
struct Bundle<'a> {
    #[serde(borrow)]
    skus: Vec<&'a str>,
    off: i64,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        let tiers = vec![Tier { from: 10, rate_bp: 500 }, Tier { from: 50, rate_bp: 1_000 }];
        Self { tiers, bundles: Vec::new() }
    }
}

struct TieredDiscount;

impl Rule for TieredDiscount {
    fn decide(request: Request) -> Answer {
        let settings: Settings<'_> = settings(&request.order).unwrap_or_default();
        let lines = &request.lines;
        let mut off = vec![0; lines.len()];
        for bundle in &settings.bundles {
            take_off_bundle(bundle, lines, &mut off);
        }
        for (line, off) in lines.iter().zip(&mut off) {
            let rate_bp = rate_bp(&settings.tiers, units(lines, &line.sku));
            *off += share((left(line) - *off).max(0), rate_bp);
        }
        let adjustments: Vec<_> = off
            .into_iter()
            .zip(0..)
            .filter(|it| it.0 > 0)
            .map(|(discount, line)| Adjustment { line, discount, tax_rate: None })
            .collect();
        if adjustments.is_empty() { Answer::Pass } else { Answer::Adjust(adjustments) }
    }
}

/// What a line costs before this rule.
fn left(line: &Line) -> i64 {
    (line.unit_price.saturating_mul(line.quantity) - line.discount).max(0)
}

/// Units of a SKU over all lines.
fn units(lines: &[Line], sku: &str) -> i64 {
    lines.iter().filter(|it| it.sku == sku).map(|it| it.quantity).sum()
}

fn rate_bp(tiers: &[Tier], units: i64) -> i64 {
    let reached = tiers.iter().filter(|it| it.from <= units);
    reached.max_by_key(|it| it.from).map_or(0, |it| it.rate_bp.clamp(0, 10_000))
}

/// Shares the discount of all complete sets out over the lines of the bundle, so that not a penny is lost or made up:
/// each line takes its part of what is still to be shared, and the last takes the rest.
fn take_off_bundle(bundle: &Bundle<'_>, lines: &[Line], off: &mut [i64]) {
    let sets = bundle.skus.iter().map(|sku| units(lines, sku)).min().unwrap_or(0);
    let of_bundle: Vec<usize> =
        (0..lines.len()).filter(|it| bundle.skus.contains(&lines[*it].sku.as_str())).collect();
    let mut worth: i64 = of_bundle.iter().map(|it| left(&lines[*it]) - off[*it]).sum();
    let mut open = sets.saturating_mul(bundle.off).clamp(0, worth);
    for at in of_bundle {
        let own = left(&lines[at]) - off[at];
        if worth > 0 {
            let part = (i128::from(open) * i128::from(own) / i128::from(worth)) as i64;
            off[at] += part;
            open -= part;
            worth -= own;
        }
    }
}

export_price!(TieredDiscount);

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_rules::testing;

    fn decide(lines: &[(&str, i64, i64)], settings: &str) -> Vec<(u32, i64)> {
        let line = |it: &(&str, i64, i64)| Line {
            sku: it.0.into(),
            quantity: it.1,
            unit_price: it.2,
            discount: 0,
            tax_rate: "0.2".into(),
            category: None,
        };
        let request =
            Request { order: testing::order("GB", settings), lines: lines.iter().map(line).collect() };
        match TieredDiscount::decide(request) {
            Answer::Adjust(it) => it.into_iter().map(|it| (it.line, it.discount)).collect(),
            Answer::Pass | Answer::Refuse(_) => Vec::new(),
        }
    }

    #[test]
    fn the_highest_tier_that_a_sku_reaches_counts() {
        assert_eq!(decide(&[("a", 9, 100), ("b", 10, 100), ("c", 50, 100)], "{}"), [(1, 50), (2, 500)]);
    }

    #[test]
    fn two_lines_of_a_sku_count_together() {
        assert_eq!(decide(&[("a", 6, 100), ("a", 4, 100)], "{}"), [(0, 30), (1, 20)]);
    }

    const BUNDLE: &str = r#"{"tiers":[],"bundles":[{"skus":["cup","plate"],"off":100}]}"#;

    #[test]
    fn each_complete_set_of_a_bundle_costs_less_and_no_penny_is_lost() {
        assert_eq!(decide(&[("cup", 2, 200), ("plate", 3, 400)], BUNDLE), [(0, 50), (1, 150)]);
        assert_eq!(decide(&[("cup", 2, 200)], BUNDLE), [], "no plate, no set");
        let thirds = decide(&[("cup", 1, 333), ("plate", 1, 667)], BUNDLE);
        assert_eq!(thirds.iter().map(|it| it.1).sum::<i64>(), 100);
    }

    #[test]
    fn a_bundle_takes_off_no_more_than_its_lines_cost() {
        assert_eq!(decide(&[("cup", 1, 30), ("plate", 1, 20)], BUNDLE), [(0, 30), (1, 20)]);
    }

    #[test]
    fn a_tier_is_of_what_a_bundle_has_left() {
        let both = r#"{"tiers":[{"from":2,"rate_bp":1000}],"bundles":[{"skus":["cup","plate"],"off":100}]}"#;
        assert_eq!(decide(&[("cup", 2, 300), ("plate", 1, 400)], both), [(0, 114), (1, 40)]);
    }
}
