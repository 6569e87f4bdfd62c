//! One order: what it was, what it would have been. Pure.

use crate::question::question;
use crate::report::{Difference, Sums, Tally};
use tillstream_pricing::{question as price_question, recorded_lines, resolve, settle};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::PlaceOrder;
use tillstream_schemas::order_event::{OrderPriced, OrderRejected};
use tillstream_schemas::order_state::PricedLine;
use tillstream_stage::facts::Catalog;
use tillstream_stage::rule::{Hook, RuleAnswer, RuleCall, RuleRun, Verdict};

/// How pricing ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// It was priced.
    Priced(Box<OrderPriced>),
    /// It was refused.
    Refused(Box<OrderRejected>),
}

/// An order of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct PastOrder {
    /// Its id.
    pub order_id: Text,
    /// As the merchant sent it.
    pub placed: Box<PlaceOrder>,
    /// How pricing ended.
    pub ended: Ended,
}

impl PastOrder {
    /// Whether its SKUs' products of now are needed: the event does not tell all that a price rule was asked.
    pub fn needs_products(&self, hook: Hook) -> bool {
        let is_shaped = match &self.ended {
            Ended::Priced(it) => it.rule.is_some(),
            Ended::Refused(it) => it.rule.is_some(),
        };
        hook == Hook::Price && is_shaped
    }

    /// What a hook would be asked about this order; `None` when it would be asked nothing.
    pub fn question(&self, hook: Hook, tenant: &str, catalog: &dyn Catalog) -> Option<RuleCall> {
        if hook == Hook::Price {
            let lines = self.lines(tenant, catalog)?;
            return Some(RuleCall::Price(price_question(&self.placed, &lines)));
        }
        match &self.ended {
            Ended::Priced(priced) => question(hook, (tenant, &self.order_id), &self.placed, priced),
            Ended::Refused(_) => None,
        }
    }

    /// The lines as the price hook would be asked about them; `None` when no rule can change this order's fate.
    fn lines(&self, tenant: &str, catalog: &dyn Catalog) -> Option<Vec<PricedLine>> {
        match &self.ended {
            Ended::Priced(priced) => recorded_lines(&self.placed, priced, tenant, catalog),
            Ended::Refused(it) if it.rule.is_some() => resolve(&self.placed, tenant, catalog).ok(),
            Ended::Refused(_) => None,
        }
    }
}

/// What the rules say together when the candidate, or what it is compared with, stands in its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// The verdict of all.
    pub verdict: Option<Verdict>,
    /// The call of the candidate itself; `None` when a rule before it refused.
    pub run: Option<RuleRun>,
}

/// A set of rules to ask.
pub trait Pricer: Send + Sync {
    /// What they say.
    fn ask(&self, order_id: &str, call: &RuleCall) -> Said;
}

/// What a candidate is compared with.
#[derive(Clone, Copy)]
pub enum Against<'a> {
    /// What happened.
    History,
    /// Another version.
    Rules(&'a dyn Pricer),
}

/// What is asked of every order of the past.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    /// At which hook.
    pub hook: Hook,
    /// Whose orders they are.
    pub tenant: &'a str,
    /// Products of now.
    pub catalog: &'a dyn Catalog,
    /// Who is asked.
    pub candidate: &'a dyn Pricer,
    /// What the answer is compared with.
    pub against: Against<'a>,
}

/// Compares one order, and counts what was found.
pub fn judge(tally: &mut Tally, order: &PastOrder, trial: &Trial<'_>) {
    tally.orders += 1;
    let compared = match (trial.hook, &order.ended) {
        (Hook::Price, _) => judge_price(tally, order, trial),
        (_, Ended::Priced(priced)) => judge_answer(tally, order, priced, trial),
        (_, Ended::Refused(_)) => None,
    };
    tally.not_compared += u64::from(compared.is_none());
}

/// `None` when the order would be asked nothing about.
fn judge_price(tally: &mut Tally, order: &PastOrder, trial: &Trial<'_>) -> Option<()> {
    let lines = order.lines(trial.tenant, trial.catalog)?;
    let call = RuleCall::Price(price_question(&order.placed, &lines));
    let before = match (&trial.against, &order.ended) {
        (Against::Rules(rules), _) => {
            let said = rules.ask(&order.order_id, &call);
            Fate::of(settle(&order.placed, lines.clone(), said.verdict.as_ref()))
        }
        (Against::History, Ended::Priced(it)) => Fate::priced(it),
        (Against::History, Ended::Refused(it)) => Fate::refused(&it.code),
    };
    let said = heard(tally, trial.candidate.ask(&order.order_id, &call));
    let after = Fate::of(settle(&order.placed, lines, said.as_ref()));
    count(tally, order, &before, after);
    Some(())
}

/// A hook that moves no prices: what is compared is the answer, and the money is lost where it refuses.
fn judge_answer(tally: &mut Tally, order: &PastOrder, priced: &OrderPriced, trial: &Trial<'_>) -> Option<()> {
    let call = order.question(trial.hook, trial.tenant, trial.catalog)?;
    let before = match &trial.against {
        Against::Rules(rules) => Fate::answered(priced, rules.ask(&order.order_id, &call).verdict.as_ref()),
        // What became of it at the other hooks stands in events that are not read.
        Against::History if trial.hook != Hook::Measure => return None,
        Against::History => Fate::measured(priced),
    };
    let said = heard(tally, trial.candidate.ask(&order.order_id, &call));
    count(tally, order, &before, Fate::answered(priced, said.as_ref()));
    Some(())
}

/// Counts a call of the candidate, and what somebody would have to look at.
fn heard(tally: &mut Tally, said: Said) -> Option<Verdict> {
    note_run(tally, said.run);
    tally.reviews += u64::from(said.verdict.as_ref().is_some_and(|it| it.review.is_some()));
    said.verdict
}

fn note_run(tally: &mut Tally, run: Option<RuleRun>) {
    let Some(run) = run else { return };
    tally.fuel.note(run.fuel);
    tally.duration_ns.note(run.ns);
    if !matches!(run.outcome, "answered" | "passed") {
        *tally.errors.entry(run.outcome.to_owned()).or_default() += 1;
    }
}

fn count(tally: &mut Tally, order: &PastOrder, before: &Fate, after: Fate) {
    tally.compared += 1;
    tally.refused_before += u64::from(before.refusal.is_some());
    tally.refused_after += u64::from(after.refusal.is_some());
    let currency = order.placed.currency.as_str();
    if !tally.money.contains_key(currency) {
        tally.money.insert(currency.to_owned(), Default::default());
    }
    if let Some(money) = tally.money.get_mut(currency) {
        money.before.add(&before.sums);
        money.after.add(&after.sums);
        if before.refusal.is_none() && after.refusal.is_none() {
            money.margin_difference_minor += after.sums.net_minor - before.sums.net_minor;
        }
    }
    let same_refusal = before.refusal.is_some() == after.refusal.is_some();
    if before.sums == after.sums && same_refusal && before.answer == after.answer {
        return;
    }
    tally.changed += 1;
    tally.name(Difference {
        order_id: order.order_id.to_string(),
        currency: currency.to_owned(),
        total_before_minor: before.refusal.is_none().then_some(before.sums.total_minor),
        total_after_minor: after.refusal.is_none().then_some(after.sums.total_minor),
        discount_before_minor: before.sums.discount_minor,
        discount_after_minor: after.sums.discount_minor,
        tax_before_minor: before.sums.tax_minor,
        tax_after_minor: after.sums.tax_minor,
        refusal: after.refusal,
        answer_before: before.answer.clone(),
        answer_after: after.answer,
    });
}

/// What becomes of an order.
struct Fate {
    sums: Sums,
    refusal: Option<String>,
    /// What was said, as JSON, at a hook that moves no prices; `None`: nothing that has an effect.
    answer: Option<String>,
}

impl Fate {
    fn priced(it: &OrderPriced) -> Self {
        let sums = Sums {
            orders: 1,
            gross_minor: it.gross_minor,
            discount_minor: it.discount_minor,
            net_minor: it.gross_minor - it.discount_minor,
            tax_minor: it.tax_minor,
            total_minor: it.total_minor,
        };
        Self { sums, refusal: None, answer: None }
    }

    /// What becomes of a priced order by what a later hook says of it.
    fn answered(priced: &OrderPriced, verdict: Option<&Verdict>) -> Self {
        let Some(verdict) = verdict else { return Self::priced(priced) };
        let mut effect = verdict.answer.effect();
        if let RuleAnswer::Dimensions(pairs) = &mut effect {
            pairs.sort();
        }
        let base = match &effect {
            RuleAnswer::Refuse { code, .. } => Self::refused(code),
            _ => Self::priced(priced),
        };
        let answer = match (&effect, &verdict.review) {
            (RuleAnswer::Pass, None) => None,
            (RuleAnswer::Pass, Some(_)) => Some(r#""review""#.to_owned()),
            (effect, _) => serde_json::to_string(effect).ok(),
        };
        Self { answer, ..base }
    }

    /// What the rules said of a priced order at the measure hook.
    fn measured(priced: &OrderPriced) -> Self {
        let pairs = priced.dimensions.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let said = RuleAnswer::Dimensions(pairs).effect();
        let answer = (said != RuleAnswer::Pass).then(|| serde_json::to_string(&said).ok()).flatten();
        Self { answer, ..Self::priced(priced) }
    }

    fn refused(code: &str) -> Self {
        Self { sums: Sums::default(), refusal: Some(code.to_owned()), answer: None }
    }

    fn of(settled: Result<OrderPriced, Box<OrderRejected>>) -> Self {
        match settled {
            Ok(it) => Self::priced(&it),
            Err(it) => Self::refused(&it.code),
        }
    }
}
