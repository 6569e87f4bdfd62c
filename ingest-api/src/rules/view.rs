//! What the API shows of a rule.

use super::trial_view::{ShownTrial, trial};
use crate::moment::Moment;
use crate::openapi::answer::AnyJson;
use crate::ports::{RuleSample, RuleView};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tillstream_rule_lifecycle::{Activation, DryRun, Rule, Trip, Version};
use tillstream_schemas::rules::{RuleInputs, RuleTriedHook};

/// A rule.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rule")]
pub(super) struct Shown {
    /// Its name.
    name: String,
    /// Grows by one with every change; send it as `expected_revision`.
    revision: i64,
    /// What answers now; null: nothing.
    active: Option<Active>,
    /// Set while the rule is not asked, because it failed too often.
    tripped: Option<Tripped>,
    /// What is on trial beside it, or in its place for a share of the orders; null: nothing.
    trial: Option<ShownTrial>,
    /// Its newest version.
    latest_version: Option<i64>,
}

/// A version in force.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleActivation")]
struct Active {
    /// Which version.
    version: i64,
    /// SHA-256 of its module, in hex.
    digest: String,
    /// The hooks it answers.
    hooks: Vec<&'static str>,
    /// Its place among the rules of a hook: lower is asked first.
    order: i32,
    /// What it is told beside the order.
    #[schemars(with = "AnyJson")]
    settings: Value,
    /// What holds when it gives no answer: `skip`, `refuse` or `review`.
    fallback: &'static str,
    /// Since when.
    since: Moment,
}

/// Why a rule is not asked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleTrip")]
struct Tripped {
    /// Since when.
    at: Moment,
    /// Calls that were watched.
    calls: i64,
    /// How many of them failed.
    failures: i64,
    /// How most of them failed.
    outcome: String,
}

/// A version of a rule.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleVersion")]
pub(super) struct ShownVersion {
    /// Its number.
    version: i64,
    /// SHA-256 of its module, in hex.
    digest: String,
    /// The hooks it implements.
    hooks: Vec<&'static str>,
    /// The module's size.
    size_bytes: i64,
    /// When it was uploaded.
    uploaded_at: Moment,
    /// Whether it is the active one.
    active: bool,
    /// The JSON schema that it brings for its settings; null: any object will do.
    #[schemars(with = "Option<AnyJson>")]
    settings_schema: Option<Value>,
    /// The signing key that its module is signed by; null: nobody signed it.
    signed_by: Option<String>,
    /// What it made of the tenant's recent inputs, the last time it was tried on them; null: it never was.
    recent: Option<ShownDryRun>,
}

/// What a version made of what the tenant's rules were asked of late.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleDryRun")]
pub(super) struct ShownDryRun {
    /// When.
    at: Moment,
    /// What it was told beside the order.
    #[schemars(with = "AnyJson")]
    settings: Value,
    /// The version that its answers are compared with, the active one; null: no rule at all.
    against: Option<i64>,
    /// Whether more than half of the inputs of a hook got no answer: it is put in force only when that is `forced`.
    fails_on_most: bool,
    /// By hook.
    hooks: Vec<ShownDryRunHook>,
}

/// What a version made of the recent inputs of a hook.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleDryRunHook")]
struct ShownDryRunHook {
    /// The hook.
    hook: String,
    /// Where the inputs are from. `samples`: calls that were kept; `log`: the last orders of the log; `none`: there are no
    /// inputs yet.
    inputs: &'static str,
    /// Calls.
    calls: i64,
    /// Those that gave no answer, by what became of them.
    failures: BTreeMap<String, i64>,
    /// Half of the calls used at most so many units of fuel; null without a call.
    fuel_p50: Option<i64>,
    /// The most units of fuel that a call used; null without a call.
    fuel_max: Option<i64>,
    /// Calls that said something else than the version that they are compared with.
    changed: i64,
}

/// What became of an upload.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleUpload")]
pub(super) struct ShownUpload {
    /// The rule.
    pub rule: String,
    /// The version that the module is.
    pub version: i64,
    /// SHA-256 of the module, in hex.
    pub digest: String,
    /// The signing key that the module is signed by; null: nobody signed it.
    pub signed_by: Option<String>,
    /// What it made of orders it was tried on.
    pub dry_run: Vec<Sample>,
    /// What it made of what the tenant's rules were asked of late; null: it could not be tried.
    pub recent: Option<ShownDryRun>,
}

/// A sample order, and what a module used on it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RuleSample")]
pub(super) struct Sample {
    /// The hook.
    hook: &'static str,
    /// Lines of the order.
    lines: usize,
    /// Units of fuel.
    fuel: u64,
    /// Bytes of memory.
    memory_bytes: usize,
    /// What it logged.
    log: String,
}

pub(super) fn shown(it: &RuleView) -> Shown {
    let in_force = it.rule.in_force();
    Shown {
        name: it.name.to_string(),
        revision: it.rule.revision,
        active: in_force.map(|(activation, version)| active(activation, version)),
        tripped: it.rule.tripped.as_ref().map(tripped),
        trial: trial(it),
        latest_version: it.rule.versions.last().map(|it| it.number),
    }
}

fn active(activation: &Activation, version: &Version) -> Active {
    Active {
        version: version.number,
        digest: version.digest.to_string(),
        hooks: hooks(version),
        order: activation.order,
        settings: serde_json::from_str(&activation.settings).unwrap_or_default(),
        fallback: activation.fallback.as_str(),
        since: Moment(activation.since_ms),
    }
}

pub(super) fn hooks(version: &Version) -> Vec<&'static str> {
    version.hooks.iter().map(|it| it.as_str()).collect()
}

fn tripped(trip: &Trip) -> Tripped {
    Tripped {
        at: Moment(trip.at_ms),
        calls: trip.calls,
        failures: trip.failures,
        outcome: trip.outcome.to_string(),
    }
}

/// The versions of a rule, newest first.
pub(super) fn shown_versions(rule: &Rule) -> Vec<ShownVersion> {
    let active = rule.active.as_ref().map(|it| it.version);
    let version = |it: &Version| ShownVersion {
        version: it.number,
        digest: it.digest.to_string(),
        hooks: hooks(it),
        size_bytes: it.size_bytes,
        uploaded_at: Moment(it.uploaded_at_ms),
        active: active == Some(it.number),
        settings_schema: it.settings_schema.as_deref().and_then(|it| serde_json::from_str(it).ok()),
        signed_by: it.signed_by.as_ref().map(ToString::to_string),
        recent: it.dry_run.as_ref().map(dry_run),
    };
    rule.versions.iter().rev().map(version).collect()
}

pub(super) fn sample(it: &RuleSample) -> Sample {
    Sample {
        hook: it.hook,
        lines: it.lines,
        fuel: it.fuel,
        memory_bytes: it.memory_bytes,
        log: it.log.clone(),
    }
}

pub(super) fn dry_run(it: &DryRun) -> ShownDryRun {
    let hook = |it: &RuleTriedHook| {
        let has_run = it.inputs != RuleInputs::None && it.calls > 0;
        ShownDryRunHook {
            hook: it.hook.to_string(),
            inputs: it.inputs.as_str(),
            calls: it.calls,
            failures: it.failures.iter().map(|it| (it.outcome.to_string(), it.calls)).collect(),
            fuel_p50: has_run.then_some(it.fuel_p50),
            fuel_max: has_run.then_some(it.fuel_max),
            changed: it.changed,
        }
    };
    ShownDryRun {
        at: Moment(it.at_ms),
        settings: serde_json::from_str(&it.tried.settings).unwrap_or_default(),
        against: it.tried.against,
        fails_on_most: it.fails_on_most(),
        hooks: it.tried.hooks.iter().map(hook).collect(),
    }
}
