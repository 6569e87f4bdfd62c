//! Reads here and there, for whoever looks something up: a few consumers that are assigned what is asked for.

use crate::clock::Deadline;
use crate::context::Plain;
use crate::convert::{Copier, number, position};
use crate::core::Core;
use crate::error::{broker_error, fetch_error};
use crate::settings::KafkaSettings;
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::time::Duration;
use tillstream_log::broker::BrokerError;
use tillstream_log::{ReadLimit, Record, TopicPartition};

/// Consumers that are kept for the next read.
const IDLE_MAX: usize = 2;

/// Reads at a time; the others wait.
const READS_MAX: usize = 4;

/// The consumers.
pub(crate) struct Readers {
    idle: Mutex<Vec<Reader>>,
    pub(crate) permits: tokio::sync::Semaphore,
}

/// A consumer, and where it stands.
struct Reader {
    consumer: BaseConsumer<Plain>,
    copier: Copier,
    /// What it is assigned, and the next offset it will hand out.
    at: Option<(TopicPartition, u64)>,
    /// A record that did not fit the last read.
    carried: Option<Record>,
}

impl Default for Readers {
    fn default() -> Self {
        Self { idle: Mutex::default(), permits: tokio::sync::Semaphore::new(READS_MAX) }
    }
}

impl Readers {
    /// Reads from `offset` on to `end` at most, and where to go on. Blocks.
    pub(crate) fn read(
        &self,
        core: &Core,
        from: TopicPartition,
        offset: u64,
        end: u64,
        limit: ReadLimit,
    ) -> Result<(Vec<Record>, u64), BrokerError> {
        let mut reader = self.reader(core, (from, offset))?;
        let read = reader.read(core, from, offset, end, limit)?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(reader);
        }
        Ok(read)
    }

    /// The one that stands there already, any other, or a new one.
    fn reader(&self, core: &Core, at: (TopicPartition, u64)) -> Result<Reader, BrokerError> {
        let mut idle = self.idle.lock();
        if let Some(index) = idle.iter().position(|it| it.at == Some(at)) {
            return Ok(idle.swap_remove(index));
        }
        if let Some(reader) = idle.pop() {
            return Ok(reader);
        }
        drop(idle);
        let mut config = core.settings.consumer(&format!("{}.reader", core.settings.deployment));
        config.set("enable.partition.eof", "true");
        // The end is only told after a fetch that found nothing for this long.
        config.set("fetch.wait.max.ms", "1");
        KafkaSettings::fetching(&mut config, 256 << 10, 1 << 20, 256 << 10);
        let context = Plain(core.connection.clone());
        let consumer =
            config.create_with_context(context).map_err(|error| broker_error(&error, &core.connection))?;
        Ok(Reader { consumer, copier: Copier::default(), at: None, carried: None })
    }
}

impl Reader {
    fn read(
        &mut self,
        core: &Core,
        from: TopicPartition,
        offset: u64,
        end: u64,
        limit: ReadLimit,
    ) -> Result<(Vec<Record>, u64), BrokerError> {
        let refuse = |error: KafkaError| broker_error(&error, &core.connection);
        let mut fresh = self.at != Some((from, offset));
        if fresh {
            self.assign(from, offset).map_err(refuse)?;
        }
        // Whatever goes wrong, it stands nowhere afterwards.
        self.at = None;
        let mut next_offset = offset;
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        let deadline = Deadline::after(core.settings.request_timeout());
        while records.len() < limit.records_max.max(1) {
            let record = match self.carried.take() {
                Some(record) => record,
                None => match self.consumer.poll(Duration::from_millis(20)) {
                    Some(Ok(message)) => self.copier.record(&message, &core.ids),
                    Some(Err(KafkaError::PartitionEOF(_))) if !fresh => {
                        // Perhaps the end of an earlier day: only a fetch that began after `end` was asked for tells.
                        self.assign(from, next_offset).map_err(refuse)?;
                        fresh = true;
                        continue;
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        // Nothing readable is before the end that was asked for, whatever fills the offsets.
                        self.give_up();
                        return Ok((records, next_offset.max(end)));
                    }
                    Some(Err(error)) => match fetch_error(from, offset, &error) {
                        Some(error) => {
                            self.give_up();
                            return Err(error);
                        }
                        None => continue,
                    },
                    None if deadline.passed() => {
                        self.give_up();
                        let detail = core.connection.refused();
                        let detail =
                            detail.unwrap_or_else(|| format!("{from} is not answered from {next_offset} on"));
                        return Err(BrokerError::Unavailable(detail));
                    }
                    None => continue,
                },
            };
            let size = record.key.len() + record.value.len();
            if !records.is_empty() && bytes + size > limit.bytes_max {
                self.carried = Some(record);
                break;
            }
            bytes += size;
            next_offset = record.offset + 1;
            records.push(record);
        }
        self.at = Some((from, next_offset));
        Ok((records, next_offset))
    }

    fn assign(&mut self, from: TopicPartition, offset: u64) -> Result<(), KafkaError> {
        self.carried = None;
        let mut places = TopicPartitionList::with_capacity(1);
        places.add_partition_offset(from.topic.name(), number(from.partition), position(offset))?;
        self.consumer.assign(&places)
    }

    /// Fetches nothing any more.
    fn give_up(&mut self) {
        self.carried = None;
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(%error, "a reader could not be unassigned");
        }
    }
}
