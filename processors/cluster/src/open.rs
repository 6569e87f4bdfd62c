//! Taking a partition over: fence first, then read offsets, then replay.

use crate::changelog::{self, Change, Tag};
use crate::filter::KnownKeys;
use crate::flush;
use crate::halt::Halt;
use crate::overlay::Overlay;
use crate::ports::{ClusterPorts, changelog_of, input_of};
use crate::session::{ClusterSession, Inner, SessionCommit, SessionLog, SessionState};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tillstream_log::LogError;
use tillstream_log::broker::{BrokerError, GroupMember, GroupOffset, TransactionalProducer};
use tillstream_runtime::timeout;
use tillstream_stage::Table;
use tillstream_stage::task::TaskKind;
use tillstream_state::row_store::{Checkpoint, StateKey};
use tillstream_state::{Session, Sessions, TaskId};
use tokio::sync::{Notify, watch};

/// Where the tasks of this process begin their lives.
pub struct ClusterSessions {
    ports: ClusterPorts,
    groups: Mutex<BTreeMap<TaskKind, Arc<dyn GroupMember>>>,
    /// The newest life of each task, for reads of this process.
    lives: Mutex<BTreeMap<TaskId, std::sync::Weak<ClusterSession>>>,
    /// Flushers that have not ended.
    flushing: watch::Sender<usize>,
}

impl ClusterSessions {
    /// No group joined yet.
    pub fn new(ports: ClusterPorts) -> Arc<Self> {
        Arc::new(Self {
            ports,
            groups: Mutex::default(),
            lives: Mutex::default(),
            flushing: watch::channel(0).0,
        })
    }

    /// Tasks of this kind read what this member is given.
    pub fn joined(&self, kind: TaskKind, group: Arc<dyn GroupMember>) {
        self.groups.lock().insert(kind, group);
    }

    /// The task's life in this process, if it has one.
    pub(crate) fn life(&self, task: TaskId) -> Option<Arc<ClusterSession>> {
        let life = self.lives.lock().get(&task)?.upgrade()?;
        life.check_alive().is_ok().then_some(life)
    }

    /// Resolves once the last flush of every life of this process has ended.
    pub async fn flushed(&self) {
        let mut flushing = self.flushing.subscribe();
        // The sender lives in `self`.
        let _ = flushing.wait_for(|it| *it == 0).await;
    }

    async fn begin(&self, task: TaskId) -> Result<Session, LogError> {
        let began_ns = self.ports.clock.monotonic_ns();
        let group = self.groups.lock().get(&task.kind).cloned();
        let Some(group) = group else {
            return Err(LogError::Stopped(format!("{task} was started before its group was joined")));
        };
        let partitions = self.ports.settings.partitions;
        if task.partition >= partitions {
            let (what, found) = (task.kind.input().to_string(), task.partition + 1);
            return Err(Halt::Partitions { what, found, expected: partitions }.into());
        }
        let opened = Opening { task, ports: &self.ports }.run().await?;
        let changelog_end = opened.changelog_end;
        let mut known = KnownKeys::new(self.ports.settings.known_keys_max);
        for key in opened.overlay.row_keys() {
            known.insert(key);
        }
        let session = Arc::new(ClusterSession {
            task,
            ports: self.ports.clone(),
            producer: opened.producer,
            group,
            inner: Mutex::new(Inner {
                next_offset: opened.next_offset,
                taken_to: opened.next_offset,
                members: VecDeque::new(),
                overlay: opened.overlay,
                changelog_end,
                tag: opened.tag,
                incarnation_written: opened.incarnation_written,
                timers_from_ms: opened.timers_from_ms,
                known,
            }),
            over: Mutex::new(None),
            is_over: AtomicBool::new(false),
            changed: Notify::new(),
        });
        let life_over =
            |error: BrokerError| LogError::LifeOver { task: task.to_string(), reason: error.to_string() };
        session.group.fetch_from(task.partition, opened.next_offset).await.map_err(life_over)?;
        if changelog_of(task).is_some() {
            flush::start(&session, opened.checkpoint, self.flushing.clone());
        }
        self.lives.lock().insert(task, Arc::downgrade(&session));
        let metrics = &self.ports.metrics;
        metrics.lives.with_label_values(&[task.kind.as_str()]).inc();
        let took_ns = self.ports.clock.monotonic_ns().saturating_sub(began_ns);
        metrics.takeover_seconds.observe(took_ns as f64 / 1e9);
        tracing::info!(
            %task, offset = opened.next_offset, checkpoint = ?opened.checkpoint, replayed = opened.replayed,
            took_ms = took_ns / 1_000_000, "a life begins"
        );
        Ok(Session {
            log: Arc::new(SessionLog(session.clone())),
            state: Arc::new(SessionState(session.clone())),
            commit: Arc::new(SessionCommit(session)),
        })
    }
}

impl Sessions for ClusterSessions {
    fn open(&self, task: TaskId) -> BoxFuture<'_, Result<Session, LogError>> {
        Box::pin(self.begin(task))
    }
}

/// An offset that is missing all this time is gone.
const OFFSET_CONFIRMED_AFTER: Duration = Duration::from_secs(5);
/// How often it is asked for until then.
const OFFSET_ASKED_EVERY: Duration = Duration::from_millis(200);

/// What a takeover found.
struct Opened {
    producer: Arc<dyn TransactionalProducer>,
    next_offset: u64,
    overlay: Overlay,
    changelog_end: u64,
    checkpoint: Option<Checkpoint>,
    tag: Tag,
    incarnation_written: bool,
    timers_from_ms: i64,
    replayed: u64,
}

/// What a replay read.
#[derive(Default)]
struct Replayed {
    overlay: Overlay,
    generation: Option<u32>,
    end: u64,
    count: u64,
    timers_from_ms: i64,
}

struct Opening<'a> {
    task: TaskId,
    ports: &'a ClusterPorts,
}

impl Opening<'_> {
    async fn run(&self) -> Result<Opened, LogError> {
        let producer = self.fence().await?;
        let committed = self.committed().await?;
        let checkpoint = self.checkpoint().await?;
        let next_offset = self.check_input(committed.as_ref(), checkpoint).await?;
        let told = committed.as_ref().and_then(|it| Tag::decode(&it.metadata));
        if let Some(told) = told
            && changelog_of(self.task).is_some()
            && !told.is_met_by(checkpoint)
        {
            let expected = format!("{} of generation {}", told.checkpoint, told.generation);
            let found = checkpoint
                .map_or("none".to_owned(), |it| format!("{} of generation {}", it.offset, it.generation));
            return Err(Halt::DatabaseOlder { task: self.task, expected, found }.into());
        }
        let replayed = self.replay(checkpoint).await?;
        if told.is_some()
            && let Some(changelog) = changelog_of(self.task)
            && checkpoint.is_none()
            && replayed.generation.is_none()
        {
            // Every commit of ours has left a changelog behind.
            let (task, end) = (self.task, replayed.end);
            return Err(Halt::ChangelogCut { task, changelog, checkpoint: 0, start: end, end }.into());
        }
        let incarnation_written = checkpoint.is_some() || replayed.generation.is_some();
        // A changelog that was adopted may have begun anew behind the checkpoint.
        let generation = replayed.generation.or(checkpoint.map(|it| it.generation)).unwrap_or(1);
        // Of an incarnation before, nothing is known of this one's checkpoint.
        let known_durable = told.filter(|it| it.generation == generation).map_or(0, |it| it.checkpoint);
        Ok(Opened {
            producer,
            next_offset,
            changelog_end: replayed.end,
            checkpoint,
            tag: Tag { generation, checkpoint: known_durable },
            incarnation_written,
            timers_from_ms: replayed.timers_from_ms,
            replayed: replayed.count,
            overlay: replayed.overlay,
        })
    }

    async fn bounded<T>(
        &self,
        what: &str,
        step: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, LogError> {
        let deadline_ns = self.ports.clock.deadline(self.ports.settings.open_timeout);
        match timeout(&*self.ports.clock, deadline_ns, step).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(BrokerError::Refused(detail))) => Err(LogError::Stopped(format!("{what}: {detail}"))),
            Some(Err(error)) => Err(LogError::Unavailable(format!("{what}: {error}"))),
            None => Err(LogError::Unavailable(format!("{what}: no answer in time"))),
        }
    }

    /// Every earlier life can commit nothing from here on, and its open transaction is over.
    async fn fence(&self) -> Result<Arc<dyn TransactionalProducer>, LogError> {
        let id = self.ports.settings.transactional_id(self.task);
        let producer = self.ports.broker.producer(&id).map_err(BrokerError::into_log_error)?;
        self.bounded("fencing the partition's earlier owner", producer.init()).await?;
        Ok(producer)
    }

    async fn committed(&self) -> Result<Option<GroupOffset>, LogError> {
        let group = self.ports.settings.group(self.task.kind);
        let input = [input_of(self.task)];
        let found =
            self.bounded("reading the committed offset", self.ports.broker.group_offsets(&group, &input));
        Ok(found.await?.into_iter().next().flatten())
    }

    async fn checkpoint(&self) -> Result<Option<Checkpoint>, LogError> {
        if changelog_of(self.task).is_none() {
            return Ok(None);
        }
        let checkpoint = self.ports.rows.checkpoint(self.task).await?;
        if checkpoint.is_some() {
            let marked = self.ports.rows.marked_tables(self.task).await?;
            let own = Table::ALL.into_iter().filter(|it| it.kind() == self.task.kind);
            if let Some(lost) = own.into_iter().find(|it| !marked.contains(it)) {
                return Err(Halt::TableTruncated { task: self.task, table: lost.name() }.into());
            }
        }
        Ok(checkpoint)
    }

    /// The offset to go on from; never a guess.
    async fn check_input(
        &self,
        committed: Option<&GroupOffset>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<u64, LogError> {
        let (task, input) = (self.task, input_of(self.task));
        let bounds = self.bounded("reading the input's bounds", self.ports.broker.bounds(input));
        let (start, end) = bounds.await?;
        let Some(committed) = committed.map(|it| it.offset) else {
            if checkpoint.is_some() || self.changelog_has_records().await? {
                if self.offset_appears().await? {
                    // Asked while this process stood still: somebody else has begun the task. Or its coordinator had just
                    // come back, and did not know it yet.
                    let reason = "its committed offset was there when it was asked for again".to_owned();
                    return Err(LogError::LifeOver { task: task.to_string(), reason });
                }
                return Err(Halt::OffsetMissing { task, input }.into());
            }
            if start > 0 && task.kind.may_begin_late() {
                return Ok(start);
            }
            if start > 0 {
                return Err(Halt::InputGone { task, input, committed: 0, start }.into());
            }
            return Ok(0);
        };
        if committed < start {
            return Err(Halt::InputGone { task, input, committed, start }.into());
        }
        if committed > end {
            return Err(Halt::InputCut { task, input, committed, end }.into());
        }
        Ok(committed)
    }

    /// Whether the offset that is missing is there when it is asked for again, for a while: what comes of its absence is a
    /// halt that people must end, and a group's coordinator that takes up its work may say "none" for a moment
    /// (redpanda-data/redpanda#2597).
    async fn offset_appears(&self) -> Result<bool, LogError> {
        let clock = &self.ports.clock;
        let deadline_ns = clock.deadline(OFFSET_CONFIRMED_AFTER);
        loop {
            if self.committed().await?.is_some() {
                return Ok(true);
            }
            if clock.monotonic_ns() >= deadline_ns {
                return Ok(false);
            }
            clock.sleep(OFFSET_ASKED_EVERY).await;
        }
    }

    async fn changelog_has_records(&self) -> Result<bool, LogError> {
        let Some(changelog) = changelog_of(self.task) else { return Ok(false) };
        let bounds = self.bounded("reading the changelog's bounds", self.ports.broker.bounds(changelog));
        let (start, _) = bounds.await?;
        let mut replay = self.ports.broker.replay(changelog, start).map_err(BrokerError::into_log_error)?;
        Ok(!self.bounded("reading the changelog", replay.next()).await?.is_empty())
    }

    /// Reads the changelog from the checkpoint to what is stable, which after the fencing is all there is.
    async fn replay(&self, checkpoint: Option<Checkpoint>) -> Result<Replayed, LogError> {
        let mut replayed =
            Replayed { timers_from_ms: checkpoint.map_or(0, |it| it.timers_from_ms), ..Replayed::default() };
        let Some(changelog) = changelog_of(self.task) else { return Ok(replayed) };
        let bounds = self.bounded("reading the changelog's bounds", self.ports.broker.bounds(changelog));
        let (start, end) = bounds.await?;
        let from = checkpoint.map_or(0, |it| it.offset);
        if from > end || (from > 0 && from < start) {
            let task = self.task;
            return Err(Halt::ChangelogCut { task, changelog, checkpoint: from, start, end }.into());
        }
        replayed.end = from;
        let mut generation = checkpoint.map(|it| it.generation);
        let mut replay =
            self.ports.broker.replay(changelog, from.max(start)).map_err(BrokerError::into_log_error)?;
        loop {
            let records = self.bounded("replaying the changelog", replay.next()).await?;
            let Some(last) = records.last() else { break };
            replayed.end = last.offset + 1;
            replayed.count += records.len() as u64;
            for record in records {
                let offset = record.offset;
                let change = changelog::read(record).map_err(|detail| Halt::ForeignRecord {
                    changelog,
                    offset,
                    detail,
                })?;
                match change {
                    Change::Incarnation(found) => {
                        generation = Some(found);
                        replayed.generation = Some(found);
                    }
                    Change::State(key, value) => {
                        if let (StateKey::Timer(timer), Some(_)) = (&key, &value) {
                            replayed.timers_from_ms = replayed.timers_from_ms.min(timer.due_ms);
                        }
                        replayed.overlay.replay(
                            key,
                            value,
                            changelog::timestamp(generation.unwrap_or(1), offset),
                        );
                    }
                }
            }
        }
        self.ports.metrics.replayed.with_label_values(&[self.task.kind.as_str()]).inc_by(replayed.count);
        Ok(replayed)
    }
}
