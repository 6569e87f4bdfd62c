//! `tillstream serve`: opens the store, starts every task, opens the door, and drains on SIGTERM.

mod cluster;
mod crew;
mod embedded;
mod house;
mod payments;
mod ports;
mod rules;

use crate::cli::{Mode, Role, Serve};
use crate::cluster::ClusterError;
use crate::output::line;
use crew::{Crew, Halt};
use house::{Engine, House};
use ports::{EventsHub, Products};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tillstream_effects::LedgerError;
use tillstream_embedded::StoreError;
use tillstream_ingest_api::{ApiKeys, Ingest, Parts, operations_router, router};
use tillstream_log::{LogError, TopicPartition};
use tillstream_rule_host::RuleHostError;
use tillstream_runtime::{Clock, RuntimeError, TaskPorts, TaskSettings};
use tillstream_schemas::Text;
use tillstream_stage::rule::RuleHost;
use tillstream_stage::task::TaskKind;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;

/// Events a live subscriber may lag behind.
const SUBSCRIBER_EVENTS_MAX: usize = 256;
/// New orders are refused while more commands than this wait for the order task.
const ORDER_LAG_RECORDS_MAX: u64 = 400_000;
/// The deployment's own tenant: it gets the first key, and sees the dead letters that are no tenant's.
const DEMO_TENANT: &str = "demo";
/// How long open connections may take to end once the door is closed.
const CONNECTIONS_DRAIN: Duration = Duration::from_secs(10);
/// The longest wait of a cluster's task before its next life.
const CLUSTER_RESTART_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often keys that other processes may change are read again.
const KEYS_INTERVAL: Duration = Duration::from_millis(500);

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
    /// Counters.
    #[error("TS0733: metrics cannot be registered: {0}")]
    Metrics(prometheus::Error),
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

async fn serve(options: &Serve, tasks: &Handle) -> Result<(), ServeError> {
    let (house, engine) = match options.mode {
        Mode::Embedded => embedded::build(options)?,
        Mode::Cluster => cluster::build(options, tasks).await?,
    };
    let keys = ApiKeys::load(house.keys.clone(), house.clock.clone()).await?;
    let listener = tokio::net::TcpListener::bind(options.http)
        .await
        .map_err(|error| ServeError::Listen { address: options.http, error })?;
    // After the address is ours: a start that fails must not spend the one time that the key is shown.
    if options.roles().contains(&Role::Ingest) {
        demo_key(options, &keys).await?;
    }
    let rules = rules::build(options, &house).await?;
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let inputs: Vec<TopicPartition> = TaskKind::ALL
        .into_iter()
        .flat_map(|kind| {
            (0..house.log.partitions(kind.input())).map(move |it| TopicPartition::new(kind.input(), it))
        })
        .collect();
    house.log.refresh(&inputs).await?;
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
        registry: house.metrics.registry.clone(),
        clock: house.clock.clone(),
        order_lag_records_max: ORDER_LAG_RECORDS_MAX,
        operator_tenant: Some(Text::const_new(DEMO_TENANT)),
        rows_follow_the_log: options.mode == Mode::Cluster,
    })?);

    let (stop, stopping) = watch::channel(false);
    let (halted, mut halt) = mpsc::unbounded_channel();
    let halt_by = Halt { reasons, channel: halted };
    let crew = crew(options, &house, tasks, &stopping, halt_by, rules.host());
    let mut workers = rules.start(&crew).await?;
    workers.extend(start(&crew, &house, &*engine)?);
    if engine.shares_keys() {
        crew.on.spawn(follow_keys(ingest.clone(), house.clock.clone(), stopping.clone()));
    }
    info!(address = %options.http, mode = ?options.mode, "listening");
    let (close, closing) = watch::channel(false);
    let app =
        if options.roles().contains(&Role::Ingest) { router(ingest) } else { operations_router(ingest) };
    let door = tokio::spawn(async move {
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
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

fn crew(
    options: &Serve,
    house: &House,
    on: &Handle,
    stopping: &watch::Receiver<bool>,
    halt: Halt,
    rules: Arc<dyn RuleHost>,
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
    let records_max = options.batch_records_max as usize;
    Crew {
        ports,
        settings: TaskSettings { records_max, restart_wait_max, ..TaskSettings::default() },
        provider: house.payments.provider.clone(),
        effects: house.effects.clone(),
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
    Ok(workers)
}

/// What another process made or revoked holds here within a second.
async fn follow_keys(ingest: Arc<Ingest>, clock: Arc<dyn Clock>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|it| *it) => return,
            () = clock.sleep(KEYS_INTERVAL) => {}
        }
        if let Err(error) = ingest.keys().reload().await {
            tracing::debug!(%error, "API keys cannot be read again now");
        }
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
