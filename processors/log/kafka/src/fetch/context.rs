//! Rebalances, as the library calls back.

use super::Wake;
use crate::context::{self, Connection};
use crate::convert::number;
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a rebalance did. The thread that polls passes it on: the callback runs within its poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    /// Ours from now on, and paused.
    Assigned(Vec<u32>),
    /// To be given back by `incremental_unassign`; the number tells revocations apart.
    Revoked(u64, Vec<u32>),
    /// Given up already.
    Lost(Vec<u32>),
}

/// The context of a consumer that fetches.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    pub(crate) connection: Arc<Connection>,
    pub(crate) wake: Arc<Wake>,
    shifts: Mutex<Vec<Shift>>,
    revocations: AtomicU64,
    /// Set when the consumer is about to be closed: nobody waits for revocations then.
    pub(crate) closing: AtomicBool,
}

impl Fetch {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, ..Self::default() }
    }

    /// What happened since the last call.
    pub(crate) fn take_shifts(&self) -> Vec<Shift> {
        std::mem::take(&mut *self.shifts.lock())
    }
}

impl ClientContext for Fetch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.note(&error, reason);
    }
}

impl ConsumerContext for Fetch {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers: Vec<u32> =
            partitions.elements().iter().filter_map(|it| u32::try_from(it.partition()).ok()).collect();
        let shift = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            assign(consumer, partitions);
            Shift::Assigned(numbers)
        } else if consumer.assignment_lost() {
            unassign(consumer, partitions);
            Shift::Lost(numbers)
        } else if self.closing.load(Ordering::Acquire) {
            unassign(consumer, partitions);
            return;
        } else {
            Shift::Revoked(self.revocations.fetch_add(1, Ordering::Relaxed), numbers)
        };
        self.shifts.lock().push(shift);
        self.wake.wake();
    }
}

fn assign(consumer: &BaseConsumer<Fetch>, partitions: &mut TopicPartitionList) {
    // A given offset, so that the library does not look for the committed one; what is fetched begins with a seek.
    let done = partitions
        .set_all_offsets(rdkafka::Offset::Offset(0))
        .and_then(|()| consumer.incremental_assign(partitions))
        .and_then(|()| if partitions.count() == 0 { Ok(()) } else { consumer.pause(partitions) });
    if let Err(error) = done {
        tracing::warn!(%error, "partitions could not be assigned");
    }
}

/// Gives partitions back to the group.
pub(crate) fn unassign(consumer: &BaseConsumer<Fetch>, partitions: &TopicPartitionList) {
    if let Err(error) = consumer.incremental_unassign(partitions) {
        tracing::warn!(%error, "partitions could not be given back");
    }
}

/// A list of partitions of one topic.
pub(crate) fn list(topic: &str, partitions: &[u32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(topic, number(*partition));
    }
    list
}
