//! The thread that polls a consumer: it alone touches the consumer's queues.

use super::context::{Fetch, Shift, list, unassign};
use super::{Buffers, Wake};
use crate::clock::Deadline;
use crate::convert::{Copier, number, position};
use crate::core::Core;
use crate::error::{broker_error, fetch_error};
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use tillstream_log::broker::BrokerError;
use tillstream_log::{Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_schemas::wire_ids::WireIds;
use tokio::sync::oneshot;

/// The thread looks this often even when nobody wakes it.
const LOOK: Duration = Duration::from_millis(20);

/// Between two tries of a seek: a fetcher that was just assigned takes none yet.
const SEEK_AGAIN: Duration = Duration::from_millis(1);

/// How long a seek is tried.
const SEEK: Duration = Duration::from_secs(5);

/// How long the question that wakes a broker's thread may take.
const QUESTION: Duration = Duration::from_millis(50);

/// Messages that are moved from one partition at a time.
const MOVED_MAX: usize = 1_000;

/// What the thread is told.
pub(crate) enum Command {
    /// Fetch a partition from an offset on, for this life of its buffer.
    Fetch { partition: u32, offset: u64, life: u64, done: oneshot::Sender<Result<(), BrokerError>> },
    /// Give the partitions of this revocation back now.
    Release(u64),
    /// End; told when the consumer is closed.
    Close(oneshot::Sender<()>),
}

/// How a consumer comes by its partitions.
#[derive(Clone, Debug)]
pub(crate) enum Membership {
    /// By its group.
    Group,
    /// It has all of these.
    Own(Vec<u32>),
}

/// What the owner hears of: rebalances, and what ends the consumer.
pub(crate) type Hear = Box<dyn FnMut(Result<Shift, BrokerError>) + Send>;

/// A running consumer. The thread ends when it is told to close or this is dropped.
pub(crate) struct Fetching {
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) wake: Arc<Wake>,
    consumer: Weak<BaseConsumer<Fetch>>,
}

impl Fetching {
    /// Fetches a partition from `offset` on; what was buffered of it is dropped at once.
    pub(crate) fn fetch(
        &self,
        partition: TopicPartition,
        offset: u64,
    ) -> Result<oneshot::Receiver<Result<(), BrokerError>>, BrokerError> {
        let Some(life) = self.buffers.restart(partition.partition, offset) else {
            return Err(BrokerError::Unavailable(format!("{partition} is not assigned to this member")));
        };
        let (done, answer) = oneshot::channel();
        self.tell(Command::Fetch { partition: partition.partition, offset, life, done })?;
        Ok(answer)
    }

    /// Tells the thread.
    pub(crate) fn tell(&self, command: Command) -> Result<(), BrokerError> {
        let sent = self.commands.send(command).map_err(|_| ended());
        self.wake.wake();
        sent
    }

    /// Lends the consumer out for a short question. The thread closes it once nobody has it.
    pub(crate) fn consumer(&self) -> Result<Arc<BaseConsumer<Fetch>>, BrokerError> {
        self.consumer.upgrade().ok_or_else(ended)
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        // The channel closes after this: the wake only makes it seen at once.
        let (done, _) = oneshot::channel();
        let _ = self.tell(Command::Close(done));
    }
}

fn ended() -> BrokerError {
    BrokerError::Unavailable("the consumer has been closed".into())
}

/// Starts a consumer of one topic.
pub(crate) fn start(
    core: &Core,
    config: &ClientConfig,
    topic: Topic,
    membership: Membership,
    hear: Hear,
) -> Result<Fetching, BrokerError> {
    let context = Fetch::new(Arc::clone(&core.connection));
    let wake = Arc::clone(&context.wake);
    let refuse = |error: KafkaError| broker_error(&error, &core.connection);
    let mut consumer: BaseConsumer<Fetch> = config.create_with_context(context).map_err(refuse)?;
    let on_message = Arc::clone(&wake);
    consumer.set_nonempty_callback(move || on_message.wake());
    let buffers = Arc::new(Buffers::new(core.settings.buffered_bytes_max, Arc::clone(&wake)));
    match &membership {
        Membership::Group => consumer.subscribe(&[topic.name()]).map_err(refuse)?,
        Membership::Own(partitions) => partitions.iter().for_each(|it| buffers.add(*it)),
    }
    let consumer = Arc::new(consumer);
    let (commands, received) = mpsc::channel();
    let fetching = Fetching {
        buffers: Arc::clone(&buffers),
        commands,
        wake: Arc::clone(&wake),
        consumer: Arc::downgrade(&consumer),
    };
    let thread = Thread {
        consumer,
        topic,
        ids: Arc::clone(&core.ids),
        buffers,
        wake,
        hear,
        copier: Copier::default(),
        active: BTreeMap::new(),
        pending: Vec::new(),
        stopped: BTreeSet::new(),
        revoking: BTreeMap::new(),
    };
    std::thread::Builder::new()
        .name("kafka-fetch".into())
        .spawn(move || thread.run(&membership, &received))
        .map_err(|error| BrokerError::Unavailable(format!("no thread: {error}")))?;
    Ok(fetching)
}

/// A partition that is fetched.
struct Active {
    life: u64,
    queue: PartitionQueue<Fetch>,
}

/// A seek that waits for the partition's fetcher.
struct Pending {
    partition: u32,
    offset: u64,
    life: u64,
    deadline: Deadline,
    done: oneshot::Sender<Result<(), BrokerError>>,
}

struct Thread {
    consumer: Arc<BaseConsumer<Fetch>>,
    topic: Topic,
    ids: Arc<WireIds>,
    buffers: Arc<Buffers>,
    wake: Arc<Wake>,
    hear: Hear,
    copier: Copier,
    active: BTreeMap<u32, Active>,
    pending: Vec<Pending>,
    /// Partitions whose fetcher has stopped with an error: it takes no seeks any more.
    stopped: BTreeSet<u32>,
    /// Revocations that wait for their release.
    revoking: BTreeMap<u64, Vec<u32>>,
}

impl Thread {
    fn run(mut self, membership: &Membership, commands: &mpsc::Receiver<Command>) {
        if let Membership::Own(partitions) = membership {
            self.assign(partitions);
        }
        let mut wait = LOOK;
        loop {
            self.wake.wait(wait);
            match self.obey(commands) {
                Ok(()) => {}
                Err(closed) => {
                    self.close();
                    // Whoever no longer waits needs not hear it.
                    let _ = closed.map(|it| it.send(()));
                    return;
                }
            }
            self.serve_events();
            self.serve_seeks();
            wait = if self.move_messages() {
                Duration::ZERO
            } else if self.pending.is_empty() {
                LOOK
            } else {
                SEEK_AGAIN
            };
        }
    }

    /// Assigns what needs no group, paused.
    fn assign(&mut self, partitions: &[u32]) {
        // A seek in a partition whose leader is not known yet is only tried again a second later.
        if let Err(error) = self.consumer.fetch_metadata(Some(self.topic.name()), SEEK) {
            self.note(&error);
        }
        let mut all = list(self.topic.name(), partitions);
        let assigned = all
            .set_all_offsets(rdkafka::Offset::Offset(0))
            .and_then(|()| self.consumer.assign(&all))
            .and_then(|()| self.consumer.pause(&all));
        if let Err(error) = assigned {
            tracing::warn!(topic = %self.topic, %error, "partitions could not be assigned");
        }
    }

    /// Does what was told; `Err` when it is to end.
    fn obey(&mut self, commands: &mpsc::Receiver<Command>) -> Result<(), Option<oneshot::Sender<()>>> {
        loop {
            match commands.try_recv() {
                Ok(Command::Fetch { partition, offset, life, done }) => {
                    // An older start of it is not wanted any more: its sender goes, and with it the wait.
                    self.pending.retain(|it| it.partition != partition);
                    let deadline = Deadline::after(SEEK);
                    self.pending.push(Pending { partition, offset, life, deadline, done });
                }
                Ok(Command::Release(revocation)) => {
                    // One that was lost meanwhile is over already.
                    if let Some(partitions) = self.revoking.remove(&revocation) {
                        self.give_back(&partitions);
                    }
                }
                Ok(Command::Close(done)) => return Err(Some(done)),
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => return Err(None),
            }
        }
    }

    fn forget(&mut self, partitions: &[u32]) {
        for partition in partitions {
            self.active.remove(partition);
            self.stopped.remove(partition);
            self.pending.retain(|it| it.partition != *partition);
            self.buffers.remove(*partition);
        }
    }

    fn give_back(&mut self, partitions: &[u32]) {
        self.forget(partitions);
        unassign(&self.consumer, &list(self.topic.name(), partitions));
    }

    /// Polls the consumer's own queue: rebalances, errors, log lines.
    fn serve_events(&mut self) {
        let consumer = Arc::clone(&self.consumer);
        let mut empty = 0;
        // The library also says "nothing" after it has served a log line: look twice.
        while empty < 2 {
            match consumer.poll(Duration::ZERO) {
                None => empty += 1,
                Some(Ok(message)) => {
                    // Fetched before the partition had a queue of its own.
                    let partition = u32::try_from(message.partition()).unwrap_or(u32::MAX);
                    if let Some(active) = self.active.get(&partition) {
                        let record = self.copier.record(&message, &self.ids);
                        self.buffers.push(partition, active.life, vec![record]);
                    }
                }
                Some(Err(error)) => self.note(&error),
            }
        }
        for shift in consumer.context().take_shifts() {
            self.pass_on(shift);
        }
        if !self.revoking.is_empty() && consumer.assignment_lost() {
            for partitions in std::mem::take(&mut self.revoking).into_values() {
                self.give_back(&partitions);
                (self.hear)(Ok(Shift::Lost(partitions)));
            }
        }
    }

    fn pass_on(&mut self, shift: Shift) {
        let none = match &shift {
            Shift::Assigned(partitions) => {
                self.consumer.context().connection.answered();
                partitions.iter().for_each(|it| self.buffers.add(*it));
                partitions.is_empty()
            }
            Shift::Revoked(_, partitions) if partitions.is_empty() => {
                self.give_back(&[]);
                true
            }
            Shift::Revoked(revocation, partitions) => {
                self.revoking.insert(*revocation, partitions.clone());
                false
            }
            Shift::Lost(partitions) => {
                self.forget(partitions);
                partitions.is_empty()
            }
        };
        // The library also tells of rebalances that move nothing.
        if !none {
            (self.hear)(Ok(shift));
        }
    }

    /// An error that is of no one partition.
    fn note(&mut self, error: &KafkaError) {
        let connection = Arc::clone(&self.consumer.context().connection);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let meaning = broker_error(error, &connection);
        if fatal || matches!(meaning, BrokerError::Refused(_)) {
            let detail = format!("{}: {error}", self.topic);
            let told = if fatal { BrokerError::Refused(detail) } else { meaning };
            (self.hear)(Err(told));
        } else {
            tracing::debug!(topic = %self.topic, %error, "Kafka consumer");
        }
    }

    fn serve_seeks(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match self.seek(&pending) {
                Ok(()) => {
                    // Whoever no longer waits needs no answer.
                    let _ = pending.done.send(Ok(()));
                }
                Err(error) if pending.deadline.passed() => {
                    let detail = format!("{}: seek to {}: {error}", self.topic, pending.offset);
                    let error = BrokerError::Unavailable(detail);
                    self.buffers.fail(pending.partition, pending.life, error.clone());
                    let _ = pending.done.send(Err(error));
                }
                Err(_) => self.pending.push(pending),
            }
        }
    }

    fn seek(&mut self, pending: &Pending) -> Result<(), KafkaError> {
        let topic = self.topic.name();
        if self.stopped.remove(&pending.partition) {
            self.begin_again(pending.partition)?;
        }
        let mut places = list(topic, &[pending.partition]);
        places.set_all_offsets(position(pending.offset))?;
        let places = self.consumer.seek_partitions(places, SEEK)?;
        for place in places.elements() {
            place.error()?;
        }
        // The fetcher runs now, so the library does not forward the partition's queue any more behind our back.
        let queue = match self.active.remove(&pending.partition) {
            Some(active) => Some(active.queue),
            None => self.split(pending.partition),
        };
        let queue = queue.ok_or_else(|| KafkaError::Seek("no such partition".into()))?;
        self.active.insert(pending.partition, Active { life: pending.life, queue });
        let mut places = list(topic, &[pending.partition]);
        self.consumer.resume(&places)?;
        if self.active.len() == 1 {
            // The library's thread of that broker may sleep for up to a second, and resuming does not wake it: a
            // question does. What the answer is does not matter.
            places.set_all_offsets(rdkafka::Offset::End)?;
            let _ = self.consumer.offsets_for_times(places, QUESTION);
        }
        Ok(())
    }

    /// Gives a partition a new fetcher, paused.
    fn begin_again(&mut self, partition: u32) -> Result<(), KafkaError> {
        self.active.remove(&partition);
        let mut places = list(self.topic.name(), &[partition]);
        self.consumer.incremental_unassign(&places)?;
        places.set_all_offsets(rdkafka::Offset::Offset(0))?;
        self.consumer.incremental_assign(&places)?;
        self.consumer.pause(&places)
    }

    fn split(&self, partition: u32) -> Option<PartitionQueue<Fetch>> {
        let mut queue = self.consumer.split_partition_queue(self.topic.name(), number(partition))?;
        let wake = Arc::clone(&self.wake);
        queue.set_nonempty_callback(move || wake.wake());
        Some(queue)
    }

    /// Moves messages into the buffers that have room; whether there may be more to move.
    fn move_messages(&mut self) -> bool {
        let mut more = false;
        let mut stopped = Vec::new();
        for (partition, active) in &self.active {
            if !self.buffers.has_room(*partition) {
                continue;
            }
            let (mut moved, mut error) = (Vec::new(), None);
            while moved.len() < MOVED_MAX {
                match active.queue.poll(Duration::ZERO) {
                    Some(Ok(message)) => moved.push(self.copier.record(&message, &self.ids)),
                    Some(Err(it)) => {
                        error = Some(it);
                        break;
                    }
                    None => break,
                }
            }
            more |= moved.len() == MOVED_MAX || error.is_some();
            if self.fill(*partition, active.life, moved, error) {
                stopped.push(*partition);
            }
        }
        self.stopped.extend(stopped);
        more
    }

    /// Whether the partition's fetch has failed.
    fn fill(&self, partition: u32, life: u64, moved: Vec<Record>, error: Option<KafkaError>) -> bool {
        if !moved.is_empty() {
            self.buffers.push(partition, life, moved);
        }
        let Some(error) = error else { return false };
        let at = TopicPartition::new(self.topic, partition);
        match fetch_error(at, self.buffers.next_offset(partition), &error) {
            Some(error) => {
                self.buffers.fail(partition, life, error);
                true
            }
            None => {
                tracing::debug!(partition = %at, %error, "Kafka consumer");
                false
            }
        }
    }

    /// Leaves the group and closes the connections.
    fn close(mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        self.active.clear();
        self.pending.clear();
        self.buffers.clear();
        // A revocation that still waits for its release holds the group up.
        for partitions in std::mem::take(&mut self.revoking).into_values() {
            self.give_back(&partitions);
        }
        // Somebody may be asking it something; the last one to let go closes it, and that is to be this thread.
        let mut consumer = self.consumer;
        loop {
            match Arc::try_unwrap(consumer) {
                Ok(last) => return drop(last),
                Err(shared) => {
                    consumer = shared;
                    std::thread::sleep(SEEK_AGAIN);
                }
            }
        }
    }
}
