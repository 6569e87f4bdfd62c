//! From a call to a sample of it: seldom, bounded, without persons.

use crate::compare::Said;
use crate::mask::Masked;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_rule_engine::Limits;
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::rule_sample::{RuleSample, RuleSampleKind};
use tillstream_stage::ids::derived_id;
use tillstream_stage::rule::RuleCall;

/// Of one rule and kind, a process keeps one call in so long.
const EVERY_NS: u64 = 1_000_000_000;
/// Bytes of a sample's input, at most: of larger orders none is kept.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// When the next call of each kind may be kept. One per rule.
#[derive(Debug, Default)]
pub(crate) struct Gate([AtomicU64; RuleSampleKind::ALL.len()]);

impl Gate {
    /// Whether this call is to be kept; then the next ones are not for a while.
    pub(crate) fn opens(&self, kind: RuleSampleKind, now_ns: u64) -> bool {
        let next = &self.0[kind as usize];
        let from_ns = next.load(Ordering::Relaxed);
        let until_ns = now_ns.saturating_add(EVERY_NS);
        now_ns >= from_ns
            && next.compare_exchange(from_ns, until_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// What one version made of a call.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub said: Result<Said, &'static str>,
    pub fuel: u64,
    pub ns: u64,
    pub memory_bytes: usize,
    pub log: String,
}

impl Ran {
    /// It was not called.
    pub(crate) fn not(outcome: &'static str) -> Self {
        Self { said: Err(outcome), fuel: 0, ns: 0, memory_bytes: 0, log: String::new() }
    }

    /// One of the outcomes of a call.
    pub(crate) fn outcome(&self) -> &'static str {
        match &self.said {
            Ok((tillstream_stage::rule::RuleAnswer::Pass, None)) => "passed",
            Ok(_) => "answered",
            Err(outcome) => outcome,
        }
    }
}

/// What was called, for whom.
#[derive(Clone, Copy)]
pub(crate) struct Called<'a> {
    pub tenant: &'a str,
    pub order_id: &'a str,
    pub call: &'a RuleCall,
    pub rule: &'a RuleRef,
    pub settings: &'a Text,
    pub at_ms: i64,
}

/// Another version's answer to the same question; without a version it is no rule at all.
pub(crate) type Other<'a> = (Option<&'a RuleRef>, &'a Said);

/// A sample of a call; `None` when the order is too large to keep.
pub(crate) fn capture(
    of: Called<'_>,
    ran: &Ran,
    kind: RuleSampleKind,
    other: Option<Other<'_>>,
) -> Option<RuleSample> {
    if of.call.lines() > Limits::of(0).input_bytes / 256 {
        return None;
    }
    let masked = Masked::new(of.call);
    let input = serde_json::to_string(&masked.call).ok().filter(|it| it.len() <= INPUT_BYTES_MAX)?;
    let answer =
        |said: &Said| serde_json::to_value(&said.0).ok().map(|it| masked_json(&masked, it).to_string());
    let said = ran.said.as_ref().ok();
    let hook = of.call.hook().as_str();
    let (rule, version) = (&of.rule.name, &of.rule.version);
    Some(RuleSample {
        id: derived_id("smp_", &[of.tenant, rule, version, of.order_id, hook, kind.as_str()]),
        tenant: of.tenant.into(),
        rule: rule.clone(),
        version: version.clone(),
        digest: of.rule.digest.clone(),
        order_id: of.order_id.into(),
        hook: Text::const_new(hook),
        kind,
        at_ms: of.at_ms,
        input,
        settings: of.settings.clone(),
        outcome: Text::const_new(ran.outcome()),
        answer: said.and_then(answer),
        review: said.and_then(|it| it.1.as_deref()).map(|it| masked.text(it)),
        fuel: i64::try_from(ran.fuel).unwrap_or(i64::MAX),
        memory_bytes: i64::try_from(ran.memory_bytes).unwrap_or(i64::MAX),
        log: masked.text(&ran.log),
        other_version: other.and_then(|it| it.0).map(|it| it.version.clone()),
        other_answer: other.and_then(|it| answer(it.1)),
        masked: masked.fields,
    })
}

/// An answer without what is masked in its question, text by text: what JSON is made of stays JSON.
fn masked_json(masked: &Masked, value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(masked.text(&text)),
        Value::Array(items) => items.into_iter().map(|it| masked_json(masked, it)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, it)| (name, masked_json(masked, it))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::rule::{PriceInput, RuleAnswer, RuleLine, RuleOrder};

    fn call(lines: usize) -> RuleCall {
        let line = RuleLine {
            sku: "71053".into(),
            quantity: 1,
            unit_price_minor: 339,
            discount_minor: 0,
            tax_rate_bp: 0,
            category: None,
        };
        let order = RuleOrder { customer: Some("c-17850".into()), ..RuleOrder::default() };
        RuleCall::Price(PriceInput { order, lines: vec![line; lines] })
    }

    fn sample(call: &RuleCall, said: Said) -> Option<RuleSample> {
        let rule =
            RuleRef { name: "tiers".into(), version: "3".into(), digest: "d".into(), also: Vec::new() };
        let settings = "{}".into();
        let of =
            Called { tenant: "demo", order_id: "ord_1", call, rule: &rule, settings: &settings, at_ms: 7 };
        let ran = Ran { said: Ok(said), fuel: 9, ns: 7, memory_bytes: 8, log: "for c-17850".to_owned() };
        let other = (RuleAnswer::Pass, None);
        capture(of, &ran, RuleSampleKind::Difference, Some((None, &other)))
    }

    #[test]
    fn a_sample_can_be_asked_again_and_tells_what_was_said() {
        let refuse = RuleAnswer::Refuse { code: "no".into(), message: "Not for c-17850.".into() };
        let sample = sample(&call(2), (refuse, Some("c-17850 again".into()))).unwrap();
        let again: RuleCall = serde_json::from_str(&sample.input).unwrap();
        assert_eq!((again.lines(), again.order().customer.as_deref()), (2, Some("***")));
        assert_eq!(sample.answer.as_deref(), Some(r#"{"refuse":{"code":"no","message":"Not for ***."}}"#));
        assert_eq!((sample.review.as_deref(), sample.log.as_str()), (Some("*** again"), "for ***"));
        assert_eq!((sample.other_version, sample.other_answer.as_deref()), (None, Some(r#""pass""#)));
        assert_eq!((sample.outcome.as_str(), sample.masked.len()), ("answered", 1));
    }

    #[test]
    fn an_order_that_is_too_large_is_not_kept() {
        assert!(sample(&call(100), (RuleAnswer::Pass, None)).is_some());
        assert!(sample(&call(250), (RuleAnswer::Pass, None)).is_none());
        assert!(sample(&call(1_000), (RuleAnswer::Pass, None)).is_none());
    }

    #[test]
    fn one_call_of_a_kind_is_kept_per_second() {
        let gate = Gate::default();
        let opened = (0..5_000).filter(|ms| gate.opens(RuleSampleKind::Call, ms * 1_000_000)).count();
        assert_eq!(opened, 5);
        assert!(gate.opens(RuleSampleKind::Failure, 0), "each kind by itself");
    }
}
