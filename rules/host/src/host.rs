//! Answers a stage from what is in force.

use crate::breaker::{Breaker, Finding};
use crate::compose::Composed;
use crate::share::Share;
use crate::table::{InForce, Table, TenantRules};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use tillstream_rule_engine::Run;
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::rules::RuleFallback;
use tillstream_stage::rule::{Hook, Hooks, RuleAnswer, RuleCall, RuleHost, RuleOutcome, RuleRun};
use tokio::sync::mpsc;

/// How the host treats tenants.
#[derive(Clone, Copy, Debug)]
pub struct HostSettings {
    /// A tenant's share of fuel per second. Above it, its rules fall back.
    pub fuel_per_second: u64,
}

impl Default for HostSettings {
    /// About a quarter of one core.
    fn default() -> Self {
        Self { fuel_per_second: 400_000_000 }
    }
}

/// A rule that fails too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tripping {
    /// Whose.
    pub tenant: Text,
    /// Which rule.
    pub rule: Text,
    /// The revision that put it in force.
    pub revision: i64,
    /// Calls that were watched.
    pub calls: u32,
    /// How many failed.
    pub failures: u32,
    /// How most of them failed.
    pub outcome: &'static str,
}

/// The rules of this process. One per process; shared by all its tasks.
pub struct Host {
    table: RwLock<Table>,
    shares: Mutex<FxHashMap<Text, Share>>,
    breakers: Mutex<FxHashMap<(Text, Text, i64), Breaker>>,
    trippings: mpsc::UnboundedSender<Tripping>,
    clock: Arc<dyn Clock>,
    settings: HostSettings,
}

impl Host {
    /// A host without rules, and where it says which rules fail too often.
    pub fn new(
        clock: Arc<dyn Clock>,
        settings: HostSettings,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Tripping>) {
        let (trippings, found) = mpsc::unbounded_channel();
        let host = Self {
            table: RwLock::default(),
            shares: Mutex::default(),
            breakers: Mutex::default(),
            trippings,
            clock,
            settings,
        };
        (Arc::new(host), found)
    }

    /// Puts a table in force. Calls that have begun end by the one before.
    pub(crate) fn put_in_force(&self, table: Table) {
        let is_kept = |key: &(Text, Text, i64)| {
            let is_it = |it: &InForce| it.rule.name == key.1 && it.revision == key.2;
            let rules = table.get(&key.0);
            rules.is_some_and(|rules| Hook::ALL.into_iter().any(|hook| rules.of(hook).any(is_it)))
        };
        self.breakers.lock().retain(|key, _| is_kept(key));
        *self.table.write() = table;
    }

    fn rules_of(&self, tenant: &str) -> Option<Arc<TenantRules>> {
        self.table.read().get(tenant).cloned()
    }

    /// One rule's answer, or the policy it falls back to.
    fn ask(
        &self,
        tenant: &str,
        order_id: &str,
        it: &InForce,
        call: &RuleCall,
        runs: &mut SmallVec<[RuleRun; 1]>,
    ) -> (RuleAnswer, Option<String>) {
        let begun_ns = self.clock.monotonic_ns();
        let note = |runs: &mut SmallVec<[RuleRun; 1]>, outcome, fuel| {
            let ns = self.clock.monotonic_ns().saturating_sub(begun_ns);
            runs.push(RuleRun { outcome, fuel, ns });
        };
        let module = match &it.module {
            _ if it.tripped => Err("tripped"),
            None => Err("unavailable"),
            Some(_) if !self.may_begin(tenant, begun_ns) => Err("throttled"),
            Some(module) => Ok(module),
        };
        let module = match module {
            Ok(module) => module,
            Err(outcome) => {
                note(runs, outcome, 0);
                return fall_back(it, outcome, call.hook());
            }
        };
        let run: Run = module.run(order_id, call, &it.settings, u64::MAX);
        if let Some(share) = self.shares.lock().get_mut(tenant) {
            share.take(run.fuel);
        }
        let (outcome, answer) = match run.result {
            Ok((RuleAnswer::Pass, None)) => ("passed", (RuleAnswer::Pass, None)),
            Ok(answer) => ("answered", answer),
            Err(fault) => {
                tracing::debug!(tenant, order_id, rule = %it.rule.name, %fault, "a rule gave no answer");
                (fault.outcome(), fall_back(it, fault.outcome(), call.hook()))
            }
        };
        note(runs, outcome, run.fuel);
        self.watch(tenant, it, outcome);
        answer
    }

    fn may_begin(&self, tenant: &str, now_ns: u64) -> bool {
        let mut shares = self.shares.lock();
        match shares.get_mut(tenant) {
            Some(share) => share.may_begin(now_ns),
            None => {
                shares.insert(tenant.into(), Share::new(self.settings.fuel_per_second, now_ns));
                true
            }
        }
    }

    fn watch(&self, tenant: &str, it: &InForce, outcome: &'static str) {
        // The host's own want of room is no fault of the rule.
        let failed = !matches!(outcome, "answered" | "passed" | "unavailable");
        let key = (Text::from(tenant), it.rule.name.clone(), it.revision);
        let mut breakers = self.breakers.lock();
        let Some(Finding { calls, failures, outcome }) =
            breakers.entry(key).or_default().note(outcome, failed)
        else {
            return;
        };
        drop(breakers);
        let (tenant, rule, revision) = (tenant.into(), it.rule.name.clone(), it.revision);
        // Nobody listens only once the process is ending.
        let _ = self.trippings.send(Tripping { tenant, rule, revision, calls, failures, outcome });
    }
}

/// What the tenant chose for an order whose rule gives no answer. Measuring changes no order, so nothing is refused or
/// looked at for its sake.
pub(crate) fn fall_back(it: &InForce, outcome: &str, hook: Hook) -> (RuleAnswer, Option<String>) {
    match it.fallback {
        _ if hook == Hook::Measure => (RuleAnswer::Pass, None),
        RuleFallback::Skip => (RuleAnswer::Pass, None),
        RuleFallback::Refuse => (failed(&it.rule, outcome), None),
        // A shipment cannot be held in between: it is refused until the rule answers, or its policy is another.
        RuleFallback::Review if hook == Hook::Ship => (failed(&it.rule, outcome), None),
        RuleFallback::Review => {
            (RuleAnswer::Pass, Some(format!("the rule {} gave no answer ({outcome})", it.rule.name)))
        }
    }
}

fn failed(rule: &RuleRef, outcome: &str) -> RuleAnswer {
    RuleAnswer::Refuse {
        code: Text::const_new("rule_failed"),
        message: format!("The rule {} gave no answer ({outcome}).", rule.name).into(),
    }
}

impl RuleHost for Host {
    fn call(&self, tenant: &str, order_id: &str, call: &RuleCall) -> RuleOutcome {
        let Some(rules) = self.rules_of(tenant) else { return RuleOutcome::default() };
        let (mut composed, mut runs) = (Composed::default(), SmallVec::new());
        let mut changed = None;
        for it in rules.of(call.hook()) {
            let asked = changed.as_ref().unwrap_or(call);
            let (answer, review) = self.ask(tenant, order_id, it, asked, &mut runs);
            if answer == RuleAnswer::Pass && review.is_none() {
                continue;
            }
            let next = changed.get_or_insert_with(|| call.clone());
            if !composed.take(&it.rule, answer, review, next) {
                break;
            }
        }
        RuleOutcome { verdict: composed.finish(), runs }
    }

    fn hooks(&self, tenant: &str) -> Hooks {
        self.table.read().get(tenant).map_or(Hooks::NONE, |it| it.hooks)
    }
}
