//! Dead letters: what no stage could take, with its reason and origin.

use crate::RuntimeError;
use bytes::Bytes;
use tillstream_log::headers::{self, header};
use tillstream_log::{Header, Headers, NewRecord, Record, TopicPartition};
use tillstream_schemas::codec;
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_stage::ids::derived_id;
use tillstream_stage::partition::partition_of;
use tillstream_stage::task::{TaskError, TaskKind};
use tillstream_state::Timer;

/// Code of a letter whose stage panicked.
pub const PANIC_CODE: &str = "TS0407";

/// Code of a letter whose record stood in the wrong partition or under the wrong key.
pub const PARTITION_CODE: &str = "TS0408";

/// The version that letters name.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A sentence in a letter is at most this long, bytes.
const MESSAGE_MAX: usize = 2_000;

/// Why an input was not taken.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The stage, or the task where no stage is to blame.
    pub stage: &'static str,
    /// Stable code.
    pub code: &'static str,
    /// Bounded label.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Failure {
    /// A task's error.
    pub fn of(kind: TaskKind, error: &TaskError) -> Self {
        let stage = match error {
            TaskError::Stage { stage, .. } => stage.as_str(),
            TaskError::Codec(_) | TaskError::Endless(_) => kind.as_str(),
        };
        Self { stage, code: error.code(), reason: error.reason(), message: error.to_string() }
    }

    /// A panic.
    pub fn panic(kind: TaskKind, payload: &(dyn std::any::Any + Send)) -> Self {
        let message = format!("{PANIC_CODE}: panic: {}", panic_message(payload));
        Self { stage: kind.as_str(), code: PANIC_CODE, reason: "panic", message }
    }
}

/// The words of a panic.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}

/// What a letter is about.
pub(crate) enum Subject<'a> {
    /// A record.
    Record(&'a Record),
    /// A fired timer.
    Timer(&'a Timer),
    /// A stored batch that cannot be read, from this offset on.
    Corrupt(u64),
}

/// Writes letters of one task's input.
#[derive(Debug)]
pub(crate) struct LetterWriter {
    input: TopicPartition,
    dlq: tillstream_schemas::Topic,
    dlq_partitions: u32,
}

impl LetterWriter {
    /// A writer for letters about `input`.
    pub fn new(input: TopicPartition, log: &dyn tillstream_log::Log) -> Result<Self, RuntimeError> {
        let dlq = input.topic.dlq().ok_or(RuntimeError::NoDeadLetterTopic(input))?;
        Ok(Self { input, dlq, dlq_partitions: log.partitions(dlq) })
    }

    /// The record of one letter.
    pub fn write(
        &self,
        subject: &Subject<'_>,
        failure: &Failure,
        attempts: u32,
        now_ms: i64,
    ) -> Result<NewRecord, RuntimeError> {
        let (offset, appended_at_ms, key, value) = match subject {
            Subject::Record(it) => (offset(it.offset), it.timestamp_ms, it.key.clone(), it.value.clone()),
            Subject::Timer(it) => (-1, it.due_ms, Bytes::copy_from_slice(it.key.as_bytes()), Bytes::new()),
            Subject::Corrupt(at) => (offset(*at), now_ms, Bytes::new(), Bytes::new()),
        };
        let origin = format!("{}/{}/{offset}", self.input.topic, self.input.partition);
        let letter = DeadLetter {
            id: self.id(subject, &origin),
            topic: self.input.topic.name().into(),
            partition: i32::try_from(self.input.partition).unwrap_or(i32::MAX),
            offset,
            appended_at_ms,
            failed_at_ms: now_ms,
            stage: failure.stage.into(),
            code: failure.code.into(),
            reason: failure.reason.into(),
            message: shorten(&message(subject, failure)).into(),
            attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
            version: VERSION.into(),
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let value =
            codec::encode(&letter).map_err(|error| RuntimeError::Codec { what: "dead letter", error })?;
        let partition = partition_of(&key, self.dlq_partitions);
        Ok(NewRecord {
            to: TopicPartition::new(self.dlq, partition),
            key,
            value: value.into(),
            headers: letter_headers(subject, failure, origin),
        })
    }

    fn id(&self, subject: &Subject<'_>, origin: &str) -> tillstream_schemas::Text {
        match subject {
            Subject::Record(_) | Subject::Corrupt(_) => derived_id("dlq_", &[origin]),
            Subject::Timer(timer) => {
                let due = timer.due_ms.to_string();
                derived_id("dlq_", &[origin, &timer.key, &due, &(timer.name as u8).to_string()])
            }
        }
    }
}

fn offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn message(subject: &Subject<'_>, failure: &Failure) -> String {
    match subject {
        Subject::Timer(timer) => format!("timer {:?} due {}: {}", timer.name, timer.due_ms, failure.message),
        Subject::Record(_) | Subject::Corrupt(_) => failure.message.clone(),
    }
}

fn shorten(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_MAX)]
}

fn letter_headers(subject: &Subject<'_>, failure: &Failure, origin: String) -> Headers {
    let mut all: Headers = [
        header(headers::ORIGIN, origin),
        header(headers::ERROR_CODE, Bytes::from_static(failure.code.as_bytes())),
        header(headers::ERROR_REASON, Bytes::from_static(failure.reason.as_bytes())),
        header(headers::STAGE, Bytes::from_static(failure.stage.as_bytes())),
        header(headers::VERSION, Bytes::from_static(VERSION.as_bytes())),
    ]
    .into_iter()
    .collect();
    if let Subject::Record(record) = subject {
        let kept = |it: &&Header| headers::is_history(&it.name);
        all.extend(record.headers.iter().filter(kept).cloned());
    }
    all
}
