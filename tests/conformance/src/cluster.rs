//! A cluster's engines as one store: what a process of the deployment sees, with a life per task opened on demand.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::{
    ClusterMetrics, ClusterPorts, ClusterSessions, ClusterSettings, ClusterState, NodeWatch, TokioSpawner,
};
use tillstream_log::broker::{Broker, GroupEvent, GroupMember};
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_runtime::{Clock, Metrics};
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{RowKey, Table};
use tillstream_state::row_store::RowStore;
use tillstream_state::{Commit, Page, Session, Sessions, State, TaskCommit, TaskId, Timer};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::{DEADLINE, owner_of, record};
use tokio::time::timeout;

/// What a [`ClusterStore`] runs on.
pub struct ClusterParts {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The same topics, for plain reads and appends.
    pub log: Arc<dyn Log>,
    /// The database, empty.
    pub rows: Arc<dyn RowStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// A deployment's name that these topics have not seen, and their partitions.
    pub settings: ClusterSettings,
}

type Life = Arc<tokio::sync::Mutex<Option<Session>>>;

/// A group's only member, and the task that takes its events.
struct Joined {
    member: Arc<dyn GroupMember>,
    pump: tokio::task::JoinHandle<()>,
}

/// The only process of a deployment, as log, state and commit.
///
/// The log's part is the plain log. Rows and timers are read through the life of the task that owns them, which sees
/// its commits at once. A scan reads the database, as other processes do: the lives are ended and flushed before. A
/// commit that fails ends its life.
pub struct ClusterStore {
    ports: ClusterPorts,
    log: Arc<dyn Log>,
    sessions: Arc<ClusterSessions>,
    door: ClusterState,
    groups: tokio::sync::Mutex<BTreeMap<TaskKind, Joined>>,
    lives: Mutex<BTreeMap<TaskId, Life>>,
    /// How far inputs were filled: offsets that are committed must be there.
    filled: tokio::sync::Mutex<BTreeMap<TaskId, u64>>,
    stop: watch::Sender<bool>,
}

impl ClusterStore {
    /// A process that has joined nothing yet.
    pub async fn new(parts: ClusterParts) -> Arc<Self> {
        let ClusterParts { broker, log, rows, clock, settings } = parts;
        let spawner = Arc::new(TokioSpawner(tokio::runtime::Handle::current()));
        let nodes = NodeWatch::begin(&*rows, &*clock).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        nodes.run(rows.clone(), clock.clone(), Duration::from_millis(200), &*spawner, stopping);
        let metrics = Arc::new(ClusterMetrics::register(&Metrics::new().unwrap()).unwrap());
        let settings = Arc::new(settings);
        let ports = ClusterPorts { broker, rows, clock, spawner, metrics, nodes, settings };
        let sessions = ClusterSessions::new(ports.clone());
        Arc::new(Self {
            log,
            door: ClusterState::new(ports.clone(), Some(sessions.clone())),
            sessions,
            ports,
            groups: tokio::sync::Mutex::default(),
            lives: Mutex::default(),
            filled: tokio::sync::Mutex::default(),
            stop,
        })
    }

    /// Ends all lives and leaves all groups.
    pub async fn close(&self) {
        self.flushed().await;
        for joined in std::mem::take(&mut *self.groups.lock().await).into_values() {
            joined.pump.abort();
            timeout(DEADLINE, joined.member.leave()).await.expect("a member leaves");
        }
        self.stop.send_replace(true);
    }

    /// Ends all lives; what they committed is in the database afterwards.
    async fn flushed(&self) {
        let lives = std::mem::take(&mut *self.lives.lock());
        for life in lives.into_values() {
            drop(life.lock().await.take());
        }
        timeout(DEADLINE, self.sessions.flushed()).await.expect("the last flushes end");
    }

    /// Makes sure that this process has all partitions of a kind.
    async fn join(&self, kind: TaskKind) {
        let mut groups = self.groups.lock().await;
        if groups.contains_key(&kind) {
            return;
        }
        let member = self.ports.broker.join(&self.ports.settings.group(kind), kind.input()).unwrap();
        self.sessions.joined(kind, member.clone());
        let (owns, mut owned) = watch::channel(0);
        let pumped = member.clone();
        let pump = tokio::spawn(async move {
            loop {
                match pumped.next_event().await {
                    GroupEvent::Assigned(partitions) => owns.send_modify(|it| *it += partitions.len()),
                    GroupEvent::Revoked(partitions, _) | GroupEvent::Lost(partitions) => {
                        owns.send_modify(|it| *it -= partitions.len());
                    }
                    GroupEvent::Failed(error) => panic!("the group failed: {error}"),
                }
            }
        });
        let all = self.ports.settings.partitions as usize;
        let joined = timeout(DEADLINE * 3, owned.wait_for(|it| *it == all)).await;
        joined.expect("the only member gets all partitions").expect("events go on");
        groups.insert(kind, Joined { member, pump });
    }

    /// The task's life, begun if it has none; nobody else uses it meanwhile.
    async fn life(&self, task: TaskId) -> Result<OwnedMutexGuard<Option<Session>>, LogError> {
        let life = self.lives.lock().entry(task).or_default().clone();
        let mut life = life.lock_owned().await;
        if life.is_none() {
            self.join(task.kind).await;
            *life = Some(self.sessions.open(task).await?);
        }
        Ok(life)
    }

    /// Inputs up to `next_offset`.
    async fn fill(&self, task: TaskId, next_offset: u64) -> Result<(), LogError> {
        let mut filled = self.filled.lock().await;
        let there = filled.entry(task).or_default();
        let input = TopicPartition::new(task.kind.input(), task.partition);
        let missing: Vec<NewRecord> =
            (*there..next_offset).map(|_| record(input, "filler", "filler")).collect();
        if !missing.is_empty() {
            self.log.append(missing).await?;
            *there = next_offset;
        }
        Ok(())
    }
}

impl Drop for ClusterStore {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Log for ClusterStore {
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
        self.log.read(from, offset, limit)
    }

    fn read_on(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<(Vec<Record>, u64), LogError>> {
        self.log.read_on(from, offset, limit)
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

impl State for ClusterStore {
    fn get_many<'a>(
        &'a self,
        keys: &'a [RowKey],
    ) -> BoxFuture<'a, Result<Vec<Option<bytes::Bytes>>, LogError>> {
        Box::pin(async move {
            let mut owners: BTreeMap<TaskId, Vec<usize>> = BTreeMap::new();
            for (index, key) in keys.iter().enumerate() {
                owners.entry(owner_of(self, key)).or_default().push(index);
            }
            let mut values = vec![None; keys.len()];
            for (task, indexes) in owners {
                let asked: Vec<RowKey> = indexes.iter().map(|it| keys[*it].clone()).collect();
                let life = self.life(task).await?;
                let found = life.as_ref().expect("it was begun").state.get_many(&asked).await?;
                indexes.into_iter().zip(found).for_each(|(index, value)| values[index] = value);
            }
            Ok(values)
        })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        Box::pin(async move {
            self.flushed().await;
            self.door.scan(table, prefix, after, limit).await
        })
    }

    fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(async move {
            let life = self.life(task).await?;
            life.as_ref().expect("it was begun").state.timers_due(task, from_ms, until_ms, limit).await
        })
    }

    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        self.door.committed(task)
    }
}

impl Commit for ClusterStore {
    fn commit(&self, commit: TaskCommit) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let mut life = self.life(commit.task).await?;
            self.fill(commit.task, commit.next_offset).await?;
            let done = life.as_ref().expect("it was begun").commit.commit(commit).await;
            if done.is_err() {
                *life = None;
            }
            done
        })
    }
}
