//! One batch: decoded, loaded, decided in order in memory, and made ready for its one commit.

use crate::catalog::CatalogSnapshot;
use crate::dead_letter::{Failure, PARTITION_CODE, Subject};
use crate::error::{BatchError, Poisoned};
use crate::meter::{BatchFigures, LOG_TARGET};
use crate::overlay::Overlay;
use crate::poison::Culprit;
use crate::shell::Shell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use tillstream_log::{NewRecord, Record};
use tillstream_schemas::Text;
use tillstream_stage::RowKey;
use tillstream_stage::partition::partition_of;
use tillstream_stage::task::{KeyTimer, Output, Task, TaskContext, TaskError, TaskInput};
use tillstream_state::{TaskCommit, Timer};

/// So many inputs are decided before other tasks of the thread get their turn.
const INPUTS_PER_TURN: usize = 64;

/// Where an input came from: an index into the batch's records or timers.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Record(usize),
    Timer(usize),
}

/// The vectors a context writes to, kept between inputs for their capacity.
struct Emitted<T: Task> {
    changes: Vec<(RowKey, Option<T::Row>)>,
    outputs: Vec<Output>,
    timers: Vec<KeyTimer>,
    folds: Vec<T::Fold>,
}

impl<T: Task> Emitted<T> {
    fn new() -> Self {
        Self { changes: Vec::new(), outputs: Vec::new(), timers: Vec::new(), folds: Vec::new() }
    }

    fn clear(&mut self) {
        self.changes.clear();
        self.outputs.clear();
        self.timers.clear();
        self.folds.clear();
    }
}

/// A batch on its way to its commit. Dropping it undoes it.
pub(crate) struct Batch<T: Task> {
    from_offset: u64,
    now_ms: i64,
    records: Vec<Record>,
    timers: Vec<Timer>,
    inputs: Vec<(Origin, TaskInput<T::Command>)>,
    overlay: Overlay<T::Row>,
    catalog: CatalogSnapshot,
    scratch: T::Scratch,
    emitted: Emitted<T>,
    outputs: Vec<NewRecord>,
    /// The last change of each timer: `true` sets it, `false` removes it.
    timer_changes: BTreeMap<Timer, bool>,
    /// Stage and reason of each dead letter.
    letters: Vec<(&'static str, &'static str)>,
    figures: BatchFigures,
}

/// A batch whose commit is durable.
pub(crate) struct Committed<T: Task> {
    /// Its rows.
    pub overlay: Overlay<T::Row>,
    /// Timers that fired.
    pub fired: Vec<Timer>,
    /// Stage and reason of each dead letter.
    pub letters: Vec<(&'static str, &'static str)>,
    /// What it was.
    pub figures: BatchFigures,
}

impl<T: Task> Batch<T> {
    /// A batch of these records, which begin at or after `from_offset`, and then these timers.
    pub fn new(shell: &Shell<T>, from_offset: u64, records: Vec<Record>, timers: Vec<Timer>) -> Self {
        let figures = BatchFigures { begun_ns: shell.ports.clock.monotonic_ns(), ..BatchFigures::default() };
        Self {
            from_offset,
            now_ms: shell.ports.clock.now_ms(),
            inputs: Vec::with_capacity(records.len() + timers.len()),
            records,
            timers,
            overlay: Overlay::new(),
            catalog: CatalogSnapshot::default(),
            scratch: T::Scratch::default(),
            emitted: Emitted::new(),
            outputs: Vec::new(),
            timer_changes: BTreeMap::new(),
            letters: Vec::new(),
            figures,
        }
    }

    /// Everything up to the commit.
    pub async fn prepare(&mut self, shell: &mut Shell<T>) -> Result<TaskCommit, BatchError> {
        self.decode(shell)?;
        self.load_rows(shell).await?;
        self.load_products(shell).await?;
        for index in 0..self.inputs.len() {
            if index > 0 && index % INPUTS_PER_TURN == 0 {
                yield_now().await;
            }
            self.decide(shell, index)?;
        }
        self.finish(shell)?;
        let mut buffer = std::mem::take(&mut shell.rows_buffer);
        let encoded = guarded(shell, || self.overlay.encode(&*shell.task, &mut buffer));
        shell.rows_buffer = buffer;
        let rows = match encoded {
            Ok(rows) => rows,
            Err(failure) => return Err(self.batch_poison(failure)),
        };
        let next_offset = self.records.last().map_or(self.from_offset, |it| it.offset + 1);
        let mut commit = TaskCommit {
            task: shell.id,
            from_offset: self.from_offset,
            next_offset,
            outputs: std::mem::take(&mut self.outputs),
            rows,
            timers_removed: Vec::new(),
            timers_set: Vec::new(),
        };
        for (timer, set) in std::mem::take(&mut self.timer_changes) {
            let changes = if set { &mut commit.timers_set } else { &mut commit.timers_removed };
            changes.push(timer);
        }
        self.figures.inputs = self.records.len() + self.timers.len();
        self.figures.timers = self.timers.len();
        self.figures.commit_ns = shell.ports.clock.monotonic_ns();
        Ok(commit)
    }

    /// The commit is durable.
    pub fn committed(self) -> Committed<T> {
        Committed { overlay: self.overlay, fired: self.timers, letters: self.letters, figures: self.figures }
    }

    fn decode(&mut self, shell: &Shell<T>) -> Result<(), BatchError> {
        for index in 0..self.records.len() {
            let record = &self.records[index];
            match decode_record(shell, record) {
                Ok(command) => {
                    self.figures.accepted_at_ms = Some(shell.task.accepted_at_ms(&command));
                    self.inputs.push((Origin::Record(index), TaskInput::Command(command)));
                }
                Err(failure) => {
                    // A condemned record was tried before; bytes that cannot be read are tried once.
                    let attempts = shell.poison.failures(&Culprit::Record(record.offset)) + 1;
                    self.dead_letter(shell, Origin::Record(index), &failure, attempts)?;
                }
            }
        }
        for index in 0..self.timers.len() {
            let timer = self.timers[index].clone();
            let culprit = Culprit::Timer(timer);
            if let Some(failure) = shell.poison.condemned(&culprit) {
                let attempts = shell.poison.failures(&culprit) + 1;
                self.dead_letter(shell, Origin::Timer(index), &failure.clone(), attempts)?;
            } else if let Culprit::Timer(Timer { due_ms, key, name }) = culprit {
                self.inputs.push((Origin::Timer(index), TaskInput::Timer { key, name, due_ms }));
            }
        }
        Ok(())
    }

    async fn load_rows(&mut self, shell: &mut Shell<T>) -> Result<(), BatchError> {
        let mut wanted = Vec::new();
        let mut missing = Vec::new();
        for (_, input) in &self.inputs {
            shell.task.read_set(input, &mut wanted);
            for key in wanted.drain(..) {
                if self.overlay.take_cached(&key, &mut shell.cache) {
                    self.figures.reads_cache += 1;
                } else {
                    missing.push(key);
                }
            }
        }
        self.figures.reads_store = missing.len() as u64;
        if missing.is_empty() {
            return Ok(());
        }
        let values = shell.session.state.get_many(&missing).await?;
        for (key, value) in missing.into_iter().zip(values) {
            let Some(bytes) = value else { continue };
            match guarded(shell, || shell.task.decode_row(key.table, &bytes)) {
                Ok(row) => self.overlay.loaded(key, row, bytes.len()),
                Err(mut failure) => {
                    failure.message = format!("row {}/{}: {}", key.table.name(), key.key, failure.message);
                    self.overlay.unreadable(key, failure);
                }
            }
        }
        Ok(())
    }

    async fn load_products(&mut self, shell: &Shell<T>) -> Result<(), BatchError> {
        let Some(catalog) = &shell.ports.catalog else { return Ok(()) };
        let mut wanted = Vec::new();
        for (_, input) in &self.inputs {
            shell.task.products(input, &mut wanted);
        }
        if !wanted.is_empty() {
            self.catalog = catalog.resolve(&wanted).await?;
        }
        Ok(())
    }

    fn decide(&mut self, shell: &mut Shell<T>, index: usize) -> Result<(), BatchError> {
        let origin = self.inputs[index].0;
        if let Origin::Timer(timer) = origin
            && self.timer_changes.get(&self.timers[timer]) == Some(&false)
        {
            return Ok(()); // A record of this batch cleared it.
        }
        match self.handle(shell, index) {
            Ok(()) => self.merge(shell, origin),
            Err(failure) => {
                self.emitted.clear();
                let culprit = self.culprit(origin);
                if shell.poison.is_last_try(&culprit) {
                    let attempts = shell.poison.failures(&culprit) + 1;
                    return self.dead_letter(shell, origin, &failure, attempts);
                }
                let inputs = self.inputs.len();
                return Err(BatchError::Poison(Box::new(Poisoned { culprit, failure, inputs })));
            }
        }
        Ok(())
    }

    fn handle(&mut self, shell: &mut Shell<T>, index: usize) -> Result<(), Failure> {
        let input = &self.inputs[index].1;
        let reads = || {
            let mut keys = Vec::new();
            shell.task.read_set(input, &mut keys);
            keys
        };
        if let Some(failure) = self.overlay.first_unreadable(reads) {
            return Err(failure.clone());
        }
        if tracing::enabled!(target: LOG_TARGET, tracing::Level::DEBUG) {
            let (traceparent, linked) = traces_of(&*shell.task, input);
            shell.meter.traced(traceparent, linked);
        }
        let mut context = TaskContext {
            now_ms: self.now_ms,
            partition: shell.id.partition,
            rows: &self.overlay,
            catalog: &self.catalog,
            rules: &*shell.ports.rules,
            meter: &mut shell.meter,
            changes: std::mem::take(&mut self.emitted.changes),
            outputs: std::mem::take(&mut self.emitted.outputs),
            timers: std::mem::take(&mut self.emitted.timers),
            folds: std::mem::take(&mut self.emitted.folds),
        };
        let handled = catch_unwind(AssertUnwindSafe(|| shell.task.handle(input, &mut context)));
        let TaskContext { changes, outputs, timers, folds, .. } = context;
        self.emitted = Emitted { changes, outputs, timers, folds };
        match handled {
            Ok(Ok(_outcome)) => Ok(()),
            Ok(Err(error)) => Err(Failure::of(shell.id.kind, &error)),
            Err(payload) => Err(Failure::panic(shell.id.kind, &*payload)),
        }
    }

    /// The input succeeded: what it emitted becomes the batch's.
    fn merge(&mut self, shell: &mut Shell<T>, origin: Origin) {
        if let Origin::Timer(index) = origin {
            self.timer_changes.insert(self.timers[index].clone(), false);
        }
        self.merge_emitted(shell);
        for fold in self.emitted.folds.drain(..) {
            shell.task.fold(&mut self.scratch, fold);
        }
    }

    fn merge_emitted(&mut self, shell: &mut Shell<T>) {
        self.overlay.merge(&mut self.emitted.changes);
        self.outputs.extend(self.emitted.outputs.drain(..).map(|it| shell.outputs.record(it)));
        for KeyTimer { key, name, was_due_ms, due_ms } in self.emitted.timers.drain(..) {
            let timer = |due_ms: i64| Timer { due_ms: due_ms.max(0), key: key.clone(), name };
            if let Some(was_due_ms) = was_due_ms {
                self.timer_changes.insert(timer(was_due_ms), false);
            }
            if let Some(due_ms) = due_ms {
                self.timer_changes.insert(timer(due_ms), true);
            }
        }
    }

    fn finish(&mut self, shell: &mut Shell<T>) -> Result<(), BatchError> {
        if self.inputs.is_empty() {
            return Ok(());
        }
        let batch_id = self.batch_id(shell);
        let mut context = TaskContext {
            now_ms: self.now_ms,
            partition: shell.id.partition,
            rows: &self.overlay,
            catalog: &self.catalog,
            rules: &*shell.ports.rules,
            meter: &mut shell.meter,
            changes: Vec::new(),
            outputs: Vec::new(),
            timers: Vec::new(),
            folds: Vec::new(),
        };
        let scratch = std::mem::take(&mut self.scratch);
        let finished = catch_unwind(AssertUnwindSafe(|| shell.task.finish(scratch, &batch_id, &mut context)));
        let TaskContext { changes, outputs, timers, folds, .. } = context;
        let failure = match finished {
            Ok(Ok(())) => {
                self.emitted = Emitted { changes, outputs, timers, folds };
                self.merge_emitted(shell);
                return Ok(());
            }
            Ok(Err(error)) => Failure::of(shell.id.kind, &error),
            Err(payload) => Failure::panic(shell.id.kind, &*payload),
        };
        Err(self.batch_poison(failure))
    }

    /// Deterministic for the batch's first input: a batch of timers alone must not share its id with the
    /// batch of records that begins at the same offset.
    fn batch_id(&self, shell: &Shell<T>) -> String {
        match (self.records.first(), self.timers.first()) {
            (None, Some(Timer { due_ms, key, name })) => {
                format!("{}@{}/{due_ms}/{key}/{}", shell.id, self.from_offset, *name as u8)
            }
            _ => format!("{}@{}", shell.id, self.from_offset),
        }
    }

    /// The batch failed at its end: with one input, that input is to blame.
    fn batch_poison(&self, failure: Failure) -> BatchError {
        let inputs = self.inputs.len();
        let culprit = match &self.inputs[..] {
            [(origin, _)] => self.culprit(*origin),
            _ => Culprit::Batch(self.from_offset),
        };
        BatchError::Poison(Box::new(Poisoned { culprit, failure, inputs }))
    }

    fn culprit(&self, origin: Origin) -> Culprit {
        match origin {
            Origin::Record(index) => Culprit::Record(self.records[index].offset),
            Origin::Timer(index) => Culprit::Timer(self.timers[index].clone()),
        }
    }

    fn dead_letter(
        &mut self,
        shell: &Shell<T>,
        origin: Origin,
        failure: &Failure,
        attempts: u32,
    ) -> Result<(), BatchError> {
        let subject = match origin {
            Origin::Record(index) => Subject::Record(&self.records[index]),
            Origin::Timer(index) => Subject::Timer(&self.timers[index]),
        };
        let letter = shell.letters.write(&subject, failure, attempts, self.now_ms)?;
        self.outputs.push(letter);
        self.letters.push((failure.stage, failure.reason));
        if let Origin::Timer(index) = origin {
            self.timer_changes.insert(self.timers[index].clone(), false);
        }
        Ok(())
    }
}

fn decode_record<T: Task>(shell: &Shell<T>, record: &Record) -> Result<T::Command, Failure> {
    if let Some(failure) = shell.poison.condemned(&Culprit::Record(record.offset)) {
        return Err(failure.clone());
    }
    let misplaced = |message: String| Failure {
        stage: shell.id.kind.as_str(),
        code: PARTITION_CODE,
        reason: "partition",
        message: format!("{PARTITION_CODE}: {message}"),
    };
    let command = guarded(shell, || shell.task.decode(&record.value))?;
    let key = guarded(shell, || Ok(shell.task.key_of(&command)))?;
    if key.as_bytes() != record.key {
        let found = String::from_utf8_lossy(&record.key);
        return Err(misplaced(format!("the command belongs to {key:?}, its record to {found:?}")));
    }
    let partitions = shell.outputs.partitions(shell.input.topic);
    let partition = partition_of(&record.key, partitions);
    if partition != shell.id.partition {
        let text =
            format!("{key:?} belongs to partition {partition} of {partitions}, not {}", shell.id.partition);
        return Err(misplaced(text));
    }
    Ok(command)
}

/// Runs a task's code; a panic is a failure like any other.
fn guarded<T: Task, V>(shell: &Shell<T>, run: impl FnOnce() -> Result<V, TaskError>) -> Result<V, Failure> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::of(shell.id.kind, &error)),
        Err(payload) => Err(Failure::panic(shell.id.kind, &*payload)),
    }
}

/// Lets the thread's other tasks run: deciding a whole batch at once would hold up requests.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The trace of an input, and those it sums up; a timer has none.
fn traces_of<'c, T: Task>(task: &T, input: &'c TaskInput<T::Command>) -> (Option<&'c str>, &'c [Text]) {
    match input {
        TaskInput::Command(command) => (task.traceparent(command), task.linked_traces(command)),
        TaskInput::Timer { .. } => (None, &[]),
    }
}
