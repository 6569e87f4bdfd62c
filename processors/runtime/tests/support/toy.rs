//! A task that counts per key. A command is `key op argument`:
//! `add N`, `fail`, `panic`, `timer DUE`, `clear DUE`, `price SKU`, `badend` (the batch's end fails), `drop`,
//! `poke KEY` (writes a row it never read).

use tillstream_schemas::codec::CodecError;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::output_id;
use tillstream_stage::task::{KeyTimer, Outcome, Output, Task, TaskContext, TaskError, TaskInput, TaskKind};
use tillstream_stage::{Key, RowKey, StageError, StageName, Table, TimerName};

pub struct Toy;

#[derive(Clone, Debug)]
pub struct ToyCommand {
    pub key: Key,
    pub op: String,
    pub argument: String,
}

fn refused(what: &str) -> TaskError {
    let error = StageError::Invariant { stage: "pricing", what: what.to_owned() };
    TaskError::Stage { stage: StageName::Pricing, error }
}

fn row(key: &Key) -> RowKey {
    RowKey::new(Table::Order, key.clone())
}

fn key_of_input(input: &TaskInput<ToyCommand>) -> &Key {
    match input {
        TaskInput::Command(command) => &command.key,
        TaskInput::Timer { key, .. } => key,
    }
}

fn timer(key: &Key, was_due_ms: Option<i64>, due_ms: Option<i64>) -> KeyTimer {
    KeyTimer { key: key.clone(), name: TimerName::HoldExpiry, was_due_ms, due_ms }
}

impl Toy {
    fn add(&self, key: &Key, by: i64, context: &mut TaskContext<'_, i64, String>) {
        let sum = context.rows.get(&row(key)).copied().unwrap_or_default() + by;
        context.changes.push((row(key), Some(sum)));
        self.emit(key, format!("{key}={sum}"), context);
    }

    fn emit(&self, key: &Key, text: String, context: &mut TaskContext<'_, i64, String>) {
        context.outputs.push(Output {
            topic: Topic::OrderEvents,
            key: key.clone(),
            id: output_id("evt_", &text, 0),
            value: text.into_bytes(),
            kind: "order.priced",
            traceparent: Some("00-trace".into()),
        });
    }
}

impl Task for Toy {
    type Command = ToyCommand;
    type Row = i64;
    type Fold = String;
    type Scratch = Vec<String>;

    fn kind(&self) -> TaskKind {
        TaskKind::Order
    }

    fn decode(&self, value: &[u8]) -> Result<ToyCommand, TaskError> {
        let bad = || TaskError::Codec(CodecError::UnknownSchema(99));
        let text = std::str::from_utf8(value).map_err(|_| bad())?;
        let mut words = text.split(' ');
        let (Some(key), Some(op)) = (words.next(), words.next()) else { return Err(bad()) };
        let argument = words.next().unwrap_or_default().to_owned();
        Ok(ToyCommand { key: key.into(), op: op.to_owned(), argument })
    }

    fn key_of(&self, command: &ToyCommand) -> Key {
        // `other` is a command whose record stands under a wrong key.
        if command.op == "other" { "somebody/else".into() } else { command.key.clone() }
    }

    fn accepted_at_ms(&self, _command: &ToyCommand) -> i64 {
        0
    }

    fn read_set(&self, input: &TaskInput<ToyCommand>, keys: &mut Vec<RowKey>) {
        keys.push(row(key_of_input(input)));
    }

    fn products(&self, input: &TaskInput<ToyCommand>, products: &mut Vec<(Text, Text)>) {
        if let TaskInput::Command(command) = input
            && command.op == "price"
        {
            products.push(("t".into(), command.argument.as_str().into()));
        }
    }

    fn decode_row(&self, _table: Table, bytes: &[u8]) -> Result<i64, TaskError> {
        let text = std::str::from_utf8(bytes).unwrap();
        text.parse().map_err(|_| TaskError::Codec(CodecError::UnknownSchema(98)))
    }

    fn encode_row(&self, row: &i64, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(row.to_string().as_bytes());
        Ok(())
    }

    fn handle(
        &self,
        input: &TaskInput<ToyCommand>,
        context: &mut TaskContext<'_, i64, String>,
    ) -> Result<Outcome, TaskError> {
        let begun = context.meter.begin();
        match input {
            TaskInput::Timer { key, .. } => {
                self.add(key, 1_000, context);
                if key.contains("badtimer") {
                    return Err(refused("a bad timer"));
                }
            }
            TaskInput::Command(ToyCommand { key, op, argument }) => match op.as_str() {
                "add" => self.add(key, argument.parse().unwrap(), context),
                "fail" => {
                    // What a failed input wrote must not be seen.
                    self.add(key, 1_000_000, context);
                    return Err(refused("told to fail"));
                }
                "panic" => {
                    self.add(key, 1_000_000, context);
                    panic!("told to panic");
                }
                "timer" => context.timers.push(timer(key, None, Some(argument.parse().unwrap()))),
                "clear" => context.timers.push(timer(key, Some(argument.parse().unwrap()), None)),
                "price" => {
                    let product = context.catalog.product("t", argument);
                    let text = product.map_or("none".to_owned(), |it| format!("v{}", it.version));
                    self.emit(key, format!("{key} {argument} {text}"), context);
                }
                "poke" => context.changes.push((row(&argument.as_str().into()), Some(77))),
                "drop" => context.changes.push((row(key), None)),
                _ => context.folds.push(op.clone()),
            },
        }
        context.meter.end(StageName::Pricing, begun, Outcome::Applied);
        Ok(Outcome::Applied)
    }

    fn fold(&self, scratch: &mut Vec<String>, fold: String) {
        scratch.push(fold);
    }

    fn finish(
        &self,
        scratch: Vec<String>,
        batch_id: &str,
        context: &mut TaskContext<'_, i64, String>,
    ) -> Result<(), TaskError> {
        if scratch.iter().any(|it| it == "badend") {
            return Err(refused("a bad end"));
        }
        if !scratch.is_empty() {
            self.emit(&"t/folded".into(), format!("folded {} in {batch_id}", scratch.join("+")), context);
        }
        Ok(())
    }
}
