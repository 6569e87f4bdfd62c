//! The pipeline in one process on the embedded store: the real tasks, the real runtime and the real store on a disk that
//! tears writes, forgets what was not synced, is full, or fails; the process dies at any call that changes a file, and
//! starts again.

mod books;
mod disk;
mod process;
mod reading;

use crate::client::Clients;
use crate::course::Course;
use crate::history::{Outcome, START_AGAIN, STOP_MAX};
use crate::house::{Outside, PARTITIONS};
use crate::oracle::{Checked, Seen, Violation, expect, judge};
use crate::plan::{Action, Fault, Plan, Power, Step};
use crate::provider::Trouble;
use books::Books;
use disk::{SimDisk, Strike};
use parking_lot::Mutex;
use process::{Door, Process, RESERVE_BYTES, StartError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tillstream_embedded::EmbeddedStore;
use tillstream_log::{Log, Record, TopicPartition};
use tillstream_simulation::disk::{Disk, Left};
use xxhash_rust::xxh3::Xxh3;

/// A process whose disk failed ends by itself within so long.
const ENDS_WITHIN_NS: u64 = 10_000_000_000;

/// One history in so many begins without a store: it is made while things go wrong. Four seeds in a row are alike, for in
/// an ordinary search each fourth seed runs here.
const MADE_ANEW_EVERY: u64 = 8;

/// How the process is to end, and what becomes of its disk.
#[derive(Clone, Copy, Debug)]
struct Doom {
    power: Power,
    down_ms: u32,
    /// It must end by itself, and not later, ns.
    by_itself_ns: Option<u64>,
}

/// A history under way.
struct Alone {
    house: Outside,
    disk: SimDisk,
    free_bytes: Arc<AtomicU64>,
    books: Arc<Mutex<Books>>,
    door: Arc<Door>,
    clients: Clients,
    process: Option<Process>,
    seen: Seen,
    places: BTreeMap<TopicPartition, u64>,
    /// A hash of what was read of each partition.
    read: BTreeMap<TopicPartition, Xxh3>,
    letters: BTreeMap<TopicPartition, Vec<Record>>,
    /// When the process starts again, ns.
    start_ns: Option<u64>,
    doom: Option<Doom>,
    /// When there is space again, ns.
    space_ns: Option<u64>,
    outcome: Outcome,
    tracing: bool,
}

/// A disk with a store on it that was made, closed, and opened again, as that of a server that runs for the second time.
fn furnished() -> Result<&'static Disk, Violation> {
    static MADE: OnceLock<Result<Disk, String>> = OnceLock::new();
    let make = || -> Result<Disk, String> {
        let disk = SimDisk::with(&Disk::default()).map_err(|it| it.to_string())?;
        for _ in 0..2 {
            let settings = tillstream_embedded::EmbeddedSettings {
                partitions: PARTITIONS,
                retention_every_ms: 0,
                ..tillstream_embedded::EmbeddedSettings::new(disk.root())
            };
            drop(EmbeddedStore::open(settings).map_err(|it| it.to_string())?);
        }
        disk.loaded().map_err(|it| it.to_string())
    };
    MADE.get_or_init(make).as_ref().map_err(|it| Violation(it.clone()))
}

fn io(error: std::io::Error) -> Violation {
    Violation(format!("the simulated disk: {error}"))
}

/// Runs a plan to its end.
pub(crate) async fn live(plan: &Plan, tracing: bool) -> Outcome {
    let made = if (plan.seed / 4).is_multiple_of(MADE_ANEW_EVERY) {
        Ok(Disk::default())
    } else {
        furnished().cloned()
    };
    let disk = made.and_then(|model| SimDisk::with(&model).map_err(io));
    let disk = match disk {
        Ok(disk) => disk,
        Err(error) => return Outcome { violation: Some(error.0), ..Outcome::default() },
    };
    let door = Arc::new(Door::default());
    let mut history = Alone {
        house: Outside::new(plan.tuning.clone()),
        disk,
        free_bytes: Arc::new(AtomicU64::new(u64::MAX)),
        books: Arc::default(),
        clients: Clients::new(door.clone()),
        door,
        process: None,
        seen: Seen::new(),
        places: BTreeMap::new(),
        read: BTreeMap::new(),
        letters: BTreeMap::new(),
        start_ns: Some(0),
        doom: None,
        space_ns: None,
        outcome: Outcome::default(),
        tracing,
    };
    let lived = history.all(plan).await;
    history.house.provider.heal();
    history.disk.kill().ok();
    if let Some(process) = history.process.take() {
        history.door.lead_to(None);
        process.kill().await;
    }
    history.disk.follow().ok();
    let mut outcome = history.outcome;
    outcome.violation = lived.err().map(|it| it.0);
    outcome.struck[2] += history.house.provider.counts().0;
    outcome.hash = history.seen.hash() ^ history.disk.hash().rotate_left(1);
    outcome.records = history.seen.count;
    outcome.file_changes = history.disk.changes();
    outcome.simulated_ms = history.house.now_ns() / 1_000_000;
    outcome
}

impl Alone {
    async fn all(&mut self, plan: &Plan) -> Checked {
        self.take_steps(plan).await?;
        self.rest().await?;
        judge(&self.house, &self.seen)?;
        self.reread().await?;
        // Once more without power: whatever was said to be there stays.
        self.fall(Power::Nothing, 0).await?;
        self.start().await?;
        expect(self.process.is_some(), || "the store does not open again".to_owned())?;
        self.reread().await
    }

    async fn start(&mut self) -> Checked {
        self.start_ns = None;
        let (house, root) = (&self.house, self.disk.root().to_owned());
        match Process::start(house, &root, &self.free_bytes, &self.books).await {
            Ok(process) => {
                self.tell(|| "the process runs".to_owned());
                self.door.lead_to(Some(process.witness.clone()));
                self.process = Some(process);
                self.has_all_that_was_read()
            }
            Err(StartError::Held(violation)) => Err(violation),
            Err(error) => {
                let struck = self.disk.follow().map_err(io)?;
                self.outcome.struck[1] += u64::from(struck);
                let excused = struck || self.space_ns.is_some();
                expect(excused, || error.to_string())?;
                self.tell(|| format!("the process cannot start: {error}"));
                let doom = self.doom.take().filter(|_| struck);
                let doom = doom.unwrap_or(Doom { power: Power::Stays, down_ms: 300, by_itself_ns: None });
                self.fall(doom.power, doom.down_ms).await
            }
        }
    }

    /// What was read was durable.
    fn has_all_that_was_read(&self) -> Checked {
        let Some(process) = &self.process else { return Ok(()) };
        for (at, place) in &self.places {
            let end = process.witness.end_offset(*at).unwrap_or(0);
            expect(end >= *place, || format!("{at} ends at {end}, and was read up to {place} before"))?;
        }
        Ok(())
    }

    /// The process is gone, and comes back later.
    async fn fall(&mut self, power: Power, down_ms: u32) -> Checked {
        self.disk.kill().map_err(io)?;
        self.doom = None;
        self.door.lead_to(None);
        if let Some(process) = self.process.take() {
            let gone = process.kill().await;
            expect(gone, || "something holds the store of a process that is gone".to_owned())?;
            self.outcome.struck[3] += 1;
        }
        self.outcome.struck[1] += u64::from(self.disk.follow().map_err(io)?);
        let left = match power {
            Power::Stays => None,
            Power::Nothing => Some(Left::Nothing),
            Power::Torn(seed) => Some(Left::Torn(u64::from(seed))),
        };
        self.disk.revive(left).map_err(io)?;
        let down_ns = u64::from(down_ms) * 1_000_000;
        self.seen.stood_still_ns += down_ns + START_AGAIN.as_nanos() as u64;
        self.start_ns = Some(self.house.now_ns() + down_ns);
        self.tell(|| format!("the process is gone for {down_ms} ms; its disk: {power:?}"));
        Ok(())
    }

    /// Notices what the disk did, and processes that ended.
    async fn attend(&mut self) -> Checked {
        let struck = self.disk.follow().map_err(io)?;
        self.outcome.struck[1] += u64::from(struck);
        let now_ns = self.house.now_ns();
        if struck && let Some(doom) = &mut self.doom {
            if doom.by_itself_ns.is_none() {
                let Doom { power, down_ms, .. } = *doom;
                return self.fall(power, down_ms).await;
            }
            doom.by_itself_ns = Some(now_ns + ENDS_WITHIN_NS);
        }
        let halted = self.process.as_ref().and_then(Process::halted);
        if let Some(reason) = halted {
            self.tell(|| format!("the process has ended: {reason}"));
            let doomed = self.doom.filter(|it| it.by_itself_ns.is_some_and(|by| by != u64::MAX));
            expect(doomed.is_some() || self.space_ns.is_some(), || {
                format!("the process has ended: {reason}")
            })?;
            let doom = doomed.unwrap_or(Doom { power: Power::Stays, down_ms: 200, by_itself_ns: None });
            return self.fall(doom.power, doom.down_ms).await;
        }
        let late = self.doom.and_then(|it| it.by_itself_ns).is_some_and(|by| by < now_ns);
        expect(!late, || "a sync failed, and the process goes on".to_owned())
    }

    async fn fault(&mut self, fault: &Fault) -> Checked {
        match *fault {
            Fault::Cut { calls: None, power, down_ms, .. } if self.process.is_some() => {
                self.fall(power, down_ms).await?;
            }
            Fault::Cut { calls: Some(calls), point, power, down_ms } => {
                let strike = [Strike::Before, Strike::Within, Strike::After][usize::from(point) % 3];
                self.disk.arm(strike, calls).map_err(io)?;
                self.doom = Some(Doom { power, down_ms, by_itself_ns: None });
            }
            Fault::SyncFails { syncs, power, down_ms } => {
                self.disk.arm(Strike::Sync, syncs).map_err(io)?;
                self.doom = Some(Doom { power, down_ms, by_itself_ns: Some(u64::MAX) });
            }
            Fault::Full { calls, for_ms } if self.doom.is_none() => {
                self.disk.arm(Strike::Full, calls).map_err(io)?;
                self.out_of_space(for_ms);
            }
            Fault::Scarce { percent, for_ms } if self.doom.is_none() => {
                self.free_bytes.store(RESERVE_BYTES * u64::from(percent) / 100, Ordering::Relaxed);
                self.out_of_space(for_ms);
            }
            Fault::Stop { down_ms, .. } => self.stop(down_ms).await?,
            Fault::ClockJump { by_ms } => self.house.clock.jump_ms(by_ms),
            Fault::Provider { kind, calls } => {
                let troubles =
                    [Trouble::Unavailable, Trouble::ReplyLost, Trouble::RequestLost, Trouble::Slow];
                self.house.provider.trouble(troubles[usize::from(kind) % 4], calls);
            }
            // Of a cluster; and one fault of the disk at a time.
            _ => {}
        }
        Ok(())
    }

    fn out_of_space(&mut self, for_ms: u32) {
        let lasts_ns = u64::from(for_ms) * 1_000_000;
        self.seen.stood_still_ns += lasts_ns;
        self.space_ns = Some(self.house.now_ns() + lasts_ns);
    }

    /// What was closed is there without power, too.
    async fn stop(&mut self, down_ms: u32) -> Checked {
        let Some(process) = self.process.take() else { return Ok(()) };
        let troubled = self.doom.is_some() || self.space_ns.is_some();
        let closed = process.stop(&self.house, STOP_MAX).await;
        self.process = Some(process);
        let struck = self.disk.follow().map_err(io)?;
        self.outcome.struck[1] += u64::from(struck);
        expect(closed || troubled, || "the process does not stop".to_owned())?;
        let doom = self.doom.filter(|_| struck);
        let power =
            doom.map_or(if down_ms.is_multiple_of(2) { Power::Nothing } else { Power::Stays }, |it| it.power);
        self.fall(power, down_ms).await
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) -> Checked {
        self.disk.calm().map_err(io)?;
        // What has struck already is noticed still.
        self.space_ns = self.space_ns.map(|_| 0);
        self.house.provider.heal();
        self.tell(|| "nothing goes wrong any more".to_owned());
        Ok(())
    }

    async fn rest(&mut self) -> Checked {
        self.attend().await?;
        self.heal()?;
        if self.doom.is_some_and(|it| it.by_itself_ns.is_none_or(|by| by == u64::MAX)) {
            self.doom = None;
        }
        self.come_to_rest().await
    }
}

impl Course for Alone {
    fn outside(&self) -> &Outside {
        &self.house
    }

    fn seen(&mut self) -> &mut Seen {
        &mut self.seen
    }

    fn listener(&mut self) -> Option<&mut Vec<String>> {
        self.tracing.then_some(&mut self.outcome.trace)
    }

    async fn until(&mut self, deadline_ns: u64) -> Checked {
        loop {
            self.attend().await?;
            let now_ns = self.house.now_ns();
            if self.space_ns.is_some_and(|it| it <= now_ns) {
                self.space_ns = None;
                self.free_bytes.store(u64::MAX, Ordering::Relaxed);
                self.disk.calm().map_err(io)?;
                self.tell(|| "there is space again".to_owned());
            }
            if self.start_ns.is_some_and(|it| it <= now_ns) {
                self.start().await?;
                continue;
            }
            if now_ns >= deadline_ns {
                return Ok(());
            }
            let due = [self.start_ns, self.space_ns].into_iter().flatten().min();
            let next_ns = due.map_or(deadline_ns, |it| it.clamp(now_ns + 1, deadline_ns));
            // Deaths are noticed soon.
            let step_ns = if self.doom.is_some() { 10_000_000 } else { 200_000_000 };
            self.house.pass(Duration::from_nanos((next_ns - now_ns).clamp(1, step_ns))).await;
        }
    }

    async fn step(&mut self, step: &Step) -> Checked {
        self.tell(|| step.to_string());
        match &step.action {
            Action::Client(it) => {
                let letters = |at| self.letters.get(&at).cloned().unwrap_or_default();
                self.clients.act(&self.house, step.number, it, &letters);
            }
            Action::Fault(it) => self.fault(it).await?,
            Action::Operator(_) => {}
        }
        self.look().await
    }

    async fn look(&mut self) -> Checked {
        self.read_on().await
    }

    fn unfinished(&self) -> String {
        let Some(process) = &self.process else { return "no process runs".to_owned() };
        if !self.clients.is_idle() {
            return "clients wait".to_owned();
        }
        for task in process::tasks() {
            let at = TopicPartition::new(task.kind.input(), task.partition);
            let (offset, end) =
                (process.witness.store.committed_now(task), process.witness.end_offset(at).unwrap_or(0));
            if offset != end {
                return format!("{task} stands at {offset} of {end}");
            }
        }
        String::new()
    }
}
