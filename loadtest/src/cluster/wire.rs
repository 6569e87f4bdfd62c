//! The benchmark's own clients: a producer of commands, and readers of committed records.

use crate::BenchError;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tillstream_log::headers;
use tillstream_runtime::Clock;
use tillstream_schemas::codec::{self, Wire};
use tillstream_schemas::wire_ids::WireIds;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::partition::partition_of;

/// How long one question to the broker, or the last flush, may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long a poll waits when nothing is there.
const POLL: Duration = Duration::from_millis(100);
/// Types of the events that end an order's chain here.
const FINAL_KINDS: [&[u8]; 4] =
    [b"payment.captured", b"payment.failed", b"order.rejected", b"order.cancelled"];

fn broker(error: impl std::fmt::Display) -> BenchError {
    BenchError::Broker(error.to_string())
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// Counts the records that the broker did not take.
#[derive(Default)]
struct Refused(AtomicU64);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A producer with the comparison program's settings: idempotent, acknowledged by all, batches of 128 KiB.
pub struct Sender {
    producer: ThreadedProducer<Refused>,
    ids: Arc<WireIds>,
    partitions: u32,
}

impl Sender {
    /// Connects; records are collected for `linger_ms` before they are sent.
    pub fn open(
        brokers: &str,
        ids: Arc<WireIds>,
        partitions: u32,
        linger_ms: u32,
    ) -> Result<Self, BenchError> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", linger_ms.to_string())
            .set("batch.size", (128 << 10).to_string())
            .set("queue.buffering.max.messages", "200000")
            .create_with_context(Refused::default())
            .map_err(broker)?;
        Ok(Self { producer, ids, partitions })
    }

    /// Hands a record over, to the partition of its key.
    pub fn send<T: Wire>(&self, topic: Topic, key: &str, value: &T) -> Result<(), BenchError> {
        let mut bytes = codec::encode(value).map_err(BenchError::pipeline)?;
        self.ids.header_to_registry(&mut bytes);
        let partition = number(partition_of(key.as_bytes(), self.partitions));
        let mut record =
            BaseRecord::to(topic.name()).partition(partition).key(key.as_bytes()).payload(&bytes[..]);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    std::thread::sleep(Duration::from_millis(1));
                    record = back;
                }
                Err((error, _)) => return Err(broker(error)),
            }
        }
    }

    /// Waits until the broker has taken everything.
    pub fn finish(self) -> Result<(), BenchError> {
        self.producer.flush(ANSWER_MAX).map_err(broker)?;
        match self.producer.context().0.load(Ordering::Relaxed) {
            0 => Ok(()),
            refused => Err(broker(format!("{refused} records were not taken"))),
        }
    }
}

/// A consumer of committed records; it belongs to no group and commits nothing.
fn consumer(brokers: &str) -> Result<BaseConsumer, BenchError> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tillstream-bench")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()
        .map_err(broker)
}

fn assign(consumer: &BaseConsumer, topic: Topic, offsets: &[i64]) -> Result<(), BenchError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(offsets) {
        list.add_partition_offset(topic.name(), partition, Offset::Offset(*offset)).map_err(broker)?;
    }
    consumer.assign(&list).map_err(broker)
}

/// Where a topic's partitions end now.
pub fn ends(brokers: &str, topic: Topic, partitions: u32) -> Result<Vec<i64>, BenchError> {
    let consumer = consumer(brokers)?;
    let end = |partition| consumer.fetch_watermarks(topic.name(), number(partition), ANSWER_MAX);
    (0..partitions).map(|it| Ok(end(it).map_err(broker)?.1)).collect()
}

/// The latest committed value per key of a topic, from these offsets to where it ends; deleted keys are left out.
/// `wanted` says which keys.
pub fn latest(
    brokers: &str,
    ids: &WireIds,
    topic: Topic,
    from: &[i64],
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, BenchError> {
    let consumer = consumer(brokers)?;
    assign(&consumer, topic, from)?;
    let (mut values, mut ended) = (BTreeMap::new(), vec![false; from.len()]);
    while !ended.iter().all(|it| *it) {
        match consumer.poll(POLL) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(it) = usize::try_from(partition).ok().and_then(|it| ended.get_mut(it)) {
                    *it = true;
                }
            }
            Some(Err(error)) => return Err(broker(error)),
            Some(Ok(message)) => {
                let key = message.key().unwrap_or_default();
                if !wanted(key) {
                    continue;
                }
                match message.payload() {
                    Some(value) => {
                        let mut value = value.to_vec();
                        ids.header_to_local(&mut value);
                        values.insert(key.to_vec(), value);
                    }
                    None => {
                        values.remove(key);
                    }
                }
            }
        }
    }
    Ok(values)
}

/// The event that ended an order's chain.
#[derive(Clone, Debug)]
pub struct Final {
    /// Which order.
    pub index: u64,
    /// When the reader had it, monotonic.
    pub at_ns: u64,
    /// The event, with this build's schema id.
    pub value: Vec<u8>,
}

/// Reads final events of `orders.events` on a thread of its own.
pub struct Finals {
    thread: std::thread::JoinHandle<Result<Vec<Final>, BenchError>>,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Finals {
    /// Begins to read where the topic ends now. `orders` are the ids of the orders that are waited for.
    pub fn follow(
        brokers: &str,
        ids: Arc<WireIds>,
        partitions: u32,
        orders: HashMap<Text, u64>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BenchError> {
        let from = ends(brokers, Topic::OrderEvents, partitions)?;
        let consumer = consumer(brokers)?;
        assign(&consumer, Topic::OrderEvents, &from)?;
        let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let reader = Reader { consumer, ids, orders, clock, count: count.clone(), stop: stop.clone() };
        let thread = std::thread::Builder::new().name("finals".into()).spawn(move || reader.run());
        Ok(Self { thread: thread.map_err(BenchError::io("a thread"))?, count, stop })
    }

    /// How many there were so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Whether the reader has failed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops, and gives what was read.
    pub fn stop(self) -> Result<Vec<Final>, BenchError> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| broker("the reader panicked"))?
    }
}

struct Reader {
    consumer: BaseConsumer,
    ids: Arc<WireIds>,
    orders: HashMap<Text, u64>,
    clock: Arc<dyn Clock>,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(self) -> Result<Vec<Final>, BenchError> {
        let mut finals = Vec::with_capacity(self.orders.len());
        while !self.stop.load(Ordering::Acquire) {
            match self.consumer.poll(POLL) {
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                // The client connects again by itself.
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut,
                ))) => {}
                Some(Err(error)) => return Err(broker(format!("reading final events: {error}"))),
                Some(Ok(message)) => {
                    if let Some(it) = self.read(&message) {
                        finals.push(it);
                        self.count.fetch_add(1, Ordering::Release);
                    }
                }
            }
        }
        Ok(finals)
    }

    /// Only what ends an order's chain is looked at any further.
    fn read(&self, message: &BorrowedMessage<'_>) -> Option<Final> {
        let is_type = |it: &rdkafka::message::Header<'_, &[u8]>| it.key == headers::CE_TYPE;
        let kind = message.headers()?.iter().find(is_type)?.value?;
        if !FINAL_KINDS.contains(&kind) {
            return None;
        }
        let at_ns = self.clock.monotonic_ns();
        let key = std::str::from_utf8(message.key()?).ok()?;
        let index = *self.orders.get(key.rsplit_once('/')?.1)?;
        let mut value = message.payload()?.to_vec();
        self.ids.header_to_local(&mut value);
        Some(Final { index, at_ns, value })
    }
}
