//! What ends a task's life.

use crate::dead_letter::Failure;
use thiserror::Error;
use tillstream_log::{LogError, TopicPartition};
use tillstream_schemas::codec::CodecError;
use tillstream_state::TaskId;

/// Why the shell stopped.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// More is committed than the log has: the log was cut or replaced.
    #[error(
        "TS0401: {task} has committed offset {committed}, but {input} ends at {end}: \
         the log was cut or recreated; restore the data dir (log and state lie in it together) from a backup"
    )]
    OffsetsLost {
        /// The task.
        task: TaskId,
        /// Its input.
        input: TopicPartition,
        /// What is committed.
        committed: u64,
        /// One past the last record.
        end: u64,
    },
    /// The input the task must go on from is no longer kept.
    #[error(
        "TS0402: {task} must go on from offset {committed}, but {input} starts at {start}: \
         records were lost; restore the data dir (log and state lie in it together) from a backup"
    )]
    InputGone {
        /// The task.
        task: TaskId,
        /// Its input.
        input: TopicPartition,
        /// What is committed.
        committed: u64,
        /// The first offset kept.
        start: u64,
    },
    /// A follower that lookups depend on has ended.
    #[error("TS0403: the follower of {0} has ended")]
    FollowerStopped(&'static str),
    /// The shell itself panicked.
    #[error("TS0404: {task} panicked outside a stage: {message}")]
    Panicked {
        /// The task.
        task: TaskId,
        /// The panic's words.
        message: String,
    },
    /// What the task cannot take has nowhere to go.
    #[error("TS0405: {0} has no dead-letter topic")]
    NoDeadLetterTopic(TopicPartition),
    /// The shell's own bytes: a dead letter, or a product row.
    #[error("TS0406: {what}: {error}")]
    Codec {
        /// Of what.
        what: &'static str,
        /// Why.
        error: CodecError,
    },
    /// A metric cannot be registered or encoded.
    #[error("TS0409: metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The log or the store.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl RuntimeError {
    /// Whether starting the task again cannot help: the process must halt.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::OffsetsLost { .. }
            | Self::InputGone { .. }
            | Self::Panicked { .. }
            | Self::NoDeadLetterTopic(_)
            | Self::Metrics(_) => true,
            Self::FollowerStopped(_) | Self::Codec { .. } => false,
            Self::Log(error) => error.is_fatal(),
        }
    }
}

/// Why a batch came to nothing.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// An input failed: nothing was committed, and the batch will be run again.
    Poison(Box<Poisoned>),
    /// The world failed.
    Runtime(RuntimeError),
}

/// The input that failed.
#[derive(Debug)]
pub(crate) struct Poisoned {
    /// Which.
    pub culprit: crate::poison::Culprit,
    /// How.
    pub failure: Failure,
    /// Inputs in the batch.
    pub inputs: usize,
}

impl<E: Into<RuntimeError>> From<E> for BatchError {
    fn from(error: E) -> Self {
        Self::Runtime(error.into())
    }
}
