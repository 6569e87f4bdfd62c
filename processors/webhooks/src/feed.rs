//! One endpoint's way through one partition of a topic: facts in (events offered, answers, time), decisions out (what to
//! send, what to keep). Pure: the shell holds the clock, the connections and the commit.
//!
//! Events of one subject (an order, an item) form a *lane* and are sent one after the other: the next only once the one
//! before was delivered or given up. Lanes do not wait for each other. A lane whose first event failed is *stored*: its
//! events' offsets and its next attempt are a row, so that the feed's position in the log moves on without it. What is
//! in memory alone stands behind the position: after a crash it is offered again.
//!
//! After [`Limits::outage_after`] failures in a row the endpoint counts as out of service: one attempt at a time finds
//! out whether it is back, no lane's attempts are used up meanwhile, and the position waits in the log. Once it answers,
//! everything goes on at once.

use crate::lane::{Item, Lane, LaneChange, LaneState, StoredLane};
use crate::schedule::Schedule;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tillstream_schemas::Text;

/// The first wait of an endpoint that is out of service, ms; doubles up to [`PROBE_MAX_MS`].
const PROBE_MS: i64 = 5_000;
/// The longest such wait, ms.
const PROBE_MAX_MS: i64 = 300_000;
/// The longest time that a `Retry-After` holds a whole endpoint back, ms.
const PAUSE_MAX_MS: i64 = 3_600_000;

/// Bounds of one feed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts under way at once.
    pub in_flight_max: usize,
    /// Events in memory that wait for their first attempt.
    pub queued_max: usize,
    /// Stored lanes.
    pub stored_lanes_max: usize,
    /// Events of one lane.
    pub lane_items_max: usize,
    /// Failures in a row after which the endpoint counts as out of service.
    pub outage_after: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_max: 16,
            queued_max: 512,
            stored_lanes_max: 1_000,
            lane_items_max: 1_000,
            outage_after: 10,
        }
    }
}

/// An attempt to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// The order or item.
    pub subject: Text,
    /// Which event.
    pub item: Item,
    /// The feed's epoch: an answer of another one is ignored.
    pub epoch: u64,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A 2xx.
    Delivered,
    /// Anything else, or nothing.
    Failed {
        /// What the receiver asked for, ms.
        retry_after_ms: Option<i64>,
    },
    /// The log no longer has the event, or it cannot be read: there is nothing to send.
    Lost,
}

/// What becomes of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is delivered.
    Delivered,
    /// It is tried again.
    Retry {
        /// When, ms since the epoch.
        at_ms: i64,
    },
    /// All attempts are used up.
    Exhausted,
    /// There is nothing to send.
    Lost,
    /// The answer came after a replay or a stop: it changes nothing.
    Stale,
}

/// What is kept of a feed besides its lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When the first attempt failed since the last that did not, ms since the epoch.
    pub failing_since_ms: Option<i64>,
    /// When an attempt last succeeded, ms since the epoch.
    pub last_success_ms: Option<i64>,
}

/// One endpoint's way through one partition.
#[derive(Clone, Debug)]
pub struct Feed {
    limits: Limits,
    epoch: u64,
    /// The next offset to be offered.
    next: u64,
    /// Offsets offered, not yet delivered, given up or stored.
    open: BTreeSet<u64>,
    lanes: BTreeMap<Text, Lane>,
    ready: VecDeque<Text>,
    waiting: BTreeSet<(i64, Text)>,
    in_flight: usize,
    stored: usize,
    health: Health,
    failed_in_a_row: u32,
    paused_until_ms: i64,
    probe_at_ms: i64,
    changed: BTreeSet<Text>,
    /// Rows there are: their lanes, with the time their timer is set to.
    rows: BTreeMap<Text, i64>,
}

impl Feed {
    /// A feed that goes on from `next`, with what was kept of it.
    pub fn new(limits: Limits, next: u64, health: Health) -> Self {
        Self {
            limits,
            epoch: 0,
            next,
            open: BTreeSet::new(),
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            in_flight: 0,
            stored: 0,
            health,
            failed_in_a_row: 0,
            paused_until_ms: 0,
            probe_at_ms: 0,
            changed: BTreeSet::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Takes a lane back that was stored.
    pub fn restore(&mut self, subject: Text, stored: StoredLane) {
        self.rows.insert(subject.clone(), stored.next_attempt_ms);
        self.waiting.insert((stored.next_attempt_ms, subject.clone()));
        self.stored += 1;
        self.lanes.insert(subject, Lane::restored(stored));
    }

    /// The next offset to be offered.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Everything before it is delivered, given up, unwanted or stored: where a new life goes on.
    pub fn position(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    /// Whether nothing holds the position back but what was not offered yet.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// What is kept besides lanes and position.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The epoch: it grows with every replay and stop.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Events that are neither delivered nor given up, and not only in the log.
    pub fn pending(&self) -> usize {
        self.lanes.values().map(|it| it.items.len()).sum()
    }

    /// Whether the endpoint counts as out of service.
    pub fn is_out(&self) -> bool {
        self.failed_in_a_row >= self.limits.outage_after
    }

    /// Whether a wanted event would be taken now. While the endpoint is out of service, one that finds out whether it is
    /// back is enough.
    pub fn has_room(&self) -> bool {
        self.open.len() < self.limits.queued_max
            && self.stored < self.limits.stored_lanes_max
            && (!self.is_out() || self.lanes.is_empty())
    }

    /// The event at `offset` comes next; `None`: the endpoint does not want it. `false`: there is no room, and it must be
    /// offered again later.
    pub fn offer(&mut self, offset: u64, subject: Option<&str>) -> bool {
        if offset < self.next {
            return true;
        }
        if let Some(subject) = subject {
            let full = self.lanes.get(subject).is_some_and(|it| it.items.len() >= self.limits.lane_items_max);
            if full || !self.has_room() {
                return false;
            }
            self.push(subject.into(), Item { offset, again: false });
        }
        self.next = offset + 1;
        true
    }

    /// Nothing wanted stands before `offset`.
    pub fn skip_to(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }

    /// Sends an event again, behind what its lane already has. It is stored, so that it is not forgotten.
    pub fn redeliver(&mut self, subject: &Text, offset: u64, now_ms: i64) {
        self.push(subject.clone(), Item { offset, again: true });
        self.store(subject, now_ms);
    }

    fn push(&mut self, subject: Text, item: Item) {
        match self.lanes.get_mut(&subject) {
            Some(lane) => {
                lane.items.push_back(item);
                if lane.stored {
                    self.changed.insert(subject);
                    return;
                }
            }
            None => {
                self.lanes.insert(subject.clone(), Lane::new(item));
                self.ready.push_back(subject);
            }
        }
        if !item.again {
            self.open.insert(item.offset);
        }
    }

    /// The lane becomes a row: the position need not wait for it.
    fn store(&mut self, subject: &Text, next_attempt_ms: i64) {
        let Some(lane) = self.lanes.get_mut(subject) else { return };
        if !lane.stored {
            lane.stored = true;
            self.stored += 1;
            for item in &lane.items {
                self.open.remove(&item.offset);
            }
        }
        lane.next_attempt_ms = next_attempt_ms;
        self.changed.insert(subject.clone());
    }

    /// The next attempt to make now, if any.
    pub fn take(&mut self, now_ms: i64) -> Option<Send> {
        if now_ms < self.paused_until_ms || self.in_flight >= self.limits.in_flight_max {
            return None;
        }
        while let Some((due_ms, _)) = self.waiting.first()
            && *due_ms <= now_ms
            && let Some((_, subject)) = self.waiting.pop_first()
        {
            self.make_ready(subject);
        }
        if self.is_out() {
            if self.in_flight > 0 || now_ms < self.probe_at_ms {
                return None;
            }
            // Whoever waits longest finds out.
            if self.ready.is_empty()
                && let Some((_, subject)) = self.waiting.pop_first()
            {
                self.make_ready(subject);
            }
        }
        let subject = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&subject)?;
        let item = *lane.items.front()?;
        lane.state = LaneState::InFlight;
        self.in_flight += 1;
        Some(Send { subject, item, epoch: self.epoch })
    }

    fn make_ready(&mut self, subject: Text) {
        if let Some(lane) = self.lanes.get_mut(&subject) {
            lane.state = LaneState::Ready;
            self.ready.push_back(subject);
        }
    }

    /// An attempt that was taken is put back unmade: another limit holds it up.
    pub fn untake(&mut self, send: Send) {
        if send.epoch == self.epoch
            && let Some(lane) = self.lanes.get_mut(&send.subject)
        {
            lane.state = LaneState::Ready;
            self.in_flight -= 1;
            self.ready.push_front(send.subject);
        }
    }

    /// When to ask [`Feed::take`] again if nothing else happens, ms since the epoch; `None`: nothing waits.
    pub fn wakes_at_ms(&self) -> Option<i64> {
        if self.is_out() {
            let idle = self.in_flight == 0 && !self.lanes.is_empty();
            return idle.then_some(self.probe_at_ms.max(self.paused_until_ms));
        }
        let due_ms = match self.ready.is_empty() {
            true => self.waiting.first().map(|it| it.0),
            false if self.in_flight < self.limits.in_flight_max => Some(0),
            false => None,
        };
        due_ms.map(|it| it.max(self.paused_until_ms))
    }

    /// An attempt is over. `message_id` is the event's id for this endpoint.
    pub fn answered(
        &mut self,
        send: &Send,
        verdict: Verdict,
        message_id: &str,
        schedule: &Schedule,
        now_ms: i64,
    ) -> Outcome {
        if send.epoch != self.epoch || !self.lanes.contains_key(&send.subject) {
            return Outcome::Stale;
        }
        self.in_flight -= 1;
        match verdict {
            Verdict::Delivered => {
                self.succeeded(now_ms);
                self.done(send, now_ms);
                Outcome::Delivered
            }
            Verdict::Lost => {
                self.done(send, now_ms);
                Outcome::Lost
            }
            Verdict::Failed { retry_after_ms } => {
                self.failed(send, retry_after_ms, message_id, schedule, now_ms)
            }
        }
    }

    fn succeeded(&mut self, now_ms: i64) {
        self.health = Health { failing_since_ms: None, last_success_ms: Some(now_ms) };
        let was_out = self.is_out();
        self.failed_in_a_row = 0;
        if was_out {
            // The waits were the endpoint's, not theirs.
            for (_, subject) in std::mem::take(&mut self.waiting) {
                self.make_ready(subject);
            }
        }
    }

    fn failed(
        &mut self,
        send: &Send,
        retry_after_ms: Option<i64>,
        message_id: &str,
        schedule: &Schedule,
        now_ms: i64,
    ) -> Outcome {
        let probed = self.is_out();
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        self.health.failing_since_ms.get_or_insert(now_ms);
        if let Some(pause_ms) = retry_after_ms {
            let until_ms = now_ms.saturating_add(pause_ms.clamp(0, PAUSE_MAX_MS));
            self.paused_until_ms = self.paused_until_ms.max(until_ms);
        }
        if self.is_out() {
            let probes = self.failed_in_a_row - self.limits.outage_after;
            let wait_ms = PROBE_MS.saturating_mul(1 << probes.min(16)).min(PROBE_MAX_MS);
            self.probe_at_ms = now_ms.saturating_add(wait_ms).max(self.paused_until_ms);
        }
        let Some(lane) = self.lanes.get_mut(&send.subject) else { return Outcome::Stale };
        if !probed {
            lane.failed += 1;
        }
        let wait_ms = match probed {
            true => Some(self.probe_at_ms.saturating_sub(now_ms)),
            false => schedule.wait_ms(message_id, lane.failed, retry_after_ms),
        };
        let Some(wait_ms) = wait_ms else {
            self.done(send, now_ms);
            return Outcome::Exhausted;
        };
        let at_ms = now_ms.saturating_add(wait_ms);
        lane.state = LaneState::Waiting;
        self.waiting.insert((at_ms, send.subject.clone()));
        self.store(&send.subject, at_ms);
        Outcome::Retry { at_ms }
    }

    /// The lane's first event is over: on to the next.
    fn done(&mut self, send: &Send, now_ms: i64) {
        let subject = &send.subject;
        let Some(lane) = self.lanes.get_mut(subject) else { return };
        lane.items.pop_front();
        lane.failed = 0;
        let stored = lane.stored;
        if stored {
            self.changed.insert(subject.clone());
        } else {
            self.open.remove(&send.item.offset);
        }
        if lane.items.is_empty() {
            self.lanes.remove(subject);
            self.stored -= usize::from(stored);
            return;
        }
        lane.state = LaneState::Ready;
        lane.next_attempt_ms = now_ms;
        self.ready.push_back(subject.clone());
    }

    /// Goes back to `next`, so that events from there on are offered again; what is pending before it stays pending.
    pub fn rewind(&mut self, next: u64) {
        self.begin_epoch();
        self.next = self.next.min(next);
        self.open.split_off(&next);
        for (subject, mut lane) in std::mem::take(&mut self.lanes) {
            let pending = lane.items.len();
            let first = lane.items.front().copied();
            lane.items.retain(|it| it.offset < next);
            if lane.stored && lane.items.len() < pending {
                self.changed.insert(subject.clone());
            }
            if lane.items.is_empty() {
                continue;
            }
            if lane.items.front().copied() != first {
                lane.failed = 0;
            }
            lane.state = LaneState::Ready;
            self.stored += usize::from(lane.stored);
            self.ready.push_back(subject.clone());
            self.lanes.insert(subject, lane);
        }
    }

    /// Ends here: nothing is sent any more. What was pending is told: subject and event.
    pub fn stop(&mut self) -> Vec<(Text, Item)> {
        self.begin_epoch();
        self.open.clear();
        let mut dropped = Vec::new();
        for (subject, lane) in std::mem::take(&mut self.lanes) {
            if lane.stored {
                self.changed.insert(subject.clone());
            }
            dropped.extend(lane.items.into_iter().map(|item| (subject.clone(), item)));
        }
        dropped
    }

    /// Answers of attempts under way do not count any more.
    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.ready.clear();
        self.waiting.clear();
        self.in_flight = 0;
        self.stored = 0;
        self.failed_in_a_row = 0;
        self.paused_until_ms = 0;
    }

    /// Forgets that the endpoint ever failed: somebody said that it works again.
    pub fn forgive(&mut self) {
        self.health.failing_since_ms = None;
        self.failed_in_a_row = 0;
        self.probe_at_ms = 0;
    }

    /// The rows that have changed since this was last asked, for the next commit.
    pub fn changes(&mut self) -> Vec<LaneChange> {
        let mut changes = Vec::new();
        for subject in std::mem::take(&mut self.changed) {
            let was_due_ms = self.rows.remove(&subject);
            let row = self.lanes.get(&subject).filter(|it| it.stored).map(Lane::to_stored);
            if let Some(row) = &row {
                self.rows.insert(subject.clone(), row.next_attempt_ms);
            }
            if was_due_ms.is_some() || row.is_some() {
                changes.push(LaneChange { subject, was_due_ms, row });
            }
        }
        changes
    }
}
