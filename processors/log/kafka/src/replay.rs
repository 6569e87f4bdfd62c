//! Reading a partition from an offset to what is stable.

use crate::context::{Connection, Plain};
use crate::convert::{Copier, number, offset as offset_of, position};
use crate::core::Core;
use crate::error::{broker_error, fetch_error};
use crate::settings::KafkaSettings;
use futures::future::BoxFuture;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::TopicPartition;
use tillstream_log::broker::{BrokerError, Replay, ReplayRecord};
use tillstream_schemas::wire_ids::WireIds;
use tokio::sync::mpsc;

/// Records handed over at a time, and their bytes.
const STEP_RECORDS: usize = 4_096;
const STEP_BYTES: usize = 1 << 20;

/// Steps that wait to be taken.
const STEPS: usize = 4;

type Step = Result<Vec<ReplayRecord>, BrokerError>;

/// See [`crate::KafkaBroker`].
pub(crate) struct KafkaReplay {
    /// An empty step is the end. Only that: a channel that just closes has lost something.
    steps: mpsc::Receiver<Step>,
    ended: bool,
}

impl KafkaReplay {
    /// Starts a consumer of its own; it ends when this is dropped or all is read.
    pub(crate) fn start(core: &Core, partition: TopicPartition, offset: u64) -> Result<Self, BrokerError> {
        let mut config = core.settings.consumer(&format!("{}.replay", core.settings.deployment));
        config.set("enable.partition.eof", "true");
        // The end is only told after a fetch that found nothing for this long.
        config.set("fetch.wait.max.ms", "1");
        KafkaSettings::fetching(&mut config, 8 << 20, 32 << 20, 16 << 20);
        let (sender, steps) = mpsc::channel(STEPS);
        let reader = Reader {
            connection: Arc::clone(&core.connection),
            ids: Arc::clone(&core.ids),
            partition,
            next_offset: offset,
            copier: Copier::default(),
            sender,
        };
        std::thread::Builder::new()
            .name("kafka-replay".into())
            .spawn(move || reader.run(&config))
            .map_err(|error| BrokerError::Unavailable(format!("no thread: {error}")))?;
        Ok(Self { steps, ended: false })
    }
}

impl Replay for KafkaReplay {
    fn next(&mut self) -> BoxFuture<'_, Step> {
        Box::pin(async move {
            if self.ended {
                return Ok(Vec::new());
            }
            let lost = || Err(BrokerError::Unavailable("the replay broke off".into()));
            let step = self.steps.recv().await.unwrap_or_else(lost)?;
            self.ended = step.is_empty();
            Ok(step)
        })
    }
}

struct Reader {
    connection: Arc<Connection>,
    ids: Arc<WireIds>,
    partition: TopicPartition,
    next_offset: u64,
    copier: Copier,
    sender: mpsc::Sender<Step>,
}

impl Reader {
    fn run(mut self, config: &rdkafka::ClientConfig) {
        match self.assign(config) {
            Ok(consumer) => {
                if let Err(error) = self.read(&consumer) {
                    // A replay that was dropped needs no error.
                    let _ = self.sender.blocking_send(Err(error));
                }
                // Told before the connections are closed, which takes longer than the end of a short replay.
                drop(self);
                drop(consumer);
            }
            Err(error) => {
                let _ = self.sender.blocking_send(Err(error));
            }
        }
    }

    fn assign(&self, config: &rdkafka::ClientConfig) -> Result<BaseConsumer<Plain>, BrokerError> {
        let refuse = |error: KafkaError| broker_error(&error, &self.connection);
        let context = Plain(Arc::clone(&self.connection));
        let consumer: BaseConsumer<Plain> = config.create_with_context(context).map_err(refuse)?;
        let mut places = TopicPartitionList::with_capacity(1);
        let topic = self.partition.topic.name();
        let at = number(self.partition.partition);
        places.add_partition_offset(topic, at, position(self.next_offset)).map_err(refuse)?;
        consumer.assign(&places).map_err(refuse)?;
        Ok(consumer)
    }

    fn read(&mut self, consumer: &BaseConsumer<Plain>) -> Result<(), BrokerError> {
        let (mut step, mut bytes) = (Vec::new(), 0);
        let mut wait = Duration::from_millis(20);
        loop {
            match consumer.poll(wait) {
                Some(Ok(message)) => {
                    let key = self.copier.key(&message);
                    let value = self.copier.value(&message, &self.ids);
                    self.next_offset = offset_of(&message) + 1;
                    bytes += key.len() + value.as_ref().map_or(0, bytes::Bytes::len);
                    step.push(ReplayRecord { offset: self.next_offset - 1, key, value });
                    wait = Duration::ZERO;
                    if step.len() < STEP_RECORDS && bytes < STEP_BYTES {
                        continue;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.hand_over(step)?;
                    // The empty step that is the end. A replay that was dropped needs none.
                    let _ = self.sender.blocking_send(Ok(Vec::new()));
                    return Ok(());
                }
                Some(Err(error)) => self.note(&error)?,
                None if self.sender.is_closed() => return Ok(()),
                None => wait = Duration::from_millis(20),
            }
            self.hand_over(std::mem::take(&mut step))?;
            bytes = 0;
        }
    }

    fn hand_over(&self, step: Vec<ReplayRecord>) -> Result<(), BrokerError> {
        if step.is_empty() {
            return Ok(());
        }
        let dropped = |_| BrokerError::Unavailable("nobody reads the replay".into());
        self.sender.blocking_send(Ok(step)).map_err(dropped)
    }

    /// An error that ends the replay; the others end by themselves.
    fn note(&self, error: &KafkaError) -> Result<(), BrokerError> {
        if let Some(error) = fetch_error(self.partition, self.next_offset, error) {
            return Err(error);
        }
        match self.connection.refused() {
            Some(reason) => Err(BrokerError::Refused(reason)),
            None => Ok(()),
        }
    }
}
