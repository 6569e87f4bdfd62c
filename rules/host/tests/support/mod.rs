//! A station on a real log, with the crate's own compiler.
#![allow(dead_code, reason = "every test takes its part")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore, StoreError};
use tillstream_registry_log::Registry;
use tillstream_rule_host::{
    ArtifactCache, Compiler, Host, HostSettings, Pool, RuleEngine, RuleSamples, RuleStation, RuleUpload,
    Says, TrialMetrics, Uploaded,
};
use tillstream_rule_lifecycle::{Modules, RuleRefusal, Rules, Tally, Trial};
use tillstream_runtime::SystemClock;
use tillstream_schemas::rule_sample::RuleSample;
use tillstream_schemas::rules::{
    RuleActivated, RuleCanaried, RuleEvent, RuleFallback, RulePayload, RuleRolledBack, RuleShadowed,
};
use tillstream_stage::rule::{PriceInput, RuleCall, RuleHost, RuleLine, RuleOrder, RuleOutcome};
use tokio::sync::watch;

/// Opens the store. A compiler that another test of this process is just starting holds a copy of every open file until
/// it runs, the lock of a store that was closed meanwhile among them.
async fn open(dir: &Path) -> Arc<EmbeddedStore> {
    let settings = EmbeddedSettings { partitions: 2, ..EmbeddedSettings::new(dir) };
    let opened = async {
        loop {
            match EmbeddedStore::open(settings.clone()) {
                Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), opened).await.expect("the lock of the store before is gone")
}

pub struct World {
    pub host: Arc<Host>,
    pub station: Arc<RuleStation>,
    pub samples: Arc<RuleSamples>,
    stop: watch::Sender<bool>,
    store: Arc<EmbeddedStore>,
    ids: AtomicU64,
}

impl World {
    pub async fn start(dir: &Path) -> Self {
        Self::with(dir, HostSettings::default()).await
    }

    pub async fn with(dir: &Path, settings: HostSettings) -> Self {
        let store = open(dir).await;
        let clock = Arc::new(SystemClock::new());
        let rules = Registry::open(store.clone(), clock.clone(), Rules::default()).await.unwrap();
        let modules = Registry::open(store.clone(), clock.clone(), Modules::default()).await.unwrap();
        let metrics = TrialMetrics::register(&prometheus::Registry::new()).unwrap();
        let (host, Says { told, sampled }) = Host::new(clock.clone(), settings, metrics);
        let samples = RuleSamples::new(store.clone(), clock.clone());
        let station = RuleStation::new(
            host.clone(),
            RuleEngine::new(Pool::Slots(2)).unwrap(),
            ArtifactCache::open(&dir.join("rules")).unwrap(),
            Compiler::new(env!("CARGO_BIN_EXE_rule-compiler").into(), Vec::new()),
            (rules.clone(), modules.clone()),
            clock,
        );
        let (stop, stopping) = watch::channel(false);
        let (follow_rules, stopped) = (rules.clone(), stopping.clone());
        tokio::spawn(async move { follow_rules.run_follower(stopped).await });
        let (follow_modules, stopped) = (modules.clone(), stopping.clone());
        tokio::spawn(async move { follow_modules.run_follower(stopped).await });
        rules.caught_up().await.unwrap();
        modules.caught_up().await.unwrap();
        station.bring_up().await;
        let (running, stopped) = (station.clone(), stopping.clone());
        tokio::spawn(async move { running.run(told, stopped).await });
        let running = samples.clone();
        tokio::spawn(async move { running.run(sampled, stopping).await });
        Self { host, station, samples, stop, store, ids: AtomicU64::new(0) }
    }

    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.store.close().await.unwrap();
    }

    fn id(&self) -> String {
        let clock = std::process::id();
        format!("evt_{clock}_{}_{:p}", self.ids.fetch_add(1, Ordering::Relaxed), Arc::as_ptr(&self.host))
    }

    pub async fn upload(&self, tenant: &str, rule: &str, module: &[u8]) -> Uploaded {
        let id = self.id();
        let upload = RuleUpload { id: &id, tenant, rule, actor: "key_1", signature: None };
        self.station.upload(upload, module.to_vec()).await.unwrap()
    }

    /// Uploads what must be taken; its version.
    pub async fn taken(&self, tenant: &str, rule: &str, module: &[u8]) -> i64 {
        match self.upload(tenant, rule, module).await {
            Uploaded::Taken { version, .. } => version,
            other => panic!("{other:?}"),
        }
    }

    pub async fn change(&self, tenant: &str, rule: &str, payload: RulePayload) -> Result<(), RuleRefusal> {
        let event = RuleEvent {
            id: self.id().into(),
            tenant: tenant.into(),
            occurred_at_ms: 0,
            actor: "key_1".into(),
            rule: rule.into(),
            payload,
        };
        self.station.change(&event).await.unwrap()
    }

    pub async fn activate(&self, tenant: &str, rule: &str, version: i64, fallback: RuleFallback) {
        let (settings, expected_revision) = ("{}".into(), None);
        let it = RuleActivated { version, order: 100, settings, fallback, expected_revision, forced: false };
        self.change(tenant, rule, RulePayload::Activated(it)).await.unwrap();
    }

    pub async fn shadow(&self, tenant: &str, rule: &str, version: i64) {
        let it = RuleShadowed { version, settings: "{}".into(), expected_revision: None };
        self.change(tenant, rule, RulePayload::Shadowed(it)).await.unwrap();
    }

    pub async fn canary(
        &self,
        tenant: &str,
        rule: &str,
        version: i64,
        percent: i32,
        bounds: (i64, Option<i64>),
    ) {
        let it = RuleCanaried {
            version,
            percent,
            order: 100,
            settings: "{}".into(),
            fallback: RuleFallback::Refuse,
            failures_max: bounds.0,
            difference_max_minor: bounds.1,
            expected_revision: None,
            forced: false,
        };
        self.change(tenant, rule, RulePayload::Canaried(it)).await.unwrap();
    }

    /// What was counted of a trial, once it is so many calls: what is being said is on its way for a moment.
    pub async fn counted(&self, tenant: &str, rule: &str, calls: i64) -> Tally {
        self.until(|_| self.trial(tenant, rule).1.calls == calls).await;
        self.trial(tenant, rule).1
    }

    /// A trial, and what was counted of it as far as this process knows.
    pub fn trial(&self, tenant: &str, rule: &str) -> (Trial, Tally) {
        let trial = self.station.rules().read(|it| it.get(tenant, rule).unwrap().trial.clone()).unwrap();
        let untold = self.station.untold(tenant, rule, trial.revision);
        let all = untold.into_iter().map(|it| it.1).chain(trial.tallies.values().copied());
        let all = all.fold(Tally::default(), Tally::plus);
        (trial, all)
    }

    pub async fn roll_back(&self, tenant: &str, rule: &str) {
        let it = RuleRolledBack { expected_revision: None };
        self.change(tenant, rule, RulePayload::RolledBack(it)).await.unwrap();
    }

    pub fn price_of(&self, tenant: &str, order_id: &str) -> RuleOutcome {
        self.host.call(tenant, order_id, &price_call())
    }

    pub fn price(&self, tenant: &str) -> RuleOutcome {
        self.host.call(tenant, "ord_1", &price_call())
    }

    /// The samples of a rule, once there are so many.
    pub async fn sampled(&self, tenant: &str, rule: &str, count: usize) -> Vec<Arc<RuleSample>> {
        self.until(|_| self.samples.of(tenant, rule).len() >= count).await;
        self.samples.of(tenant, rule)
    }

    /// Waits until a look at the registry says so.
    pub async fn until(&self, done: impl Fn(&Rules) -> bool) {
        for _ in 0..600 {
            let rules = self.station.rules().read(Rules::clone);
            if done(&rules) {
                self.station.bring_up().await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never came");
    }
}

pub fn price_call() -> RuleCall {
    let line = RuleLine {
        sku: "71053".into(),
        quantity: 12,
        unit_price_minor: 339,
        discount_minor: 0,
        tax_rate_bp: 0,
        category: None,
    };
    let order = RuleOrder { currency: "GBP".into(), country: "GB".into(), ..RuleOrder::default() };
    RuleCall::Price(PriceInput { order, lines: vec![line] })
}

pub fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}
