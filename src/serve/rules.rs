//! Tenants' rules in this process: followed, compiled, in force before the first task begins.

use super::ServeError;
use super::backtests::products;
use super::crew::Crew;
use super::house::House;
use crate::cli::Serve;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use tillstream_ingest_api::ports;
use tillstream_ingest_api::ports::{NewModule, RuleSample, RuleUploaded, RuleView, RulesError};
use tillstream_log::Log;
use tillstream_registry_log::{Registry, RegistryError};
use tillstream_rule_backtest::{Products, recent_questions};
use tillstream_rule_host::{
    ArtifactCache, Compiler, Host, HostSettings, Pool, RECENT_INPUTS_MAX, RecentInput, RecentInputs,
    RuleEngine, RuleSamples, RuleStation, RuleUpload, Says, TrialMetrics, Uploaded,
};
use tillstream_rule_lifecycle::{Modules, Rule, RuleRefusal, Rules, SettingsSchema, Signing, Version};
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_schemas::rule_sample::RuleSample as CallSample;
use tillstream_schemas::rules::{RuleEvent, RuleInputs, RulePayload};
use tillstream_stage::rule::{Hook, RuleHost};
use tokio::task::JoinHandle;

/// Calls at a time: a task calls one rule at a time, and there are no more tasks than threads that run them.
const SLOTS: u32 = 64;
/// This very binary, also when its file was replaced since the start.
const OWN_BINARY: &str = "/proc/self/exe";
/// The hidden command that compiles one module.
pub const COMPILE_COMMAND: &str = "compile-rule";

/// What rules are made of in this process.
pub struct RuleParts {
    host: Arc<Host>,
    station: Arc<RuleStation>,
    rules: Arc<Registry<Rules>>,
    modules: Arc<Registry<Modules>>,
    samples: Arc<RuleSamples>,
    says: Mutex<Option<Says>>,
    clock: Arc<dyn Clock>,
    log: Arc<dyn Log>,
    products: Arc<dyn Products>,
}

/// Puts the parts together; nothing is followed yet.
pub async fn build(options: &Serve, house: &House) -> Result<RuleParts, ServeError> {
    let (log, clock) = (&house.rules_log, &house.clock);
    let rules = async || Ok(Registry::open(log.clone(), clock.clone(), Rules::default()).await?);
    let modules = async || Ok(Registry::open(log.clone(), clock.clone(), Modules::default()).await?);
    let (rules, modules) = (house.patience.ask(rules).await?, house.patience.ask(modules).await?);
    let settings = HostSettings { fuel_per_second: options.rule_fuel_per_second };
    let metrics = TrialMetrics::register(&house.metrics.registry).map_err(ServeError::Metrics)?;
    let (host, says) = Host::new(house.clock.clone(), settings, metrics);
    let engine = RuleEngine::new(Pool::Slots(SLOTS)).map_err(|error| ServeError::Rules(error.into()))?;
    let dir = options.rules_dir.clone().unwrap_or_else(|| options.data_dir.join("rules"));
    let station = RuleStation::new(
        host.clone(),
        engine,
        ArtifactCache::open(&dir)?,
        Compiler::new(OWN_BINARY.into(), vec![COMPILE_COMMAND.into()]),
        (rules.clone(), modules.clone()),
        house.clock.clone(),
    );
    let samples = RuleSamples::new(house.rules_log.clone(), house.clock.clone());
    let (says, clock) = (Mutex::new(Some(says)), house.clock.clone());
    let (log, products) = (house.log.clone(), products(house));
    Ok(RuleParts { host, station, rules, modules, samples, says, clock, log, products })
}

impl RuleParts {
    /// What tasks ask.
    pub fn host(&self) -> Arc<dyn RuleHost> {
        self.host.clone()
    }

    /// What loads and compiles.
    pub fn station(&self) -> Arc<RuleStation> {
        self.station.clone()
    }

    /// What the door changes.
    pub fn door(&self) -> Arc<dyn ports::Rules> {
        Arc::new(RulesDoor {
            station: self.station.clone(),
            samples: self.samples.clone(),
            clock: self.clock.clone(),
            log: self.log.clone(),
            products: self.products.clone(),
        })
    }

    /// Starts the followers, and returns once everything that was in the log is in force: a task that began before
    /// would price its first orders without the rules that were active.
    pub async fn start(&self, crew: &Crew) -> Result<Vec<JoinHandle<()>>, ServeError> {
        let (rules, modules, station) = (self.rules.clone(), self.modules.clone(), self.station.clone());
        let stop = || crew.stopping.clone();
        let (stop_rules, stop_modules, stop_station) = (stop(), stop(), stop());
        let follow_rules = async move { rules.run_follower(stop_rules).await };
        let follow_modules = async move { modules.run_follower(stop_modules).await };
        let mut workers = vec![
            crew.spawn(crew.watched("the rules follower", follow_rules)),
            crew.spawn(crew.watched("the rule modules follower", follow_modules)),
        ];
        let failed = |error: RegistryError| ServeError::Rules(error.into());
        self.rules.caught_up().await.map_err(failed)?;
        self.modules.caught_up().await.map_err(failed)?;
        self.station.bring_up().await;
        let says = self.says.lock().take();
        if let Some(Says { told, sampled }) = says {
            let (samples, stop_samples) = (self.samples.clone(), stop());
            let keep = async move { samples.run(sampled, stop_samples).await };
            workers.push(crew.spawn(crew.watched("the rule samples", keep)));
            let run = async move { station.run(told, stop_station).await };
            workers.push(crew.spawn(crew.watched("the rule station", run)));
        }
        Ok(workers)
    }
}

/// The door's way to the station.
struct RulesDoor {
    station: Arc<RuleStation>,
    samples: Arc<RuleSamples>,
    clock: Arc<dyn Clock>,
    log: Arc<dyn Log>,
    products: Arc<dyn Products>,
}

fn told(error: RegistryError) -> RulesError {
    match error {
        RegistryError::Log(error) => RulesError::Log(error),
        other => RulesError::Other(other.to_string()),
    }
}

impl RulesDoor {
    fn view(&self, tenant: &str, name: &str, rule: Rule) -> RuleView {
        let trial = rule.trial.as_ref();
        let untold = trial.map(|it| self.station.untold(tenant, name, it.revision)).unwrap_or_default();
        RuleView { name: name.into(), rule, untold }
    }

    /// What the tenant's rules were asked of late at a hook: calls that were kept, or else the last orders of the log.
    /// `None` when the log does not tell now.
    async fn recent(&self, tenant: &str, hook: Hook) -> Option<RecentInputs> {
        let kept = self.samples.inputs(tenant, hook, RECENT_INPUTS_MAX);
        if !kept.is_empty() {
            return Some(RecentInputs { hook, source: RuleInputs::Samples, inputs: kept });
        }
        let asked = recent_questions(&*self.log, &*self.products, tenant, hook, RECENT_INPUTS_MAX).await;
        let log_error =
            |error| tracing::warn!(%error, "a version is not tried on the last orders of the log");
        let asked = asked.map_err(log_error).ok()?;
        let source = if asked.is_empty() { RuleInputs::None } else { RuleInputs::Log };
        let inputs = asked.into_iter().map(|(order_id, call)| RecentInput { order_id, call }).collect();
        Some(RecentInputs { hook, source, inputs })
    }

    /// Asks a version what the tenant's rules were asked of late, and says in the registry what came of it. A version that
    /// is not there or cannot be tried is the fold's to judge.
    async fn try_on(&self, event: &RuleEvent, number: i64, settings: &str) -> Result<(), RulesError> {
        let (tenant, rule) = (&event.tenant, &event.rule);
        let hooks = self.station.rules().read(|it| Some(it.get(tenant, rule)?.version(number)?.hooks));
        let mut recent = Vec::new();
        for hook in hooks.iter().flat_map(|it| it.iter()) {
            recent.extend(self.recent(tenant, hook).await);
        }
        let tried = self.station.try_on((tenant, rule), (number, settings), recent).await;
        let tried = match tried.map_err(|error| RulesError::Other(error.to_string()))? {
            Ok(tried) => tried,
            Err(why) => {
                tracing::debug!(%tenant, %rule, number, why, "a version is not tried");
                return Ok(());
            }
        };
        let said = RuleEvent {
            id: ports::Rules::new_id(self)?,
            payload: RulePayload::Tried(tried),
            ..event.clone()
        };
        match self.station.rules().append(&said).await.map_err(told)? {
            Ok(()) => {}
            Err(refusal) => tracing::debug!(%refusal, "a version that was tried is gone"),
        }
        Ok(())
    }
}

/// What a change would put in force or on trial: the version, and its settings.
fn put_forward(rule: Option<&Rule>, payload: &RulePayload) -> Option<(i64, Text)> {
    match payload {
        RulePayload::Activated(it) => Some((it.version, it.settings.clone())),
        RulePayload::Canaried(it) => Some((it.version, it.settings.clone())),
        RulePayload::Shadowed(it) => Some((it.version, it.settings.clone())),
        RulePayload::Configured(it) => Some((rule?.active.as_ref()?.version, it.settings.clone())),
        _ => None,
    }
}

/// What a version that nobody activated yet is tried with: the settings of the active one, if its schema takes them.
fn first_settings(rule: &Rule, version: &Version) -> Text {
    let fits = |settings: &&Text| {
        let schema = version.settings_schema.as_ref().and_then(|it| SettingsSchema::parse(it).ok());
        let read = serde_json::from_str(settings);
        schema.is_none_or(|schema| read.is_ok_and(|it| schema.misfits(&it).is_empty()))
    };
    let active = rule.active.as_ref().map(|it| &it.settings).filter(fits);
    active.cloned().unwrap_or(Text::const_new("{}"))
}

impl ports::Rules for RulesDoor {
    fn list(&self, tenant: &str) -> Vec<RuleView> {
        let view = |(name, rule): (&Text, &Rule)| self.view(tenant, name, rule.clone());
        self.station.rules().read(|rules| rules.of(tenant).map(view).collect())
    }

    fn get(&self, tenant: &str, name: &str) -> Option<RuleView> {
        let rule = self.station.rules().read(|rules| rules.get(tenant, name).cloned())?;
        Some(self.view(tenant, name, rule))
    }

    fn samples(&self, tenant: &str, name: &str) -> Vec<Arc<CallSample>> {
        self.samples.of(tenant, name)
    }

    fn new_id(&self) -> Result<Text, RulesError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| RulesError::Other(error.to_string()))?;
        Ok(format!("rul_{:013x}{:016x}", self.clock.now_ms(), u64::from_be_bytes(random)).into())
    }

    fn change<'a>(
        &'a self,
        event: &'a RuleEvent,
    ) -> BoxFuture<'a, Result<Result<(), RuleRefusal>, RulesError>> {
        Box::pin(async move {
            let rule = self.station.rules().read(|it| it.get(&event.tenant, &event.rule).cloned());
            if let Some((version, settings)) = put_forward(rule.as_ref(), &event.payload) {
                self.try_on(event, version, &settings).await?;
            }
            self.station.change(event).await.map_err(told)
        })
    }

    fn signing(&self, tenant: &str) -> Signing {
        self.station.rules().read(|it| it.signing(tenant).cloned()).unwrap_or_default()
    }

    fn upload<'a>(
        &'a self,
        new: NewModule<'a>,
        module: Vec<u8>,
    ) -> BoxFuture<'a, Result<RuleUploaded, RulesError>> {
        Box::pin(async move {
            let id = self.new_id()?;
            let NewModule { tenant, rule, actor, signature } = new;
            let upload = RuleUpload { id: &id, tenant, rule, actor, signature };
            let uploaded = self.station.upload(upload, module).await;
            Ok(match uploaded.map_err(|error| RulesError::Other(error.to_string()))? {
                Uploaded::Refused { reason, message } => RuleUploaded::Refused { reason, message },
                Uploaded::NoRoom(text) => RuleUploaded::NoRoom(text),
                Uploaded::Unsigned(refusal) => RuleUploaded::Unsigned(refusal.to_string()),
                Uploaded::Taken { version, digest, event, samples } => {
                    let settings = self.station.rules().read(|rules| {
                        let rule = rules.get(tenant, rule)?;
                        Some(first_settings(rule, rule.version(version)?))
                    });
                    if let Some(settings) = settings {
                        self.try_on(&event, version, &settings).await?;
                    }
                    let sample = |it: tillstream_rule_host::SampleRun| RuleSample {
                        hook: it.hook.as_str(),
                        lines: it.lines,
                        fuel: it.run.fuel,
                        memory_bytes: it.run.memory_bytes,
                        log: it.run.log,
                    };
                    RuleUploaded::Taken {
                        version,
                        digest,
                        samples: samples.into_iter().map(sample).collect(),
                    }
                }
            })
        })
    }
}
