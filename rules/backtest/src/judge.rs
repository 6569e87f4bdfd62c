//! One order: what it was, what it would have been. Pure.

use crate::report::{Difference, Sums, Tally};
use tillstream_pricing::{question, recorded_lines, resolve, settle};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::PlaceOrder;
use tillstream_schemas::order_event::{OrderPriced, OrderRejected};
use tillstream_schemas::order_state::PricedLine;
use tillstream_stage::facts::Catalog;
use tillstream_stage::rule::{RuleCall, RuleRun, Verdict};

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
    /// The SKUs whose product of now is needed: the event does not tell all that the rule was asked.
    pub fn needs_products(&self) -> bool {
        match &self.ended {
            Ended::Priced(it) => it.rule.is_some(),
            Ended::Refused(it) => it.rule.is_some(),
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
pub enum Against<'a> {
    /// What happened.
    History,
    /// Another version.
    Rules(&'a dyn Pricer),
}

/// Compares one order, and counts what was found.
pub fn judge(
    tally: &mut Tally,
    order: &PastOrder,
    tenant: &str,
    catalog: &dyn Catalog,
    candidate: &dyn Pricer,
    against: &Against<'_>,
) {
    tally.orders += 1;
    let Some(lines) = order.lines(tenant, catalog) else {
        tally.not_compared += 1;
        return;
    };
    let call = RuleCall::Price(question(&order.placed, &lines));
    let before = match (against, &order.ended) {
        (Against::Rules(rules), _) => {
            let said = rules.ask(&order.order_id, &call);
            Fate::of(settle(&order.placed, lines.clone(), said.verdict.as_ref()))
        }
        (Against::History, Ended::Priced(it)) => Fate::priced(it),
        (Against::History, Ended::Refused(it)) => Fate::refused(&it.code),
    };
    let said = candidate.ask(&order.order_id, &call);
    note_run(tally, said.run);
    if said.verdict.as_ref().is_some_and(|it| it.review.is_some()) {
        tally.reviews += 1;
    }
    let after = Fate::of(settle(&order.placed, lines, said.verdict.as_ref()));
    count(tally, order, &before, after);
}

fn note_run(tally: &mut Tally, run: Option<RuleRun>) {
    let Some(run) = run else { return };
    tally.fuel.note(run.fuel);
    tally.ns.note(run.ns);
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
    if before.sums == after.sums && before.refusal.is_some() == after.refusal.is_some() {
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
    });
}

/// What becomes of an order.
struct Fate {
    sums: Sums,
    refusal: Option<String>,
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
        Self { sums, refusal: None }
    }

    fn refused(code: &str) -> Self {
        Self { sums: Sums::default(), refusal: Some(code.to_owned()) }
    }

    fn of(settled: Result<OrderPriced, Box<OrderRejected>>) -> Self {
        match settled {
            Ok(it) => Self::priced(&it),
            Err(it) => Self::refused(&it.code),
        }
    }
}
