//! A plan as it happens: steps, what undoes faults, processes that come back, and the peace at the end.

use crate::client::Clients;
use crate::course::Course;
use crate::embedded;
use crate::faults::{self, Undo};
use crate::house::{House, Outside, PARTITIONS};
use crate::oracle::{Checked, Seen, judge, tables};
use crate::plan::{Action, Fault, Plan, Step};
use crate::process::Process;
use crate::workload::WORKERS;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{Record, TopicPartition};
use tillstream_simulation::broker::StoredRecord;
use tillstream_simulation::rows::RowsSnapshot;
use tillstream_state::TaskId;

/// How long everything may take to come to rest once nothing goes wrong any more, simulated.
pub(crate) const REST_MAX: Duration = Duration::from_secs(300);
/// A process that could not start tries again after so long.
pub(crate) const START_AGAIN: Duration = Duration::from_millis(300);
/// How long a process may take to stop.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(20);

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What did not hold.
    pub violation: Option<String>,
    /// A hash of everything that was committed and of every call: equal for equal histories.
    pub hash: u64,
    /// Records committed.
    pub records: u64,
    /// Changes of files, on the embedded store.
    pub file_changes: u64,
    /// Faults by what struck: broker, database or disk, provider, processes.
    pub struck: [u64; 4],
    /// Repairs by operators.
    pub repairs: u64,
    /// Simulated time, ms.
    pub simulated_ms: u64,
    /// What happened, line by line, where a trace was asked for.
    pub trace: Vec<String>,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, trace: bool) -> Outcome {
    match plan.embedded {
        true => alone(embedded::live(plan, trace)),
        false => alone(History::live(plan, trace)),
    }
}

/// Runs a history on a thread whose time goes on only where nothing else can.
fn alone(history: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Outcome { violation: Some(error.to_string()), ..Outcome::default() },
    };
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(history)));
    lived.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        Outcome { violation: Some(format!("panic: {}", words.unwrap_or_default())), ..Outcome::default() }
    })
}

/// A record as a log reads it.
fn read_of(stored: Arc<StoredRecord>) -> Record {
    let StoredRecord { offset, timestamp_ms, key, value, headers } = Arc::unwrap_or_clone(stored);
    Record { offset, timestamp_ms, key, value: value.unwrap_or_default(), headers }
}

/// A history under way.
pub(crate) struct History {
    pub(crate) house: House,
    pub(crate) seen: Seen,
    clients: Clients,
    pub(crate) processes: Vec<Option<Process>>,
    started: u32,
    undos: Vec<(u64, Undo)>,
    /// Workers that are down, and when they start again, ns.
    starts: BTreeMap<usize, u64>,
    /// Workers that are to be killed, and how long they are down then.
    doomed: BTreeMap<usize, u32>,
    pub(crate) backup: Option<RowsSnapshot>,
    /// What every task had committed when somebody noted it.
    pub(crate) notes: Vec<Vec<(u64, u64)>>,
    /// A code with which tasks may halt now.
    pub(crate) expected_halts: Vec<&'static str>,
    /// Tasks whose changelog was made anew.
    pub(crate) cut: Vec<TaskId>,
    pub(crate) outcome: Outcome,
    tracing: bool,
}

impl History {
    async fn live(plan: &Plan, tracing: bool) -> Outcome {
        let house = House::new(plan.seed, plan.tuning.clone());
        let mut history = Self {
            clients: Clients::new(Arc::new(house.broker.client("door").log())),
            seen: Seen::of_cluster(house.settings.unflushed_bytes_max),
            processes: (0..WORKERS).map(|_| None).collect(),
            started: 0,
            undos: Vec::new(),
            starts: BTreeMap::new(),
            doomed: BTreeMap::new(),
            backup: None,
            notes: Vec::new(),
            expected_halts: Vec::new(),
            cut: Vec::new(),
            outcome: Outcome::default(),
            tracing,
            house,
        };
        let lived = history.all(plan).await;
        history.processes.iter().flatten().for_each(|it| it.kill(&history.house));
        history.seen.stood_still_ns = 0;
        let mut outcome = history.outcome;
        outcome.violation = lived.err().map(|it| it.0);
        let provider = history.house.provider.counts().0;
        outcome.struck[0] += history.house.broker.faults_struck();
        outcome.struck[1] += history.house.rows.faults_struck();
        outcome.struck[2] += provider;
        outcome.hash = history.seen.hash() ^ history.house.broker.trace_hash().rotate_left(1);
        outcome.records = history.seen.count;
        outcome.simulated_ms = history.house.now_ns() / 1_000_000;
        outcome
    }

    async fn all(&mut self, plan: &Plan) -> Checked {
        for worker in 0..usize::from(WORKERS) {
            self.start(worker).await;
        }
        self.take_steps(plan).await?;
        self.rest().await?;
        judge(&self.house, &self.seen)?;
        self.seen.stored.at_rest()?;
        tables::same(&self.house, &self.seen)
    }

    pub(crate) async fn start(&mut self, worker: usize) {
        self.started += 1;
        let name = format!("p{}", self.started);
        match Process::start(&self.house, &name).await {
            Ok(process) => {
                self.tell(|| format!("worker {worker} runs as {name}"));
                self.processes[worker] = Some(process);
                self.starts.remove(&worker);
            }
            Err(error) => {
                self.tell(|| format!("worker {worker} cannot start: {error}"));
                self.starts.insert(worker, self.house.now_ns() + START_AGAIN.as_nanos() as u64);
            }
        }
    }

    /// Workers that died are down.
    fn bury(&mut self) -> Checked {
        for worker in 0..self.processes.len() {
            let Some(process) = &self.processes[worker] else { continue };
            if self.house.broker.faults().is_killed(&process.name) {
                process.kill(&self.house);
                let down_ms = self.doomed.remove(&worker).unwrap_or(100);
                self.processes[worker] = None;
                self.outcome.struck[3] += 1;
                self.starts.insert(worker, self.house.now_ns() + u64::from(down_ms) * 1_000_000);
                self.tell(|| format!("worker {worker} is dead for {down_ms} ms"));
            }
        }
        Ok(())
    }

    async fn fault(&mut self, fault: &Fault) -> Checked {
        match *fault {
            Fault::KillAll { down_ms } => {
                for (worker, process) in self.processes.iter().enumerate() {
                    let Some(process) = process else { continue };
                    self.doomed.insert(worker, down_ms);
                    process.kill(&self.house);
                }
            }
            // What is compacted away is not read any more.
            Fault::Compact => self.look().await?,
            _ => {}
        }
        match *fault {
            Fault::Kill { worker, calls, down_ms } => {
                let worker = usize::from(worker);
                let Some(process) = &self.processes[worker] else { return Ok(()) };
                self.doomed.insert(worker, down_ms);
                if calls == 0 {
                    process.kill(&self.house);
                } else {
                    self.house.broker.faults().kill_after(&process.name, calls);
                }
            }
            Fault::Stop { worker, down_ms } => {
                let worker = usize::from(worker);
                let Some(process) = self.processes[worker].take() else { return Ok(()) };
                self.outcome.struck[3] += 1;
                process.stop(&self.house, STOP_MAX).await;
                self.starts.insert(worker, self.house.now_ns() + u64::from(down_ms) * 1_000_000);
            }
            _ => {
                let names: Vec<Option<String>> =
                    self.processes.iter().map(|it| it.as_ref().map(|it| it.name.clone())).collect();
                if let Some((after_ms, undo)) = faults::strike(&self.house, fault, &names) {
                    let lasts_ns = u64::from(after_ms) * 1_000_000;
                    self.outcome.struck
                        [usize::from(matches!(undo, Undo::Database | Undo::Speed | Undo::Writes))] += 1;
                    self.seen.stood_still_ns += lasts_ns;
                    self.undos.push((self.house.now_ns() + lasts_ns, undo));
                }
            }
        }
        Ok(())
    }

    /// Processes that stand still since the last time, at a call where they should.
    fn note_pauses(&mut self) {
        for (name, for_ms) in self.house.broker.faults().stopped() {
            self.tell(|| format!("{name} stands still for {for_ms} ms"));
            let lasts_ns = u64::from(for_ms) * 1_000_000;
            self.seen.stood_still_ns += lasts_ns;
            self.undos.push((self.house.now_ns() + lasts_ns, Undo::Resume(name)));
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.note_pauses();
        for (_, undo) in std::mem::take(&mut self.undos) {
            faults::undo(&self.house, &undo);
        }
        faults::heal(&self.house);
        self.tell(|| "nothing goes wrong any more".to_owned());
    }

    async fn rest(&mut self) -> Checked {
        self.heal();
        let now_ns = self.house.now_ns();
        for worker in 0..self.processes.len() {
            if self.processes[worker].is_none() {
                self.starts.insert(worker, now_ns);
            }
        }
        self.come_to_rest().await?;
        // Rows follow the log, the last of them after twelve intervals.
        let flushed = self.house.settings.flush_interval * 14 + Duration::from_secs(2);
        self.until(self.house.now_ns() + flushed.as_nanos() as u64).await?;
        self.look().await
    }
}

impl Course for History {
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
            self.bury()?;
            self.note_pauses();
            let now_ns = self.house.now_ns();
            let due = self.undos.iter().position(|(at_ns, _)| *at_ns <= now_ns);
            if let Some(index) = due {
                let (due_ns, undo) = self.undos.remove(index);
                // Whoever was busy with a start is late: it has lasted longer than was planned.
                self.seen.stood_still_ns += now_ns - due_ns;
                self.tell(|| format!("ends: {undo:?}"));
                faults::undo(&self.house, &undo);
                continue;
            }
            if let Some(worker) = self.starts.iter().find(|(_, at_ns)| **at_ns <= now_ns).map(|it| *it.0) {
                self.start(worker).await;
                continue;
            }
            if let Some(reason) = self.processes.iter().flatten().find_map(Process::halted) {
                self.repair(&reason).await?;
                continue;
            }
            if now_ns >= deadline_ns {
                return Ok(());
            }
            let next_ns = self.undos.iter().map(|it| it.0).chain(self.starts.values().copied()).min();
            let next_ns = next_ns.map_or(deadline_ns, |it| it.min(deadline_ns));
            // Halts and deaths are noticed soon.
            let step_ns = (next_ns - now_ns).clamp(1, 200_000_000);
            self.house.pass(Duration::from_nanos(step_ns)).await;
        }
    }

    async fn step(&mut self, step: &Step) -> Checked {
        self.tell(|| step.to_string());
        match &step.action {
            Action::Client(it) => {
                let broker = &self.house.broker;
                let letters =
                    |at| -> Vec<Record> { broker.committed_from(at, 0).0.into_iter().map(read_of).collect() };
                self.clients.act(&self.house, step.number, it, &letters);
            }
            Action::Fault(it) => self.fault(it).await?,
            Action::Operator(it) => self.operate(it).await?,
        }
        self.look().await
    }

    async fn look(&mut self) -> Checked {
        let looked = self.seen.look(&self.house.broker, &self.house.rows, self.house.now_ns());
        for line in self.seen.lines() {
            self.tell(|| format!("        {line}"));
        }
        looked
    }

    fn unfinished(&self) -> String {
        if !self.clients.is_idle() {
            return "clients wait".to_owned();
        }
        let broker = &self.house.broker;
        for kind in crate::KINDS {
            for partition in 0..PARTITIONS {
                let at = TopicPartition::new(kind.input(), partition);
                let group = self.house.settings.group(kind);
                let offset = broker.group_offset(&group, at).map_or(0, |it| it.offset);
                let (_, stable, end) = broker.ends(at).unwrap_or_default();
                if stable != end || !broker.committed_from(at, offset).0.is_empty() {
                    return format!("{} {partition} stands at {offset} of {end}", kind.as_str());
                }
            }
        }
        String::new()
    }
}
