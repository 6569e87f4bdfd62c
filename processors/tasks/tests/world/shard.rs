//! One partition of one task: its rows, its timers, and the batch loop.

use super::name_of;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use tillstream_stage::facts::Catalog;
use tillstream_stage::partition::partition_of;
use tillstream_stage::rule::{RuleHost, RuleRun};
use tillstream_stage::stage::{StageName, TimerName};
use tillstream_stage::task::{Outcome, Output, Rows, StageMeter, Task, TaskContext, TaskInput};
use tillstream_stage::{Key, RowKey};

/// What is the same for a whole batch.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    pub now_ms: i64,
    pub catalog: &'a dyn Catalog,
    pub rules: &'a dyn RuleHost,
    pub partitions: u32,
}

/// One partition of one task.
pub struct Shard<T: Task> {
    task: T,
    partition: u32,
    offset: u64,
    pub rows: BTreeMap<RowKey, T::Row>,
    pub timers: BTreeSet<(i64, Key, TimerName)>,
    pub counts: Counts,
}

/// What the meter was told.
#[derive(Debug, Default)]
pub struct Counts {
    pub stages: BTreeMap<(&'static str, &'static str), u64>,
    pub rules: BTreeMap<(&'static str, &'static str), u64>,
    pub reached: BTreeMap<&'static str, u64>,
    pub inputs: BTreeMap<&'static str, u64>,
}

impl StageMeter for Counts {
    fn begin(&mut self) -> u64 {
        0
    }
    fn end(&mut self, stage: StageName, _begun: u64, outcome: Outcome) {
        *self.stages.entry((stage.as_str(), outcome.as_str())).or_default() += 1;
    }
    fn rule(&mut self, stage: StageName, run: &RuleRun) {
        *self.rules.entry((stage.as_str(), run.outcome)).or_default() += 1;
    }
    fn order_reached(&mut self, to: &'static str, _accepted_at_ms: i64) {
        *self.reached.entry(to).or_default() += 1;
    }
}

/// Answers only for rows that the task said it would read.
struct Allowed<'a, R> {
    rows: &'a BTreeMap<RowKey, R>,
    keys: &'a [RowKey],
}

impl<R> Rows<R> for Allowed<'_, R> {
    fn get(&self, key: &RowKey) -> Option<&R> {
        assert!(self.keys.contains(key), "{key:?} is read, but not in the read set");
        self.rows.get(key)
    }
}

impl<T: Task> Shard<T>
where
    T::Row: PartialEq + Debug,
{
    pub fn new(task: T, partition: u32) -> Self {
        Self {
            task,
            partition,
            offset: 0,
            rows: BTreeMap::new(),
            timers: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Handles records as one batch.
    pub fn batch(&mut self, values: &[Vec<u8>], env: Env<'_>) -> Vec<Output> {
        let inputs = values.iter().map(|value| {
            let command = self.task.decode(value).unwrap();
            let key = self.task.key_of(&command);
            assert_eq!(partition_of(key.as_bytes(), env.partitions), self.partition);
            TaskInput::Command(command)
        });
        let inputs = inputs.collect();
        self.run(inputs, env)
    }

    /// Fires what is due.
    pub fn fire(&mut self, env: Env<'_>) -> Vec<Output> {
        let due: Vec<_> = self.timers.iter().take_while(|it| it.0 <= env.now_ms).cloned().collect();
        if due.is_empty() {
            return Vec::new();
        }
        let inputs = due.into_iter().map(|(due_ms, key, name)| TaskInput::Timer { key, name, due_ms });
        self.run(inputs.collect(), env)
    }

    /// When the next timer is due.
    pub fn next_timer_ms(&self) -> Option<i64> {
        self.timers.first().map(|it| it.0)
    }

    fn run(&mut self, inputs: Vec<TaskInput<T::Command>>, env: Env<'_>) -> Vec<Output> {
        let batch_id = format!("{}-{}-{}", name_of(&self.task), self.partition, self.offset);
        let mut scratch = T::Scratch::default();
        let mut outputs = Vec::new();
        let mut read = Vec::new();
        for input in inputs {
            self.offset += 1;
            if let TaskInput::Timer { key, name, due_ms } = &input {
                // It may have been cleared by an input before it in the batch.
                if !self.timers.remove(&(*due_ms, key.clone(), *name)) {
                    continue;
                }
            }
            let mut keys = Vec::new();
            self.task.read_set(&input, &mut keys);
            let (outcome, done) = self.with_context(&keys, env, |task, context| task.handle(&input, context));
            *self.counts.inputs.entry(outcome.as_str()).or_default() += 1;
            for fold in done.folds {
                self.task.fold(&mut scratch, fold);
            }
            outputs.extend(done.outputs);
            read.extend(keys);
        }
        let ((), done) =
            self.with_context(&read, env, |task, context| task.finish(scratch, &batch_id, context));
        outputs.extend(done.outputs);
        outputs
    }

    fn with_context<V>(
        &mut self,
        keys: &[RowKey],
        env: Env<'_>,
        handle: impl FnOnce(
            &T,
            &mut TaskContext<'_, T::Row, T::Fold>,
        ) -> Result<V, tillstream_stage::task::TaskError>,
    ) -> (V, Done<T>) {
        let rows = Allowed { rows: &self.rows, keys };
        let mut context = TaskContext {
            now_ms: env.now_ms,
            partition: self.partition,
            rows: &rows,
            catalog: env.catalog,
            rules: env.rules,
            meter: &mut self.counts,
            changes: Vec::new(),
            outputs: Vec::new(),
            timers: Vec::new(),
            folds: Vec::new(),
        };
        let value = handle(&self.task, &mut context).unwrap();
        let TaskContext { changes, outputs, timers, folds, .. } = context;
        for (key, row) in changes {
            self.put(key, row);
        }
        for timer in timers {
            if let Some(was_due_ms) = timer.was_due_ms {
                let was = (was_due_ms, timer.key.clone(), timer.name);
                assert!(self.timers.remove(&was), "no such timer: {was:?}");
            }
            let twin = self.timers.iter().find(|it| it.1 == timer.key && it.2 == timer.name);
            assert_eq!(twin, None, "two timers of one name");
            self.timers.extend(timer.due_ms.map(|due_ms| (due_ms, timer.key, timer.name)));
        }
        (value, Done { outputs, folds })
    }

    /// A row is kept as it comes back from its bytes.
    fn put(&mut self, key: RowKey, row: Option<T::Row>) {
        let Some(row) = row else {
            self.rows.remove(&key);
            return;
        };
        let mut bytes = Vec::new();
        self.task.encode_row(&row, &mut bytes).unwrap();
        let back = self.task.decode_row(key.table, &bytes).unwrap();
        assert_eq!(back, row, "{key:?} does not come back from its bytes");
        self.rows.insert(key, back);
    }
}

struct Done<T: Task> {
    outputs: Vec<Output>,
    folds: Vec<T::Fold>,
}
