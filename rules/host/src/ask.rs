//! Versions that may not be active, asked by people: for a backtest, and for a dry run on recent inputs.

use crate::compile::NotTaken;
use crate::error::RuleHostError;
use crate::rehearse::Rehearsal;
use crate::station::RuleStation;
use crate::table::{InForce, in_force};
use crate::try_on::{Candidate, RecentInputs, try_on};
use std::sync::Arc;
use tillstream_rule_engine::Module;
use tillstream_rule_lifecycle::{Activation, ORDER_DEFAULT, Rule, Version};
use tillstream_schemas::Text;
use tillstream_schemas::rules::RuleTried;
use tillstream_stage::rule::Hook;

/// What to rehearse.
#[derive(Clone, Copy, Debug)]
pub struct Rehearse<'a> {
    /// Whose rule.
    pub tenant: &'a str,
    /// Which rule.
    pub rule: &'a str,
    /// Which version; `None`: the one that is active, if any is.
    pub version: Option<i64>,
    /// Settings, a JSON object; `None`: those of the active version.
    pub settings: Option<&'a str>,
    /// Whether the tenant's other rules stay out of it.
    pub alone: bool,
    /// The hook that will be asked: a version without it is refused.
    pub hook: Hook,
}

/// A version that can be asked.
struct Loaded {
    active: Option<Activation>,
    version: Version,
    module: Arc<Module>,
}

impl RuleStation {
    /// A version of a rule in its place among the tenant's active rules, or alone. Its order, settings and fallback are
    /// those of the active version where there is one; other settings may be given. A sentence when there is no such
    /// version, or it cannot be loaded.
    ///
    /// # Errors
    /// When the compiler cannot be run.
    pub async fn rehearse(&self, ask: Rehearse<'_>) -> Result<Result<Rehearsal, String>, RuleHostError> {
        let active = self.rules.read(|rules| rules.get(ask.tenant, ask.rule)?.active.clone());
        let Some(number) = ask.version.or_else(|| active.map(|it| it.version)) else {
            return Ok(Ok(Rehearsal::new(self.others(ask), None, self.clock.clone())));
        };
        let Loaded { active, version, module } = match self.version(ask.tenant, ask.rule, number).await? {
            Ok(loaded) => loaded,
            Err(why) => return Ok(Err(why)),
        };
        // The active version may have nothing to say at the hook: then it is as if there were none.
        if ask.version.is_some() && !version.hooks.contains(ask.hook) {
            let hook = ask.hook.as_str();
            return Ok(Err(format!("version {number} of the rule {} has no {hook} hook", ask.rule)));
        }
        let settings = ask.settings.map(Text::from).or_else(|| active.as_ref().map(|it| it.settings.clone()));
        let candidate = InForce {
            rule: Rule::reference(&ask.rule.into(), &version),
            revision: 0,
            settings: settings.unwrap_or(Text::const_new("{}")),
            fallback: active.as_ref().map(|it| it.fallback).unwrap_or_default(),
            hooks: version.hooks,
            tripped: false,
            module: Some(module),
        };
        let order = active.as_ref().map_or(ORDER_DEFAULT, |it| it.order);
        Ok(Ok(Rehearsal::new(self.others(ask), Some((order, candidate)), self.clock.clone())))
    }

    /// The tenant's other rules that answer now, by their place.
    fn others(&self, ask: Rehearse<'_>) -> Vec<(i32, InForce)> {
        let loaded = self.loaded.lock().clone();
        let is_other = |(name, _): &(&Text, &Rule)| !ask.alone && *name != ask.rule;
        let load = |digest: &str| loaded.get(digest).cloned();
        self.rules.read(|rules| {
            let placed = |(name, rule): (&Text, &Rule)| {
                let order = rule.active.as_ref()?.order;
                Some((order, in_force(name, rule, &load).filter(|it| !it.tripped)?))
            };
            rules.of(ask.tenant).filter(is_other).filter_map(placed).collect()
        })
    }

    /// A version with its module loaded, and what is active. A sentence when there is none, or it cannot be loaded.
    async fn version(
        &self,
        tenant: &str,
        rule: &str,
        number: i64,
    ) -> Result<Result<Loaded, String>, RuleHostError> {
        let found = self.rules.read(|rules| {
            let rule = rules.get(tenant, rule)?;
            Some((rule.active.clone(), rule.version(number)?.clone()))
        });
        let Some((active, version)) = found else {
            return Ok(Err(format!("the rule {rule} has no version {number}")));
        };
        let Some(bytes) = self.modules.read(|it| it.get(tenant, &version.digest)) else {
            return Ok(Err(format!("the module of version {number} has not arrived here yet")));
        };
        Ok(match self.load(&version.digest, &bytes).await? {
            Ok(module) => Ok(Loaded { active, version, module }),
            Err(NotTaken { message, .. }) => Err(message),
        })
    }

    /// Asks a version what its tenant's rules were asked of late, beside the active version. A sentence when there is no
    /// such version, or it cannot be loaded.
    ///
    /// # Errors
    /// When the compiler cannot be run.
    pub async fn try_on(
        &self,
        (tenant, rule): (&str, &str),
        (number, settings): (i64, &str),
        recent: Vec<RecentInputs>,
    ) -> Result<Result<RuleTried, String>, RuleHostError> {
        let Loaded { active, version, module } = match self.version(tenant, rule, number).await? {
            Ok(loaded) => loaded,
            Err(why) => return Ok(Err(why)),
        };
        let tried = Candidate { module, hooks: version.hooks, settings: settings.into() };
        let standing = match &active {
            None => None,
            Some(it) => {
                let standing = self.version(tenant, rule, it.version).await?.ok();
                let settings = it.settings.clone();
                standing.map(|of| Candidate { module: of.module, hooks: of.version.hooks, settings })
            }
        };
        let against = active.filter(|_| standing.is_some()).map(|it| it.version);
        let hooks = tokio::task::spawn_blocking(move || try_on(&tried, standing.as_ref(), &recent)).await;
        let hooks = hooks.map_err(|error| RuleHostError::Compiler(error.to_string()))?;
        Ok(Ok(RuleTried { version: number, settings: settings.into(), against, hooks }))
    }
}
