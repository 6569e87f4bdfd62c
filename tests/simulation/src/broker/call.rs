//! The kinds of calls: what is counted, and what can be made to fail.

/// A call of a broker's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// `TransactionalProducer::init`.
    Init,
    /// `TransactionalProducer::begin`.
    Begin,
    /// `TransactionalProducer::produce`.
    Produce,
    /// `TransactionalProducer::drain`.
    Drain,
    /// The delivery of what was produced, within a drain or a commit: not a call of its own.
    Deliver,
    /// `TransactionalProducer::send_offset`.
    SendOffset,
    /// `TransactionalProducer::commit`.
    Commit,
    /// `TransactionalProducer::abort`.
    Abort,
    /// `Broker::join`.
    Join,
    /// `GroupMember::fetch_from`.
    FetchFrom,
    /// `GroupMember::take`.
    Take,
    /// `GroupMember::metadata`.
    Metadata,
    /// `GroupMember::leave`.
    Leave,
    /// `Broker::group_offsets`.
    GroupOffsets,
    /// `Broker::set_group_offset`.
    SetGroupOffset,
    /// `Broker::bounds`.
    Bounds,
    /// `Replay::next`.
    Replay,
    /// `Broker::partitions`.
    Partitions,
    /// `Log::append`.
    Append,
    /// `Log::read` and `Log::read_on`.
    Read,
    /// `Log::refresh`.
    Refresh,
}

impl Call {
    /// Whether it is answered by the coordinator of transactions.
    pub(crate) fn needs_coordinator(self) -> bool {
        matches!(self, Self::Init | Self::SendOffset | Self::Commit | Self::Abort)
    }
}

/// What an injected failure leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The request never arrived.
    None,
    /// The request took effect, only the answer is lost.
    Full,
}
