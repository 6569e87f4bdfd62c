//! On a broker, a database and a registry, beside other processes.

use super::crew::Crew;
use super::house::{Engine, House};
use super::patience::Patience;
use super::{SUBSCRIBER_EVENTS_MAX, ServeError, payments};
use crate::cli::{Role, Serve};
use crate::cluster::{self, ClusterError, Connections};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tillstream_cluster::{
    ClusterMetrics, ClusterPorts, ClusterProgress, ClusterSessions, ClusterState, NodeWatch, PatientState,
    StartTask, TokioSpawner, run_member, stopped_within,
};
use tillstream_effects::EffectsMetrics;
use tillstream_ingest_api::ports;
use tillstream_log::{LogError, TopicPartition};
use tillstream_runtime::{
    CATALOG_ENTRIES_MAX, CatalogCache, CatalogPorts, CatalogSettings, Clock, Metrics, Progress, StoreBehind,
    Subscriptions, SystemClock,
};
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;
use tillstream_state::{Health, TaskId};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The database's nodes are asked so often when they started.
const NODES_INTERVAL: Duration = Duration::from_secs(1);
/// How far the tasks are is asked so often, and so often while somebody waits for it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
const PROGRESS_EAGER: Duration = Duration::from_millis(25);

/// The topics of configuration that this process follows.
const REGISTRIES: [Topic; 1] = [Topic::AccessKeys];

/// The topics of rules that this process follows.
const RULES: [Topic; 3] = [Topic::RuleRegistry, Topic::RuleModules, Topic::RuleSamples];

/// A task stops so long after its batch's hard deadline at the latest.
const STOP_SLACK: Duration = Duration::from_secs(1);

/// Products of the last seconds may not be in the database yet: the cache begins so far back, per partition.
const CATALOG_REPLAY_RECORDS: u64 = 50_000;
/// And notes where the records of so many products stand: more than it begins with. About 6 MB per partition.
const CATALOG_NOTES_MAX: usize = 65_536;

/// A cluster as an engine.
pub struct Cluster {
    ports: ClusterPorts,
    sessions: Arc<ClusterSessions>,
    progress: Arc<ClusterProgress>,
    roles: Vec<Role>,
    stop: watch::Sender<bool>,
}

/// Connects, makes sure that everything fits together, and puts the parts together.
pub async fn build(options: &Serve, tasks: &Handle) -> Result<(House, Box<dyn Engine>), ServeError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let patience = Patience::begin(clock.clone());
    patience.ask(async || assemble(options, tasks, clock.clone(), patience.clone()).await).await
}

async fn assemble(
    options: &Serve,
    tasks: &Handle,
    clock: Arc<dyn Clock>,
    patience: Patience,
) -> Result<(House, Box<dyn Engine>), ServeError> {
    let metrics = Arc::new(Metrics::new()?);
    let Connections { broker, log, rows, settings } = cluster::connect_all(options).await?;
    let spawner = Arc::new(TokioSpawner(tasks.clone()));
    let nodes = NodeWatch::begin(&*rows, &*clock).await?;
    let (stop, stopping) = watch::channel(false);
    nodes.run(rows.clone(), clock.clone(), NODES_INTERVAL, &*spawner, stopping);
    let ports = ClusterPorts {
        broker,
        rows: rows.clone(),
        clock: clock.clone(),
        spawner,
        metrics: Arc::new(ClusterMetrics::register(&metrics).map_err(ServeError::Metrics)?),
        nodes,
        settings: Arc::new(settings),
    };
    let sessions = ClusterSessions::new(ports.clone());
    let state = Arc::new(ClusterState::new(ports.clone(), Some(sessions.clone())));
    let effects = EffectsMetrics::register(&metrics.registry).map_err(ServeError::Metrics)?;
    let payments = payments::build(options, log.clone(), clock.clone(), &effects)?;
    let products = log.follower(&[Topic::Products]).map_err(ClusterError::from)?;
    let events = log.follower(&[Topic::OrderEvents]).map_err(ClusterError::from)?;
    let rules_log = log.follower(&RULES).map_err(ClusterError::from)?;
    let partitions: Vec<TopicPartition> = [Topic::Products, Topic::OrderEvents]
        .into_iter()
        .flat_map(|topic| (0..options.partitions).map(move |it| TopicPartition::new(topic, it)))
        .collect();
    products.refresh(&partitions).await?;
    events.refresh(&partitions).await?;
    let endpoints = log.follower(&[Topic::WebhookEndpoints]).map_err(ClusterError::from)?;
    let patient = Arc::new(PatientState(state.clone()));
    let catalog = CatalogPorts { follower: products, log: log.clone(), state: patient, clock: clock.clone() };
    let house = House {
        catalog: CatalogCache::new(catalog, catalog_settings(ports.settings.durable_after))?,
        events: Subscriptions::new(events, SUBSCRIBER_EVENTS_MAX),
        progress: Arc::new(Progress::new()),
        sessions: sessions.clone(),
        health: Arc::new(Reachable),
        registries: log.follower(&REGISTRIES).map_err(ClusterError::from)?,
        earlier_keys: rows,
        state,
        log: log.clone(),
        rules_log,
        endpoints,
        payments,
        effects,
        clock,
        patience,
        metrics,
    };
    let progress = ClusterProgress::new(ports.clone(), log);
    let engine = Cluster { ports, sessions, progress, roles: options.roles(), stop };
    Ok((house, Box::new(engine)))
}

fn catalog_settings(durable_after: Duration) -> CatalogSettings {
    let behind =
        StoreBehind { replay_records: CATALOG_REPLAY_RECORDS, notes_max: CATALOG_NOTES_MAX, durable_after };
    CatalogSettings { entries_max: CATALOG_ENTRIES_MAX, behind: Some(behind) }
}

/// A broker that does not answer refuses each append by itself.
struct Reachable;

impl Health for Reachable {
    fn trouble(&self) -> Option<LogError> {
        None
    }
}

impl Cluster {
    /// The task kinds of this process's roles.
    fn kinds(&self) -> Vec<TaskKind> {
        let kinds = |role: &Role| -> &'static [TaskKind] {
            match role {
                Role::Ingest => &[],
                Role::Order => &[TaskKind::Order],
                Role::Item => &[TaskKind::Item],
                Role::Effects => &[TaskKind::Effects],
                Role::Analytics => &[TaskKind::Analytics],
                Role::Webhooks => &[TaskKind::OrderWebhooks, TaskKind::ItemWebhooks],
            }
        };
        self.roles.iter().flat_map(kinds).copied().collect()
    }
}

impl Engine for Cluster {
    fn progress(&self, house: &House, halted: Arc<Mutex<Vec<String>>>) -> Arc<dyn ports::Progress> {
        Arc::new(DoorProgress { progress: self.progress.clone(), metrics: house.metrics.clone(), halted })
    }

    fn start(&self, crew: &Crew) -> Result<Vec<JoinHandle<()>>, ServeError> {
        let mut workers = Vec::new();
        for kind in self.kinds() {
            let group = self.ports.settings.group(kind);
            let member = self.ports.broker.join(&group, kind.input()).map_err(|it| it.into_log_error())?;
            self.sessions.joined(kind, member.clone());
            let (worker, clock) = (crew.clone(), self.ports.clock.clone());
            // A batch that can end has ended by then.
            let longest = self.ports.settings.batch_deadline() + STOP_SLACK;
            let start: StartTask = Arc::new(move |task, stopping| {
                let work = worker.work(task, stopping.clone());
                Box::pin(stopped_within(longest, task, work, stopping, clock.clone()))
            });
            let spawner = self.ports.spawner.clone();
            let membership = run_member(kind, member, start, spawner, crew.stopping.clone());
            workers.push(crew.spawn(crew.watched(format!("the {} group", kind.as_str()), membership)));
        }
        let (progress, stopping) = (self.progress.clone(), crew.stopping.clone());
        workers.push(crew.spawn(Box::pin(async move {
            progress.run(PROGRESS_INTERVAL, PROGRESS_EAGER, stopping).await;
        })));
        Ok(workers)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), ServeError>> {
        Box::pin(async move {
            self.sessions.flushed().await;
            // Nobody listens only once everything has ended.
            let _ = self.stop.send(true);
            Ok(())
        })
    }
}

/// How far the tasks of the deployment are.
struct DoorProgress {
    progress: Arc<ClusterProgress>,
    metrics: Arc<Metrics>,
    halted: Arc<Mutex<Vec<String>>>,
}

impl ports::Progress for DoorProgress {
    fn has_committed(&self, task: TaskId, end: u64) -> bool {
        self.progress.has_committed(task, end)
    }

    fn wait_committed(&self, task: TaskId, end: u64) -> BoxFuture<'_, ()> {
        Box::pin(self.progress.wait_committed(task, end))
    }

    fn trouble(&self) -> Vec<String> {
        self.halted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lags(&self) -> Vec<(TaskId, u64)> {
        self.progress.lags()
    }

    fn export(&self) {
        for (task, lag) in self.progress.lags() {
            let partition = task.partition.to_string();
            let lag = i64::try_from(lag).unwrap_or(i64::MAX);
            self.metrics.lag_records.with_label_values(&[task.kind.as_str(), &partition]).set(lag);
        }
    }
}
