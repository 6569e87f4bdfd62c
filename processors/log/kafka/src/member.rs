//! A member of a consumer group.

use crate::core::Core;
use crate::fetch::{self, Command, Fetching, Membership, Shift};
use crate::settings::KafkaSettings;
use futures::future::BoxFuture;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tillstream_log::broker::{BrokerError, GroupEvent, GroupMember, GroupMetadata, Release};
use tillstream_log::{ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tokio::sync::{Mutex, mpsc, oneshot};

/// See [`crate::KafkaBroker`].
pub(crate) struct KafkaMember {
    topic: Topic,
    fetching: Arc<Fetching>,
    events: Mutex<mpsc::UnboundedReceiver<GroupEvent>>,
}

/// How long a fetch may wait at the broker: each costs it much the same, however little it brings.
struct Patience {
    bytes_min: u32,
    /// A partition that is begun waits for the fetch under way, so this is a part of a takeover.
    wait_ms: u32,
}

impl Patience {
    /// By what is read from the topic: an order waits for commands and requests, for nothing else.
    fn with(topic: Topic) -> Self {
        match topic {
            // The analytics task gathers for longer than this.
            Topic::AnalyticsDeltas => Self { bytes_min: 1 << 20, wait_ms: 200 },
            // Read for webhooks.
            Topic::OrderEvents | Topic::ItemEvents => Self { bytes_min: 256 << 10, wait_ms: 100 },
            _ => Self { bytes_min: 1, wait_ms: 50 },
        }
    }
}

impl KafkaMember {
    /// Joins. Nothing is waited for.
    pub(crate) fn start(core: &Core, group: &str, topic: Topic) -> Result<Self, BrokerError> {
        let settings = &core.settings;
        let mut config = settings.consumer(group);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("session.timeout.ms", settings.session_timeout_ms.to_string());
        config.set("heartbeat.interval.ms", (settings.session_timeout_ms / 5).clamp(100, 3_000).to_string());
        config.set("max.poll.interval.ms", settings.session_timeout_ms.max(60_000).to_string());
        let Patience { bytes_min, wait_ms } = Patience::with(topic);
        config.set("fetch.min.bytes", bytes_min.to_string()).set("fetch.wait.max.ms", wait_ms.to_string());
        let queued = settings.buffered_bytes_max.max(1 << 20);
        KafkaSettings::fetching(&mut config, 1 << 20, 4 << 20, queued);
        let (sender, events) = mpsc::unbounded_channel();
        // The events need the handle for their releases, and the handle comes after the thread has begun.
        let handle = Arc::new(parking_lot::Mutex::new(Weak::<Fetching>::new()));
        let later = Arc::clone(&handle);
        let timeout = Duration::from_millis(settings.release_timeout_ms.into());
        let hear = Box::new(move |heard| {
            let event = match heard {
                Ok(Shift::Assigned(partitions)) => GroupEvent::Assigned(partitions),
                Ok(Shift::Lost(partitions)) => GroupEvent::Lost(partitions),
                Ok(Shift::Revoked(revocation, partitions)) => {
                    let release = release(later.lock().clone(), revocation, timeout);
                    GroupEvent::Revoked(partitions, release)
                }
                Err(error) => GroupEvent::Failed(error),
            };
            // A member nobody listens to is about to be dropped.
            let _ = sender.send(event);
        });
        let mut waiting = handle.lock();
        let fetching = fetch::start(core, &config, topic, Membership::Group, hear)?;
        let fetching = Arc::new(fetching);
        *waiting = Arc::downgrade(&fetching);
        drop(waiting);
        Ok(Self { topic, fetching, events: Mutex::new(events) })
    }

    fn at(&self, partition: u32) -> TopicPartition {
        TopicPartition::new(self.topic, partition)
    }
}

/// Gives the partitions back when dropped, or when `timeout` is over.
fn release(fetching: Weak<Fetching>, revocation: u64, timeout: Duration) -> Release {
    let (dropped, waits) = std::sync::mpsc::channel::<()>();
    let give_back = move || {
        // Dropped or too late, the partitions go.
        let _ = waits.recv_timeout(timeout);
        if let Some(fetching) = fetching.upgrade() {
            // A member that has ended has given everything back.
            let _ = fetching.tell(Command::Release(revocation));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("kafka-release".into()).spawn(give_back) {
        tracing::warn!(%error, "no thread to wait for a release");
    }
    Release::new(move || drop(dropped))
}

impl GroupMember for KafkaMember {
    fn next_event(&self) -> BoxFuture<'_, GroupEvent> {
        Box::pin(async move {
            let left =
                || GroupEvent::Failed(BrokerError::Unavailable("the member has left its group".into()));
            self.events.lock().await.recv().await.unwrap_or_else(left)
        })
    }

    fn fetch_from(&self, partition: u32, offset: u64) -> BoxFuture<'_, Result<(), BrokerError>> {
        let asked = self.fetching.fetch(self.at(partition), offset);
        Box::pin(async move {
            let gone =
                || BrokerError::Unavailable(format!("{} is not assigned any more", self.at(partition)));
            asked?.await.unwrap_or_else(|_| Err(gone()))
        })
    }

    fn take(&self, partition: u32, limit: ReadLimit) -> Result<Vec<Record>, BrokerError> {
        self.fetching.buffers.take(partition, limit)
    }

    fn buffered(&self, partition: u32) -> usize {
        self.fetching.buffers.buffered(partition)
    }

    fn wait_buffered(&self, partition: u32, records: usize) -> BoxFuture<'_, ()> {
        Box::pin(self.fetching.buffers.wait_buffered(partition, records))
    }

    fn metadata(&self) -> Result<GroupMetadata, BrokerError> {
        use rdkafka::consumer::Consumer;
        let metadata = self.fetching.consumer()?.group_metadata();
        let none = || BrokerError::Unavailable("the member has no generation yet".into());
        Ok(GroupMetadata(Arc::new(metadata.ok_or_else(none)?)))
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        let (done, closed) = oneshot::channel();
        let told = self.fetching.tell(Command::Close(done));
        Box::pin(async move {
            if told.is_ok() {
                // An error says that the thread has ended: that is what is waited for.
                let _ = closed.await;
            }
        })
    }
}
