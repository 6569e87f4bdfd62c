//! How two versions of a rule differ on the same question: whether what becomes of the order is another, and by how much
//! its total is.

use tillstream_stage::money;
use tillstream_stage::rule::{LineAdjustment, PriceInput, RuleAnswer, RuleCall, RuleLine};

/// What a version said: its answer, and why somebody is to look at the order.
pub(crate) type Said = (RuleAnswer, Option<String>);

/// How one answer differs from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Whether something else becomes of the order.
    pub differs: bool,
    /// By how much its total is higher, minor units. A refused order comes to nothing.
    pub total_minor: i64,
}

/// How what `tried` says differs from what `standing` says.
pub(crate) fn compare(call: &RuleCall, standing: &Said, tried: &Said) -> Difference {
    let same = standing.0.effect() == tried.0.effect() && standing.1.is_some() == tried.1.is_some();
    if same {
        return Difference::default();
    }
    let total_minor = total(call, &tried.0).saturating_sub(total(call, &standing.0));
    Difference { differs: true, total_minor }
}

/// What the order comes to by an answer, as far as the hook can tell: 0 where it knows of no money.
fn total(call: &RuleCall, answer: &RuleAnswer) -> i64 {
    match (call, answer) {
        (_, RuleAnswer::Refuse { .. }) => 0,
        (RuleCall::Price(input), RuleAnswer::Adjust(lines)) => priced(input, lines),
        (RuleCall::Price(input), _) => priced(input, &[]),
        (RuleCall::Risk(input), _) => input.total_minor,
        _ => 0,
    }
}

fn priced(input: &PriceInput, adjustments: &[LineAdjustment]) -> i64 {
    let line = |(index, line): (usize, &RuleLine)| {
        let adjustment = adjustments.get(index).copied().unwrap_or_default();
        let gross_minor = line.unit_price_minor.saturating_mul(line.quantity);
        let off_minor = line.discount_minor.saturating_add(adjustment.discount_minor).min(gross_minor);
        let net_minor = gross_minor.saturating_sub(off_minor);
        let rate_bp = adjustment.tax_rate_bp.unwrap_or(line.tax_rate_bp);
        net_minor.saturating_add(money::rate(net_minor, rate_bp))
    };
    input.lines.iter().enumerate().map(line).fold(0, i64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::rule::{RiskInput, RuleOrder, ShipInput};

    /// Two lines of 10.00 each, the first with 20 % tax.
    fn price() -> RuleCall {
        let line = |tax_rate_bp| RuleLine {
            sku: "a".into(),
            quantity: 2,
            unit_price_minor: 500,
            discount_minor: 0,
            tax_rate_bp,
            category: None,
        };
        RuleCall::Price(PriceInput { order: RuleOrder::default(), lines: vec![line(2_000), line(0)] })
    }

    fn adjust(off: [i64; 2], first_rate_bp: Option<i32>) -> Said {
        let [first, second] = off.map(|discount_minor| LineAdjustment { discount_minor, tax_rate_bp: None });
        (RuleAnswer::Adjust(vec![LineAdjustment { tax_rate_bp: first_rate_bp, ..first }, second]), None)
    }

    fn refuse(code: &str, message: &str) -> Said {
        (RuleAnswer::Refuse { code: code.into(), message: message.into() }, None)
    }

    const PASS: Said = (RuleAnswer::Pass, None);

    #[track_caller]
    fn assert_differs(call: &RuleCall, standing: &Said, tried: &Said, total_minor: i64) {
        assert_eq!(compare(call, standing, tried), Difference { differs: true, total_minor });
        let back = Difference { differs: true, total_minor: -total_minor };
        assert_eq!(compare(call, tried, standing), back, "the other way round it is the opposite");
    }

    #[test]
    fn a_discount_lowers_the_total_with_its_tax_and_never_below_nothing() {
        assert_differs(&price(), &PASS, &adjust([100, 0], None), -120);
        assert_differs(&price(), &PASS, &adjust([0, 100], None), -100);
        assert_differs(&price(), &adjust([100, 0], None), &adjust([0, 100], None), 20);
        assert_differs(&price(), &PASS, &adjust([9_999, 0], None), -1_200);
        assert_differs(&price(), &PASS, &adjust([0, 0], Some(500)), -150);
    }

    #[test]
    fn a_refused_order_comes_to_nothing() {
        assert_differs(&price(), &PASS, &refuse("no", "No."), -2_200);
        let order = RuleOrder::default();
        let risk = RiskInput { order, total_minor: 700, units: 1, lines: 1, method: "m".into() };
        assert_differs(&RuleCall::Risk(risk), &(RuleAnswer::Approve, None), &refuse("no", "No."), -700);
        let ship = ShipInput { order: RuleOrder::default(), lines: Vec::new(), carrier: None };
        assert_differs(&RuleCall::Ship(ship), &PASS, &refuse("no", "No."), 0);
    }

    #[test]
    fn what_changes_nothing_for_the_order_is_no_difference() {
        let same = [
            (PASS, adjust([0, 0], None)),
            (refuse("no", "No."), refuse("no", "Sorry.")),
            ((RuleAnswer::Pass, Some("odd".into())), (RuleAnswer::Approve, Some("strange".into()))),
            (PASS, (RuleAnswer::Dimensions(Vec::new()), None)),
        ];
        for (standing, tried) in same {
            assert_eq!(compare(&price(), &standing, &tried), Difference::default());
        }
        assert_differs(&price(), &refuse("no", ""), &refuse("other", ""), 0);
        assert_differs(&price(), &PASS, &(RuleAnswer::Pass, Some("odd".into())), 0);
    }
}
