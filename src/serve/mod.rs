//! `tillstream serve`: opens the store, starts every task, opens the door, and drains on SIGTERM.

mod access;
mod backtests;
mod cluster;
mod crew;
mod embedded;
mod house;
mod memory;
mod patience;
mod payments;
mod ports;
mod rules;
mod webhooks;

use crate::cli::{Mode, Role, Serve};
use crate::cluster::ClusterError;
use crew::{Crew, Halt};
use house::{Engine, House};
use memory::ProcessMemory;
use ports::{EventsHub, Products};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tillstream_effects::LedgerError;
use tillstream_embedded::StoreError;
use tillstream_ingest_api::access::KeyError;
use tillstream_ingest_api::{
    DoorSettings, Ingest, Parts, allow_origins, operations_router, parse_origin, router,
};
use tillstream_log::{LogError, TopicPartition};
use tillstream_rule_host::RuleHostError;
use tillstream_runtime::{RuntimeError, TaskPorts, TaskSettings};
use tillstream_schemas::Text;
use tillstream_stage::rule::RuleHost;
use tillstream_stage::task::TaskKind;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;
use webhooks::Webhooks;

/// Events a live subscriber may lag behind.
const SUBSCRIBER_EVENTS_MAX: usize = 256;
/// The deployment's own tenant: it gets the first key, and sees the dead letters that are no tenant's.
const DEMO_TENANT: &str = "demo";
/// How long open connections may take to end once the door is closed.
const CONNECTIONS_DRAIN: Duration = Duration::from_secs(10);
/// The longest wait of a cluster's task before its next life.
const CLUSTER_RESTART_WAIT_MAX: Duration = Duration::from_secs(1);
/// A transaction costs the broker much the same however many records it has, most of it per partition written to: see
/// docs/decisions/0014-fewer-larger-transactions.md.
const CLUSTER_LINGER: Duration = Duration::from_millis(8);
const CLUSTER_PACE_MAX: Duration = Duration::from_millis(25);

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
    /// Rules.
    #[error(transparent)]
    Rules(#[from] RuleHostError),
    /// Backtests.
    #[error(transparent)]
    Backtests(#[from] tillstream_rule_backtest::BacktestError),
    /// The retry waits of webhooks.
    #[error("TS0739: --webhooks-retry-waits-ms cannot be taken: {0}")]
    WebhookSchedule(#[from] tillstream_webhooks::schedule::ScheduleError),
    /// A registry of what tenants configured.
    #[error(transparent)]
    Registry(#[from] tillstream_registry_log::RegistryError),
    /// Counters.
    #[error("TS0733: metrics cannot be registered: {0}")]
    Metrics(prometheus::Error),
    /// API keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
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
    // Tasks compute in long strides; the door must answer meanwhile. So each has threads of its own, and where both are
    // bound to share a machine with nobody else, the door goes first: what it has taken waits in the log.
    let niceness = if options.mode == Mode::Embedded { TASK_NICENESS } else { 0 };
    let tasks = threads("task", options.threads, niceness)?;
    let door = threads("http", 0, 0)?;
    let result = door.block_on(serve(options, tasks.handle()));
    tasks.shutdown_timeout(Duration::from_secs(5));
    door.shutdown_timeout(Duration::from_secs(5));
    result
}

/// What the tasks of the embedded mode leave to the door when both want the same core: a third of its share
/// (Linux's weights, 335 to 1024). docs/BENCHMARKS.md has what it gains.
const TASK_NICENESS: i32 = 5;

fn threads(name: &str, count: usize, niceness: i32) -> Result<Runtime, ServeError> {
    let mut builder = Builder::new_multi_thread();
    // Only on Linux is it a thread's own; elsewhere the door would lose as much.
    if niceness != 0 && cfg!(target_os = "linux") {
        builder.on_thread_start(move || {
            if let Err(error) = rustix::process::setpriority_process(None, niceness) {
                tracing::warn!(%error, "tasks run at the priority of the door");
            }
        });
    }
    if count > 0 {
        builder.worker_threads(count);
    }
    builder.enable_all().thread_name(name).build().map_err(ServeError::Threads)
}

async fn serve(options: &Serve, tasks: &Handle) -> Result<(), ServeError> {
    let (house, engine) = match options.mode {
        Mode::Embedded => embedded::build(options)?,
        Mode::Cluster => cluster::build(options, tasks).await?,
    };
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let (stop, stopping) = watch::channel(false);
    let (halted, mut halt) = mpsc::unbounded_channel();
    let webhooks = Webhooks::build(options, &house, house.endpoints.clone()).await?;
    let halt_all = Halt { reasons: reasons.clone(), channel: halted };
    let rules = rules::build(options, &house).await?;
    let backtests_dir = options.backtests_dir.clone().unwrap_or_else(|| options.data_dir.join("backtests"));
    let backtests = backtests::open(&house, &rules, &backtests_dir)?;
    let crew = crew(options, &house, tasks, &stopping, halt_all, rules.host(), webhooks.clone());
    let (keys, key_follower) = access::open(&crew, &house).await?;
    let listener = listen(options).await?;
    // After the address is ours: a start that fails must not spend the one time that the key is shown.
    if options.roles().contains(&Role::Ingest) {
        access::demo_key(options, &house, &keys).await?;
    }
    refresh_inputs(&house).await?;
    // The door's readiness is measured from here: tasks must get to where the log ends now.
    let ingest = Arc::new(Ingest::new(Parts {
        log: house.log.clone(),
        state: house.state.clone(),
        keys,
        health: house.health.clone(),
        order_events: Arc::new(EventsHub(house.events.clone())),
        products: Arc::new(Products { catalog: house.catalog.clone(), clock: house.clock.clone() }),
        progress: engine.progress(&house, reasons.clone()),
        sandbox: house.payments.control.clone(),
        rules: Some(rules.door()),
        backtests: Some(Arc::new(backtests::BacktestsDoor(backtests.clone()))),
        webhooks: Arc::new(webhooks.clone()),
        registry: house.metrics.registry.clone(),
        clock: house.clock.clone(),
        bounds: memory::bounds(&options.load),
        operator_tenant: Some(Text::const_new(DEMO_TENANT)),
        rows_follow_the_log: options.mode == Mode::Cluster,
    })?);

    let mut workers = rules.start(&crew).await?;
    workers.extend(start(&crew, &house, &*engine)?);
    workers.push(key_follower);
    backtests::go_on(&crew, &backtests);
    // Beside the door, not among the tasks: those may be what is too slow.
    let (watched, ending) = (ingest.clone(), stopping.clone());
    tokio::spawn(async move { watched.watch_load(Arc::new(ProcessMemory), ending).await });
    webhooks.registry.caught_up().await?;
    info!(address = %options.http, mode = ?options.mode, "listening");
    let (close, closing) = watch::channel(false);
    let streams = ingest.clone();
    let app = app(options, ingest);
    let door_settings = door_settings(options);
    let door = tokio::spawn(async move {
        let closed = async move {
            let mut closing = closing;
            let _ = closing.wait_for(|it| *it).await;
        };
        tillstream_ingest_api::serve(listener, app, &door_settings, closed).await;
    });

    let failure = tokio::select! {
        () = asked_to_stop() => None,
        failure = halt.recv() => failure,
    };
    info!("stopping: the door closes, tasks finish their batch");
    let _ = close.send(true);
    let drained = async { tokio::join!(streams.drain_streams(), door) };
    if tokio::time::timeout(CONNECTIONS_DRAIN, drained).await.is_err() {
        info!("some connections did not end in time");
    }
    let _ = stop.send(true);
    backtests.pause();
    for worker in workers {
        // A worker's own failure has been told through the channel.
        let _ = worker.await;
    }
    let failure = failure.or_else(|| halt.try_recv().ok());
    engine.close().await?;
    info!("stopped");
    match failure {
        None => Ok(()),
        Some((task, reason)) => Err(ServeError::Halted { task, reason }),
    }
}

async fn listen(options: &Serve) -> Result<tokio::net::TcpListener, ServeError> {
    let listener = tokio::net::TcpListener::bind(options.http).await;
    listener.map_err(|error| ServeError::Listen { address: options.http, error })
}

fn door_settings(options: &Serve) -> DoorSettings {
    DoorSettings {
        head_timeout: Duration::from_millis(options.http_head_timeout_ms),
        connections_max: options.http_connections_max as usize,
        ..DoorSettings::default()
    }
}

/// The calls of this process's roles.
fn app(options: &Serve, ingest: Arc<Ingest>) -> axum::Router {
    let app =
        if options.roles().contains(&Role::Ingest) { router(ingest) } else { operations_router(ingest) };
    allow_origins(app, options.cors_origins.iter().filter_map(|it| parse_origin(it).ok()).collect())
}

/// Asks where every partition ends that some task reads.
async fn refresh_inputs(house: &House) -> Result<(), ServeError> {
    let of = |kind: TaskKind| {
        (0..house.log.partitions(kind.input())).map(move |it| TopicPartition::new(kind.input(), it))
    };
    let inputs: Vec<TopicPartition> = TaskKind::ALL.into_iter().flat_map(of).collect();
    house.patience.ask(async || Ok(house.log.refresh(&inputs).await?)).await
}

fn crew(
    options: &Serve,
    house: &House,
    on: &Handle,
    stopping: &watch::Receiver<bool>,
    halt: Halt,
    rules: Arc<dyn RuleHost>,
    webhooks: Webhooks,
) -> Crew {
    let ports = TaskPorts {
        sessions: house.sessions.clone(),
        catalog: Some(house.catalog.clone()),
        rules,
        metrics: house.metrics.clone(),
        clock: house.clock.clone(),
        progress: house.progress.clone(),
    };
    // A cluster's parts come and go: a task is back soon after they are.
    let restart_wait_max = match options.mode {
        Mode::Embedded => TaskSettings::default().restart_wait_max,
        Mode::Cluster => CLUSTER_RESTART_WAIT_MAX,
    };
    let (linger, pace_max) = match options.mode {
        Mode::Embedded => (Duration::ZERO, Duration::ZERO),
        Mode::Cluster => (CLUSTER_LINGER, CLUSTER_PACE_MAX),
    };
    let records_max = options.batch_records_max as usize;
    Crew {
        ports,
        settings: TaskSettings { records_max, linger, pace_max, restart_wait_max, ..TaskSettings::default() },
        provider: house.payments.provider.clone(),
        effects: house.effects.clone(),
        webhooks,
        on: on.clone(),
        stopping: stopping.clone(),
        halt,
    }
}

/// Starts every task, executor and follower.
fn start(crew: &Crew, house: &House, engine: &dyn Engine) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let mut workers = engine.start(crew)?;
    let (catalog, events) = (house.catalog.clone(), house.events.clone());
    let (stop_catalog, stop_events) = (crew.stopping.clone(), crew.stopping.clone());
    let catalog = async move { catalog.run_follower(stop_catalog).await };
    let events = async move { events.run_follower(stop_events).await };
    workers.push(crew.spawn(crew.watched("the catalog follower", catalog)));
    workers.push(crew.spawn(crew.watched("the events follower", events)));
    let (registry, stop) = (crew.webhooks.registry.clone(), crew.stopping.clone());
    let endpoints = async move { registry.run_follower(stop).await };
    workers.push(crew.spawn(crew.watched("the webhook endpoints follower", endpoints)));
    if let Some(ledger) = house.payments.watch_ledger(crew.stopping.clone()) {
        workers.push(crew.spawn(crew.watched("the sandbox", ledger)));
    }
    Ok(workers)
}

/// Resolves at SIGTERM or SIGINT.
pub(crate) async fn asked_to_stop() {
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
