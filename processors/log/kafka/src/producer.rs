//! A transactional producer: the library's blocking calls on a thread of their own, one after the other.

use crate::clock::Deadline;
use crate::convert::{number, position, to_headers, to_wire};
use crate::core::Core;
use crate::deliveries::Deliveries;
use crate::error::{Step, broker_error, fatal_error, produce_error, transaction_error};
use futures::future::BoxFuture;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_log::broker::{BrokerError, GroupMetadata, GroupOffset, ProduceRecord, TransactionalProducer};
use tillstream_schemas::wire_ids::WireIds;
use tokio::sync::oneshot;

/// Between two looks at the deliveries. The library's own poll does not return early, and its last millisecond spins.
const LOOK: Duration = Duration::from_micros(200);
/// The looks of one wait grow apart by an eighth each, up to this: a long wait ends at most an eighth late, and does not
/// wake the machine five thousand times a second.
const LOOK_MAX: Duration = Duration::from_millis(4);

/// How long a producer waits for its first connection before it does anything.
const WARM_UP: Duration = Duration::from_secs(2);
const CONNECTED: Duration = Duration::from_millis(2);

/// How often an idle producer serves its log lines.
const IDLE: Duration = Duration::from_secs(1);

type Answer = Result<Vec<u64>, BrokerError>;

enum Work {
    Init,
    Begin,
    Produce(Vec<ProduceRecord>),
    Drain,
    SendOffset { member: Arc<ConsumerGroupMetadata>, partition: TopicPartition, offset: GroupOffset },
    Commit,
    Abort,
}

struct Call {
    work: Work,
    reply: oneshot::Sender<Answer>,
}

/// The handle; dropping it ends the thread once its call has returned.
pub(crate) struct KafkaProducer {
    calls: mpsc::Sender<Call>,
}

impl KafkaProducer {
    /// Makes the client and its thread; nothing is asked of the broker yet.
    pub(crate) fn start(core: &Core, transactional_id: &str) -> Result<Self, BrokerError> {
        let (settings, connection) = (&core.settings, &core.connection);
        let deliveries = Deliveries::new(Arc::clone(connection));
        let client: BaseProducer<Deliveries> = settings
            .transactional_producer(transactional_id)
            .create_with_context(deliveries)
            .map_err(|error| broker_error(&error, connection))?;
        let (calls, received) = mpsc::channel();
        let timeout = Duration::from_millis(settings.transaction_timeout_ms.into());
        let ids = Arc::clone(&core.ids);
        let thread = Thread { client, ids, timeout, scratch: Vec::new(), produced: Vec::new() };
        std::thread::Builder::new()
            .name("kafka-producer".into())
            .spawn(move || thread.run(&received))
            .map_err(|error| BrokerError::Unavailable(format!("no thread: {error}")))?;
        Ok(Self { calls })
    }

    fn call(&self, work: Work) -> BoxFuture<'_, Answer> {
        let (reply, answer) = oneshot::channel();
        let ended = || BrokerError::Unknown("the producer's thread has ended".into());
        let sent = self.calls.send(Call { work, reply });
        Box::pin(async move {
            sent.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?
        })
    }

    fn call_for_nothing(&self, work: Work) -> BoxFuture<'_, Result<(), BrokerError>> {
        let answer = self.call(work);
        Box::pin(async move { answer.await.map(|_| ()) })
    }
}

impl TransactionalProducer for KafkaProducer {
    fn init(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.call_for_nothing(Work::Init)
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.call_for_nothing(Work::Begin)
    }

    fn produce(&self, records: Vec<ProduceRecord>) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.call_for_nothing(Work::Produce(records))
    }

    fn drain(&self) -> BoxFuture<'_, Answer> {
        self.call(Work::Drain)
    }

    fn send_offset(
        &self,
        group: &str,
        member: &GroupMetadata,
        partition: TopicPartition,
        offset: GroupOffset,
    ) -> BoxFuture<'_, Result<(), BrokerError>> {
        match Arc::clone(&member.0).downcast::<ConsumerGroupMetadata>() {
            Ok(member) => self.call_for_nothing(Work::SendOffset { member, partition, offset }),
            Err(_) => {
                let detail = format!("the metadata of group {group} is not this client's");
                Box::pin(async move { Err(BrokerError::Refused(detail)) })
            }
        }
    }

    fn commit(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.call_for_nothing(Work::Commit)
    }

    fn abort(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.call_for_nothing(Work::Abort)
    }
}

struct Thread {
    client: BaseProducer<Deliveries>,
    ids: Arc<WireIds>,
    timeout: Duration,
    scratch: Vec<u8>,
    /// Where the records of this transaction went, for messages.
    produced: Vec<TopicPartition>,
}

impl Thread {
    fn run(mut self, calls: &mpsc::Receiver<Call>) {
        // The library looks for the transaction's coordinator at the first call, and where no broker is connected yet
        // it looks again half a second later.
        let deadline = Deadline::after(WARM_UP);
        // Short waits: the library's own misses the answer that comes just before it begins.
        while self.client.client().fetch_cluster_id(CONNECTED).is_none() && !deadline.passed() {}
        loop {
            match calls.recv_timeout(IDLE) {
                Ok(Call { work, reply }) => {
                    let answer = self.work(work, &reply);
                    // Whoever no longer waits needs no answer.
                    let _ = reply.send(answer);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.client.poll(Duration::ZERO),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn work(&mut self, work: Work, reply: &oneshot::Sender<Answer>) -> Answer {
        let done = match work {
            Work::Init => {
                let done = self.step(Step::Init, |it| it.client.init_transactions(it.timeout));
                if done.is_ok() {
                    self.client.context().connection.answered();
                }
                done
            }
            Work::Begin => {
                self.produced.clear();
                self.client.context().begin();
                self.step(Step::Begin, |it| it.client.begin_transaction())
            }
            Work::Produce(records) => records.iter().try_for_each(|it| self.produce(it, reply)),
            Work::Drain => return self.drain(reply),
            Work::SendOffset { member, partition, offset } => {
                let mut places = TopicPartitionList::with_capacity(1);
                let mut place = places.add_partition(partition.topic.name(), number(partition.partition));
                let set = place.set_offset(position(offset.offset));
                place.set_metadata(&offset.metadata);
                self.step(Step::Offsets, |it| {
                    set.and_then(|()| it.client.send_offsets_to_transaction(&places, &member, it.timeout))
                })
            }
            Work::Commit => self.step(Step::Commit, |it| it.client.commit_transaction(it.timeout)),
            Work::Abort => self.step(Step::Abort, Self::abort),
        };
        done.map(|()| Vec::new())
    }

    fn step(
        &self,
        step: Step,
        call: impl FnOnce(&Self) -> Result<(), KafkaError>,
    ) -> Result<(), BrokerError> {
        let connection = &self.client.context().connection;
        call(self).map_err(|error| transaction_error(step, &error, self.fatal(), connection))
    }

    fn fatal(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.client.client().fatal_error()
    }

    fn produce(
        &mut self,
        record: &ProduceRecord,
        reply: &oneshot::Sender<Answer>,
    ) -> Result<(), BrokerError> {
        let to = record.to;
        let value = record.value.as_ref().map(|it| to_wire(it, &self.ids, &mut self.scratch));
        let mark = self.client.context().next();
        let mut message: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(to.topic.name(), mark)
                .partition(number(to.partition))
                .key(&record.key[..]);
        message.payload = value;
        message.headers = to_headers(&record.headers);
        loop {
            let (error, back) = match self.client.send(message) {
                Ok(()) => {
                    self.produced.push(to);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            let code = error.rdkafka_error_code();
            if code != Some(RDKafkaErrorCode::QueueFull) || reply.is_closed() {
                self.client.context().take_back();
                return Err(produce_error(to, code, &error.to_string(), self.fatal()));
            }
            // The queue is full: what is in it goes out meanwhile.
            self.client.poll(Duration::ZERO);
            std::thread::sleep(LOOK);
            message = back;
        }
    }

    fn drain(&self, reply: &oneshot::Sender<Answer>) -> Answer {
        let deliveries = self.client.context();
        let mut wait = LOOK;
        loop {
            let mut seen = deliveries.acknowledged().0;
            let all = loop {
                // One event each, of one partition's records.
                self.client.poll(Duration::ZERO);
                let (acknowledged, all) = deliveries.acknowledged();
                if acknowledged == seen {
                    break all;
                }
                seen = acknowledged;
            };
            if let Some(failed) = deliveries.failed() {
                let Some(to) = self.produced.get(failed.index) else {
                    return Err(BrokerError::Abortable(failed.detail));
                };
                return Err(produce_error(*to, failed.code, &failed.detail, self.fatal()));
            }
            // The commit flushes for 100 ms at a time while the library holds anything at all.
            if all && self.client.in_flight_count() == 0 {
                return Ok(deliveries.offsets());
            }
            if let Some((code, words)) = self.fatal() {
                return Err(fatal_error(code, words));
            }
            if reply.is_closed() {
                return Err(BrokerError::Unknown("nobody waits for the deliveries any more".into()));
            }
            std::thread::sleep(wait);
            wait = (wait + wait / 8).min(LOOK_MAX);
        }
    }

    /// The library's abort waits until every record is reported as given up, but does not serve the reports itself.
    fn abort(&self) -> Result<(), KafkaError> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    self.client.poll(Duration::ZERO);
                    std::thread::sleep(LOOK);
                }
            });
            let aborted = self.client.abort_transaction(self.timeout);
            done.store(true, Ordering::Release);
            aborted
        })
    }
}
