//! From events to rules.

use crate::rule::{Activation, Rule, Trip, Version};
use crate::trial::{Canary, Trial, TrialKind};
use std::collections::BTreeMap;
use thiserror::Error;
use tillstream_registry_log::{Appended, Fold};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{
    RuleActivated, RuleCanaried, RuleConfigured, RuleEvent, RuleFallback, RuleMeasured, RulePayload,
    RuleShadowed, RuleTripped, RuleVersionUploaded,
};
use tillstream_stage::rule::Hook;

/// Rules of one tenant, at most.
pub const RULES_MAX: usize = 50;
/// Versions of one rule, at most.
pub const VERSIONS_MAX: usize = 500;
/// Activations that can be rolled back, at most: the oldest are forgotten.
const BEFORE_MAX: usize = 50;
/// The place of a rule that nobody gave one.
pub const ORDER_DEFAULT: i32 = 100;

/// Why an event changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleRefusal {
    /// There is no such rule.
    #[error("there is no rule of this name")]
    UnknownRule,
    /// There is no such version.
    #[error("the rule has no version {0}")]
    UnknownVersion(i64),
    /// Somebody else was first.
    #[error("the rule has revision {current}, not {expected}: read it again, then decide")]
    Revision {
        /// What the event was meant to follow.
        expected: i64,
        /// What there is.
        current: i64,
    },
    /// Nothing is active.
    #[error("no version of the rule is active")]
    NotActive,
    /// Nothing is on trial.
    #[error("no version of the rule is on trial")]
    NoTrial,
    /// Nothing to roll back to.
    #[error("nothing was active before")]
    NothingBefore,
    /// Too many.
    #[error("there are {0} already, which is the most there may be")]
    TooMany(usize),
}

/// The rules of every tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    tenants: BTreeMap<Text, BTreeMap<Text, Rule>>,
}

impl Rules {
    /// A tenant's rules, by name.
    pub fn of<'a>(&'a self, tenant: &str) -> impl Iterator<Item = (&'a Text, &'a Rule)> + use<'a> {
        self.tenants.get(tenant).into_iter().flatten()
    }

    /// One rule.
    pub fn get(&self, tenant: &str, name: &str) -> Option<&Rule> {
        self.tenants.get(tenant)?.get(name)
    }

    /// Every tenant that has rules.
    pub fn tenants(&self) -> impl Iterator<Item = &Text> {
        self.tenants.keys()
    }
}

impl Fold for Rules {
    type Event = RuleEvent;
    type Refusal = RuleRefusal;

    fn apply(&mut self, event: &RuleEvent, appended: Appended) -> Result<(), RuleRefusal> {
        let rules = self.tenants.entry(event.tenant.clone()).or_default();
        if let RulePayload::Uploaded(it) = &event.payload {
            if !rules.contains_key(&event.rule) && rules.len() >= RULES_MAX {
                return Err(RuleRefusal::TooMany(RULES_MAX));
            }
            return uploaded(rules.entry(event.rule.clone()).or_default(), it, event, appended.at_ms);
        }
        let rule = rules.get_mut(&event.rule).ok_or(RuleRefusal::UnknownRule)?;
        match &event.payload {
            RulePayload::Uploaded(_) => Ok(()),
            RulePayload::Activated(it) => activated(rule, it, event, appended.at_ms),
            RulePayload::RolledBack(it) => rolled_back(rule, it.expected_revision),
            RulePayload::Tripped(it) => tripped(rule, it, appended.at_ms),
            RulePayload::Retired(_) => retired(rule),
            RulePayload::Shadowed(it) => shadowed(rule, it, event, appended.at_ms),
            RulePayload::Canaried(it) => canaried(rule, it, event, appended.at_ms),
            RulePayload::Configured(it) => configured(rule, it, event, appended.at_ms),
            RulePayload::Measured(it) => measured(rule, it, appended.at_ms),
        }
    }
}

/// The next version; a module that is a version already stays that version.
fn uploaded(
    rule: &mut Rule,
    it: &RuleVersionUploaded,
    event: &RuleEvent,
    at_ms: i64,
) -> Result<(), RuleRefusal> {
    if rule.version_of(&it.digest).is_some() {
        return Ok(());
    }
    if rule.versions.len() >= VERSIONS_MAX {
        return Err(RuleRefusal::TooMany(VERSIONS_MAX));
    }
    rule.versions.push(Version {
        number: rule.versions.last().map_or(1, |it| it.number + 1),
        digest: it.digest.clone(),
        size_bytes: it.size_bytes,
        hooks: it.hooks.iter().filter_map(|it| Hook::parse(it)).collect(),
        uploaded_at_ms: at_ms,
        actor: event.actor.clone(),
        settings_schema: it.settings_schema.clone(),
    });
    rule.revision += 1;
    Ok(())
}

fn expect(rule: &Rule, expected: Option<i64>) -> Result<(), RuleRefusal> {
    match expected {
        Some(expected) if expected != rule.revision => {
            Err(RuleRefusal::Revision { expected, current: rule.revision })
        }
        _ => Ok(()),
    }
}

fn activated(rule: &mut Rule, it: &RuleActivated, event: &RuleEvent, at_ms: i64) -> Result<(), RuleRefusal> {
    expect(rule, it.expected_revision)?;
    if rule.version(it.version).is_none() {
        return Err(RuleRefusal::UnknownVersion(it.version));
    }
    let next = Activation {
        version: it.version,
        revision: rule.revision + 1,
        order: it.order,
        settings: it.settings.clone(),
        fallback: it.fallback,
        since_ms: at_ms,
        actor: event.actor.clone(),
    };
    put_in_force(rule, next);
    // Whatever was tried: it is in force now, or another version was chosen.
    rule.trial = None;
    Ok(())
}

/// Other settings for what is active. A trial goes on: it has settings of its own.
fn configured(
    rule: &mut Rule,
    it: &RuleConfigured,
    event: &RuleEvent,
    at_ms: i64,
) -> Result<(), RuleRefusal> {
    expect(rule, it.expected_revision)?;
    let active = rule.active.as_ref().ok_or(RuleRefusal::NotActive)?;
    let next = Activation {
        revision: rule.revision + 1,
        settings: it.settings.clone(),
        since_ms: at_ms,
        actor: event.actor.clone(),
        ..active.clone()
    };
    put_in_force(rule, next);
    Ok(())
}

fn put_in_force(rule: &mut Rule, next: Activation) {
    rule.revision = next.revision;
    let last = rule.active.replace(next);
    remember(rule, last);
    rule.tripped = None;
}

fn shadowed(rule: &mut Rule, it: &RuleShadowed, event: &RuleEvent, at_ms: i64) -> Result<(), RuleRefusal> {
    let trial = Trial {
        version: it.version,
        revision: rule.revision + 1,
        kind: TrialKind::Shadow,
        order: rule.active.as_ref().map_or(ORDER_DEFAULT, |it| it.order),
        settings: it.settings.clone(),
        fallback: RuleFallback::Skip,
        since_ms: at_ms,
        actor: event.actor.clone(),
        tallies: BTreeMap::new(),
        halted: None,
    };
    put_on_trial(rule, trial, it.expected_revision)
}

fn canaried(rule: &mut Rule, it: &RuleCanaried, event: &RuleEvent, at_ms: i64) -> Result<(), RuleRefusal> {
    let canary = Canary {
        percent: u8::try_from(it.percent.clamp(0, 100)).unwrap_or_default(),
        failures_max: it.failures_max.max(1),
        difference_max_minor: it.difference_max_minor,
    };
    let trial = Trial {
        version: it.version,
        revision: rule.revision + 1,
        kind: TrialKind::Canary(canary),
        order: it.order,
        settings: it.settings.clone(),
        fallback: it.fallback,
        since_ms: at_ms,
        actor: event.actor.clone(),
        tallies: BTreeMap::new(),
        halted: None,
    };
    put_on_trial(rule, trial, it.expected_revision)
}

/// One trial at a time: the one before is over.
fn put_on_trial(rule: &mut Rule, trial: Trial, expected: Option<i64>) -> Result<(), RuleRefusal> {
    expect(rule, expected)?;
    if rule.version(trial.version).is_none() {
        return Err(RuleRefusal::UnknownVersion(trial.version));
    }
    rule.revision = trial.revision;
    rule.trial = Some(trial);
    Ok(())
}

/// What was counted is no change that anybody decides from: the revision stays, unless the trial stops.
fn measured(rule: &mut Rule, it: &RuleMeasured, at_ms: i64) -> Result<(), RuleRefusal> {
    let trial = rule.trial.as_mut().ok_or(RuleRefusal::NoTrial)?;
    if trial.revision != it.revision {
        return Err(RuleRefusal::Revision { expected: it.revision, current: trial.revision });
    }
    if trial.measure(it, at_ms) {
        rule.revision += 1;
    }
    Ok(())
}

fn remember(rule: &mut Rule, last: Option<Activation>) {
    if rule.before.len() >= BEFORE_MAX {
        rule.before.remove(0);
    }
    rule.before.push(last);
}

/// What was tried last goes first, also when it had stopped by itself meanwhile: who rolls a trial back must never hit
/// the version that was good.
fn rolled_back(rule: &mut Rule, expected: Option<i64>) -> Result<(), RuleRefusal> {
    expect(rule, expected)?;
    if rule.trial.take().is_some() {
        rule.revision += 1;
        return Ok(());
    }
    let last = rule.before.pop().ok_or(RuleRefusal::NothingBefore)?;
    rule.revision += 1;
    // A new revision, so that failures of its first time in force do not count against its second.
    rule.active = last.map(|it| Activation { revision: rule.revision, ..it });
    rule.tripped = None;
    Ok(())
}

/// Several workers may find so at the same time: the first one counts.
fn tripped(rule: &mut Rule, it: &RuleTripped, at_ms: i64) -> Result<(), RuleRefusal> {
    let current = rule.active.as_ref().ok_or(RuleRefusal::NotActive)?.revision;
    if current != it.revision {
        return Err(RuleRefusal::Revision { expected: it.revision, current });
    }
    if rule.tripped.is_none() {
        let (calls, failures, outcome) = (it.calls, it.failures, it.outcome.clone());
        rule.tripped = Some(Trip { at_ms, calls, failures, outcome });
        rule.revision += 1;
    }
    Ok(())
}

fn retired(rule: &mut Rule) -> Result<(), RuleRefusal> {
    let (tried, last) = (rule.trial.take(), rule.active.take());
    if tried.is_some() || last.is_some() {
        rule.revision += 1;
    }
    if last.is_some() {
        remember(rule, last);
        rule.tripped = None;
    }
    Ok(())
}
