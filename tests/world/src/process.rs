//! One worker process: the parts that `tillstream serve --mode cluster` puts together, on simulated ports.

use crate::house::{House, Outside};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::{
    ClusterMetrics, ClusterPorts, ClusterSessions, ClusterState, NodeWatch, PatientState, Spawner, StartTask,
    run_member, stopped_within,
};
use tillstream_effects::{
    BreakerSettings, EffectsMetrics, ExecutorPorts, ExecutorSettings, GuardedProvider, PaymentProvider,
    supervise_executor,
};
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_runtime::{
    CatalogCache, CatalogPorts, CatalogSettings, Clock, Metrics, Progress, RuntimeError, StoreBehind,
    TaskPorts, TaskSettings, supervise,
};
use tillstream_schemas::Topic;
use tillstream_simulation::SimClock;
use tillstream_simulation::broker::SimLog;
use tillstream_stage::task::TaskKind;
use tillstream_state::{Sessions, TaskId};
use tillstream_tasks::{AnalyticsTask, ItemTask, OrderTask};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The database's nodes are asked so often when they started.
const NODES_INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries of a follower while the broker does not answer.
const READ_AGAIN: Duration = Duration::from_millis(200);
/// A provider that takes longer is asked again with the same key.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(30);
/// Analytics gathers deltas for so long.
const ANALYTICS_LINGER: Duration = Duration::from_millis(100);
/// A task stops so long after its batch's hard deadline at the latest.
const STOP_SLACK: Duration = Duration::from_secs(1);
/// Products of the last seconds may not be in the database yet: the cache begins so far back, per partition.
const CATALOG_REPLAY_RECORDS: u64 = 50_000;

/// Tasks of a process, which end with it.
#[derive(Default)]
pub struct Spawned(Mutex<Vec<AbortHandle>>);

impl Spawned {
    /// Ends all of it, soon.
    pub(crate) fn abort(&self) {
        self.0.lock().iter().for_each(AbortHandle::abort);
    }

    /// Whether all of it has ended, with what it held.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.lock().iter().all(AbortHandle::is_finished)
    }
}

impl Spawner for Spawned {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        let mut all = self.0.lock();
        if all.len() > 64 {
            all.retain(|it| !it.is_finished());
        }
        all.push(tokio::spawn(work).abort_handle());
    }
}

/// What ended a process's workers for good.
pub(crate) type Halted = Arc<Mutex<Vec<String>>>;

/// A process that runs.
pub struct Process {
    /// Its name at the broker.
    pub name: String,
    /// Why it has halted.
    halted: Halted,
    /// One for each that is to stop: a channel with many receivers would wake them in an order that no seed decides.
    stops: Vec<watch::Sender<bool>>,
    stop_nodes: watch::Sender<bool>,
    sessions: Arc<ClusterSessions>,
    members: Arc<Mutex<usize>>,
    spawned: Arc<Spawned>,
}

/// What processes count. Nobody reads it, and to register it anew for each process of a history takes long.
#[derive(Clone)]
struct Counters {
    shared: Arc<Metrics>,
    cluster: Arc<ClusterMetrics>,
    effects: EffectsMetrics,
}

impl Counters {
    /// Those of this thread.
    fn own() -> Result<Self, LogError> {
        thread_local! {
            static OWN: OnceCell<Counters> = const { OnceCell::new() };
        }
        OWN.with(|own| match own.get() {
            Some(counters) => Ok(counters.clone()),
            None => Self::new().map(|it| own.get_or_init(|| it).clone()),
        })
    }

    fn new() -> Result<Self, LogError> {
        let made = |error: &dyn std::fmt::Display| LogError::Stopped(error.to_string());
        let shared = Metrics::new().map_err(|error| made(&error))?;
        let cluster = ClusterMetrics::register(&shared).map_err(|error| made(&error))?;
        let effects = EffectsMetrics::register(&shared.registry).map_err(|error| made(&error))?;
        Ok(Self { shared: Arc::new(shared), cluster: Arc::new(cluster), effects })
    }
}

/// The protocol's ports of a process of this name.
pub async fn ports(
    house: &House,
    name: &str,
    spawned: &Arc<Spawned>,
    stopping: watch::Receiver<bool>,
) -> Result<ClusterPorts, LogError> {
    let rows = Arc::new(house.rows.clone());
    let nodes = NodeWatch::begin(&*rows, &*house.clock).await?;
    nodes.run(rows.clone(), house.clock.clone(), NODES_INTERVAL, &**spawned, stopping);
    Ok(ClusterPorts {
        broker: Arc::new(house.broker.client(name)),
        rows,
        clock: house.clock.clone(),
        spawner: spawned.clone(),
        metrics: Counters::own()?.cluster,
        nodes,
        settings: Arc::new(house.settings.clone()),
    })
}

fn catalog(
    house: &House,
    products: Arc<Follower>,
    state: Arc<ClusterState>,
) -> Result<Arc<CatalogCache>, RuntimeError> {
    let ports = CatalogPorts {
        log: products.clone(),
        follower: products,
        state: Arc::new(PatientState(state)),
        clock: house.clock.clone(),
    };
    let behind = StoreBehind {
        replay_records: CATALOG_REPLAY_RECORDS,
        notes_max: house.tuning.catalog_notes_max,
        durable_after: house.settings.durable_after,
    };
    let settings = CatalogSettings { entries_max: house.tuning.catalog_entries_max, behind: Some(behind) };
    CatalogCache::new(ports, settings)
}

/// A follower's view of the log: like the real one it is fed from a buffer, and a broker that does not answer only makes
/// it wait.
struct Follower {
    log: SimLog,
    clock: Arc<SimClock>,
}

impl Log for Follower {
    fn partitions(&self, topic: Topic) -> u32 {
        self.log.partitions(topic)
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.append(records)
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move { self.read_on(from, offset, limit).await.map(|(records, _)| records) })
    }

    fn read_on(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<(Vec<Record>, u64), LogError>> {
        Box::pin(async move {
            loop {
                match self.log.read_on(from, offset, limit).await {
                    Err(LogError::Unavailable(_)) => self.clock.sleep(READ_AGAIN).await,
                    other => return other,
                }
            }
        })
    }

    fn refresh<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, Result<(), LogError>> {
        self.log.refresh(partitions)
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.wait_past(partition, offset)
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.log.start_offset(partition)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.log.end_offset(partition)
    }
}

/// Works on tasks.
pub(crate) struct Crew {
    ports: TaskPorts,
    settings: TaskSettings,
    executor: ExecutorSettings,
    provider: Arc<dyn PaymentProvider>,
    effects: EffectsMetrics,
    pub(crate) halted: Halted,
}

impl Crew {
    /// Those of a process, by what is around it.
    pub(crate) fn of(
        house: &Outside,
        sessions: Arc<dyn Sessions>,
        catalog: Arc<CatalogCache>,
    ) -> Result<Self, LogError> {
        let Counters { shared: metrics, effects, .. } = Counters::own()?;
        let (provider, clock) = (house.provider.clone(), house.clock.clone());
        let provider =
            GuardedProvider::new(provider, BreakerSettings::default(), PROVIDER_TIMEOUT, clock, &effects);
        Ok(Self {
            ports: TaskPorts {
                sessions,
                catalog: Some(catalog),
                rules: house.rules.clone(),
                metrics,
                clock: house.clock.clone(),
                progress: Arc::new(Progress::new()),
            },
            settings: house.tasks.clone(),
            executor: ExecutorSettings {
                in_flight_max: house.tuning.in_flight_max,
                ..ExecutorSettings::default()
            },
            provider: Arc::new(provider),
            effects,
            halted: Halted::default(),
        })
    }

    pub(crate) fn watched<E: std::fmt::Display>(
        &self,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let halted = self.halted.clone();
        Box::pin(async move {
            if let Err(failure) = work.await {
                halted.lock().push(failure.to_string());
            }
        })
    }

    pub(crate) fn work(&self, id: TaskId, stopping: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        self.ports.progress.register(id);
        let (ports, settings) = (self.ports.clone(), self.settings.clone());
        match id.kind {
            TaskKind::Order => self.watched(supervise(Arc::new(OrderTask), id, ports, settings, stopping)),
            TaskKind::Item => self.watched(supervise(Arc::new(ItemTask), id, ports, settings, stopping)),
            TaskKind::Analytics => {
                let settings = TaskSettings { linger: ANALYTICS_LINGER, ..settings };
                self.watched(supervise(Arc::new(AnalyticsTask), id, ports, settings, stopping))
            }
            TaskKind::Effects => {
                let ports = ExecutorPorts {
                    sessions: ports.sessions,
                    clock: ports.clock,
                    metrics: ports.metrics,
                    effects: self.effects.clone(),
                    progress: ports.progress,
                };
                let (provider, settings) = (self.provider.clone(), self.executor.clone());
                self.watched(supervise_executor(id.partition, ports, provider, settings, stopping))
            }
            // Not among [`crate::KINDS`]: nobody listens for webhooks in this world.
            TaskKind::OrderWebhooks | TaskKind::ItemWebhooks => Box::pin(std::future::ready(())),
        }
    }
}

impl Process {
    /// Starts a process with every role.
    ///
    /// # Errors
    /// What does not answer: it is to be tried again.
    pub async fn start(house: &House, name: &str) -> Result<Self, LogError> {
        let spawned = Arc::new(Spawned::default());
        let made = Self::assemble(house, name, &spawned).await;
        if made.is_err() {
            house.broker.faults().kill(name);
            spawned.abort();
        }
        made
    }

    async fn assemble(house: &House, name: &str, spawned: &Arc<Spawned>) -> Result<Self, LogError> {
        let mut stops = Vec::new();
        let (stop_nodes, nodes_stopping) = watch::channel(false);
        let ports = ports(house, name, spawned, nodes_stopping).await?;
        let sessions = ClusterSessions::new(ports.clone());
        let state = Arc::new(ClusterState::new(ports.clone(), Some(sessions.clone())));
        let products =
            Arc::new(Follower { log: house.broker.client(name).log(), clock: house.clock.clone() });
        let all: Vec<TopicPartition> =
            (0..house.settings.partitions).map(|it| TopicPartition::new(Topic::Products, it)).collect();
        products.refresh(&all).await?;
        let catalog =
            catalog(house, products, state).map_err(|error| LogError::Stopped(error.to_string()))?;
        let crew = Arc::new(Crew::of(house, sessions.clone(), catalog.clone())?);
        let halted = crew.halted.clone();
        let members = Arc::new(Mutex::new(0));
        for kind in crate::KINDS {
            let group = ports.settings.group(kind);
            let member = ports.broker.join(&group, kind.input()).map_err(|it| it.into_log_error())?;
            sessions.joined(kind, member.clone());
            let (worker, clock) = (crew.clone(), ports.clock.clone());
            let longest = ports.settings.batch_deadline() + STOP_SLACK;
            let start: StartTask = Arc::new(move |task, stopping| {
                let work = worker.work(task, stopping.clone());
                Box::pin(stopped_within(longest, task, work, stopping, clock.clone()))
            });
            let (stop, stopping) = watch::channel(false);
            stops.push(stop);
            let membership = run_member(kind, member, start, spawned.clone(), stopping);
            let membership = crew.watched(membership);
            let members = members.clone();
            *members.lock() += 1;
            spawned.spawn(Box::pin(async move {
                membership.await;
                *members.lock() -= 1;
            }));
        }
        let (stop, stopping) = watch::channel(false);
        stops.push(stop);
        let follower = async move { catalog.run_follower(stopping).await };
        spawned.spawn(crew.watched(follower));
        Ok(Self {
            name: name.to_owned(),
            halted,
            stops,
            stop_nodes,
            sessions,
            members,
            spawned: spawned.clone(),
        })
    }

    /// SIGKILL.
    pub fn kill(&self, house: &House) {
        house.broker.faults().kill(&self.name);
        self.spawned.abort();
    }

    /// SIGTERM: tasks finish their batch, members leave, rows are flushed. At most so long, then it is killed.
    pub async fn stop(&self, house: &House, longest: Duration) {
        for stop in &self.stops {
            stop.send_replace(true);
        }
        let deadline_ns = house.now_ns() + longest.as_nanos() as u64;
        while *self.members.lock() > 0 && house.now_ns() < deadline_ns {
            house.pass(Duration::from_millis(50)).await;
        }
        let left_ns = deadline_ns.saturating_sub(house.now_ns());
        let flushed = tokio::time::timeout(Duration::from_nanos(left_ns), self.sessions.flushed());
        // What is not flushed in time is replayed by the next life.
        let _ = flushed.await;
        self.stop_nodes.send_replace(true);
        self.kill(house);
    }

    /// Why it has halted, if it has.
    pub fn halted(&self) -> Option<String> {
        self.halted.lock().first().cloned()
    }
}
