//! From what is in the log to what is in force here.

use crate::cache::ArtifactCache;
use crate::compile::{Compiler, NotTaken};
use crate::error::RuleHostError;
use crate::host::{Host, Told, Tripping};
use crate::sample::{SampleRun, dry_run};
use crate::table::table;
use crate::trials::Measured;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tillstream_registry_log::{Registry, RegistryError};
use tillstream_rule_engine::{Module, Refusal, RuleEngine, Source, digest, settings_schema};
use tillstream_rule_lifecycle::{
    Modules, ModulesRefusal, RuleRefusal, Rules, SettingsSchema, SignatureRefusal, Signing, Tally,
};
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_schemas::rules::{
    RuleEvent, RuleMeasured, RuleModule, RulePayload, RuleSignature, RuleTripped, RuleVersionUploaded,
};
use tokio::sync::{mpsc, watch};

/// Compilers at a time: more would take the machine from the orders.
const COMPILERS_MAX: usize = 1;
/// What a trial came to and could not be said is said again after so long.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// What a module came to that was uploaded.
#[derive(Debug)]
pub enum Uploaded {
    /// It is a version now, and this is what it made of the samples.
    Taken {
        /// The version's number.
        version: i64,
        /// SHA-256, in hex.
        digest: String,
        /// The event that said so.
        event: Box<RuleEvent>,
        /// Its samples.
        samples: Vec<SampleRun>,
    },
    /// It is not taken: a bounded reason, and a sentence for its author.
    Refused {
        /// The reason.
        reason: String,
        /// The sentence.
        message: String,
    },
    /// The registry has no room.
    NoRoom(String),
    /// It is not signed as its tenant wants it.
    Unsigned(SignatureRefusal),
}

/// Follows, compiles, puts in force.
pub struct RuleStation {
    host: Arc<Host>,
    engine: RuleEngine,
    cache: ArtifactCache,
    compiler: Compiler,
    compilers: tokio::sync::Semaphore,
    pub(crate) loaded: Mutex<FxHashMap<Text, Arc<Module>>>,
    /// The engines of rules that are their source, by digest: each is there once, for all tenants.
    /// Locked while one is compiled, so that it is compiled once.
    engines: tokio::sync::Mutex<FxHashMap<&'static str, Module>>,
    pub(crate) rules: Arc<Registry<Rules>>,
    pub(crate) modules: Arc<Registry<Modules>>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl RuleStation {
    /// A station of this process. Run the followers of both registries, then [`RuleStation::run`].
    pub fn new(
        host: Arc<Host>,
        engine: RuleEngine,
        cache: ArtifactCache,
        compiler: Compiler,
        registries: (Arc<Registry<Rules>>, Arc<Registry<Modules>>),
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            engine,
            cache,
            compiler,
            compilers: tokio::sync::Semaphore::new(COMPILERS_MAX),
            loaded: Mutex::default(),
            engines: tokio::sync::Mutex::default(),
            rules: registries.0,
            modules: registries.1,
            clock,
        })
    }

    /// The rules of every tenant.
    pub fn rules(&self) -> &Registry<Rules> {
        &self.rules
    }

    /// Brings what is in force here to what has been followed, and keeps it there until `shutdown`.
    ///
    /// # Errors
    /// Never for a tenant's rule: one that cannot be loaded falls back by its policy.
    pub async fn run(
        &self,
        mut told: mpsc::UnboundedReceiver<Told>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), RuleHostError> {
        let (mut rules, mut modules) = (self.rules.changes(), self.modules.changes());
        // What was counted and could not be said yet: it stops a canary, so it is said again.
        let mut unsaid: VecDeque<RuleEvent> = VecDeque::new();
        loop {
            rules.mark_unchanged();
            modules.mark_unchanged();
            self.bring_up().await;
            // Acted on outside: what the first branch waits for must not be held meanwhile.
            let found = tokio::select! {
                biased;
                _ = shutdown.wait_for(|it| *it) => return Ok(()),
                changed = rules.changed() => if changed.is_err() { return Ok(()) } else { None },
                changed = modules.changed() => if changed.is_err() { return Ok(()) } else { None },
                Some(found) = told.recv() => Some(found),
                () = self.clock.sleep(SAY_AGAIN), if !unsaid.is_empty() => None,
            };
            match found {
                Some(Told::Tripping(found)) => self.trip(found).await,
                Some(Told::Measured(measured)) => unsaid.push_back(self.measured(measured)?),
                None => {}
            }
            while let Some(event) = unsaid.front() {
                match self.rules.append(event).await {
                    Ok(Ok(())) => {}
                    Ok(Err(refusal)) => tracing::debug!(%refusal, "the trial was over before it was counted"),
                    Err(error) => {
                        tracing::warn!(%error, "what a trial came to cannot be said now; it is said again");
                        break;
                    }
                }
                unsaid.pop_front();
            }
        }
    }

    /// The event that says what was counted. Its id is new, and stays when it is said again: it counts once.
    fn measured(&self, it: Measured) -> Result<RuleEvent, RuleHostError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| RuleHostError::Randomness(error.to_string()))?;
        let nonce = u64::from_be_bytes(random);
        let Tally { calls, failures, different, difference_minor, net_minor } = it.tally;
        Ok(RuleEvent {
            id: format!("msr_{}_{}_{nonce:016x}", it.rule, it.revision).into(),
            tenant: it.tenant,
            occurred_at_ms: self.clock.now_ms(),
            actor: Text::const_new("trial"),
            rule: it.rule,
            payload: RulePayload::Measured(RuleMeasured {
                revision: it.revision,
                currency: it.currency,
                calls,
                failures,
                different,
                difference_minor,
                net_minor,
            }),
        })
    }

    /// What this process counted of a trial and has not said yet, by currency.
    pub fn untold(&self, tenant: &str, rule: &str, revision: i64) -> Vec<(Text, Tally)> {
        self.host.untold(tenant, rule, revision)
    }

    /// Loads what is active and not loaded, then puts what is active in force.
    pub async fn bring_up(&self) {
        let wanted: BTreeSet<(Text, Text)> = self.rules.read(|rules| {
            let asked = |tenant: &Text| {
                let versions = rules.of(tenant).flat_map(|(_, rule)| {
                    let active = rule.in_force().map(|it| it.1);
                    active.into_iter().chain(rule.on_trial().map(|it| it.1))
                });
                versions.map(|it| (tenant.clone(), it.digest.clone())).collect::<Vec<_>>()
            };
            rules.tenants().flat_map(asked).collect()
        });
        for (tenant, digest) in &wanted {
            if self.loaded.lock().contains_key(digest) {
                continue;
            }
            if let Some(bytes) = self.modules.read(|it| it.get(tenant, digest)) {
                match self.load(digest, &bytes).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(it)) => {
                        tracing::error!(%tenant, %digest, reason = it.message, "a rule in force cannot be loaded")
                    }
                    Err(error) => {
                        tracing::error!(%tenant, %digest, %error, "a rule in force cannot be loaded")
                    }
                }
            }
        }
        let loaded = {
            let mut loaded = self.loaded.lock();
            loaded.retain(|digest, _| wanted.iter().any(|it| it.1 == *digest));
            loaded.clone()
        };
        let table = self.rules.read(|rules| table(rules, |digest| loaded.get(digest).cloned()));
        self.host.put_in_force(table);
    }

    /// A rule from memory, or made ready to be called.
    pub(crate) async fn load(
        &self,
        digest: &str,
        bytes: &[u8],
    ) -> Result<Result<Arc<Module>, NotTaken>, RuleHostError> {
        if let Some(module) = self.loaded.lock().get(digest) {
            return Ok(Ok(module.clone()));
        }
        let module = match Source::read(bytes) {
            Err(refusal) => Err(refusal.into()),
            Ok(None) => self.compiled(digest, bytes).await?,
            Ok(Some(source)) => match self.engine_of(&source, bytes).await? {
                Err(refused) => Err(refused),
                Ok(engine) => taken_in(engine, bytes.to_vec()).await?,
            },
        };
        Ok(module.map(|it| self.keep(digest, it)))
    }

    /// The engine that a source asks for.
    async fn engine_of(
        &self,
        source: &Source<'_>,
        bytes: &[u8],
    ) -> Result<Result<Module, NotTaken>, RuleHostError> {
        let digest = source.engine_digest();
        let mut engines = self.engines.lock().await;
        if let Some(engine) = engines.get(digest) {
            return Ok(Ok(engine.clone()));
        }
        let engine = self.compiled(digest, bytes).await?;
        if let Ok(engine) = &engine {
            engines.insert(digest, engine.clone());
        }
        Ok(engine)
    }

    /// A module's code from disk, or from the compiler.
    async fn compiled(&self, digest: &str, bytes: &[u8]) -> Result<Result<Module, NotTaken>, RuleHostError> {
        if let Some(module) = self.cache.get(&self.engine, digest) {
            return Ok(Ok(module));
        }
        let permit = self.compilers.acquire().await;
        let compiled = self.compiler.compile(bytes).await;
        drop(permit);
        let code = match compiled? {
            Ok(code) => code,
            Err(refused) => return Ok(Err(refused)),
        };
        match self.cache.put(&self.engine, digest, &code) {
            Ok(module) => Ok(Ok(module)),
            Err(error) => Ok(Err(NotTaken { reason: "start".to_owned(), message: error.to_string() })),
        }
    }

    fn keep(&self, digest: &str, module: Module) -> Arc<Module> {
        let module = Arc::new(module);
        self.loaded.lock().insert(digest.into(), module.clone());
        module
    }

    async fn trip(&self, found: Tripping) {
        tracing::warn!(tenant = %found.tenant, rule = %found.rule, failures = found.failures, calls = found.calls,
            outcome = found.outcome, "a rule failed too often and is taken out");
        let event = RuleEvent {
            // The same in every worker that finds so: the first one counts.
            id: format!("trip_{}_{}", found.rule, found.revision).into(),
            tenant: found.tenant,
            occurred_at_ms: self.clock.now_ms(),
            actor: Text::const_new("breaker"),
            rule: found.rule,
            payload: RulePayload::Tripped(RuleTripped {
                revision: found.revision,
                calls: i64::from(found.calls),
                failures: i64::from(found.failures),
                outcome: Text::const_new(found.outcome),
            }),
        };
        match self.rules.append(&event).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => tracing::debug!(%refusal, "the rule was changed before it was taken out"),
            Err(error) => tracing::error!(%error, "a rule that fails cannot be taken out now"),
        }
    }

    /// Appends a change, and brings it into force here before it answers.
    ///
    /// # Errors
    /// The registry's.
    pub async fn change(&self, event: &RuleEvent) -> Result<Result<(), RuleRefusal>, RegistryError> {
        let verdict = self.rules.append(event).await?;
        if verdict.is_ok() {
            self.bring_up().await;
        }
        Ok(verdict)
    }

    /// Checks, compiles and tries a module, and makes it the rule's next version when it passes.
    ///
    /// # Errors
    /// When the compiler cannot be run or the registry does not answer.
    pub async fn upload(&self, event: RuleUpload<'_>, module: Vec<u8>) -> Result<Uploaded, RuleHostError> {
        let digest = digest(&module);
        // Before anything is done with its bytes; the fold judges it again at its place in the log.
        let signed = self.rules.read(|it| match it.signing(event.tenant) {
            Some(signing) => signing.check(&digest, event.signature),
            None => Signing::default().check(&digest, event.signature),
        });
        if let Err(refusal) = signed {
            return Ok(Uploaded::Unsigned(refusal));
        }
        let settings_schema = match schema_of(&module) {
            Ok(schema) => schema,
            Err(NotTaken { reason, message }) => return Ok(Uploaded::Refused { reason, message }),
        };
        let loaded = match self.load(&digest, &module).await? {
            Ok(loaded) => loaded,
            Err(NotTaken { reason, message }) => return Ok(Uploaded::Refused { reason, message }),
        };
        let tried = {
            let module = loaded.clone();
            tokio::task::spawn_blocking(move || dry_run(&module, "{}")).await
        };
        let samples = match tried.map_err(|error| RuleHostError::Compiler(error.to_string()))? {
            Ok(samples) => samples,
            Err((hook, lines, fault)) => {
                let message =
                    format!("the {} hook, tried on a sample order of {lines} lines: {fault}", hook.as_str());
                return Ok(Uploaded::Refused { reason: "dry_run".to_owned(), message });
            }
        };
        let size_bytes = i64::try_from(module.len()).unwrap_or(i64::MAX);
        let (tenant, digest_text) = (Text::from(event.tenant), Text::from(digest.as_str()));
        let kept = RuleModule {
            id: format!("mod_{digest}").into(),
            tenant: tenant.clone(),
            digest: digest_text.clone(),
            bytes: module,
        };
        if let Err(ModulesRefusal { .. }) = self.modules.append(&kept).await? {
            let text = "the tenant's modules take all the room there is for them".to_owned();
            return Ok(Uploaded::NoRoom(text));
        }
        let uploaded = RuleEvent {
            id: event.id.into(),
            tenant,
            occurred_at_ms: self.clock.now_ms(),
            actor: event.actor.into(),
            rule: event.rule.into(),
            payload: RulePayload::Uploaded(RuleVersionUploaded {
                digest: digest_text,
                size_bytes,
                hooks: loaded.hooks().iter().map(|it| Text::const_new(it.as_str())).collect(),
                settings_schema,
                signature: event.signature.cloned(),
            }),
        };
        match self.rules.append(&uploaded).await? {
            Ok(()) => {}
            Err(RuleRefusal::Signature(refusal)) => return Ok(Uploaded::Unsigned(refusal)),
            Err(refusal) => return Ok(Uploaded::NoRoom(refusal.to_string())),
        }
        let number = |rules: &Rules| Some(rules.get(event.tenant, event.rule)?.version_of(&digest)?.number);
        let version = self.rules.read(number).unwrap_or_default();
        Ok(Uploaded::Taken { version, digest, event: Box::new(uploaded), samples })
    }
}

/// A source in its engine. That may take a good part of a second, so no other task waits for it.
async fn taken_in(engine: Module, bytes: Vec<u8>) -> Result<Result<Module, NotTaken>, RuleHostError> {
    let taken = tokio::task::spawn_blocking(move || match Source::read(&bytes)? {
        Some(source) => engine.with_source(&source),
        None => Err(Refusal::NotWasm),
    });
    let taken = taken.await.map_err(|error| RuleHostError::Compiler(error.to_string()))?;
    Ok(taken.map_err(NotTaken::from))
}

/// The schema that a module brings for its settings, if it is one.
fn schema_of(module: &[u8]) -> Result<Option<Text>, NotTaken> {
    // What is no component at all is told by the compiler.
    let Some(schema) = tillstream_rule_engine::look(module).is_ok().then(|| settings_schema(module)) else {
        return Ok(None);
    };
    let Some(text) = schema? else { return Ok(None) };
    SettingsSchema::parse(text).map_err(|it| Refusal::SettingsSchema(it.to_string()))?;
    Ok(Some(text.into()))
}

/// Who uploads what.
#[derive(Clone, Copy, Debug)]
pub struct RuleUpload<'a> {
    /// The event's id.
    pub id: &'a str,
    /// Whose rule.
    pub tenant: &'a str,
    /// Which rule.
    pub rule: &'a str,
    /// Who asked.
    pub actor: &'a str,
    /// Who signed the module.
    pub signature: Option<&'a RuleSignature>,
}
