//! From events to rules.

use crate::dry_run::DryRun;
use crate::rule::{Activation, Rule, Trip, Version};
use crate::signing::{SIGNING_KEYS_MAX, SignatureRefusal, Signing};
use crate::trial::{Canary, Trial, TrialKind};
use std::collections::BTreeMap;
use thiserror::Error;
use tillstream_registry_log::{Appended, Fold};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{
    RuleActivated, RuleCanaried, RuleConfigured, RuleEvent, RuleFallback, RuleMeasured, RulePayload,
    RuleShadowed, RuleTried, RuleTripped, RuleVersionUploaded,
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
    /// The module is not signed as its tenant wants it.
    #[error(transparent)]
    Signature(#[from] SignatureRefusal),
    /// There is no such signing key.
    #[error("there is no signing key {0}")]
    UnknownKey(Text),
    /// Signatures cannot be wanted of nobody.
    #[error("the tenant has no signing key in force: add one before modules must be signed")]
    NoKey,
    /// It gives no answer to most of what the tenant's rules are asked.
    #[error(
        "version {version} gave no answer to {failures} of {calls} recent inputs; see its dry run, or say that it is forced"
    )]
    DryRun {
        /// Which version.
        version: i64,
        /// Inputs.
        calls: i64,
        /// How many got no answer.
        failures: i64,
    },
}

/// The rules of every tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    tenants: BTreeMap<Text, Tenant>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Tenant {
    rules: BTreeMap<Text, Rule>,
    signing: Signing,
}

impl Rules {
    /// A tenant's rules, by name.
    pub fn of<'a>(&'a self, tenant: &str) -> impl Iterator<Item = (&'a Text, &'a Rule)> + use<'a> {
        self.tenants.get(tenant).into_iter().flat_map(|it| &it.rules)
    }

    /// One rule.
    pub fn get(&self, tenant: &str, name: &str) -> Option<&Rule> {
        self.tenants.get(tenant)?.rules.get(name)
    }

    /// Who may sign a tenant's modules; `None` for a tenant that configured nothing.
    pub fn signing(&self, tenant: &str) -> Option<&Signing> {
        Some(&self.tenants.get(tenant)?.signing)
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
        let tenant = self.tenants.entry(event.tenant.clone()).or_default();
        let (rules, signing) = (&mut tenant.rules, &mut tenant.signing);
        let at_ms = appended.at_ms;
        match &event.payload {
            RulePayload::Uploaded(it) => {
                signing.check(&it.digest, it.signature.as_ref())?;
                if !rules.contains_key(&event.rule) && rules.len() >= RULES_MAX {
                    return Err(RuleRefusal::TooMany(RULES_MAX));
                }
                return uploaded(rules.entry(event.rule.clone()).or_default(), it, event, at_ms);
            }
            RulePayload::SigningKeyAdded(_)
            | RulePayload::SigningKeyRevoked(_)
            | RulePayload::SigningConfigured(_) => return signing_changed(signing, event, at_ms),
            _ => {}
        }
        let rule = rules.get_mut(&event.rule).ok_or(RuleRefusal::UnknownRule)?;
        match &event.payload {
            RulePayload::Activated(it) => activated(rule, signing, it, event, at_ms),
            RulePayload::RolledBack(it) => rolled_back(rule, it.expected_revision),
            RulePayload::Tripped(it) => tripped(rule, it, at_ms),
            RulePayload::Retired(_) => retired(rule),
            RulePayload::Shadowed(it) => shadowed(rule, signing, it, event, at_ms),
            RulePayload::Canaried(it) => canaried(rule, signing, it, event, at_ms),
            RulePayload::Configured(it) => configured(rule, it, event, at_ms),
            RulePayload::Measured(it) => measured(rule, it, at_ms),
            RulePayload::Tried(it) => tried(rule, it, at_ms),
            RulePayload::Uploaded(_)
            | RulePayload::SigningKeyAdded(_)
            | RulePayload::SigningKeyRevoked(_)
            | RulePayload::SigningConfigured(_) => Ok(()),
        }
    }
}

fn signing_changed(signing: &mut Signing, event: &RuleEvent, at_ms: i64) -> Result<(), RuleRefusal> {
    match &event.payload {
        RulePayload::SigningKeyAdded(it) => {
            if !signing.keys.contains_key(&it.key_id) && signing.keys.len() >= SIGNING_KEYS_MAX {
                return Err(RuleRefusal::TooMany(SIGNING_KEYS_MAX));
            }
            signing.add(it, &event.actor, at_ms);
        }
        RulePayload::SigningKeyRevoked(it) => {
            let unknown = || RuleRefusal::UnknownKey(it.key_id.clone());
            signing.keys.get_mut(&it.key_id).ok_or_else(unknown)?.revoked_at_ms.get_or_insert(at_ms);
        }
        RulePayload::SigningConfigured(it) if it.required && !signing.has_key() => {
            return Err(RuleRefusal::NoKey);
        }
        RulePayload::SigningConfigured(it) => signing.required = it.required,
        _ => {}
    }
    Ok(())
}

/// The next version; a module that is a version already stays that version, and may be signed later.
fn uploaded(
    rule: &mut Rule,
    it: &RuleVersionUploaded,
    event: &RuleEvent,
    at_ms: i64,
) -> Result<(), RuleRefusal> {
    let signed_by = it.signature.as_ref().map(|it| it.key_id.clone());
    if let Some(version) = rule.versions.iter_mut().find(|known| known.digest == it.digest) {
        if signed_by.is_some() && version.signed_by != signed_by {
            version.signed_by = signed_by;
            rule.revision += 1;
        }
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
        signed_by,
        dry_run: None,
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

/// What happened of late is no change that anybody decides from: the revision stays.
fn tried(rule: &mut Rule, it: &RuleTried, at_ms: i64) -> Result<(), RuleRefusal> {
    let version = rule.versions.iter_mut().find(|known| known.number == it.version);
    let version = version.ok_or(RuleRefusal::UnknownVersion(it.version))?;
    version.dry_run = Some(DryRun { at_ms, tried: it.clone() });
    Ok(())
}

/// Whether a version is there and signed by whom its tenant trusts.
fn check_version(rule: &Rule, signing: &Signing, number: i64) -> Result<(), RuleRefusal> {
    let version = rule.version(number).ok_or(RuleRefusal::UnknownVersion(number))?;
    Ok(signing.check_signed_by(version.signed_by.as_ref())?)
}

/// Whether a version gave an answer to at least half of its tenant's recent inputs, under these settings. One that was
/// not tried under them is not judged.
fn check_dry_run(rule: &Rule, number: i64, settings: &str, forced: bool) -> Result<(), RuleRefusal> {
    let tried = rule.version(number).and_then(|it| it.dry_run.as_ref());
    match tried.filter(|it| !forced && it.tried.settings == settings && it.fails_on_most()) {
        None => Ok(()),
        Some(it) => {
            let (calls, failures) = it.counted();
            Err(RuleRefusal::DryRun { version: number, calls, failures })
        }
    }
}

fn activated(
    rule: &mut Rule,
    signing: &Signing,
    it: &RuleActivated,
    event: &RuleEvent,
    at_ms: i64,
) -> Result<(), RuleRefusal> {
    expect(rule, it.expected_revision)?;
    check_version(rule, signing, it.version)?;
    check_dry_run(rule, it.version, &it.settings, it.forced)?;
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
    check_dry_run(rule, active.version, &it.settings, it.forced)?;
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

/// Nothing comes of what a shadow says, so a dry run does not speak against one.
fn shadowed(
    rule: &mut Rule,
    signing: &Signing,
    it: &RuleShadowed,
    event: &RuleEvent,
    at_ms: i64,
) -> Result<(), RuleRefusal> {
    expect(rule, it.expected_revision)?;
    check_version(rule, signing, it.version)?;
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
    put_on_trial(rule, trial);
    Ok(())
}

fn canaried(
    rule: &mut Rule,
    signing: &Signing,
    it: &RuleCanaried,
    event: &RuleEvent,
    at_ms: i64,
) -> Result<(), RuleRefusal> {
    expect(rule, it.expected_revision)?;
    check_version(rule, signing, it.version)?;
    check_dry_run(rule, it.version, &it.settings, it.forced)?;
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
    put_on_trial(rule, trial);
    Ok(())
}

/// One trial at a time: the one before is over.
fn put_on_trial(rule: &mut Rule, trial: Trial) {
    rule.revision = trial.revision;
    rule.trial = Some(trial);
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
