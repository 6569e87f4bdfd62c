//! Tenants' rules in this process: followed, compiled, in force before the first task begins.

use super::ServeError;
use super::crew::Crew;
use super::house::House;
use crate::cli::Serve;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use tillstream_ingest_api::ports;
use tillstream_ingest_api::ports::{RuleSample, RuleUploaded, RuleView, RulesError};
use tillstream_registry_log::{Registry, RegistryError};
use tillstream_rule_host::{
    ArtifactCache, Compiler, Host, HostSettings, Pool, RuleEngine, RuleSamples, RuleStation, RuleUpload,
    Says, TrialMetrics, Uploaded,
};
use tillstream_rule_lifecycle::{Modules, Rule, RuleRefusal, Rules};
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_schemas::rule_sample::RuleSample as CallSample;
use tillstream_schemas::rules::RuleEvent;
use tillstream_stage::rule::RuleHost;
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
}

/// Puts the parts together; nothing is followed yet.
pub async fn build(options: &Serve, house: &House) -> Result<RuleParts, ServeError> {
    let open = |error: RegistryError| ServeError::Rules(error.into());
    let rules = Registry::open(house.rules_log.clone(), house.clock.clone(), Rules::default()).await;
    let modules = Registry::open(house.rules_log.clone(), house.clock.clone(), Modules::default()).await;
    let (rules, modules) = (rules.map_err(open)?, modules.map_err(open)?);
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
    Ok(RuleParts { host, station, rules, modules, samples, says, clock })
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
        let (station, samples) = (self.station.clone(), self.samples.clone());
        Arc::new(RulesDoor { station, samples, clock: self.clock.clone() })
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
        Box::pin(async move { self.station.change(event).await.map_err(told) })
    }

    fn upload<'a>(
        &'a self,
        tenant: &'a str,
        rule: &'a str,
        actor: &'a str,
        module: Vec<u8>,
    ) -> BoxFuture<'a, Result<RuleUploaded, RulesError>> {
        Box::pin(async move {
            let id = self.new_id()?;
            let upload = RuleUpload { id: &id, tenant, rule, actor };
            let uploaded = self.station.upload(upload, module).await;
            Ok(match uploaded.map_err(|error| RulesError::Other(error.to_string()))? {
                Uploaded::Refused { reason, message } => RuleUploaded::Refused { reason, message },
                Uploaded::NoRoom(text) => RuleUploaded::NoRoom(text),
                Uploaded::Taken { version, digest, samples } => {
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
