//! What can go wrong, at a test's hand. Every hook takes effect at once and wakes whoever it concerns.

use super::call::{Call, Effect};
use super::core::Core;
use super::transaction::{CommitFate, Hold};
use super::world::{Fault, FaultEffect, Process, StandStill, nanos};
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_log::broker::{BrokerError, GroupOffset};
use tillstream_schemas::Topic;

/// Whether a member is told that its partitions are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// At once.
    Now,
    /// Not before [`Faults::tell`]: until then it works on as a zombie.
    Later,
}

/// The hooks. A scope is the beginning of a transactional id, of a group's name, or of a partition's or topic's name;
/// the empty one is everywhere.
#[derive(Clone)]
pub struct Faults {
    core: Arc<Core>,
}

impl Faults {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The next call of this kind fails.
    pub fn fail(&self, call: Call, scope: &str, effect: Effect, error: BrokerError) {
        self.fail_later(call, scope, 0, effect, error);
    }

    /// A call of this kind fails, after `skip` that do not. Faults of one kind and scope strike in the order they were
    /// asked for.
    pub fn fail_later(&self, call: Call, scope: &str, skip: usize, effect: Effect, error: BrokerError) {
        let fault = Fault { call, scope: scope.to_owned(), skip, effect: FaultEffect::Now(effect), error };
        self.core.lock().faults.push(fault);
    }

    /// The next commit is not answered.
    pub fn unknown_commit(&self, scope: &str, fate: CommitFate) {
        let effect = match fate {
            CommitFate::Happened => FaultEffect::Now(Effect::Full),
            CommitFate::NeverArrived => FaultEffect::Now(Effect::None),
            CommitFate::ArrivesLater => FaultEffect::Later,
        };
        let error = BrokerError::Unknown("the commit was not answered".into());
        let fault = Fault { call: Call::Commit, scope: scope.to_owned(), skip: 0, effect, error };
        self.core.lock().faults.push(fault);
    }

    /// Commits that were to arrive later arrive now. Tells how many found their transaction still open.
    pub fn arrive_late_commits(&self) -> usize {
        self.core.lock().arrive_late_commits()
    }

    /// Faults asked for that have not struck.
    pub fn pending(&self) -> usize {
        self.core.lock().faults.len()
    }

    /// Forgets faults that have not struck.
    pub fn forget(&self) {
        let mut world = self.core.lock();
        world.faults.clear();
        world.stops.clear();
    }

    /// Every request takes so long until it arrives.
    pub fn set_slow(&self, slow: Duration) {
        let mut world = self.core.lock();
        world.slow = slow;
        world.wake_all();
    }

    /// Of the processes whose names start with `process`, the one that makes such a call, after `skip` others, stands still
    /// before it hears the answer; [`Faults::stopped`] tells, and [`Faults::resume`] ends it.
    pub fn pause_at(&self, call: Call, process: &str, skip: usize, for_ms: u32) {
        self.core.lock().stops.push(StandStill { call, process: process.to_owned(), skip, for_ms });
    }

    /// The processes that stand still by [`Faults::pause_at`] since the last call, and for how long they should, ms.
    pub fn stopped(&self) -> Vec<(String, u32)> {
        std::mem::take(&mut self.core.lock().stopped)
    }

    /// Holds the markers of transactions decided from now on back: readers of committed records see nothing of them and
    /// nothing behind them.
    pub fn hold_markers(&self, scope: &str, hold: Hold) {
        self.core.lock().marker_hold = Some((scope.to_owned(), hold));
    }

    /// Writes the markers that are held back, and holds no more.
    pub fn release_markers(&self) {
        let mut world = self.core.lock();
        world.marker_hold = None;
        let ending = world.coordinators.iter().filter(|(_, it)| it.is_ending());
        let ending: Vec<String> = ending.map(|(id, _)| id.clone()).collect();
        for id in ending {
            world.write_markers(&id);
        }
        world.wake_all();
    }

    /// Aborts the open transaction of an id from outside and fences its producer, as another init or an administrator
    /// does. Tells whether one was open.
    pub fn abort(&self, transactional_id: &str) -> bool {
        self.core.lock().abort_from_outside(transactional_id)
    }

    /// The broker answers nobody, or answers again.
    pub fn set_available(&self, available: bool) {
        let mut world = self.core.lock();
        world.unavailable = !available;
        world.wake_all();
    }

    fn change_process(&self, process: &str, change: impl FnOnce(&mut Process)) {
        let mut world = self.core.lock();
        let now_ns = world.now_ns;
        let state = world.processes.entry(process.into()).or_default();
        change(state);
        if state.paused || state.unreachable || state.killed {
            state.silent_since_ns.get_or_insert(now_ns);
            world.wake_all();
        } else {
            state.silent_since_ns = None;
            world.hear_again(process);
        }
    }

    /// The process stands still (SIGSTOP): its calls do not return, its members are silent.
    pub fn pause(&self, process: &str) {
        self.change_process(process, |it| it.paused = true);
    }

    /// It goes on, and learns what it lost.
    pub fn resume(&self, process: &str) {
        self.change_process(process, |it| it.paused = false);
    }

    /// The process reaches the broker no more, or again.
    pub fn set_reachable(&self, process: &str, reachable: bool) {
        self.change_process(process, |it| it.unreachable = !reachable);
    }

    /// The process is killed at the end of so many more of its calls: at whatever it waits for then.
    pub fn kill_after(&self, process: &str, calls: u32) {
        let mut world = self.core.lock();
        world.processes.entry(process.into()).or_default().calls_left = Some(calls);
    }

    /// Whether the process was killed.
    pub fn is_killed(&self, process: &str) -> bool {
        self.core.lock().processes.get(process).is_some_and(|it| it.killed)
    }

    /// Transactions are coordinated by another broker from now on, which answers after so long. What was decided stays
    /// decided, what is open stays open.
    pub fn move_coordinator(&self, for_long: Duration) {
        let mut world = self.core.lock();
        world.coordinator_away_until_ns = world.now_ns.saturating_add(nanos(for_long));
        world.injected += 1;
        world.wake_all();
    }

    /// The process is gone (SIGKILL): its calls never return. Drop its tasks. What it had not sent is lost.
    pub fn kill(&self, process: &str) {
        self.change_process(process, |it| it.killed = true);
        self.core.lock().producers.retain(|_, it| &*it.process != process);
    }

    /// Takes all partitions of a member away (a session that ended at the broker), as [`super::SimBroker::members`]
    /// names it.
    pub fn expel(&self, member: u64, notice: Notice) {
        let mut world = self.core.lock();
        world.expel(member);
        if notice == Notice::Now {
            world.tell(member);
        }
    }

    /// An expelled member learns of it, and joins again.
    pub fn tell(&self, member: u64) {
        self.core.lock().tell(member);
    }

    /// Deletes the topic and makes it anew: empty, offsets from 0, no group has a place in it.
    pub fn recreate(&self, topic: Topic) {
        self.core.lock().recreate(topic);
    }

    /// Changes how many partitions a topic has; 0: there is no such topic.
    pub fn set_partitions(&self, topic: Topic, count: u32) {
        let mut world = self.core.lock();
        world.set_partitions(topic, count);
        world.wake_all();
    }

    /// The group's place in a partition is forgotten (expired).
    pub fn drop_offset(&self, group: &str, partition: TopicPartition) {
        if let Some(group) = self.core.lock().groups.get_mut(group) {
            group.offsets.remove(&partition);
        }
    }

    /// The group knows its place again.
    pub fn put_offset(&self, group: &str, partition: TopicPartition, place: GroupOffset) {
        if let Some(group) = self.core.lock().groups.get_mut(group) {
            group.offsets.insert(partition, place);
        }
    }

    /// Retention: nothing before `start` is there any more.
    pub fn trim(&self, partition: TopicPartition, start: u64) {
        if let Some(log) = self.core.lock().partitions.get_mut(&partition) {
            log.trim(start);
        }
    }

    /// Compacts the topic up to its stable ends: of every key the last record stays; with `tombstones_too` not even
    /// that of a deleted key.
    pub fn compact(&self, topic: Topic, tombstones_too: bool) {
        let mut world = self.core.lock();
        for (_, log) in world.partitions.iter_mut().filter(|(at, _)| at.topic == topic) {
            log.compact(u64::MAX, tombstones_too);
        }
    }
}
