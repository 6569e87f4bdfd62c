//! The transaction coordinator: one state machine per transactional id.

use std::collections::{BTreeMap, BTreeSet};
use tillstream_log::TopicPartition;
use tillstream_log::broker::GroupOffset;

/// What a transaction has touched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) deadline_ns: u64,
    pub(crate) partitions: BTreeSet<TopicPartition>,
    pub(crate) offsets: BTreeMap<(String, TopicPartition), GroupOffset>,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Phase {
    /// None is open.
    #[default]
    Idle,
    Ongoing(Transaction),
    /// Decided; the markers are not written yet.
    Ending {
        transaction: Transaction,
        committed: bool,
        markers_at_ns: Option<u64>,
    },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Coordinated {
    /// The producer id.
    pub(crate) producer: u64,
    pub(crate) epoch: u32,
    pub(crate) phase: Phase,
    /// Transactions decided so far.
    pub(crate) decided: u64,
}

impl Coordinated {
    /// When something happens here by itself.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Ongoing(transaction) => Some(transaction.deadline_ns),
            Phase::Ending { markers_at_ns, .. } => *markers_at_ns,
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether an open transaction moves the group's place in the partition.
    pub(crate) fn moves(&self, group: &str, partition: TopicPartition) -> bool {
        let transaction = match &self.phase {
            Phase::Idle => return false,
            Phase::Ongoing(transaction) | Phase::Ending { transaction, .. } => transaction,
        };
        transaction.offsets.keys().any(|(name, at)| name == group && *at == partition)
    }
}

/// How long the markers of decided transactions are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Until the test releases them.
    UntilReleased,
    /// For so long.
    For(std::time::Duration),
}

/// A commit whose outcome its caller is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFate {
    /// It happened; the answer was lost.
    Happened,
    /// It never reached the broker: the transaction stays open until it is fenced or times out.
    NeverArrived,
    /// It reaches the broker later: when released, unless the producer was fenced before.
    ArrivesLater,
}

/// A commit on its way.
#[derive(Clone, Debug)]
pub(crate) struct LateCommit {
    pub(crate) transactional_id: String,
    pub(crate) epoch: u32,
    /// The transaction it is of: those decided before.
    pub(crate) decided: u64,
}
