//! One broker for all tests of a file, and waits with deadlines.

use std::future::Future;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tillstream_kafka::{KafkaAdmin, KafkaBroker, KafkaSettings, TopicsSpec};
use tillstream_log::broker::{Broker, GroupEvent, GroupMember, ProduceRecord, TransactionalProducer};
use tillstream_log::{Headers, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_schemas::wire_ids::WireIds;
use tillstream_servers::{Credentials, Kafka, KafkaOptions};

pub const PARTITIONS: u32 = 4;
pub const USER: &str = "shop";
pub const PASSWORD: &str = "hush-hush";

static SERVER: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());

/// The server. It ends when the last test that holds it does.
pub fn server() -> Arc<Kafka> {
    let mut held = SERVER.lock().unwrap();
    if let Some(server) = held.upgrade() {
        return server;
    }
    let scram = Some(Credentials { user: USER.into(), password: PASSWORD.into() });
    let server =
        Arc::new(Kafka::start(KafkaOptions { scram, mtls: true, ..KafkaOptions::default() }).unwrap());
    let settings = KafkaSettings::new(server.address(), "test");
    let admin = KafkaAdmin::new(&settings).unwrap();
    let spec = TopicsSpec::new(PARTITIONS, 1);
    let create = async { tokio::time::timeout(Duration::from_secs(30), admin.create_topics(&spec)).await };
    let made = std::thread::scope(|scope| {
        scope
            .spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(create).unwrap().unwrap())
            .join()
            .unwrap()
    });
    assert_eq!(made.len(), Topic::every().count());
    *held = Arc::downgrade(&server);
    server
}

/// At most 30 s.
pub async fn soon<T>(what: &str, it: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), it).await.unwrap_or_else(|_| panic!("{what} took 30 s"))
}

pub fn settings(server: &Kafka) -> KafkaSettings {
    let mut settings = KafkaSettings::new(server.address(), "test");
    settings.session_timeout_ms = 6_000;
    settings
}

pub fn broker(server: &Kafka) -> KafkaBroker {
    KafkaBroker::new(settings(server), Arc::new(WireIds::identity())).unwrap()
}

pub fn record(to: TopicPartition, text: &str) -> ProduceRecord {
    ProduceRecord {
        to,
        key: text.as_bytes().to_vec().into(),
        value: Some(format!("value of {text}").into_bytes().into()),
        headers: Headers::new(),
    }
}

pub async fn producer(broker: &KafkaBroker, id: &str) -> Arc<dyn TransactionalProducer> {
    let producer = broker.producer(id).unwrap();
    soon("init", producer.init()).await.unwrap();
    producer
}

/// Produces in one transaction and commits it: the offsets.
pub async fn commit(producer: &dyn TransactionalProducer, records: Vec<ProduceRecord>) -> Vec<u64> {
    soon("begin", producer.begin()).await.unwrap();
    soon("produce", producer.produce(records)).await.unwrap();
    let offsets = soon("drain", producer.drain()).await.unwrap();
    soon("commit", producer.commit()).await.unwrap();
    offsets
}

/// Keys of what is committed from `offset` on.
pub async fn keys(broker: &KafkaBroker, at: TopicPartition, offset: u64) -> Vec<String> {
    let mut replay = broker.replay(at, offset).unwrap();
    let mut keys = Vec::new();
    loop {
        let step = soon("replay", replay.next()).await.unwrap();
        if step.is_empty() {
            return keys;
        }
        keys.extend(step.into_iter().map(|it| String::from_utf8_lossy(&it.key).into_owned()));
    }
}

/// Waits for a member's next event.
pub async fn event(member: &dyn GroupMember) -> GroupEvent {
    soon("an event of the group", member.next_event()).await
}
