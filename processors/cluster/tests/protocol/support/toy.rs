//! A task that counts per key. A command is `key op argument number`: `add N`, `set DELAY` (a timer so many ms from now,
//! in place of one that is set), `clear` (no timer any more), `fail`.

use tillstream_schemas::codec::CodecError;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::output_id;
use tillstream_stage::task::{KeyTimer, Outcome, Output, Task, TaskContext, TaskError, TaskInput, TaskKind};
use tillstream_stage::{Key, RowKey, StageError, StageName, Table, TimerName};

pub struct Toy;

/// A key's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub sum: i64,
    pub fired: u32,
    /// When its timer is due; 0: none is set.
    pub due_ms: i64,
}

impl Counted {
    pub fn parse(text: &str) -> Self {
        let mut words = text.split(',');
        let mut next = || words.next().unwrap();
        Self { sum: next().parse().unwrap(), fired: next().parse().unwrap(), due_ms: next().parse().unwrap() }
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{},{}", self.sum, self.fired, self.due_ms)
    }
}

fn key_of(input: &TaskInput<String>) -> Key {
    match input {
        TaskInput::Command(text) => text.split(' ').next().unwrap_or_default().into(),
        TaskInput::Timer { key, .. } => key.clone(),
    }
}

fn row(key: &Key) -> RowKey {
    RowKey::new(Table::Order, key.clone())
}

impl Task for Toy {
    type Command = String;
    type Row = Counted;
    type Fold = ();
    type Scratch = ();

    fn kind(&self) -> TaskKind {
        TaskKind::Order
    }

    fn decode(&self, value: &[u8]) -> Result<String, TaskError> {
        let bad = |_| TaskError::Codec(CodecError::UnknownSchema(99));
        String::from_utf8(value.to_vec()).map_err(bad)
    }

    fn key_of(&self, command: &String) -> Key {
        command.split(' ').next().unwrap_or_default().into()
    }

    fn accepted_at_ms(&self, _command: &String) -> i64 {
        0
    }

    fn read_set(&self, input: &TaskInput<String>, keys: &mut Vec<RowKey>) {
        keys.push(row(&key_of(input)));
    }

    fn products(&self, _input: &TaskInput<String>, _products: &mut Vec<(Text, Text)>) {}

    fn decode_row(&self, _table: Table, bytes: &[u8]) -> Result<Counted, TaskError> {
        Ok(Counted::parse(std::str::from_utf8(bytes).unwrap()))
    }

    fn encode_row(&self, row: &Counted, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(row.to_string().as_bytes());
        Ok(())
    }

    fn handle(
        &self,
        input: &TaskInput<String>,
        context: &mut TaskContext<'_, Counted, ()>,
    ) -> Result<Outcome, TaskError> {
        let key = key_of(input);
        let mut counted = context.rows.get(&row(&key)).copied().unwrap_or_default();
        let was_due_ms = (counted.due_ms > 0).then_some(counted.due_ms);
        let mut timer = |was_due_ms, due_ms| {
            context.timers.push(KeyTimer {
                key: key.clone(),
                name: TimerName::HoldExpiry,
                was_due_ms,
                due_ms,
            });
        };
        let text = match input {
            TaskInput::Timer { due_ms, .. } => {
                counted.fired += 1;
                counted.due_ms = 0;
                format!("{key} fired {due_ms}")
            }
            TaskInput::Command(text) => {
                let words: Vec<&str> = text.split(' ').collect();
                match words[1] {
                    "add" => counted.sum += words[2].parse::<i64>().unwrap(),
                    "set" => {
                        counted.due_ms = context.now_ms + words[2].parse::<i64>().unwrap();
                        timer(was_due_ms, Some(counted.due_ms));
                    }
                    "clear" => {
                        counted.due_ms = 0;
                        timer(was_due_ms, None);
                    }
                    _ => {
                        let error =
                            StageError::Invariant { stage: "pricing", what: "told to fail".to_owned() };
                        return Err(TaskError::Stage { stage: StageName::Pricing, error });
                    }
                }
                text.clone()
            }
        };
        context.changes.push((row(&key), Some(counted)));
        context.outputs.push(Output {
            topic: Topic::OrderEvents,
            id: output_id("evt_", &text, 0),
            value: format!("{text} -> {counted}").into_bytes(),
            key,
            kind: "order.priced",
            traceparent: None,
        });
        Ok(Outcome::Applied)
    }

    fn fold(&self, (): &mut (), (): ()) {}

    fn finish(
        &self,
        (): (),
        _batch_id: &str,
        _context: &mut TaskContext<'_, Counted, ()>,
    ) -> Result<(), TaskError> {
        Ok(())
    }
}
