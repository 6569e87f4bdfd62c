//! A deployment over a simulated broker and database, and processes of it that can be killed.

use crate::support::hooks::{HookedBroker, HookedRows, Hooks};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::{
    ClusterMetrics, ClusterPorts, ClusterSessions, ClusterSettings, NodeWatch, Spawner, StartTask, Verified,
    run_member, verify,
};
use tillstream_log::broker::GroupMember;
use tillstream_log::{LogError, ReadLimit, Record, TopicPartition};
use tillstream_runtime::{Clock, Metrics, Progress, TaskPorts, TaskSettings, supervise};
use tillstream_schemas::Topic;
use tillstream_simulation::{RowSettings, SimBroker, SimClock, SimRows, SimSettings};
use tillstream_stage::partition::partition_of;
use tillstream_stage::rule::NoRules;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::{Session, Sessions, TaskCommit, TaskId, Timer};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub mod hooks;
pub mod toy;

pub const KIND: TaskKind = TaskKind::Order;
pub const GROUP: &str = "test.order";

pub fn task(partition: u32) -> TaskId {
    TaskId { kind: KIND, partition }
}

pub fn input(partition: u32) -> TopicPartition {
    TopicPartition::new(KIND.input(), partition)
}

pub fn changelog(partition: u32) -> TopicPartition {
    TopicPartition::new(Topic::OrderChangelog, partition)
}

pub fn row(key: &str) -> RowKey {
    RowKey::new(Table::Order, Key::from(key))
}

pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What all processes share.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<SimClock>,
    pub broker: SimBroker,
    pub rows: SimRows,
    pub settings: ClusterSettings,
    pub tasks: TaskSettings,
    /// How often the database's nodes are asked.
    pub ask_nodes: Duration,
}

impl World {
    pub fn new(partitions: u32) -> Self {
        Self::with(partitions, 1, |_| {})
    }

    pub fn with(partitions: u32, seed: u64, change: impl FnOnce(&mut SimSettings)) -> Self {
        let clock = Arc::new(SimClock::default());
        let mut broker = SimSettings::new(partitions, seed, clock.clone());
        broker.transaction_timeout = seconds(12);
        change(&mut broker);
        let tasks = TaskSettings {
            restart_wait: millis(50),
            restart_wait_max: millis(400),
            ..TaskSettings::default()
        };
        Self {
            broker: SimBroker::new(broker),
            rows: SimRows::new(RowSettings::new(partitions, seed, clock.clone())),
            settings: ClusterSettings::new("test", partitions),
            tasks,
            ask_nodes: seconds(1),
            clock,
        }
    }

    pub async fn pass(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// A command for the toy task.
    pub fn send(&self, text: &str) {
        let key = text.split(' ').next().unwrap();
        self.send_to(partition_of(key.as_bytes(), self.settings.partitions), text);
    }

    pub fn send_to(&self, partition: u32, text: &str) {
        let key = text.split(' ').next().unwrap();
        self.broker.append(input(partition), key, Some(text.as_bytes()));
    }

    /// A row's value in the database.
    pub fn stored(&self, key: &str) -> Option<String> {
        let rows = self.rows.rows();
        rows.get(&row(key)).map(|it| String::from_utf8(it.value.to_vec()).unwrap())
    }

    /// A process that is a member of the group and runs no task of its own.
    pub async fn bare(&self, name: &str) -> Process {
        Process::join(self, name).await.unwrap()
    }

    /// A process that runs the toy task on what it is given.
    pub async fn worker(&self, name: &str) -> Process {
        let process = self.bare(name).await;
        process.work(self);
        process
    }

    /// Everything at rest: tables and changelog compared.
    pub async fn verified(&self, process: &Process, partition: u32) -> Verified {
        verify(&process.ports, task(partition), 10).await.unwrap()
    }
}

#[derive(Default)]
struct Spawned(Mutex<Vec<AbortHandle>>);

impl Spawner for Spawned {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        self.0.lock().push(tokio::spawn(work).abort_handle());
    }
}

pub struct Process {
    pub name: String,
    pub world: World,
    pub ports: ClusterPorts,
    pub sessions: Arc<ClusterSessions>,
    pub member: Arc<dyn GroupMember>,
    pub hooks: Hooks,
    pub shared: Arc<Metrics>,
    /// What ended a task for good.
    pub ended: Arc<Mutex<Vec<String>>>,
    pub stop: watch::Sender<bool>,
    spawned: Arc<Spawned>,
}

impl Process {
    pub async fn join(world: &World, name: &str) -> Result<Self, LogError> {
        let hooks = Hooks::default();
        let client = world.broker.client(name);
        let broker = Arc::new(HookedBroker { inner: client, hooks: hooks.clone() });
        let rows = Arc::new(HookedRows { inner: world.rows.clone(), hooks: hooks.clone() });
        let spawned = Arc::new(Spawned::default());
        let nodes = NodeWatch::begin(&world.rows, &*world.clock).await?;
        let (stop, stopping) = watch::channel(false);
        nodes.run(rows.clone(), world.clock.clone(), world.ask_nodes, &*spawned, stopping);
        let shared = Arc::new(Metrics::new().unwrap());
        let ports = ClusterPorts {
            broker,
            rows,
            clock: world.clock.clone(),
            spawner: spawned.clone(),
            metrics: Arc::new(ClusterMetrics::register(&shared).unwrap()),
            nodes,
            settings: Arc::new(world.settings.clone()),
        };
        let sessions = ClusterSessions::new(ports.clone());
        let member = ports.broker.join(GROUP, KIND.input()).map_err(|it| it.into_log_error())?;
        sessions.joined(KIND, member.clone());
        let (name, world, ended) = (name.to_owned(), world.clone(), Arc::default());
        Ok(Self { name, world, ports, sessions, member, hooks, shared, ended, stop, spawned })
    }

    /// Runs tasks from now on.
    pub fn work(&self, world: &World) {
        let ports = TaskPorts {
            sessions: self.sessions.clone(),
            catalog: None,
            rules: Arc::new(NoRules),
            metrics: self.shared.clone(),
            clock: world.clock.clone(),
            progress: Arc::new(Progress::new()),
        };
        let (settings, ended) = (world.tasks.clone(), self.ended.clone());
        let start: StartTask = Arc::new(move |id, stopping| {
            let (ports, settings, ended) = (ports.clone(), settings.clone(), ended.clone());
            Box::pin(async move {
                if let Err(error) = supervise(Arc::new(toy::Toy), id, ports, settings, stopping).await {
                    ended.lock().push(error.to_string());
                }
            })
        });
        let (member, spawner) = (self.member.clone(), self.spawned.clone());
        let stopping = self.stop.subscribe();
        let running = run_member(KIND, member, start, spawner, stopping);
        self.spawned.spawn(Box::pin(async move {
            running.await.unwrap();
        }));
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.world.broker.faults().kill(&self.name);
        self.spawned.0.lock().drain(..).for_each(|it| it.abort());
    }

    /// Stops as a server does: tasks, group, last flushes.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        self.member.leave().await;
        self.sessions.flushed().await;
    }

    pub async fn open(&self, partition: u32) -> Result<Life, LogError> {
        let session = self.sessions.open(task(partition)).await?;
        let next = session.state.committed(task(partition)).await?;
        Ok(Life { session, next, task: task(partition) })
    }

    /// The code with which a takeover halts.
    pub async fn halt_code(&self, partition: u32) -> &'static str {
        match self.open(partition).await {
            Err(LogError::Halted { code, .. }) => code,
            Err(error) => panic!("{error}"),
            Ok(_) => "none",
        }
    }
}

/// A session, driven by hand.
pub struct Life {
    pub session: Session,
    pub next: u64,
    pub task: TaskId,
}

impl Life {
    /// Takes what there is of the input, at most so many.
    pub async fn take(&self, offset: u64, count: usize) -> Vec<Record> {
        let at = input(self.task.partition);
        tokio::time::timeout(seconds(5), self.session.log.wait_past(at, offset)).await.unwrap().unwrap();
        let limit = ReadLimit { records_max: count, bytes_max: 1 << 20 };
        self.session.log.read(at, offset, limit).await.unwrap()
    }

    pub fn empty(&self) -> TaskCommit {
        TaskCommit {
            task: self.task,
            from_offset: self.next,
            next_offset: self.next,
            outputs: Vec::new(),
            rows: Vec::new(),
            timers_removed: Vec::new(),
            timers_set: Vec::new(),
        }
    }

    pub async fn commit(&mut self, commit: TaskCommit) -> Result<(), LogError> {
        let next = commit.next_offset;
        self.session.commit.commit(commit).await?;
        self.next = next;
        Ok(())
    }

    /// Commits up to this input offset.
    pub async fn commit_to(&mut self, next_offset: u64) -> Result<(), LogError> {
        self.commit(TaskCommit { next_offset, ..self.empty() }).await
    }

    pub async fn put_many(&mut self, rows: &[(&str, Option<&str>)]) -> Result<(), LogError> {
        let value = |it: &str| Bytes::copy_from_slice(it.as_bytes());
        let rows = rows.iter().map(|(key, it)| (row(key), it.map(value))).collect();
        self.commit(TaskCommit { rows, ..self.empty() }).await
    }

    pub async fn put(&mut self, key: &str, value: &str) -> Result<(), LogError> {
        self.put_many(&[(key, Some(value))]).await
    }

    pub async fn set_timers(&mut self, removed: &[Timer], set: &[Timer]) {
        let (timers_removed, timers_set) = (removed.to_vec(), set.to_vec());
        self.commit(TaskCommit { timers_removed, timers_set, ..self.empty() }).await.unwrap();
    }

    pub async fn try_get(&self, key: &str) -> Result<Option<String>, LogError> {
        let found = self.session.state.get_many(&[row(key)]).await?;
        Ok(found[0].as_ref().map(|it| String::from_utf8(it.to_vec()).unwrap()))
    }

    pub async fn get(&self, key: &str) -> Option<String> {
        self.try_get(key).await.unwrap()
    }
}

pub fn is_over<T>(result: &Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::LifeOver { .. }))
}
