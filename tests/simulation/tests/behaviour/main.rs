//! What the simulated broker and database do beyond what every implementation promises: faults, and time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod groups;
mod histories;
mod processes;
mod rows;
mod topics;
mod transactions;

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::broker::{
    Broker, BrokerError, GroupEvent, GroupMember, GroupOffset, ProduceRecord, TransactionalProducer,
};
use tillstream_log::{Headers, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_schemas::Topic;
use tillstream_simulation::broker::{Seen, StoredRecord};
use tillstream_simulation::{SimBroker, SimClock, SimSettings};

const INPUT: TopicPartition = TopicPartition { topic: Topic::OrderCommands, partition: 0 };
const CHANGELOG: TopicPartition = TopicPartition { topic: Topic::OrderChangelog, partition: 0 };

/// A broker whose clients send nothing before they must.
fn broker() -> SimBroker {
    let mut settings = settings();
    settings.eager_percent = 0;
    SimBroker::new(settings)
}

fn settings() -> SimSettings {
    SimSettings::new(4, 1, Arc::new(SimClock::default()))
}

async fn pass(seconds: u64) {
    SimClock::default().sleep(Duration::from_secs(seconds)).await;
}

/// What the future gives without any time passing; `None` when it waits for something.
async fn at_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::time::timeout(Duration::from_millis(1), future).await.ok()
}

fn record(to: TopicPartition, key: &str, value: Option<&str>) -> ProduceRecord {
    let (key, value) =
        (Bytes::copy_from_slice(key.as_bytes()), value.map(|it| Bytes::copy_from_slice(it.as_bytes())));
    ProduceRecord { to, key, value, headers: Headers::new() }
}

fn change(value: &str) -> Vec<ProduceRecord> {
    vec![record(CHANGELOG, value, Some(value))]
}

fn place(offset: u64) -> GroupOffset {
    GroupOffset { offset, metadata: format!("{offset}@1") }
}

async fn producer(broker: &dyn Broker, id: &str) -> Arc<dyn TransactionalProducer> {
    let producer = broker.producer(id).unwrap();
    producer.init().await.unwrap();
    producer
}

async fn open(producer: &dyn TransactionalProducer, records: Vec<ProduceRecord>) -> Vec<u64> {
    producer.begin().await.unwrap();
    producer.produce(records).await.unwrap();
    producer.drain().await.unwrap()
}

async fn event(member: &dyn GroupMember) -> GroupEvent {
    tokio::time::timeout(Duration::from_secs(600), member.next_event()).await.expect("an event")
}

async fn assigned(member: &dyn GroupMember) -> Vec<u32> {
    match event(member).await {
        GroupEvent::Assigned(partitions) => partitions,
        other => panic!("{other:?}"),
    }
}

fn said(records: Vec<StoredRecord>) -> Vec<String> {
    let text = |it: StoredRecord| String::from_utf8(it.value.unwrap_or_default().to_vec()).unwrap();
    records.into_iter().map(text).collect()
}

fn committed(broker: &SimBroker) -> Vec<String> {
    said(broker.records(CHANGELOG, Seen::Committed))
}

fn is_fenced<T>(result: Result<T, BrokerError>) -> bool {
    matches!(result, Err(BrokerError::Fenced(_)))
}
