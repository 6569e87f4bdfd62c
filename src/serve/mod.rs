//! `tillstream serve`: opens the store, starts every task, opens the door, and drains on SIGTERM.

mod ports;

use crate::cli::Serve;
use crate::output::line;
use ports::{EventsHub, Products, Sandbox, TaskProgress};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tillstream_effects::{
    BreakerSettings, EffectsMetrics, ExecutorPorts, ExecutorSettings, GuardedProvider, LedgerError,
    PaymentProvider, SandboxProvider, SandboxSettings, supervise_executor,
};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore, StoreError};
use tillstream_ingest_api::{ApiKeys, Ingest, Parts, router};
use tillstream_log::LogError;
use tillstream_runtime::{
    CATALOG_ENTRIES_MAX, CatalogCache, Clock, Metrics, Progress, RuntimeError, Subscriptions, SystemClock,
    TaskPorts, TaskSettings, supervise,
};
use tillstream_schemas::Text;
use tillstream_stage::rule::NoRules;
use tillstream_stage::task::{Task, TaskKind};
use tillstream_state::{Shared, TaskId};
use tillstream_tasks::{AnalyticsTask, ItemTask, OrderTask};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

/// Analytics gathers deltas for so long, so that a window is rewritten a few times a second, not per batch.
const ANALYTICS_LINGER: Duration = Duration::from_millis(100);
/// Events a live subscriber may lag behind.
const SUBSCRIBER_EVENTS_MAX: usize = 256;
/// New orders are refused while more commands than this wait for the order task.
const ORDER_LAG_RECORDS_MAX: u64 = 400_000;
/// A provider that takes longer is asked again with the same key.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(30);
/// The deployment's own tenant: it gets the first key, and sees the dead letters that are no tenant's.
const DEMO_TENANT: &str = "demo";
/// How long open connections may take to end once the door is closed.
const CONNECTIONS_DRAIN: Duration = Duration::from_secs(10);

/// Why the pipeline did not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A task.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The sandbox provider's ledger.
    #[error(transparent)]
    Sandbox(#[from] LedgerError),
    /// Threads.
    #[error("TS0731: threads cannot be started: {0}")]
    Threads(std::io::Error),
    /// The port.
    #[error("TS0732: cannot listen on {address}: {error}; --http chooses another")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's words.
        error: std::io::Error,
    },
    /// Counters.
    #[error("TS0733: metrics cannot be registered: {0}")]
    Metrics(prometheus::Error),
    /// A task ended for good.
    #[error("{task} has stopped, so everything stops: {reason}")]
    Halted {
        /// Which.
        task: String,
        /// Why.
        reason: String,
    },
}

/// Runs until SIGTERM, SIGINT or a fatal error.
pub fn run(options: &Serve) -> Result<(), ServeError> {
    // Tasks compute in long strides; the door must answer meanwhile. So each has threads of its own.
    let tasks = threads("task", options.threads)?;
    let door = threads("http", 0)?;
    let result = door.block_on(serve(options, tasks.handle()));
    tasks.shutdown_timeout(Duration::from_secs(5));
    door.shutdown_timeout(Duration::from_secs(5));
    result
}

fn threads(name: &str, count: usize) -> Result<Runtime, ServeError> {
    let mut builder = Builder::new_multi_thread();
    if count > 0 {
        builder.worker_threads(count);
    }
    builder.enable_all().thread_name(name).build().map_err(ServeError::Threads)
}

/// What everything shares.
struct House {
    store: Arc<EmbeddedStore>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    clock: Arc<dyn Clock>,
    catalog: Arc<CatalogCache>,
    events: Arc<Subscriptions>,
    sandbox: Arc<SandboxProvider>,
    provider: Arc<dyn PaymentProvider>,
    effects: EffectsMetrics,
}

fn settings(options: &Serve) -> EmbeddedSettings {
    EmbeddedSettings {
        partitions: options.partitions,
        retention_ms: i64::from(options.retention_hours) * 3_600_000,
        log_bytes_max: options.log_bytes_max,
        disk_reserve_bytes: options.disk_reserve_bytes,
        ..EmbeddedSettings::new(&options.data_dir)
    }
}

fn build(options: &Serve) -> Result<House, ServeError> {
    let store = EmbeddedStore::open(settings(options))?;
    let metrics = Arc::new(Metrics::new()?);
    let sandbox = SandboxSettings {
        latency_ms: (
            options.sandbox_latency_min_ms,
            options.sandbox_latency_max_ms.max(options.sandbox_latency_min_ms),
        ),
        decline_rate: options.sandbox_decline_rate,
        lost_reply_rate: options.sandbox_lost_reply_rate,
        unavailable_rate: options.sandbox_unavailable_rate,
        ..SandboxSettings::new(sandbox_dir(options))
    };
    let sandbox = Arc::new(SandboxProvider::open(sandbox)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let effects = EffectsMetrics::register(&metrics.registry).map_err(ServeError::Metrics)?;
    Ok(House {
        provider: Arc::new(GuardedProvider::new(
            sandbox.clone(),
            BreakerSettings::default(),
            PROVIDER_TIMEOUT,
            clock.clone(),
            &effects,
        )),
        catalog: CatalogCache::new(store.clone(), store.clone(), CATALOG_ENTRIES_MAX)?,
        events: Subscriptions::new(store.clone(), SUBSCRIBER_EVENTS_MAX),
        progress: Arc::new(Progress::new()),
        sandbox,
        effects,
        clock,
        metrics,
        store,
    })
}

/// The provider is another company: its ledger is a database of its own.
fn sandbox_dir(options: &Serve) -> PathBuf {
    options.data_dir.join("sandbox")
}

async fn serve(options: &Serve, tasks: &Handle) -> Result<(), ServeError> {
    let house = build(options)?;
    // The door's readiness is measured from here: tasks must get to where the log ends now.
    let keys = ApiKeys::load(house.store.clone(), house.clock.clone()).await?;
    let listener = tokio::net::TcpListener::bind(options.http)
        .await
        .map_err(|error| ServeError::Listen { address: options.http, error })?;
    // After the address is ours: a start that fails must not spend the one time that the key is shown.
    demo_key(options, &keys).await?;
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let ingest = Arc::new(Ingest::new(Parts {
        log: house.store.clone(),
        state: house.store.clone(),
        keys,
        health: house.store.clone(),
        order_events: Arc::new(EventsHub(house.events.clone())),
        products: Arc::new(Products { catalog: house.catalog.clone(), clock: house.clock.clone() }),
        progress: Arc::new(TaskProgress {
            progress: house.progress.clone(),
            store: house.store.clone(),
            metrics: house.metrics.clone(),
            halted: reasons.clone(),
        }),
        sandbox: Some(Arc::new(Sandbox {
            provider: house.sandbox.clone(),
            store: house.store.clone(),
            clock: house.clock.clone(),
        })),
        registry: house.metrics.registry.clone(),
        clock: house.clock.clone(),
        order_lag_records_max: ORDER_LAG_RECORDS_MAX,
        operator_tenant: Some(Text::const_new(DEMO_TENANT)),
    })?);

    let (stop, stopping) = watch::channel(false);
    let (halted, mut halt) = mpsc::unbounded_channel();
    let crew = start(options, &house, tasks, &stopping, &Halt { reasons, channel: halted });
    info!(address = %options.http, data_dir = %options.data_dir.display(), "listening");
    let (close, closing) = watch::channel(false);
    let door = tokio::spawn(async move {
        let app = router(ingest).into_make_service_with_connect_info::<SocketAddr>();
        let closed = async move {
            let mut closing = closing;
            let _ = closing.wait_for(|it| *it).await;
        };
        axum::serve(listener, app).with_graceful_shutdown(closed).await
    });

    let failure = tokio::select! {
        () = asked_to_stop() => None,
        failure = halt.recv() => failure,
    };
    info!("stopping: the door closes, tasks finish their batch");
    let _ = close.send(true);
    if tokio::time::timeout(CONNECTIONS_DRAIN, door).await.is_err() {
        info!("some connections did not end in time");
    }
    let _ = stop.send(true);
    for worker in crew {
        // A worker's own failure has been told through the channel.
        let _ = worker.await;
    }
    let failure = failure.or_else(|| halt.try_recv().ok());
    house.store.close().await?;
    info!("stopped");
    match failure {
        None => Ok(()),
        Some((task, reason)) => Err(ServeError::Halted { task, reason }),
    }
}

/// How a worker stops the whole process.
#[derive(Clone)]
struct Halt {
    reasons: Arc<Mutex<Vec<String>>>,
    channel: mpsc::UnboundedSender<(String, String)>,
}

impl Halt {
    fn tell(&self, task: String, reason: String) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{task}: {reason}"));
        // Nobody listens only once the process is ending anyway.
        let _ = self.channel.send((task, reason));
    }
}

/// Starts every task, executor and follower.
fn start(
    options: &Serve,
    house: &House,
    on: &Handle,
    stopping: &watch::Receiver<bool>,
    halted: &Halt,
) -> Vec<tokio::task::JoinHandle<()>> {
    let ports = TaskPorts {
        sessions: Arc::new(Shared(house.store.clone())),
        catalog: Some(house.catalog.clone()),
        rules: Arc::new(NoRules),
        metrics: house.metrics.clone(),
        clock: house.clock.clone(),
        progress: house.progress.clone(),
    };
    let batch = TaskSettings { records_max: options.batch_records_max as usize, ..TaskSettings::default() };
    let analytics = TaskSettings { linger: ANALYTICS_LINGER, ..batch.clone() };
    let crew = Crew { ports, on, stopping, halted };
    let mut workers = Vec::new();
    for partition in 0..options.partitions {
        workers.push(crew.task(OrderTask, TaskKind::Order, partition, batch.clone()));
        workers.push(crew.task(ItemTask, TaskKind::Item, partition, batch.clone()));
        workers.push(crew.task(AnalyticsTask, TaskKind::Analytics, partition, analytics.clone()));
        workers.push(crew.executor(house, partition));
    }
    let (catalog, events) = (house.catalog.clone(), house.events.clone());
    let (stop_catalog, stop_events) = (stopping.clone(), stopping.clone());
    workers.push(crew.spawn("the catalog follower", async move { catalog.run_follower(stop_catalog).await }));
    workers.push(crew.spawn("the events follower", async move { events.run_follower(stop_events).await }));
    workers
}

/// Starts workers that halt the process when they end with an error.
struct Crew<'a> {
    ports: TaskPorts,
    on: &'a Handle,
    stopping: &'a watch::Receiver<bool>,
    halted: &'a Halt,
}

impl Crew<'_> {
    fn task<T: Task>(
        &self,
        task: T,
        kind: TaskKind,
        partition: u32,
        settings: TaskSettings,
    ) -> tokio::task::JoinHandle<()> {
        let id = TaskId { kind, partition };
        self.ports.progress.register(id);
        self.spawn(
            &id.to_string(),
            supervise(Arc::new(task), id, self.ports.clone(), settings, self.stopping.clone()),
        )
    }

    fn executor(&self, house: &House, partition: u32) -> tokio::task::JoinHandle<()> {
        let ports = ExecutorPorts {
            sessions: self.ports.sessions.clone(),
            clock: house.clock.clone(),
            metrics: house.metrics.clone(),
            effects: house.effects.clone(),
            progress: house.progress.clone(),
        };
        self.ports.progress.register(TaskId { kind: TaskKind::Effects, partition });
        let task = supervise_executor(
            partition,
            ports,
            house.provider.clone(),
            ExecutorSettings::default(),
            self.stopping.clone(),
        );
        self.spawn(&format!("effects.{partition}"), task)
    }

    fn spawn<E: std::fmt::Display>(
        &self,
        name: &str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let (name, halted) = (name.to_owned(), self.halted.clone());
        self.on.spawn(async move {
            if let Err(failure) = work.await {
                error!(task = name, error = %failure, "halting");
                halted.tell(name, failure.to_string());
            }
        })
    }
}

/// The first start makes a key for tenant `demo` and prints it; `TILLSTREAM_DEMO_KEY` sets it instead.
async fn demo_key(options: &Serve, keys: &ApiKeys) -> Result<(), ServeError> {
    if let Some(given) = &options.demo_key {
        keys.ensure(DEMO_TENANT, "demo", given).await?;
    } else if keys.is_empty() {
        let (_, key) = keys.create(DEMO_TENANT, "demo").await?;
        line(format_args!("API key of tenant demo, shown this once: {key}"));
    }
    Ok(())
}

async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signals end the process by themselves, which loses nothing either.
        _ => std::future::pending().await,
    }
}
