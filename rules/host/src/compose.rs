//! What several rules of a hook say together.
//!
//! They are asked in their order. Each price rule sees the discounts and rates of those before it, and what they take
//! off adds up. The first rule that places, or splits, decides. Dimensions are joined; of one name the first stands. A
//! refusal ends the asking. A wish to look at the order stands beside any other answer.

use crate::compare::Said;
use tillstream_schemas::order_event::RuleRef;
use tillstream_stage::rule::{DIMENSIONS_MAX, LineAdjustment, RuleAnswer, RuleCall, Verdict};

/// Asks rules one after the other, each about what those before it left of the question, until one refuses. `ask` answers
/// `None` for a rule that has nothing to do with it.
pub(crate) fn ask_in_turn<'r, R>(
    call: &RuleCall,
    rules: impl IntoIterator<Item = R>,
    mut ask: impl FnMut(R, &RuleCall) -> Option<(&'r RuleRef, Said)>,
) -> Option<Verdict> {
    let (mut composed, mut changed) = (Composed::default(), None);
    for rule in rules {
        let Some((rule, (answer, review))) = ask(rule, changed.as_ref().unwrap_or(call)) else { continue };
        if answer == RuleAnswer::Pass && review.is_none() {
            continue;
        }
        let next = changed.get_or_insert_with(|| call.clone());
        if !composed.take(rule, answer, review, next) {
            break;
        }
    }
    composed.finish()
}

/// The verdict in the making.
#[derive(Default)]
struct Composed {
    verdict: Option<Verdict>,
}

impl Composed {
    /// Takes a rule's answer in, and changes the question for the rules after it. Whether they are still asked.
    fn take(
        &mut self,
        rule: &RuleRef,
        answer: RuleAnswer,
        review: Option<String>,
        call: &mut RuleCall,
    ) -> bool {
        let refuses = matches!(answer, RuleAnswer::Refuse { .. });
        if answer == RuleAnswer::Pass && review.is_none() {
            return true;
        }
        if let (RuleAnswer::Adjust(lines), RuleCall::Price(input)) = (&answer, &mut *call) {
            see(input, lines);
        }
        let said = match self.verdict.take() {
            None => Verdict { rule: rule.clone(), answer, review: review.map(Into::into) },
            // Who refuses answers for the refusal alone.
            Some(_) if refuses => Verdict::new(rule.clone(), answer),
            Some(mut verdict) => {
                if let Some(joined) = join(&verdict.answer, answer) {
                    verdict.answer = joined;
                    verdict.rule.also.extend(rule.steps());
                } else if review.is_some() && verdict.review.is_none() {
                    verdict.rule.also.extend(rule.steps());
                }
                verdict.review = verdict.review.or(review.map(Into::into));
                verdict
            }
        };
        self.verdict = Some(said);
        !refuses
    }

    fn finish(self) -> Option<Verdict> {
        self.verdict
    }
}

/// Both answers in one; `None` when the first one stands alone.
fn join(first: &RuleAnswer, second: RuleAnswer) -> Option<RuleAnswer> {
    match (first, second) {
        (RuleAnswer::Adjust(first), RuleAnswer::Adjust(second)) => {
            let both = first.iter().zip(&second).map(|(first, second)| LineAdjustment {
                discount_minor: first.discount_minor.saturating_add(second.discount_minor),
                tax_rate_bp: second.tax_rate_bp.or(first.tax_rate_bp),
            });
            Some(RuleAnswer::Adjust(both.collect()))
        }
        (RuleAnswer::Dimensions(first), RuleAnswer::Dimensions(second)) => {
            let mut all = first.clone();
            all.extend(second.into_iter().filter(|it| first.iter().all(|mine| mine.0 != it.0)));
            all.truncate(DIMENSIONS_MAX);
            (all.len() > first.len()).then_some(RuleAnswer::Dimensions(all))
        }
        (RuleAnswer::Pass, second) if second != RuleAnswer::Pass => Some(second),
        _ => None,
    }
}

/// The lines as the next rule sees them.
fn see(input: &mut tillstream_stage::rule::PriceInput, lines: &[LineAdjustment]) {
    for (line, adjustment) in input.lines.iter_mut().zip(lines) {
        let gross = line.unit_price_minor.saturating_mul(line.quantity);
        line.discount_minor = line.discount_minor.saturating_add(adjustment.discount_minor).min(gross);
        line.tax_rate_bp = adjustment.tax_rate_bp.unwrap_or(line.tax_rate_bp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::rule::{PriceInput, RuleLine, RuleOrder};

    fn rule(name: &str) -> RuleRef {
        RuleRef { name: name.into(), version: "1".into(), digest: "d".into(), also: Vec::new() }
    }

    fn call() -> RuleCall {
        let line = RuleLine {
            sku: "a".into(),
            quantity: 2,
            unit_price_minor: 100,
            discount_minor: 0,
            tax_rate_bp: 0,
            category: None,
        };
        RuleCall::Price(PriceInput { order: RuleOrder::default(), lines: vec![line] })
    }

    fn adjust(discount_minor: i64, tax_rate_bp: Option<i32>) -> RuleAnswer {
        RuleAnswer::Adjust(vec![LineAdjustment { discount_minor, tax_rate_bp }])
    }

    fn refuse() -> RuleAnswer {
        RuleAnswer::Refuse { code: "no".into(), message: "No.".into() }
    }

    #[test]
    fn discounts_add_up_and_each_rule_sees_those_before_it() {
        let (mut call, mut composed) = (call(), Composed::default());
        assert!(composed.take(&rule("a"), adjust(30, Some(500)), None, &mut call));
        assert!(composed.take(&rule("b"), RuleAnswer::Pass, None, &mut call));
        assert!(composed.take(&rule("c"), adjust(20, None), None, &mut call));
        let RuleCall::Price(input) = &call else { unreachable!() };
        assert_eq!((input.lines[0].discount_minor, input.lines[0].tax_rate_bp), (50, 500));
        let verdict = composed.finish().unwrap();
        assert_eq!(verdict.answer, adjust(50, Some(500)));
        let also: Vec<_> = verdict.rule.also.iter().map(|it| it.name.as_str()).collect();
        assert_eq!((verdict.rule.name.as_str(), also), ("a", vec!["c"]), "who passed shaped nothing");
    }

    #[test]
    fn a_refusal_ends_the_asking_and_stands_alone() {
        let (mut call, mut composed) = (call(), Composed::default());
        assert!(composed.take(&rule("a"), adjust(30, None), Some("look".into()), &mut call));
        assert!(!composed.take(&rule("b"), refuse(), None, &mut call));
        assert_eq!(composed.finish(), Some(Verdict::new(rule("b"), refuse())));
    }

    #[test]
    fn the_first_who_places_decides_and_a_wish_to_look_stands_beside() {
        let place = |name: &str| RuleAnswer::Place(vec![vec![name.into()]]);
        let (mut call, mut composed) = (call(), Composed::default());
        composed.take(&rule("a"), place("north"), None, &mut call);
        composed.take(&rule("b"), place("south"), None, &mut call);
        composed.take(&rule("c"), RuleAnswer::Pass, Some("look".into()), &mut call);
        let verdict = composed.finish().unwrap();
        assert_eq!((verdict.answer, verdict.review.as_deref()), (place("north"), Some("look")));
        assert_eq!(verdict.rule.also.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn of_one_dimension_the_first_value_stands() {
        let dimensions = |pairs: &[(&str, &str)]| {
            RuleAnswer::Dimensions(pairs.iter().map(|it| (it.0.into(), it.1.into())).collect())
        };
        let (mut call, mut composed) = (call(), Composed::default());
        composed.take(&rule("a"), dimensions(&[("tier", "gold")]), None, &mut call);
        composed.take(&rule("b"), dimensions(&[("tier", "tin"), ("size", "big")]), None, &mut call);
        assert_eq!(composed.finish().unwrap().answer, dimensions(&[("tier", "gold"), ("size", "big")]));
    }
}
