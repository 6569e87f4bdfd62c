//! What is in force in this process: per tenant and hook, the rules to ask, in their order.

use crate::capture::Gate;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use tillstream_rule_engine::Module;
use tillstream_rule_lifecycle::{Rule, Rules, TrialKind};
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::rules::RuleFallback;
use tillstream_stage::rule::{Hook, Hooks};

/// A version that may be asked.
#[derive(Clone)]
pub(crate) struct InForce {
    pub rule: RuleRef,
    /// The rule's revision that put it in force.
    pub revision: i64,
    pub settings: Text,
    pub fallback: RuleFallback,
    pub hooks: Hooks,
    /// The breaker holds it out.
    pub tripped: bool,
    /// `None` while its module is not loaded here: its fallback holds.
    pub module: Option<Arc<Module>>,
}

/// A version on trial.
#[derive(Clone)]
pub(crate) struct OnTrial {
    pub version: InForce,
    pub kind: TrialKind,
}

/// A rule: what answers, and what is on trial in its place.
#[derive(Clone)]
pub(crate) struct Place {
    pub name: Text,
    pub order: i32,
    /// Every hook that one of its versions implements.
    pub hooks: Hooks,
    pub active: Option<InForce>,
    pub trial: Option<OnTrial>,
    /// Which calls are sampled.
    pub gate: Arc<Gate>,
}

impl Place {
    /// What put its versions in force.
    pub fn revisions(&self) -> (Option<i64>, Option<i64>) {
        let trial = self.trial.as_ref().map(|it| it.version.revision);
        (self.active.as_ref().map(|it| it.revision), trial)
    }
}

/// The rules of a tenant.
#[derive(Clone, Default)]
pub(crate) struct TenantRules {
    pub hooks: Hooks,
    places: Vec<Place>,
}

impl TenantRules {
    /// Those to ask, in their order.
    pub fn of(&self, hook: Hook) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |it| it.hooks.contains(hook))
    }

    /// Takes the gates of what was in force before and is unchanged: whatever else changes, a rule is not sampled anew.
    pub fn keep_gates(&mut self, before: &Self) {
        for place in &mut self.places {
            let same = |it: &&Place| it.name == place.name && it.revisions() == place.revisions();
            if let Some(it) = before.places.iter().find(same) {
                place.gate = it.gate.clone();
            }
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Place] {
        &self.places
    }
}

/// All tenants.
pub(crate) type Table = FxHashMap<Text, Arc<TenantRules>>;

/// What the registry says is in force, with the modules that `load` has.
pub(crate) fn table(rules: &Rules, load: impl Fn(&str) -> Option<Arc<Module>>) -> Table {
    let mut table = Table::default();
    for tenant in rules.tenants() {
        let mut places: Vec<Place> =
            rules.of(tenant).filter_map(|(name, rule)| place(name, rule, &load)).collect();
        // The name decides between equals, so that every process asks in the same order.
        places.sort_by(|a, b| a.order.cmp(&b.order).then_with(|| a.name.cmp(&b.name)));
        if !places.is_empty() {
            let hooks = places.iter().flat_map(|it| it.hooks.iter()).collect();
            table.insert(tenant.clone(), Arc::new(TenantRules { hooks, places }));
        }
    }
    table
}

/// The active version of a rule.
pub(crate) fn in_force(
    name: &Text,
    rule: &Rule,
    load: &impl Fn(&str) -> Option<Arc<Module>>,
) -> Option<InForce> {
    rule.in_force().map(|(activation, version)| InForce {
        rule: Rule::reference(name, version),
        revision: activation.revision,
        settings: activation.settings.clone(),
        fallback: activation.fallback,
        hooks: version.hooks,
        tripped: rule.tripped.is_some(),
        module: load(&version.digest),
    })
}

/// A version on trial has the place of the one that is active: both are asked the same.
fn place(name: &Text, rule: &Rule, load: &impl Fn(&str) -> Option<Arc<Module>>) -> Option<Place> {
    let active = in_force(name, rule, load);
    let trial = rule.on_trial().map(|(trial, version)| OnTrial {
        kind: trial.kind,
        version: InForce {
            rule: Rule::reference(name, version),
            revision: trial.revision,
            settings: trial.settings.clone(),
            fallback: trial.fallback,
            hooks: version.hooks,
            tripped: false,
            module: load(&version.digest),
        },
    });
    let order = rule.active.as_ref().map(|it| it.order).or(rule.trial.as_ref().map(|it| it.order))?;
    let versions = active.iter().chain(trial.iter().map(|it| &it.version));
    let hooks: Hooks = versions.flat_map(|it| it.hooks.iter()).collect();
    (active.is_some() || trial.is_some()).then(|| {
        let gate = Arc::default();
        Place { name: name.clone(), order, hooks, active, trial, gate }
    })
}
