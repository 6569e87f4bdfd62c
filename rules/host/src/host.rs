//! Answers a stage from what is in force.

use crate::breaker::{Breaker, Finding};
use crate::compare::{Said, compare};
use crate::compose::Composed;
use crate::share::Share;
use crate::table::{InForce, OnTrial, Place, Table, TenantRules};
use crate::trials::{Measured, TrialKey, TrialMetrics, Trials, Tried};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use tillstream_rule_engine::{Module, Run};
use tillstream_rule_lifecycle::{Tally, TrialKind};
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

/// What a host has to tell the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A rule fails too often.
    Tripping(Tripping),
    /// A version on trial was called.
    Measured(Measured),
}

/// The rules of this process. One per process; shared by all its tasks.
pub struct Host {
    table: RwLock<Table>,
    shares: Mutex<FxHashMap<Text, Share>>,
    breakers: Mutex<FxHashMap<(Text, Text, i64), Breaker>>,
    trials: Trials,
    told: mpsc::UnboundedSender<Told>,
    clock: Arc<dyn Clock>,
    settings: HostSettings,
}

/// Whose order is asked about, and what.
#[derive(Clone, Copy)]
struct Asked<'a> {
    tenant: &'a str,
    order_id: &'a str,
    call: &'a RuleCall,
}

/// The calls that answered an order.
type Runs = SmallVec<[RuleRun; 1]>;

const PASS: Said = (RuleAnswer::Pass, None);

impl Host {
    /// A host without rules, and where it says what the registry is to know.
    pub fn new(
        clock: Arc<dyn Clock>,
        settings: HostSettings,
        metrics: TrialMetrics,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Told>) {
        let (told, tells) = mpsc::unbounded_channel();
        let host = Self {
            table: RwLock::default(),
            shares: Mutex::default(),
            breakers: Mutex::default(),
            trials: Trials::new(metrics),
            told,
            clock,
            settings,
        };
        (Arc::new(host), tells)
    }

    /// Puts a table in force. Calls that have begun end by the one before.
    pub(crate) fn put_in_force(&self, table: Table) {
        let place = |tenant: &Text, rule: &Text| table.get(tenant)?.all().iter().find(|it| it.name == *rule);
        let active = |it: &Place| it.active.as_ref().map(|it| it.revision);
        let trial = |it: &Place| it.trial.as_ref().map(|it| it.version.revision);
        self.breakers.lock().retain(|it, _| place(&it.0, &it.1).and_then(active) == Some(it.2));
        self.trials.retain(|it| place(&it.0, &it.1).and_then(trial) == Some(it.2));
        *self.table.write() = table;
    }

    /// What this process counted of a trial and has not told the registry, by currency.
    pub fn untold(&self, tenant: &str, rule: &str, revision: i64) -> Vec<(Text, Tally)> {
        self.trials.untold(&(tenant.into(), rule.into(), revision))
    }

    fn rules_of(&self, tenant: &str) -> Option<Arc<TenantRules>> {
        self.table.read().get(tenant).cloned()
    }

    /// What a rule says: its active version, or the one on trial where that answers for the order.
    fn answer<'p>(&self, asked: Asked<'_>, place: &'p Place, runs: &mut Runs) -> Option<(&'p RuleRef, Said)> {
        let hook = asked.call.hook();
        let active = place.active.as_ref().filter(|it| it.hooks.contains(hook));
        let Some(trial) = &place.trial else { return active.map(|it| (&it.rule, self.ask(asked, it, runs))) };
        let key = (Text::from(asked.tenant), place.name.clone(), trial.version.revision);
        if trial.kind.answers(&place.name, asked.order_id) && !self.trials.is_stopped(&key) {
            return self.ask_canary(asked, &key, active, trial, runs);
        }
        let said = active.map(|it| (&it.rule, self.ask(asked, it, runs)));
        if trial.kind == TrialKind::Shadow && trial.version.hooks.contains(hook) {
            let nothing = PASS;
            let standing = said.as_ref().map_or(&nothing, |it| &it.1);
            self.ask_shadow(asked, &key, trial, standing);
        }
        said
    }

    /// The version on trial is asked what was answered already, and nothing comes of what it says.
    fn ask_shadow(&self, asked: Asked<'_>, key: &TrialKey, trial: &OnTrial, standing: &Said) {
        let tried = match self.spare_run(asked, &trial.version) {
            None => Tried::Skipped,
            Some(Err(_)) => Tried::Failed,
            Some(Ok(tried)) => Tried::Answered(compare(asked.call, standing, &tried)),
        };
        self.note(key, trial.kind, asked.call, tried);
    }

    /// The version on trial answers for this order. Where it gives no answer, the order is treated as all others are.
    fn ask_canary<'p>(
        &self,
        asked: Asked<'_>,
        key: &TrialKey,
        active: Option<&'p InForce>,
        trial: &'p OnTrial,
        runs: &mut Runs,
    ) -> Option<(&'p RuleRef, Said)> {
        let it = &trial.version;
        if !it.hooks.contains(asked.call.hook()) {
            // It has nothing to say here, where the active version has: so its orders hear nothing.
            return None;
        }
        let said = match self.run(asked, it, runs) {
            Ok(said) => said,
            Err(outcome) => {
                // Want of room or of fuel is no fault of the version.
                let excused = matches!(outcome, "unavailable" | "throttled");
                self.note(key, trial.kind, asked.call, if excused { Tried::Skipped } else { Tried::Failed });
                let fallen = || (&it.rule, fall_back(it, outcome, asked.call.hook()));
                return Some(active.map_or_else(fallen, |it| (&it.rule, self.ask(asked, it, runs))));
            }
        };
        let standing = match active {
            None => Some(PASS),
            Some(it) if it.tripped => Some(fall_back(it, "tripped", asked.call.hook())),
            Some(it) => self.spare_run(asked, it).and_then(Result::ok),
        };
        let tried = standing.map_or(Tried::Alone, |it| Tried::Answered(compare(asked.call, &it, &said)));
        self.note(key, trial.kind, asked.call, tried);
        Some((&it.rule, said))
    }

    fn note(&self, key: &TrialKey, kind: TrialKind, call: &RuleCall, tried: Tried) {
        let of = (call.hook(), &call.order().currency);
        if let Some(measured) = self.trials.note(key, kind, of, tried) {
            // Nobody listens only once the process is ending.
            let _ = self.told.send(Told::Measured(measured));
        }
    }

    /// A call that nobody waits for: it takes what the tenant's orders leave of the share. `None`: they left too little,
    /// or the module is not here.
    fn spare_run(&self, asked: Asked<'_>, it: &InForce) -> Option<Result<Said, &'static str>> {
        let module = it.module.as_ref()?;
        let now_ns = self.clock.monotonic_ns();
        self.with_share(asked.tenant, now_ns, |share| share.has_spare(now_ns)).then(|| {
            let run = self.run_module(asked, module, &it.settings);
            run.result.map_err(|fault| fault.outcome())
        })
    }

    /// The active version's answer, or the policy it falls back to.
    fn ask(&self, asked: Asked<'_>, it: &InForce, runs: &mut Runs) -> Said {
        let said = self.run(asked, it, runs);
        if let Some(run) = runs.last() {
            self.watch(asked.tenant, it, run.outcome);
        }
        said.unwrap_or_else(|outcome| fall_back(it, outcome, asked.call.hook()))
    }

    /// One call of one version, or the outcome by which it gave no answer.
    fn run(&self, asked: Asked<'_>, it: &InForce, runs: &mut Runs) -> Result<Said, &'static str> {
        let begun_ns = self.clock.monotonic_ns();
        let module = match &it.module {
            _ if it.tripped => Err("tripped"),
            None => Err("unavailable"),
            Some(_) if !self.may_begin(asked.tenant, begun_ns) => Err("throttled"),
            Some(module) => Ok(module),
        };
        let (fuel, said) = match module {
            Err(outcome) => (0, Err(outcome)),
            Ok(module) => {
                let run = self.run_module(asked, module, &it.settings);
                let said = run.result.map_err(|fault| {
                    let (tenant, order_id) = (asked.tenant, asked.order_id);
                    tracing::debug!(tenant, order_id, rule = %it.rule.name, %fault, "a rule gave no answer");
                    fault.outcome()
                });
                (run.fuel, said)
            }
        };
        let outcome = match &said {
            Ok(said) if *said == PASS => "passed",
            Ok(_) => "answered",
            Err(outcome) => outcome,
        };
        runs.push(RuleRun { outcome, fuel, ns: self.clock.monotonic_ns().saturating_sub(begun_ns) });
        said
    }

    fn run_module(&self, asked: Asked<'_>, module: &Module, settings: &str) -> Run {
        let run = module.run(asked.order_id, asked.call, settings, u64::MAX);
        if let Some(share) = self.shares.lock().get_mut(asked.tenant) {
            share.take(run.fuel);
        }
        run
    }

    fn may_begin(&self, tenant: &str, now_ns: u64) -> bool {
        self.with_share(tenant, now_ns, |share| share.may_begin(now_ns))
    }

    fn with_share<T>(&self, tenant: &str, now_ns: u64, look: impl FnOnce(&mut Share) -> T) -> T {
        let mut shares = self.shares.lock();
        match shares.get_mut(tenant) {
            Some(share) => look(share),
            None => look(
                shares
                    .entry(tenant.into())
                    .or_insert_with(|| Share::new(self.settings.fuel_per_second, now_ns)),
            ),
        }
    }

    fn watch(&self, tenant: &str, it: &InForce, outcome: &'static str) {
        // Want of room or of fuel is no fault of the rule, and what is taken out has been found out.
        if matches!(outcome, "unavailable" | "throttled" | "tripped") {
            return;
        }
        let failed = !matches!(outcome, "answered" | "passed");
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
        let _ = self.told.send(Told::Tripping(Tripping { tenant, rule, revision, calls, failures, outcome }));
    }
}

/// What the tenant chose for an order whose rule gives no answer. Measuring changes no order, so nothing is refused or
/// looked at for its sake.
fn fall_back(it: &InForce, outcome: &str, hook: Hook) -> (RuleAnswer, Option<String>) {
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
        for place in rules.of(call.hook()) {
            let asked = Asked { tenant, order_id, call: changed.as_ref().unwrap_or(call) };
            let Some((rule, (answer, review))) = self.answer(asked, place, &mut runs) else { continue };
            if answer == RuleAnswer::Pass && review.is_none() {
                continue;
            }
            let next = changed.get_or_insert_with(|| call.clone());
            if !composed.take(rule, answer, review, next) {
                break;
            }
        }
        RuleOutcome { verdict: composed.finish(), runs }
    }

    fn hooks(&self, tenant: &str) -> Hooks {
        self.table.read().get(tenant).map_or(Hooks::NONE, |it| it.hooks)
    }
}
