//! All that the broker knows, and what it does by itself as time passes.

use super::SimSettings;
use super::call::{Call, Effect};
use super::group::{Group, Owner};
use super::member::ClientMember;
use super::partition::{Partition, StoredRecord};
use super::producer::ClientProducer;
use super::transaction::{Coordinated, Hold, LateCommit, Phase, Transaction};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::broker::BrokerError;
use tillstream_log::{Headers, TopicPartition};
use tillstream_random::Random;
use tillstream_schemas::Topic;
use tokio::sync::Notify;

/// A process with clients of the broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) paused: bool,
    pub(crate) unreachable: bool,
    pub(crate) killed: bool,
    /// Since when the broker has heard nothing of it.
    pub(crate) silent_since_ns: Option<u64>,
    /// Calls until it is killed.
    pub(crate) calls_left: Option<u32>,
}

/// An injected failure.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    /// Only of a transactional id, group or partition that starts so.
    pub(crate) scope: String,
    /// Calls that pass before it strikes.
    pub(crate) skip: usize,
    pub(crate) effect: FaultEffect,
    pub(crate) error: BrokerError,
}

/// The process that makes a call is to stand still before it hears the answer.
#[derive(Clone, Debug)]
pub(crate) struct StandStill {
    pub(crate) call: Call,
    /// Only a process whose name starts so.
    pub(crate) process: String,
    /// Calls that pass before it strikes.
    pub(crate) skip: usize,
    /// For so long, ms.
    pub(crate) for_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultEffect {
    Now(Effect),
    /// Of a commit: it arrives when it is released.
    Later,
}

/// Until when nothing happens by itself (ns). Every call asks, and to look at every transaction, group and member
/// each time was a third of a history's time. Unknown after a change of those it was reckoned from.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    until_ns: Cell<Option<u64>>,
    /// Told when it ends sooner than was known.
    changed: Arc<Notify>,
}

impl Quiet {
    /// Something more will happen then.
    pub(crate) fn ends_by(&self, due_ns: u64) {
        if self.until_ns.get().is_some_and(|it| due_ns < it) {
            self.until_ns.set(Some(due_ns));
            self.changed.notify_one();
        }
    }

    /// It has to be reckoned anew.
    fn end(&self) {
        self.until_ns.set(None);
        self.changed.notify_one();
    }

    /// Told when it ends sooner than was known.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }
}

pub(crate) struct World {
    pub(crate) settings: SimSettings,
    pub(crate) random: Random,
    pub(crate) now_ns: u64,
    pub(crate) next_id: u64,
    pub(crate) partitions: BTreeMap<TopicPartition, Partition>,
    pub(crate) counts_of: BTreeMap<Topic, u32>,
    pub(crate) coordinators: BTreeMap<String, Coordinated>,
    pub(crate) late_commits: Vec<LateCommit>,
    pub(crate) marker_hold: Option<(String, Hold)>,
    /// What every request takes to arrive.
    pub(crate) slow: Duration,
    /// Processes that are to stand still, and those that do since somebody asked last.
    pub(crate) stops: Vec<StandStill>,
    pub(crate) stopped: Vec<(String, u32)>,
    /// What a client did that it must not do.
    pub(crate) broken: Option<String>,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) producers: BTreeMap<u64, ClientProducer>,
    pub(crate) members: BTreeMap<u64, ClientMember>,
    pub(crate) processes: BTreeMap<Arc<str>, Process>,
    pub(crate) unavailable: bool,
    /// Until then nobody coordinates transactions.
    pub(crate) coordinator_away_until_ns: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) injected: u64,
    pub(crate) counts: BTreeMap<Call, u64>,
    pub(crate) trace: u64,
    pub(crate) quiet: Quiet,
    /// Told whenever anything has changed that a call may wait for: not a partition's content.
    pub(crate) control: Arc<Notify>,
    /// Told whenever members may have been told something.
    pub(crate) told: Arc<Notify>,
}

impl World {
    pub(crate) fn new(settings: SimSettings) -> Self {
        let mut world = Self {
            random: Random::new(settings.seed),
            now_ns: 0,
            next_id: 1,
            partitions: BTreeMap::new(),
            counts_of: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            late_commits: Vec::new(),
            marker_hold: None,
            slow: Duration::ZERO,
            stops: Vec::new(),
            stopped: Vec::new(),
            broken: None,
            groups: BTreeMap::new(),
            producers: BTreeMap::new(),
            members: BTreeMap::new(),
            processes: BTreeMap::new(),
            unavailable: false,
            coordinator_away_until_ns: 0,
            faults: Vec::new(),
            injected: 0,
            counts: BTreeMap::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            quiet: Quiet::default(),
            control: Arc::default(),
            told: Arc::default(),
            settings,
        };
        for topic in Topic::every() {
            world.set_partitions(topic, world.settings.partitions);
        }
        world
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Changes how many partitions a topic has; what is cut off is gone.
    pub(crate) fn set_partitions(&mut self, topic: Topic, count: u32) {
        self.counts_of.insert(topic, count);
        self.partitions.retain(|at, _| at.topic != topic || at.partition < count);
        for partition in 0..count {
            self.partitions.entry(TopicPartition::new(topic, partition)).or_default();
        }
    }

    pub(crate) fn partition(&self, at: TopicPartition) -> Result<&Partition, BrokerError> {
        self.partitions.get(&at).ok_or_else(|| BrokerError::Refused(format!("{at} does not exist")))
    }

    pub(crate) fn process(&self, name: &Arc<str>) -> Process {
        self.processes.get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn reaches(&self, process: &Arc<str>) -> bool {
        !self.unavailable && self.processes.get(process).is_none_or(|it| !it.unreachable && !it.killed)
    }

    /// One more call of a process that is to be killed after some.
    pub(crate) fn count_down(&mut self, name: &Arc<str>) {
        let now_ns = self.now_ns;
        let Some(process) = self.processes.get_mut(name) else { return };
        let Some(left) = process.calls_left else { return };
        process.calls_left = left.checked_sub(1);
        if left == 0 {
            process.killed = true;
            process.silent_since_ns.get_or_insert(now_ns);
            self.producers.retain(|_, it| it.process != *name);
            self.wake_all();
        }
    }

    /// Wakes everything that waits for anything.
    pub(crate) fn wake_all(&self) {
        self.quiet.end();
        self.control.notify_waiters();
        self.told.notify_waiters();
        for partition in self.partitions.values() {
            partition.changed.notify_waiters();
        }
    }

    /// Folds something that happened into the trace (FNV-1a).
    pub(crate) fn note(&mut self, what: &[u8]) {
        for byte in what {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The fault that strikes this call, if one does.
    pub(crate) fn strike(&mut self, call: Call, scope: &str) -> Option<(FaultEffect, BrokerError)> {
        let at = self.faults.iter().position(|it| it.call == call && scope.starts_with(it.scope.as_str()))?;
        if self.faults[at].skip > 0 {
            self.faults[at].skip -= 1;
            return None;
        }
        let fault = self.faults.remove(at);
        self.injected += 1;
        Some((fault.effect, fault.error))
    }

    /// Does what is due by now.
    pub(crate) fn go_on_to(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        while self.due_ns().is_some_and(|due_ns| due_ns <= now_ns) {
            self.end_due_transactions();
            self.expel_due_members();
        }
    }

    /// When to look next whether something happens by itself: not after the next such thing, perhaps before it.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        let known = self.quiet.until_ns.get().filter(|it| *it > self.now_ns);
        let due_ns = known.unwrap_or_else(|| self.soonest_ns());
        self.quiet.until_ns.set(Some(due_ns));
        Some(due_ns).filter(|it| *it < u64::MAX)
    }

    fn soonest_ns(&self) -> u64 {
        let transactions = self.coordinators.values().filter_map(Coordinated::due_ns);
        let releases =
            self.groups.values().flat_map(|group| group.owners.values()).filter_map(|owner| match owner {
                Owner::Of(_) => None,
                Owner::Releasing { deadline_ns, .. } => Some(*deadline_ns),
            });
        let sessions = self.members.values().filter_map(|member| self.session_end_ns(member));
        transactions.chain(releases).chain(sessions).min().unwrap_or(u64::MAX)
    }

    fn end_due_transactions(&mut self) {
        let now_ns = self.now_ns;
        let due = self.coordinators.iter().filter(|(_, it)| it.due_ns().is_some_and(|due| due <= now_ns));
        let due: Vec<(String, bool)> = due.map(|(id, it)| (id.clone(), it.is_ending())).collect();
        for (transactional_id, ending) in due {
            if ending {
                self.write_some_markers(&transactional_id);
            } else {
                self.note(b"transaction timed out");
                self.abort_from_outside(&transactional_id);
            }
        }
    }

    /// Aborts an open transaction and fences its producer.
    pub(crate) fn abort_from_outside(&mut self, transactional_id: &str) -> bool {
        let Some(coordinated) = self.coordinators.get_mut(transactional_id) else { return false };
        if !matches!(coordinated.phase, Phase::Ongoing(_)) {
            return false;
        }
        coordinated.epoch += 1;
        self.decide(transactional_id, false);
        true
    }

    /// The transaction is decided; its markers follow at once, or later.
    pub(crate) fn decide(&mut self, transactional_id: &str, committed: bool) {
        let lag_ns = u64::try_from(self.settings.markers_lag_max.as_nanos()).unwrap_or(0);
        let lag_ns = if lag_ns > 0 { self.random.next_u64() % lag_ns } else { 0 };
        let hold =
            self.marker_hold.as_ref().filter(|(scope, _)| transactional_id.starts_with(scope.as_str()));
        let markers_at_ns = match hold {
            Some((_, Hold::UntilReleased)) => None,
            Some((_, Hold::For(duration))) => Some(self.now_ns + nanos(*duration)),
            None => Some(self.now_ns + lag_ns),
        };
        let now_ns = self.now_ns;
        let Some(coordinated) = self.coordinators.get_mut(transactional_id) else { return };
        let Phase::Ongoing(transaction) = std::mem::take(&mut coordinated.phase) else { return };
        coordinated.decided += 1;
        coordinated.phase = Phase::Ending { transaction, committed, markers_at_ns };
        if markers_at_ns.is_some_and(|at| at <= now_ns) {
            self.write_some_markers(transactional_id);
            self.control.notify_waiters();
        } else {
            markers_at_ns.into_iter().for_each(|it| self.quiet.ends_by(it));
            self.control.notify_waiters();
        }
    }

    /// The brokers that lead a transaction's partitions hear of its end one after the other: some now, the rest later.
    fn write_some_markers(&mut self, transactional_id: &str) {
        let lag_ns = nanos(self.settings.markers_lag_max);
        let Some(coordinated) = self.coordinators.get_mut(transactional_id) else { return };
        let Phase::Ending { transaction, committed, .. } = &mut coordinated.phase else { return };
        if lag_ns == 0 {
            return self.write_markers(transactional_id);
        }
        let (random, committed) = (&mut self.random, *committed);
        let mut later = Transaction { deadline_ns: transaction.deadline_ns, ..Transaction::default() };
        transaction.partitions.retain(|at| random.percent(60) || !later.partitions.insert(*at));
        if random.percent(40) {
            later.offsets = std::mem::take(&mut transaction.offsets);
        }
        let markers_at_ns = self.now_ns + 1 + random.next_u64() % lag_ns;
        self.write_markers(transactional_id);
        if later.partitions.is_empty() && later.offsets.is_empty() {
            return;
        }
        if let Some(coordinated) = self.coordinators.get_mut(transactional_id) {
            coordinated.phase =
                Phase::Ending { transaction: later, committed, markers_at_ns: Some(markers_at_ns) };
            self.quiet.ends_by(markers_at_ns);
        }
    }

    pub(crate) fn write_markers(&mut self, transactional_id: &str) {
        let Some(coordinated) = self.coordinators.get_mut(transactional_id) else { return };
        let Phase::Ending { transaction, committed, .. } = std::mem::take(&mut coordinated.phase) else {
            return;
        };
        let producer = coordinated.producer;
        for at in &transaction.partitions {
            if let Some(partition) = self.partitions.get_mut(at) {
                partition.mark(producer, committed);
            }
        }
        if committed {
            for ((group, at), offset) in transaction.offsets {
                self.groups.entry(group).or_default().offsets.insert(at, offset);
            }
        }
        self.control.notify_waiters();
    }

    /// Commits that were on their way arrive now.
    pub(crate) fn arrive_late_commits(&mut self) -> usize {
        let arrived = std::mem::take(&mut self.late_commits);
        let mut taken = 0;
        for commit in arrived {
            let coordinated = self.coordinators.get(&commit.transactional_id);
            let current = coordinated.filter(|it| it.epoch == commit.epoch && it.decided == commit.decided);
            if current.is_some_and(|it| matches!(it.phase, Phase::Ongoing(_))) {
                self.decide(&commit.transactional_id, true);
                taken += 1;
            }
        }
        taken
    }

    /// A record of no transaction.
    pub(crate) fn append_plain(
        &mut self,
        at: TopicPartition,
        key: Bytes,
        value: Option<Bytes>,
        headers: Headers,
    ) {
        let timestamp_ms = self.settings.clock.now_ms();
        if let Some(partition) = self.partitions.get_mut(&at) {
            partition.append(None, StoredRecord { offset: 0, timestamp_ms, key, value, headers });
        }
    }

    /// The topic is deleted and made anew: empty, and the groups' places in it are gone.
    pub(crate) fn recreate(&mut self, topic: Topic) {
        for (at, partition) in &mut self.partitions {
            if at.topic == topic {
                partition.recreate();
            }
        }
        for group in self.groups.values_mut() {
            group.offsets.retain(|at, _| at.topic != topic);
        }
        for coordinated in self.coordinators.values_mut() {
            if let Phase::Ongoing(transaction) | Phase::Ending { transaction, .. } = &mut coordinated.phase {
                transaction.partitions.retain(|at| at.topic != topic);
                transaction.offsets.retain(|(_, at), _| at.topic != topic);
            }
        }
        self.wake_all();
    }

    /// Transactional ids with an open or undecided transaction.
    pub(crate) fn open_transactions(&self) -> BTreeSet<String> {
        let open = self.coordinators.iter().filter(|(_, it)| !matches!(it.phase, Phase::Idle));
        open.map(|(id, _)| id.clone()).collect()
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
