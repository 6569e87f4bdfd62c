//! Random histories: kills, pauses, lost partitions, stray aborts, unknown commits, crashes of the database. Whatever
//! happens, every command is done once and in order, every timer fires once, and tables, changelog and model are equal.

use crate::support::toy::Counted;
use crate::support::*;
use std::collections::BTreeMap;
use tillstream_log::broker::BrokerError;
use tillstream_random::Random;
use tillstream_schemas::Topic;
use tillstream_simulation::broker::{Call, CommitFate, Effect, Hold, Notice, Seen};
use tillstream_simulation::rows::{Loss, RowCall, WriteFault};
use tillstream_simulation::{RowSettings, SimRows};
use tillstream_stage::partition::partition_of;

const PARTITIONS: u32 = 2;
const STEPS: usize = 24;
const SEEDS: u64 = 200;

struct History {
    seed: u64,
    world: World,
    random: Random,
    processes: Vec<Process>,
    started: usize,
    /// The commands of each partition, in order.
    sent: BTreeMap<u32, Vec<String>>,
    number: usize,
}

fn world(seed: u64) -> World {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut world = World::with(PARTITIONS, seed, |it| {
        it.latency_max = millis(4);
        it.markers_lag_max = millis(20);
        it.replay_records_max = 3;
    });
    let mut rows = RowSettings::new(PARTITIONS, seed, world.clock.clone());
    rows.sync_period = seconds(2);
    world.rows = SimRows::new(rows);
    world.settings.durable_after = seconds(4);
    world.settings.flush_rows_max = 1 + random.below(4);
    world.settings.unflushed_bytes_max = 500 + random.below(4_000);
    world.settings.known_keys_max = if random.percent(80) { 1_000 } else { 0 };
    world.tasks.records_max = 1 + random.below(6);
    world.tasks.cache_bytes_max = random.below(2_000);
    world
}

impl History {
    fn new(seed: u64) -> Self {
        let (processes, sent) = (Vec::new(), BTreeMap::new());
        Self { seed, world: world(seed), random: Random::new(seed), processes, started: 0, sent, number: 0 }
    }

    async fn start(&mut self) {
        self.started += 1;
        let name = format!("p{}", self.started);
        // It cannot start while the database is away.
        if let Ok(process) = Process::join(&self.world, &name).await {
            process.work(&self.world);
            self.processes.push(process);
        }
    }

    fn send(&mut self) {
        let key = format!("t/k{}", self.random.below(6));
        self.number += 1;
        let (op, argument) = match self.random.below(8) {
            0 | 1 => ("set", self.random.below(20_000) + 1),
            2 => ("clear", 0),
            _ => ("add", self.random.below(9) + 1),
        };
        let text = format!("{key} {op} {argument} {}", self.number);
        self.world.send(&text);
        self.sent.entry(partition_of(key.as_bytes(), PARTITIONS)).or_default().push(text);
    }

    fn any(&mut self) -> Option<usize> {
        (!self.processes.is_empty()).then(|| self.random.below(self.processes.len()))
    }

    async fn trouble(&mut self) {
        let (broker, rows) = (self.world.broker.faults(), self.world.rows.faults());
        let id = format!("test.order.{}", self.random.below(PARTITIONS as usize));
        let Some(one) = self.any() else { return };
        let errors = [
            BrokerError::Abortable("as asked".into()),
            BrokerError::Unknown("as asked".into()),
            BrokerError::Unavailable("as asked".into()),
        ];
        let error = errors[self.random.below(3)].clone();
        match self.random.below(15) {
            0 => self.processes.swap_remove(one).kill(),
            1 => broker.pause(&self.processes[one].name),
            2 => broker.resume(&self.processes[one].name),
            3 => {
                let members = self.world.broker.members(GROUP);
                if !members.is_empty() {
                    let member = members[self.random.below(members.len())].member;
                    broker.expel(member, if self.random.percent(50) { Notice::Now } else { Notice::Later });
                    self.world.pass(millis(self.random.next_u64() % 3_000)).await;
                    broker.tell(member);
                }
            }
            4 => drop(broker.abort(&id)),
            5 | 6 => {
                let fates = [CommitFate::Happened, CommitFate::NeverArrived, CommitFate::ArrivesLater];
                broker.unknown_commit("", fates[self.random.below(3)]);
            }
            7 => drop(broker.arrive_late_commits()),
            8 => {
                let calls =
                    [Call::Drain, Call::SendOffset, Call::Deliver, Call::Init, Call::Replay, Call::FetchFrom];
                let call = calls[self.random.below(calls.len())];
                broker.fail(
                    call,
                    "",
                    if self.random.percent(50) { Effect::None } else { Effect::Full },
                    error,
                );
            }
            9 => broker.hold_markers("", Hold::For(millis(500))),
            10 => rows.crash(if self.random.percent(50) { Loss::All } else { Loss::BySeed }),
            11 => rows.set_available(self.random.percent(60)),
            12 => {
                let faults = [WriteFault::Nothing, WriteFault::Part, WriteFault::All, WriteFault::Late];
                let calls = [RowCall::Write, RowCall::Write, RowCall::PutCheckpoint, RowCall::PutFlushed];
                rows.fail(calls[self.random.below(4)], faults[self.random.below(4)]);
            }
            13 => drop(rows.arrive_late_writes()),
            _ => self.world.broker.faults().compact(Topic::OrderChangelog, false),
        }
    }

    async fn heal(&mut self) {
        let (broker, rows) = (self.world.broker.faults(), self.world.rows.faults());
        for process in &self.processes {
            broker.resume(&process.name);
        }
        broker.forget();
        broker.arrive_late_commits();
        broker.release_markers();
        rows.set_available(true);
        rows.arrive_late_writes();
        self.start().await;
        self.world.pass(seconds(90)).await;
    }

    /// Goes through the events of a partition with a model that does the same one by one.
    fn check_events(&self, partition: u32, model: &mut BTreeMap<String, Counted>) {
        let at = format!("seed {}, partition {partition}", self.seed);
        let mut commands = self.sent.get(&partition).into_iter().flatten();
        let events = tillstream_log::TopicPartition::new(Topic::OrderEvents, partition);
        for event in self.world.broker.records(events, Seen::Committed) {
            let text = String::from_utf8(event.value.unwrap().to_vec()).unwrap();
            let (head, told) = text.split_once(" -> ").unwrap();
            let told = Counted::parse(told);
            let words: Vec<&str> = head.split(' ').collect();
            let counted = model.entry(words[0].to_owned()).or_default();
            if words[1] == "fired" {
                assert_eq!(words[2], counted.due_ms.to_string(), "{at}: {text}");
                (counted.fired, counted.due_ms) = (counted.fired + 1, 0);
            } else {
                assert_eq!(
                    commands.next().map(String::as_str),
                    Some(head),
                    "{at}: every command once, in order"
                );
                match words[1] {
                    "add" => counted.sum += words[2].parse::<i64>().unwrap(),
                    "set" => counted.due_ms = told.due_ms,
                    _ => counted.due_ms = 0,
                }
            }
            assert_eq!(*counted, told, "{at}: {text}");
        }
        assert_eq!(commands.next(), None, "{at}: not done");
    }

    async fn check(&self) {
        let seed = self.seed;
        for process in &self.processes {
            assert!(process.ended.lock().is_empty(), "seed {seed}: {:?}", process.ended.lock());
        }
        let mut model = BTreeMap::new();
        for partition in 0..PARTITIONS {
            self.check_events(partition, &mut model);
            let verified = self.world.verified(self.processes.last().unwrap(), partition).await;
            assert_eq!(
                (verified.different, verified.unflushed),
                (0, 0),
                "seed {seed}: {:?}",
                verified.differences
            );
        }
        for (key, counted) in &model {
            assert_eq!(counted.due_ms, 0, "seed {seed}: the timer of {key} has not fired");
            assert_eq!(self.world.stored(key), Some(counted.to_string()), "seed {seed}: {key}");
        }
        assert_eq!(self.world.rows.rows().len(), model.len(), "seed {seed}");
        assert!(self.world.rows.all_timers().is_empty(), "seed {seed}: {:?}", self.world.rows.all_timers());
    }
}

/// Runs a history; tells a hash of what happened, and how many lives it took.
async fn history(seed: u64) -> (u64, u64) {
    let mut history = History::new(seed);
    history.start().await;
    for _ in 0..STEPS {
        for _ in 0..history.random.below(4) {
            history.send();
        }
        if history.random.percent(60) {
            history.trouble().await;
        }
        if history.processes.is_empty() || (history.processes.len() < 3 && history.random.percent(15)) {
            history.start().await;
        }
        let wait = [10, 100, 1_000, 6_000][history.random.below(4)];
        history.world.pass(millis(history.random.next_u64() % wait)).await;
    }
    history.heal().await;
    history.check().await;
    let lives = |it: &Process| it.ports.metrics.lives.with_label_values(&["order"]).get();
    let lives = history.processes.iter().map(lives).sum();
    let trace = history.world.broker.trace_hash();
    history.processes.iter().for_each(Process::kill);
    (trace, lives)
}

fn run(seed: u64) -> (u64, u64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(history(seed))
}

fn run_many(seeds: impl Iterator<Item = u64>) {
    let (mut lives, mut histories) = (0, 0);
    for seed in seeds {
        lives += run(seed).1;
        histories += 1;
    }
    assert!(lives > histories * 4, "too little has happened: {lives} lives in {histories} histories");
}

#[test]
fn random_histories_do_every_command_once_and_leave_tables_changelog_and_model_equal() {
    run_many(0..SEEDS / 2);
}

#[test]
fn more_random_histories() {
    let seeds = std::env::var("TILLSTREAM_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(SEEDS);
    run_many(SEEDS / 2..seeds);
}

#[test]
fn the_seed_decides_everything() {
    for seed in [3, 4] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
