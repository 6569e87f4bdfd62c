//! Feeds: stories, and a world of random receivers in which nothing may be lost, doubled in order or overtaken.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tillstream_schemas::Text;
use tillstream_webhooks::feed::{Feed, Health, Limits, Outcome, Send, Verdict};
use tillstream_webhooks::{Schedule, StoredLane};

const FAILED: Verdict = Verdict::Failed { retry_after_ms: None };

fn feed() -> Feed {
    Feed::new(Limits::default(), 0, Health::default())
}

fn schedule() -> Schedule {
    Schedule::new(vec![1_000, 10_000, 100_000]).unwrap()
}

fn answer(feed: &mut Feed, send: &Send, verdict: Verdict, now_ms: i64) -> Outcome {
    feed.answered(send, verdict, "msg_1", &schedule(), now_ms)
}

#[test]
fn a_later_event_of_an_order_waits_and_other_orders_do_not() {
    let mut feed = feed();
    for (offset, subject) in [(0, "a"), (1, "a"), (2, "b")] {
        assert!(feed.offer(offset, Some(subject)));
    }
    let first = feed.take(0).unwrap();
    let other = feed.take(0).unwrap();
    assert_eq!((first.subject.as_str(), other.subject.as_str()), ("a", "b"));
    assert_eq!(feed.take(0), None);
    assert!(matches!(answer(&mut feed, &first, FAILED, 0), Outcome::Retry { .. }));
    assert_eq!(answer(&mut feed, &other, Verdict::Delivered, 0), Outcome::Delivered);
    assert_eq!(feed.take(0), None);
    // The failed lane is stored, so the position has moved on.
    assert_eq!(feed.position(), 3);
    let again = feed.take(2_000).unwrap();
    assert_eq!(again.item.offset, 0);
    answer(&mut feed, &again, Verdict::Delivered, 2_000);
    assert_eq!(feed.take(2_000).unwrap().item.offset, 1);
}

#[test]
fn the_position_waits_for_what_is_in_memory_alone() {
    let mut feed = feed();
    for offset in 0..3 {
        assert!(feed.offer(offset, Some(if offset == 0 { "a" } else { "b" })));
    }
    let first = feed.take(0).unwrap();
    let second = feed.take(0).unwrap();
    answer(&mut feed, &second, Verdict::Delivered, 0);
    assert_eq!(feed.position(), 0);
    answer(&mut feed, &first, Verdict::Delivered, 0);
    assert_eq!(feed.position(), 2);
    assert!(feed.changes().is_empty());
}

#[test]
fn a_delivery_is_given_up_after_its_schedule_and_the_next_begins_anew() {
    let mut feed = Feed::new(Limits { outage_after: 100, ..Limits::default() }, 0, Health::default());
    feed.offer(0, Some("a"));
    feed.offer(1, Some("a"));
    let mut now_ms = 0;
    for attempt in 1..=4 {
        let send = feed.take(now_ms).unwrap();
        assert_eq!(send.item.offset, 0);
        match answer(&mut feed, &send, FAILED, now_ms) {
            Outcome::Retry { at_ms } => now_ms = at_ms,
            Outcome::Exhausted => assert_eq!(attempt, 4),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(feed.take(now_ms).unwrap().item.offset, 1);
    let row = feed.changes().pop().unwrap().row.unwrap();
    assert_eq!((row.failed, row.items.len()), (0, 1));
}

#[test]
fn an_endpoint_out_of_service_is_probed_and_uses_nothing_up() {
    let limits = Limits { outage_after: 2, ..Limits::default() };
    let mut feed = Feed::new(limits, 0, Health::default());
    for offset in 0..6 {
        feed.offer(offset, Some(&format!("s{offset}")));
    }
    for _ in 0..2 {
        let send = feed.take(0).unwrap();
        answer(&mut feed, &send, FAILED, 0);
    }
    assert!(feed.is_out());
    assert!(!feed.has_room());
    assert!(!feed.offer(6, Some("s6")), "what is wanted waits in the log");
    assert_eq!(feed.take(0), None, "one attempt at a time, later");
    let mut now_ms;
    for _ in 0..20 {
        now_ms = feed.wakes_at_ms().unwrap();
        let probe = feed.take(now_ms).unwrap();
        assert_eq!(feed.take(now_ms), None);
        assert!(matches!(answer(&mut feed, &probe, FAILED, now_ms), Outcome::Retry { .. }));
    }
    assert_eq!(feed.health().failing_since_ms, Some(0));
    now_ms = feed.wakes_at_ms().unwrap();
    let probe = feed.take(now_ms).unwrap();
    assert_eq!(answer(&mut feed, &probe, Verdict::Delivered, now_ms), Outcome::Delivered);
    assert_eq!(feed.health(), Health { failing_since_ms: None, last_success_ms: Some(now_ms) });
    let mut sent = BTreeSet::from([probe.item.offset]);
    while let Some(send) = feed.take(now_ms) {
        sent.insert(send.item.offset);
    }
    assert_eq!(sent, (0..6).collect(), "everything goes on at once");
}

#[test]
fn an_endpoint_that_went_out_with_its_last_attempt_is_still_probed() {
    let once = Schedule::new(Vec::new()).unwrap();
    let mut feed = Feed::new(Limits { outage_after: 1, ..Limits::default() }, 0, Health::default());
    feed.offer(0, Some("a"));
    let send = feed.take(0).unwrap();
    assert_eq!(feed.answered(&send, FAILED, "msg_1", &once, 0), Outcome::Exhausted);
    assert!(feed.is_out() && feed.offer(1, Some("a")) && !feed.offer(2, Some("b")));
    let probe = feed.take(feed.wakes_at_ms().unwrap()).unwrap();
    assert_eq!(probe.item.offset, 1);
}

#[test]
fn a_receiver_may_ask_for_time() {
    let mut feed = feed();
    feed.offer(0, Some("a"));
    feed.offer(1, Some("b"));
    let send = feed.take(0).unwrap();
    answer(&mut feed, &send, Verdict::Failed { retry_after_ms: Some(60_000) }, 0);
    assert_eq!(feed.take(59_999), None);
    assert_eq!(feed.wakes_at_ms(), Some(60_000));
    assert!(feed.take(60_000).is_some());
}

#[test]
fn a_replay_sends_again_and_forgets_nothing_that_was_pending_before() {
    let mut feed = feed();
    for (offset, subject) in [(0, "a"), (1, "b"), (2, "a"), (3, "c")] {
        feed.offer(offset, Some(subject));
    }
    let first = feed.take(0).unwrap();
    answer(&mut feed, &first, FAILED, 0);
    let under_way = feed.take(0).unwrap();
    feed.rewind(2);
    assert_eq!(answer(&mut feed, &under_way, Verdict::Delivered, 0), Outcome::Stale);
    assert_eq!(feed.next(), 2);
    feed.offer(2, Some("a"));
    feed.offer(3, Some("c"));
    let mut sent = BTreeMap::<Text, Vec<u64>>::new();
    while let Some(send) = feed.take(0) {
        sent.entry(send.subject.clone()).or_default().push(send.item.offset);
        answer(&mut feed, &send, Verdict::Delivered, 0);
    }
    assert_eq!(sent["a"], [0, 2]);
    assert_eq!(sent["b"], [1]);
    assert_eq!(sent["c"], [3]);
}

#[test]
fn a_stop_tells_what_it_gives_up() {
    let mut feed = feed();
    feed.offer(0, Some("a"));
    feed.offer(1, Some("b"));
    let send = feed.take(0).unwrap();
    answer(&mut feed, &send, FAILED, 0);
    assert_eq!(feed.changes().len(), 1);
    let dropped: Vec<u64> = feed.stop().into_iter().map(|it| it.1.offset).collect();
    assert_eq!(dropped, [0, 1]);
    assert_eq!(feed.position(), 2);
    let gone = feed.changes();
    assert!(gone.len() == 1 && gone[0].row.is_none() && gone[0].was_due_ms.is_some());
}

/// What survives a crash: the position and the rows.
#[derive(Clone, Default)]
struct Disk {
    position: u64,
    rows: BTreeMap<Text, StoredLane>,
}

/// A feed, its disk, and what the receiver has seen.
struct World {
    feed: Feed,
    disk: Disk,
    limits: Limits,
    /// Subject per offset.
    log: Vec<u8>,
    under_way: Vec<Send>,
    now_ms: i64,
    /// Offsets per subject, as they were sent.
    sent: BTreeMap<Text, Vec<u64>>,
    over: BTreeSet<u64>,
}

impl World {
    fn offer(&mut self) {
        while (self.feed.next() as usize) < self.log.len() {
            let offset = self.feed.next();
            let subject = format!("s{}", self.log[offset as usize]);
            if !self.feed.offer(offset, Some(&subject)) {
                break;
            }
        }
    }

    fn commit(&mut self) {
        for change in self.feed.changes() {
            match change.row {
                Some(row) => self.disk.rows.insert(change.subject, row),
                None => self.disk.rows.remove(&change.subject),
            };
        }
        self.disk.position = self.feed.position();
        let stored = self.disk.rows.values().flat_map(|it| &it.items).map(|it| it.offset);
        let stored: BTreeSet<u64> = stored.collect();
        let known = |it: &u64| self.over.contains(it) || stored.contains(it);
        assert!((0..self.disk.position).all(|it| known(&it)), "something is forgotten");
    }

    fn crash(&mut self) {
        self.under_way.clear();
        self.feed = Feed::new(self.limits, self.disk.position, Health::default());
        for (subject, row) in &self.disk.rows {
            self.feed.restore(subject.clone(), row.clone());
        }
    }

    fn step(&mut self, choice: u8, ok: bool) {
        match choice % 8 {
            0 => self.commit(),
            1 if !ok => self.crash(),
            2 => self.now_ms = self.feed.wakes_at_ms().unwrap_or(0).max(self.now_ms),
            3 | 4 => self.offer(),
            5 if !self.under_way.is_empty() => {
                let send = self.under_way.remove(usize::from(choice) % self.under_way.len());
                let verdict = if ok { Verdict::Delivered } else { FAILED };
                match answer(&mut self.feed, &send, verdict, self.now_ms) {
                    Outcome::Delivered | Outcome::Exhausted => {
                        self.over.insert(send.item.offset);
                    }
                    _ => {}
                }
            }
            _ => {
                if let Some(send) = self.feed.take(self.now_ms) {
                    let lane = self.sent.entry(send.subject.clone()).or_default();
                    lane.push(send.item.offset);
                    self.under_way.push(send);
                }
            }
        }
    }

    /// The receiver is well from here on.
    fn finish(&mut self) {
        for _ in 0..20_000 {
            self.offer();
            for send in std::mem::take(&mut self.under_way) {
                answer(&mut self.feed, &send, Verdict::Delivered, self.now_ms);
                self.over.insert(send.item.offset);
            }
            while let Some(send) = self.feed.take(self.now_ms) {
                self.sent.entry(send.subject.clone()).or_default().push(send.item.offset);
                self.under_way.push(send);
            }
            if self.under_way.is_empty() {
                match self.feed.wakes_at_ms() {
                    Some(at_ms) => self.now_ms = self.now_ms.max(at_ms),
                    None if self.feed.next() as usize == self.log.len() => return,
                    None => {}
                }
            }
        }
        panic!("it never ends");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_event_is_delivered_or_given_up_and_never_before_its_predecessor(
        log in prop::collection::vec(0u8..6, 1..60),
        steps in prop::collection::vec((any::<u8>(), any::<bool>()), 0..400),
        outage_after in 1u32..8, queued_max in 1usize..8, stored_lanes_max in 1usize..4,
    ) {
        let limits = Limits { outage_after, queued_max, stored_lanes_max, in_flight_max: 3, lane_items_max: 3 };
        let mut world = World {
            feed: Feed::new(limits, 0, Health::default()),
            disk: Disk::default(),
            limits,
            log,
            under_way: Vec::new(),
            now_ms: 0,
            sent: BTreeMap::new(),
            over: BTreeSet::new(),
        };
        for (choice, ok) in steps {
            world.step(choice, ok);
        }
        world.finish();
        prop_assert_eq!(&world.over, &(0..world.log.len() as u64).collect::<BTreeSet<_>>());
        for (subject, offsets) in &world.sent {
            // First attempts come in the log's order: whoever is new has no unsent predecessor.
            let mine: Vec<u64> = (0..world.log.len() as u64)
                .filter(|it| format!("s{}", world.log[*it as usize]) == subject.as_str())
                .collect();
            let mut firsts = Vec::new();
            for offset in offsets {
                if !firsts.contains(offset) {
                    firsts.push(*offset);
                }
            }
            prop_assert_eq!(&firsts, &mine, "{}", subject);
        }
    }
}
