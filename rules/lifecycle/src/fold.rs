//! From events to rules.

use crate::rule::{Activation, Rule, Trip, Version};
use std::collections::BTreeMap;
use thiserror::Error;
use tillstream_registry_log::{Appended, Fold};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{RuleActivated, RuleEvent, RulePayload, RuleTripped, RuleVersionUploaded};
use tillstream_stage::rule::Hook;

/// Rules of one tenant, at most.
pub const RULES_MAX: usize = 50;
/// Versions of one rule, at most.
pub const VERSIONS_MAX: usize = 500;
/// Activations that can be rolled back, at most: the oldest are forgotten.
const BEFORE_MAX: usize = 50;

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
    rule.revision += 1;
    let next = Activation {
        version: it.version,
        revision: rule.revision,
        order: it.order,
        settings: it.settings.clone(),
        fallback: it.fallback,
        since_ms: at_ms,
        actor: event.actor.clone(),
    };
    let last = rule.active.replace(next);
    remember(rule, last);
    rule.tripped = None;
    Ok(())
}

fn remember(rule: &mut Rule, last: Option<Activation>) {
    if rule.before.len() >= BEFORE_MAX {
        rule.before.remove(0);
    }
    rule.before.push(last);
}

fn rolled_back(rule: &mut Rule, expected: Option<i64>) -> Result<(), RuleRefusal> {
    expect(rule, expected)?;
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
    if let Some(last) = rule.active.take() {
        rule.revision += 1;
        remember(rule, Some(last));
        rule.tripped = None;
    }
    Ok(())
}
