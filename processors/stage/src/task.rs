//! A task kind, as the runtime sees it: pure, over decoded rows.

use crate::facts::Catalog;
use crate::rule::{RuleHost, RuleRun};
use crate::stage::{StageName, TimerName};
use crate::{Key, RowKey, Table};
use thiserror::Error;
use tillstream_schemas::codec::CodecError;
use tillstream_schemas::{Text, Topic};

/// The task kinds. The discriminant is part of the embedded store's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TaskKind {
    /// Orders: pricing → reservation → payment → fulfillment → order view.
    Order = 1,
    /// Items: catalog, stock.
    Item = 2,
    /// Analytics.
    Analytics = 3,
    /// The effects executor: no state, but an offset of its own.
    Effects = 4,
    /// The webhooks executor over events of orders: how far each endpoint is, and what it waits for.
    OrderWebhooks = 5,
    /// The same over events of items.
    ItemWebhooks = 6,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Order, Self::Item, Self::Analytics, Self::Effects, Self::OrderWebhooks, Self::ItemWebhooks];

    /// Its name: the consumer group, and the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Item => "item",
            Self::Analytics => "analytics",
            Self::Effects => "effects",
            Self::OrderWebhooks => "webhooks",
            Self::ItemWebhooks => "item_webhooks",
        }
    }

    /// Whether a deployment may begin it after its input's first records are gone: it takes nothing from them that it must
    /// have. What it has once begun to read it never skips.
    pub fn may_begin_late(self) -> bool {
        matches!(self, Self::OrderWebhooks | Self::ItemWebhooks)
    }

    /// Its one input topic.
    pub fn input(self) -> Topic {
        match self {
            Self::Order => Topic::OrderCommands,
            Self::Item => Topic::ItemCommands,
            Self::Analytics => Topic::AnalyticsDeltas,
            Self::Effects => Topic::EffectRequests,
            Self::OrderWebhooks => Topic::OrderEvents,
            Self::ItemWebhooks => Topic::ItemEvents,
        }
    }

    /// Where its rows and timers are written on a cluster; `None` when it keeps none.
    pub fn changelog(self) -> Option<Topic> {
        match self {
            Self::Order => Some(Topic::OrderChangelog),
            Self::Item => Some(Topic::ItemChangelog),
            Self::Analytics => Some(Topic::AnalyticsChangelog),
            Self::Effects => None,
            Self::OrderWebhooks => Some(Topic::WebhooksChangelog),
            Self::ItemWebhooks => Some(Topic::ItemWebhooksChangelog),
        }
    }
}

/// What a task handles: a decoded command, or a fired timer of a key.
#[derive(Clone, Debug)]
pub enum TaskInput<C> {
    /// A record of the input topic.
    Command(C),
    /// A fired timer.
    Timer {
        /// The key that set it (`tenant/order_id`, `tenant/sku/command_id`).
        key: Key,
        /// Which timer.
        name: TimerName,
        /// When it was due.
        due_ms: i64,
    },
}

/// One record to write. Its partition is computed by the runtime from `key`.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Where to.
    pub topic: Topic,
    /// The log key.
    pub key: Key,
    /// Confluent wire format.
    pub value: Vec<u8>,
    /// Deterministic id; becomes `ce_id`.
    pub id: Text,
    /// CloudEvents type, such as `order.priced`; becomes `ce_type`. Empty: no CloudEvents headers (internal topics).
    pub kind: &'static str,
    /// W3C trace context.
    pub traceparent: Option<Text>,
}

/// A timer change of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyTimer {
    /// The key it belongs to: `tenant/order_id`, or `tenant/sku/command_id`.
    pub key: Key,
    /// Which timer.
    pub name: TimerName,
    /// When it was due until now, if it was set; a timer row is found by its due time. `None` also while it is firing.
    pub was_due_ms: Option<i64>,
    /// When it is due from now on; `None` clears it.
    pub due_ms: Option<i64>,
}

/// What became of an input: the `outcome` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Something changed.
    Applied,
    /// A repeat: nothing changed.
    Duplicate,
    /// A business refusal.
    Refused,
    /// Not for this stage, or too late to matter.
    Ignored,
}

impl Outcome {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Ignored => "ignored",
        }
    }
}

/// Counts and times the stages inside a task; the pure side never sees a clock.
pub trait StageMeter {
    /// A stage begins to decide; the answer is handed to `end`.
    fn begin(&mut self) -> u64;
    /// It has decided.
    fn end(&mut self, stage: StageName, begun: u64, outcome: Outcome);
    /// A rule was called.
    fn rule(&mut self, stage: StageName, run: &RuleRun);
    /// An order got somewhere: `to` is `priced`, `reserved`, `paid` or `completed`.
    fn order_reached(&mut self, to: &'static str, accepted_at_ms: i64);
}

/// Counts nothing.
#[derive(Default)]
pub struct NoMeter;

impl StageMeter for NoMeter {
    fn begin(&mut self) -> u64 {
        0
    }
    fn end(&mut self, _stage: StageName, _begun: u64, _outcome: Outcome) {}
    fn rule(&mut self, _stage: StageName, _run: &RuleRun) {}
    fn order_reached(&mut self, _to: &'static str, _accepted_at_ms: i64) {}
}

/// Reads rows as the batch has left them so far.
pub trait Rows<R> {
    /// The row, or `None` when there is none. Only rows named by [`Task::read_set`] may be asked for.
    fn get(&self, key: &RowKey) -> Option<&R>;
}

/// What one input reads from and writes to. On an error the runtime throws all of it away.
pub struct TaskContext<'a, R, F> {
    /// The wall clock, ms since the epoch, read once per batch.
    pub now_ms: i64,
    /// The task's partition.
    pub partition: u32,
    /// Rows as the batch has left them.
    pub rows: &'a dyn Rows<R>,
    /// Products.
    pub catalog: &'a dyn Catalog,
    /// Rules.
    pub rules: &'a dyn RuleHost,
    /// Counters.
    pub meter: &'a mut dyn StageMeter,
    /// New rows; `None` deletes. At most one entry per key (the last one counts).
    pub changes: Vec<(RowKey, Option<R>)>,
    /// Records to write.
    pub outputs: Vec<Output>,
    /// Timers to set or clear.
    pub timers: Vec<KeyTimer>,
    /// What to fold into the batch's scratch once this input has succeeded.
    pub folds: Vec<F>,
}

/// What a task cannot take; dead-letters the record.
#[derive(Debug, Error)]
pub enum TaskError {
    /// Bytes.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A stage.
    #[error("{error}")]
    Stage {
        /// Which.
        stage: StageName,
        /// Why.
        error: crate::StageError,
    },
    /// The chain fed itself events without end.
    #[error("TS0203: more than {0} events from one input")]
    Endless(usize),
}

impl TaskError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Codec(error) => match error {
                CodecError::Header(_) => "TS0101",
                CodecError::UnknownSchema(_) => "TS0102",
                CodecError::Decode { .. } => "TS0103",
                CodecError::Encode { .. } => "TS0104",
                CodecError::OtherSchema { .. } => "TS0105",
            },
            Self::Stage { error: crate::StageError::Overflow { .. }, .. } => "TS0201",
            Self::Stage { error: crate::StageError::Invariant { .. }, .. } => "TS0202",
            Self::Endless(_) => "TS0203",
        }
    }

    /// The bounded `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Codec(_) => "decode",
            Self::Stage { error: crate::StageError::Overflow { .. }, .. } => "overflow",
            Self::Stage { .. } | Self::Endless(_) => "stage",
        }
    }
}

/// A task kind: decodes its commands and rows, and decides over them. Pure.
pub trait Task: Send + Sync + 'static {
    /// A decoded command.
    type Command: Clone + Send;
    /// A decoded row of any of its tables.
    type Row: Clone + Send + Sync;
    /// What is folded over a batch (analytics deltas, stock levels).
    type Fold: Send;
    /// The batch's scratch.
    type Scratch: Default + Send;

    /// Which kind.
    fn kind(&self) -> TaskKind;

    /// Decodes a command.
    fn decode(&self, value: &[u8]) -> Result<Self::Command, TaskError>;

    /// The key the command belongs to; must equal the record's key.
    fn key_of(&self, command: &Self::Command) -> Key;

    /// The command's id, and when it was accepted (for event lag).
    fn accepted_at_ms(&self, command: &Self::Command) -> i64;

    /// The W3C trace context the command came with: its trace id ties the log lines of all stages together.
    fn traceparent<'c>(&self, command: &'c Self::Command) -> Option<&'c str> {
        let _ = command;
        None
    }

    /// The W3C trace ids (32 hex digits) of the calls that a command sums up, where it is no single call's.
    fn linked_traces<'c>(&self, command: &'c Self::Command) -> &'c [Text] {
        let _ = command;
        &[]
    }

    /// Rows the input may read.
    fn read_set(&self, input: &TaskInput<Self::Command>, keys: &mut Vec<RowKey>);

    /// Products the input needs: (tenant, sku).
    fn products(&self, input: &TaskInput<Self::Command>, products: &mut Vec<(Text, Text)>);

    /// Decodes a row.
    fn decode_row(&self, table: Table, bytes: &[u8]) -> Result<Self::Row, TaskError>;

    /// Encodes a row, appended to `out`.
    fn encode_row(&self, row: &Self::Row, out: &mut Vec<u8>) -> Result<(), TaskError>;

    /// Handles one input.
    fn handle(
        &self,
        input: &TaskInput<Self::Command>,
        context: &mut TaskContext<'_, Self::Row, Self::Fold>,
    ) -> Result<Outcome, TaskError>;

    /// Folds what a succeeded input left.
    fn fold(&self, scratch: &mut Self::Scratch, fold: Self::Fold);

    /// The batch is over: writes what was folded. `batch_id` is deterministic for (partition, first offset).
    fn finish(
        &self,
        scratch: Self::Scratch,
        batch_id: &str,
        context: &mut TaskContext<'_, Self::Row, Self::Fold>,
    ) -> Result<(), TaskError>;
}
