//! What every broker promises, the real one through its client library as the simulated one.
//!
//! Topics outlive a case on a real broker, so a case reads from the bounds it found. Nothing else may write to them
//! while the suite runs.

mod groups;
mod transactions;

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::broker::{
    Broker, BrokerError, GroupEvent, GroupMember, GroupMetadata, GroupOffset, ProduceRecord, ReplayRecord,
    TransactionalProducer,
};
use tillstream_log::{Headers, Log, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_schemas::codec::Schema;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing takes this long unless it hangs: a real group needs some seconds to settle.
const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at what nobody tells.
const POLL: Duration = Duration::from_millis(2);

/// A broker for one case.
pub struct BrokerCase {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The same topics, for records of no transaction.
    pub log: Arc<dyn Log>,
    /// What groups and transactional ids of this case begin with: never used before, for ever.
    pub prefix: String,
}

/// Runs every case; the factory is given the case's name. Every topic needs at least two partitions.
pub async fn broker_suite(make: impl AsyncFn(&str) -> BrokerCase) {
    transactions::run(&make).await;
    groups::run(&make).await;
}

const INPUT: TopicPartition = TopicPartition { topic: Topic::OrderCommands, partition: 0 };
const OUTPUT: TopicPartition = TopicPartition { topic: Topic::OrderEvents, partition: 1 };
const CHANGELOG: TopicPartition = TopicPartition { topic: Topic::OrderChangelog, partition: 0 };

/// In wire format, with the id that values of the topic carry inside a process.
fn wire(topic: Topic, text: &str) -> Bytes {
    let schema = match topic {
        Topic::OrderCommands => Schema::OrderCommand,
        Topic::OrderEvents => Schema::OrderEvent,
        Topic::OrderChangelog => Schema::OrderState,
        other => panic!("the suite writes nothing to {other}"),
    };
    let mut value = vec![0];
    value.extend_from_slice(&(schema as u32).to_be_bytes());
    value.extend_from_slice(text.as_bytes());
    value.into()
}

fn new_record(to: TopicPartition, text: &str) -> ProduceRecord {
    let key = Bytes::copy_from_slice(format!("demo/{text}").as_bytes());
    ProduceRecord { to, key, value: Some(wire(to.topic, text)), headers: Headers::new() }
}

fn offset_of(offset: u64, metadata: &str) -> GroupOffset {
    GroupOffset { offset, metadata: metadata.to_owned() }
}

/// What the records say, tombstones as `-<key>`.
fn texts(records: &[ReplayRecord]) -> Vec<String> {
    let text = |it: &ReplayRecord| match &it.value {
        Some(value) => String::from_utf8(value[5..].to_vec()).unwrap(),
        None => format!("-{}", String::from_utf8(it.key.to_vec()).unwrap()),
    };
    records.iter().map(text).collect()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: nothing came of it"))
}

/// Tries again while the broker is not ready for it.
async fn settled<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, BrokerError>) -> T {
    soon(what, async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(BrokerError::Unavailable(_)) => tokio::time::sleep(POLL).await,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    })
    .await
}

impl BrokerCase {
    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn stable_end(&self, partition: TopicPartition) -> u64 {
        settled("bounds", async || self.broker.bounds(partition).await).await.1
    }

    /// Where the case begins: everything before is decided, and nothing is behind.
    async fn begin_at(&self, partition: TopicPartition) -> u64 {
        let producer = self.producer("begin").await;
        let offsets = open(&*producer, vec![new_record(partition, "before")]).await;
        commit(&*producer).await;
        self.stable_past(partition, offsets[0]).await;
        self.stable_end(partition).await
    }

    /// Resolves once everything before `offset` is stable: an answered commit may be ahead of its markers.
    async fn stable_past(&self, partition: TopicPartition, offset: u64) {
        soon("the last stable offset", async {
            while self.stable_end(partition).await <= offset {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
    }

    async fn replay(&self, partition: TopicPartition, offset: u64) -> Vec<ReplayRecord> {
        let mut replay = self.broker.replay(partition, offset).unwrap();
        let mut records = Vec::new();
        loop {
            let more = soon("a replay", replay.next()).await.unwrap();
            if more.is_empty() {
                return records;
            }
            records.extend(more);
        }
    }

    async fn group_offset(&self, group: &str, partition: TopicPartition) -> Option<GroupOffset> {
        let asked = [partition];
        let mut found =
            settled("group offsets", async || self.broker.group_offsets(group, &asked).await).await;
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    async fn producer(&self, name: &str) -> Arc<dyn TransactionalProducer> {
        let producer = self.broker.producer(&self.named(name)).unwrap();
        settled("init", async || producer.init().await).await;
        producer
    }

    async fn member(&self, group: &str) -> Member {
        let member = self.broker.join(group, INPUT.topic).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let pumped = member.clone();
        let pump = tokio::spawn(async move {
            loop {
                let event = pumped.next_event().await;
                let failed = matches!(event, GroupEvent::Failed(_));
                if sender.send(event).is_err() || failed {
                    return;
                }
            }
        });
        Member { member, events, owned: Vec::new(), pump }
    }
}

/// Begins, produces and drains.
async fn open(producer: &dyn TransactionalProducer, records: Vec<ProduceRecord>) -> Vec<u64> {
    producer.begin().await.unwrap();
    producer.produce(records).await.unwrap();
    soon("a drain", producer.drain()).await.unwrap()
}

async fn commit(producer: &dyn TransactionalProducer) {
    soon("a commit", producer.commit()).await.unwrap();
}

async fn abort(producer: &dyn TransactionalProducer) {
    soon("an abort", producer.abort()).await.unwrap();
}

/// A member whose events are taken by a task of its own.
struct Member {
    member: Arc<dyn GroupMember>,
    events: mpsc::UnboundedReceiver<GroupEvent>,
    owned: Vec<u32>,
    pump: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Member {
    /// Takes one event; a revocation is let go at once unless `held` asks to keep it.
    fn take_in(&mut self, event: GroupEvent) -> Option<(Vec<u32>, tillstream_log::broker::Release)> {
        match event {
            GroupEvent::Assigned(partitions) => {
                for partition in &partitions {
                    assert!(!self.owned.contains(partition), "{partition} is assigned twice");
                }
                self.owned.extend(partitions);
                self.owned.sort_unstable();
                None
            }
            GroupEvent::Revoked(partitions, release) => {
                self.give_up(&partitions);
                Some((partitions, release))
            }
            GroupEvent::Lost(partitions) => {
                self.give_up(&partitions);
                None
            }
            GroupEvent::Failed(error) => panic!("the group failed: {error}"),
        }
    }

    fn give_up(&mut self, partitions: &[u32]) {
        for partition in partitions {
            assert!(self.owned.contains(partition), "{partition} was not this member's");
        }
        self.owned.retain(|it| !partitions.contains(it));
    }

    /// Takes events in until this many partitions are owned.
    async fn until_owns(&mut self, count: usize) {
        let mut owned = 0;
        let done = timeout(DEADLINE, async {
            while self.owned.len() != count {
                let event = self.events.recv().await.expect("events go on");
                drop(self.take_in(event));
                owned = self.owned.len();
            }
        });
        assert!(done.await.is_ok(), "{owned} partitions are owned, not {count}");
    }

    fn metadata(&self) -> GroupMetadata {
        self.member.metadata().unwrap()
    }

    async fn leave(&mut self) {
        soon("leaving", self.member.leave()).await;
    }
}

/// Takes events of both in until each owns something and together they own all.
async fn until_shared(one: &mut Member, two: &mut Member, partitions: usize) {
    soon("sharing", async {
        while one.owned.is_empty() || two.owned.is_empty() || one.owned.len() + two.owned.len() != partitions
        {
            tokio::select! {
                event = one.events.recv() => drop(one.take_in(event.expect("events go on"))),
                event = two.events.recv() => drop(two.take_in(event.expect("events go on"))),
            }
        }
    })
    .await;
}
