//! A version on trial: beside the one that answers (shadow), or in its place for a share of the orders (canary).

use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::rules::{RuleFallback, RuleMeasured};
use xxhash_rust::xxh3::Xxh3;

/// Shares are counted in so many parts.
const PARTS: u64 = 100;

/// A version on trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The version's number.
    pub version: i64,
    /// The rule's revision that this trial made.
    pub revision: i64,
    /// How it is tried.
    pub kind: TrialKind,
    /// Its place among the tenant's rules of a hook, while no version of the rule is active.
    pub order: i32,
    /// A JSON object.
    pub settings: Text,
    /// What holds when it gives no answer and no version of the rule is active.
    pub fallback: RuleFallback,
    /// Since when, ms since the epoch.
    pub since_ms: i64,
    /// Who began it.
    pub actor: Text,
    /// What workers counted so far, by currency.
    pub tallies: BTreeMap<Text, Tally>,
    /// Set once it stopped by itself: then it is asked no more.
    pub halted: Option<Halt>,
}

/// How a version is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialKind {
    /// It is asked beside the version that answers, and never applied.
    Shadow,
    /// It answers for a share of the orders.
    Canary(Canary),
}

impl TrialKind {
    /// As the API and the counters spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary(_) => "canary",
        }
    }

    /// Whether the version on trial answers for an order.
    pub fn answers(self, rule: &str, order_id: &str) -> bool {
        match self {
            Self::Shadow => false,
            Self::Canary(it) => u64::from(it.percent) > part_of(rule, order_id),
        }
    }
}

/// The share of a canary, and where it stops by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// 1 to 100.
    pub percent: u8,
    /// It stops at so many failures.
    pub failures_max: i64,
    /// It stops once the totals of one currency's orders differ by so much, minor units; `None`: no bound.
    pub difference_max_minor: Option<i64>,
}

/// The hundredth that an order falls into: the same in every process, at every hook and for ever. Each rule parts the
/// orders in its own way, so that two canaries do not meet in the same orders.
fn part_of(rule: &str, order_id: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(rule.len() as u64).to_le_bytes());
    hash.update(rule.as_bytes());
    hash.update(order_id.as_bytes());
    hash.digest() % PARTS
}

/// What was counted of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls of the version on trial.
    pub calls: i64,
    /// How many gave no answer.
    pub failures: i64,
    /// How many said something else than the version that answers.
    pub different: i64,
    /// By how much the totals differ, without their sign, added up; minor units.
    pub difference_minor: i64,
    /// By how much the totals differ, added up; minor units.
    pub net_minor: i64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
            different: self.different.saturating_add(other.different),
            difference_minor: self.difference_minor.saturating_add(other.difference_minor),
            net_minor: self.net_minor.saturating_add(other.net_minor),
        }
    }
}

impl From<&RuleMeasured> for Tally {
    fn from(it: &RuleMeasured) -> Self {
        Self {
            calls: it.calls,
            failures: it.failures,
            different: it.different,
            difference_minor: it.difference_minor,
            net_minor: it.net_minor,
        }
    }
}

/// Why a trial stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltReason {
    /// Too many calls gave no answer.
    Failures,
    /// The totals differ by too much.
    Difference,
}

impl HaltReason {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Difference => "difference",
        }
    }
}

/// A trial that stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Since when, ms since the epoch.
    pub at_ms: i64,
    /// Why.
    pub reason: HaltReason,
}

impl Trial {
    /// What was counted over all currencies, without the sums of money, which have none in common.
    pub fn counted(&self) -> Tally {
        let all = self.tallies.values().fold(Tally::default(), |sum, it| sum.plus(*it));
        Tally { difference_minor: 0, net_minor: 0, ..all }
    }

    /// Takes in what a worker counted. Whether this stops the trial.
    pub(crate) fn measure(&mut self, it: &RuleMeasured, at_ms: i64) -> bool {
        let tally = self.tallies.entry(it.currency.clone()).or_default();
        *tally = tally.plus(Tally::from(it));
        let past = self.past_bound();
        let stops = self.halted.is_none() && past.is_some();
        if let Some(reason) = past.filter(|_| stops) {
            self.halted = Some(Halt { at_ms, reason });
        }
        stops
    }

    fn past_bound(&self) -> Option<HaltReason> {
        let TrialKind::Canary(it) = self.kind else { return None };
        let differs = |most: i64| self.tallies.values().any(|tally| tally.difference_minor >= most);
        if self.counted().failures >= it.failures_max {
            Some(HaltReason::Failures)
        } else {
            it.difference_max_minor.filter(|most| differs(*most)).map(|_| HaltReason::Difference)
        }
    }
}
