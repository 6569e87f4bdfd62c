//! Answers a stage from what is in force.

use crate::breaker::{Breaker, Finding};
use crate::capture::{Called, Other, Ran, capture};
use crate::compare::{Said, compare};
use crate::compose::ask_in_turn;
use crate::samples::WAITING_MAX;
use crate::share::Share;
use crate::table::{InForce, OnTrial, Place, Table, TenantRules};
use crate::trials::{Measured, TrialKey, TrialMetrics, Trials, Tried};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use tillstream_rule_engine::Module;
use tillstream_rule_lifecycle::{Tally, TrialKind};
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::rule_sample::{RuleSample, RuleSampleKind};
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
    /// About a quarter of one core; at most two fifths of it, by modules that wait for memory.
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

/// What comes from a host, beside answers.
#[derive(Debug)]
pub struct Says {
    /// What the registry is to know: [`crate::RuleStation::run`] takes it.
    pub told: mpsc::UnboundedReceiver<Told>,
    /// Calls that are to be kept: [`crate::RuleSamples::run`] takes them.
    pub sampled: mpsc::Receiver<RuleSample>,
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
    sampled: mpsc::Sender<RuleSample>,
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
    /// A host without rules, and what it says.
    pub fn new(clock: Arc<dyn Clock>, settings: HostSettings, metrics: TrialMetrics) -> (Arc<Self>, Says) {
        let (told, tells) = mpsc::unbounded_channel();
        let (sampled, samples) = mpsc::channel(WAITING_MAX);
        let host = Self {
            table: RwLock::default(),
            shares: Mutex::default(),
            breakers: Mutex::default(),
            trials: Trials::new(metrics),
            told,
            sampled,
            clock,
            settings,
        };
        (Arc::new(host), Says { told: tells, sampled: samples })
    }

    /// Puts a table in force. Calls that have begun end by the one before.
    pub(crate) fn put_in_force(&self, mut table: Table) {
        for (tenant, rules) in &mut table {
            if let (Some(rules), Some(before)) = (Arc::get_mut(rules), self.rules_of(tenant)) {
                rules.keep_gates(&before);
            }
        }
        let place = |tenant: &Text, rule: &Text| table.get(tenant)?.all().iter().find(|it| it.name == *rule);
        let revisions =
            |tenant: &Text, rule: &Text| place(tenant, rule).map_or((None, None), Place::revisions);
        self.breakers.lock().retain(|it, _| revisions(&it.0, &it.1).0 == Some(it.2));
        self.trials.retain(|it| revisions(&it.0, &it.1).1 == Some(it.2));
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
        let standing = |runs: &mut Runs| active.map(|it| (&it.rule, self.ask(asked, place, it, runs)));
        let Some(trial) = &place.trial else { return standing(runs) };
        let key = (Text::from(asked.tenant), place.name.clone(), trial.version.revision);
        if trial.kind.answers(&place.name, asked.order_id) && !self.trials.is_stopped(&key) {
            return self.ask_canary(asked, place, &key, trial, runs);
        }
        let said = standing(runs);
        if trial.kind == TrialKind::Shadow && trial.version.hooks.contains(hook) {
            self.ask_shadow(asked, place, &key, trial, said.as_ref());
        }
        said
    }

    /// The version on trial is asked what was answered already, and nothing comes of what it says.
    fn ask_shadow(
        &self,
        asked: Asked<'_>,
        place: &Place,
        key: &TrialKey,
        trial: &OnTrial,
        standing: Option<&(&RuleRef, Said)>,
    ) {
        let Some(ran) = self.spare_run(asked, &trial.version) else {
            return self.note(key, trial.kind, asked.call, Tried::Skipped);
        };
        let nothing = PASS;
        let other = standing.map_or((None, &nothing), |it| (Some(it.0), &it.1));
        let tried = match &ran.said {
            Err(_) => Tried::Failed,
            Ok(tried) => Tried::Answered(compare(asked.call, other.1, tried)),
        };
        self.note(key, trial.kind, asked.call, tried);
        self.sample(asked, place, &trial.version, &ran, tried.differs().then_some(other));
    }

    /// The version on trial answers for this order. Where it gives no answer, the order is treated as all others are.
    fn ask_canary<'p>(
        &self,
        asked: Asked<'_>,
        place: &'p Place,
        key: &TrialKey,
        trial: &'p OnTrial,
        runs: &mut Runs,
    ) -> Option<(&'p RuleRef, Said)> {
        let (it, hook) = (&trial.version, asked.call.hook());
        if !it.hooks.contains(hook) {
            // It has nothing to say here, where the active version has: so its orders hear nothing.
            return None;
        }
        let active = place.active.as_ref().filter(|it| it.hooks.contains(hook));
        let ran = self.run(asked, it, runs);
        let said = match &ran.said {
            Ok(said) => said,
            Err(outcome) => {
                // Want of room or of fuel is no fault of the version.
                let excused = matches!(*outcome, "unavailable" | "throttled");
                self.note(key, trial.kind, asked.call, if excused { Tried::Skipped } else { Tried::Failed });
                self.sample(asked, place, it, &ran, None);
                let fallen = || (&it.rule, fall_back(it, outcome, hook));
                return Some(active.map_or_else(fallen, |it| (&it.rule, self.ask(asked, place, it, runs))));
            }
        };
        let standing = match active {
            None => Some(PASS),
            Some(it) if it.tripped => Some(fall_back(it, "tripped", hook)),
            Some(it) => self.spare_run(asked, it).and_then(|it| it.said.ok()),
        };
        let tried =
            standing.as_ref().map_or(Tried::Alone, |it| Tried::Answered(compare(asked.call, it, said)));
        self.note(key, trial.kind, asked.call, tried);
        let other = standing.as_ref().map(|it| (active.map(|it| &it.rule), it));
        self.sample(asked, place, it, &ran, other.filter(|_| tried.differs()));
        Some((&it.rule, said.clone()))
    }

    fn note(&self, key: &TrialKey, kind: TrialKind, call: &RuleCall, tried: Tried) {
        let of = (call.hook(), &call.order().currency);
        if let Some(measured) = self.trials.note(key, kind, of, tried) {
            // Nobody listens only once the process is ending.
            let _ = self.told.send(Told::Measured(measured));
        }
    }

    /// Keeps one call in many. `other`: what it differs from.
    fn sample(&self, asked: Asked<'_>, place: &Place, it: &InForce, ran: &Ran, other: Option<Other<'_>>) {
        let kind = match (&ran.said, other) {
            (Err("tripped" | "unavailable" | "throttled"), _) => return,
            (Err(_), _) => RuleSampleKind::Failure,
            (Ok(_), Some(_)) => RuleSampleKind::Difference,
            (Ok(_), None) => RuleSampleKind::Call,
        };
        if !place.gate.opens(kind, self.clock.monotonic_ns()) {
            return;
        }
        let of = Called {
            tenant: asked.tenant,
            order_id: asked.order_id,
            call: asked.call,
            rule: &it.rule,
            settings: &it.settings,
            at_ms: self.clock.now_ms(),
        };
        if let Some(sample) = capture(of, ran, kind, other) {
            // What waits in vain, or for a process that ends, is not kept.
            let _ = self.sampled.try_send(sample);
        }
    }

    /// A call that nobody waits for: it takes what the tenant's orders leave of the share. `None`: they left too little,
    /// or the module is not here.
    fn spare_run(&self, asked: Asked<'_>, it: &InForce) -> Option<Ran> {
        let module = it.module.as_ref()?;
        let now_ns = self.clock.monotonic_ns();
        let spare = self.with_share(asked.tenant, now_ns, |share| share.has_spare(now_ns));
        spare.then(|| self.run_module(asked, it, module, now_ns))
    }

    /// The active version's answer, or the policy it falls back to.
    fn ask(&self, asked: Asked<'_>, place: &Place, it: &InForce, runs: &mut Runs) -> Said {
        let ran = self.run(asked, it, runs);
        self.watch(asked.tenant, it, ran.outcome());
        self.sample(asked, place, it, &ran, None);
        ran.said.unwrap_or_else(|outcome| fall_back(it, outcome, asked.call.hook()))
    }

    /// One call of one version that answers an order.
    fn run(&self, asked: Asked<'_>, it: &InForce, runs: &mut Runs) -> Ran {
        let begun_ns = self.clock.monotonic_ns();
        let ran = match &it.module {
            _ if it.tripped => Ran::not("tripped"),
            None => Ran::not("unavailable"),
            Some(_) if !self.may_begin(asked.tenant, begun_ns) => Ran::not("throttled"),
            Some(module) => self.run_module(asked, it, module, begun_ns),
        };
        runs.push(RuleRun { outcome: ran.outcome(), fuel: ran.fuel, ns: ran.ns });
        ran
    }

    fn run_module(&self, asked: Asked<'_>, it: &InForce, module: &Module, begun_ns: u64) -> Ran {
        let (tenant, order_id) = (asked.tenant, asked.order_id);
        let run = module.run(order_id, asked.call, &it.settings, u64::MAX);
        let ns = self.clock.monotonic_ns().saturating_sub(begun_ns);
        if let Some(share) = self.shares.lock().get_mut(tenant) {
            share.take(run.fuel, ns);
        }
        let said = run.result.map_err(|fault| {
            tracing::debug!(tenant, order_id, rule = %it.rule.name, %fault, "a rule gave no answer");
            fault.outcome()
        });
        Ran { said, fuel: run.fuel, ns, memory_bytes: run.memory_bytes, log: run.log }
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
        let mut runs = SmallVec::new();
        let verdict = ask_in_turn(call, rules.of(call.hook()), |place, call| {
            self.answer(Asked { tenant, order_id, call }, place, &mut runs)
        });
        RuleOutcome { verdict, runs }
    }

    fn hooks(&self, tenant: &str) -> Hooks {
        self.table.read().get(tenant).map_or(Hooks::NONE, |it| it.hooks)
    }
}
