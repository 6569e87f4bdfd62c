//! What the API shows of a version on trial.

use super::view::hooks;
use crate::moment::Moment;
use crate::openapi::answer::AnyJson;
use crate::ports::RuleView;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tillstream_rule_lifecycle::{Tally, Trial, TrialKind};
use tillstream_schemas::Text;

/// A version on trial.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleTrial")]
pub(super) struct ShownTrial {
    /// Which version.
    version: i64,
    /// SHA-256 of its module, in hex.
    digest: String,
    /// The hooks it answers.
    hooks: Vec<&'static str>,
    /// `shadow`: it is asked beside the active version, and nothing comes of what it says. `canary`: it answers for a
    /// share of the orders.
    kind: &'static str,
    /// The share of a canary.
    percent: Option<u8>,
    /// A canary stops by itself at so many failures.
    stop_at_failures: Option<i64>,
    /// A canary stops by itself once the totals of one currency's orders differ by so much from what the active version
    /// would have made them, minor units.
    stop_at_difference: Option<i64>,
    /// What it is told beside the order.
    #[schemars(with = "AnyJson")]
    settings: Value,
    /// Since when.
    since: Moment,
    /// Its calls so far. Those of other processes are told at each doubling and at each eighth of a bound.
    calls: i64,
    /// How many gave no answer.
    failures: i64,
    /// How many said something else than the active version.
    different: i64,
    /// By how much the totals of its orders differ, by currency.
    money: Vec<Money>,
    /// Set once it stopped by itself.
    stopped: Option<Stopped>,
}

/// By how much the totals of one currency's orders differ.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleTrialMoney")]
struct Money {
    /// ISO 4217.
    currency: String,
    /// Without their sign, added up; minor units.
    difference: i64,
    /// Added up; below zero customers would have paid less, or paid less. Minor units.
    net: i64,
}

/// A trial that stopped by itself.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleTrialStop")]
struct Stopped {
    /// Since when.
    at: Moment,
    /// Why: `failures` or `difference`.
    reason: &'static str,
}

pub(super) fn trial(it: &RuleView) -> Option<ShownTrial> {
    let trial = it.rule.trial.as_ref()?;
    let version = it.rule.version(trial.version)?;
    let canary = match trial.kind {
        TrialKind::Shadow => None,
        TrialKind::Canary(it) => Some(it),
    };
    let tallies = tallies(trial, &it.untold);
    let counted = tallies.values().fold(Tally::default(), |sum, it| sum.plus(*it));
    let money = |(currency, it): (&Text, &Tally)| Money {
        currency: currency.to_string(),
        difference: it.difference_minor,
        net: it.net_minor,
    };
    Some(ShownTrial {
        version: version.number,
        digest: version.digest.to_string(),
        hooks: hooks(version),
        kind: trial.kind.as_str(),
        percent: canary.map(|it| it.percent),
        stop_at_failures: canary.map(|it| it.failures_max),
        stop_at_difference: canary.and_then(|it| it.difference_max_minor),
        settings: serde_json::from_str(&trial.settings).unwrap_or_default(),
        since: Moment(trial.since_ms),
        calls: counted.calls,
        failures: counted.failures,
        different: counted.different,
        money: tallies.iter().map(money).collect(),
        stopped: trial.halted.map(|it| Stopped { at: Moment(it.at_ms), reason: it.reason.as_str() }),
    })
}

/// What all workers said, and what this process counted since it last did.
fn tallies(trial: &Trial, untold: &[(Text, Tally)]) -> BTreeMap<Text, Tally> {
    let mut tallies = trial.tallies.clone();
    for (currency, tally) in untold {
        let all = tallies.entry(currency.clone()).or_default();
        *all = all.plus(*tally);
    }
    tallies
}
