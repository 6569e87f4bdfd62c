//! What is in force in this process: per tenant and hook, the rules to ask, in their order.

use rustc_hash::FxHashMap;
use std::sync::Arc;
use tillstream_rule_engine::Module;
use tillstream_rule_lifecycle::{Rule, Rules};
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::rules::RuleFallback;
use tillstream_stage::rule::{Hook, Hooks};

/// A rule in force.
#[derive(Clone)]
pub(crate) struct InForce {
    pub rule: RuleRef,
    /// The rule's revision that put it in force.
    pub revision: i64,
    pub order: i32,
    pub settings: Text,
    pub fallback: RuleFallback,
    pub hooks: Hooks,
    /// The breaker holds it out.
    pub tripped: bool,
    /// `None` while its module is not loaded here: its fallback holds.
    pub module: Option<Arc<Module>>,
}

/// The rules of a tenant.
#[derive(Clone, Default)]
pub(crate) struct TenantRules {
    pub hooks: Hooks,
    rules: Vec<InForce>,
}

impl TenantRules {
    /// Those to ask, in their order.
    pub fn of(&self, hook: Hook) -> impl Iterator<Item = &InForce> {
        self.rules.iter().filter(move |it| it.hooks.contains(hook))
    }
}

/// All tenants.
pub(crate) type Table = FxHashMap<Text, Arc<TenantRules>>;

/// What the registry says is in force, with the modules that `load` has.
pub(crate) fn table(rules: &Rules, load: impl Fn(&str) -> Option<Arc<Module>>) -> Table {
    let mut table = Table::default();
    for tenant in rules.tenants() {
        let mut found: Vec<InForce> =
            rules.of(tenant).filter_map(|(name, rule)| in_force(name, rule, &load)).collect();
        // The name decides between equals, so that every process asks in the same order.
        found.sort_by(|a, b| a.order.cmp(&b.order).then_with(|| a.rule.name.cmp(&b.rule.name)));
        if !found.is_empty() {
            let hooks = found.iter().flat_map(|it| it.hooks.iter()).collect();
            table.insert(tenant.clone(), Arc::new(TenantRules { hooks, rules: found }));
        }
    }
    table
}

/// One rule as it is in force.
pub(crate) fn in_force(
    name: &Text,
    rule: &Rule,
    load: &impl Fn(&str) -> Option<Arc<Module>>,
) -> Option<InForce> {
    let (activation, version) = rule.in_force()?;
    Some(InForce {
        rule: Rule::reference(name, version),
        revision: activation.revision,
        order: activation.order,
        settings: activation.settings.clone(),
        fallback: activation.fallback,
        hooks: version.hooks,
        tripped: rule.tripped.is_some(),
        module: load(&version.digest),
    })
}
