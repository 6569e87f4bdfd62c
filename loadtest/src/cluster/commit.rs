//! The commit alone: fetched records go to another topic, with their offset, one transaction per batch, in the very
//! calls that a task makes.

use super::house::{House, blocking};
use crate::BenchError;
use crate::report::progress;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use std::sync::Arc;
use std::time::Duration;
use tillstream_kafka::{KafkaBroker, KafkaSettings};
use tillstream_log::broker::{
    Broker, BrokerError, GroupEvent, GroupMember, GroupOffset, ProduceRecord, TransactionalProducer,
};
use tillstream_log::{ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;

/// Nobody reads these topics.
const INPUT: Topic = Topic::AnalyticsDeltasDlq;
const OUTPUT: Topic = Topic::EffectRequestsDlq;
/// Bytes of a record's value.
const VALUE_BYTES: usize = 200;
/// Records moved per batch size, at most; and transactions.
const RECORDS: usize = 200_000;
const TRANSACTIONS_MIN: usize = 40;
const TRANSACTIONS_MAX: usize = 400;
/// One batch that takes longer has hung.
const BATCH_MAX: Duration = Duration::from_secs(30);

/// What one batch size came to.
pub struct Passed {
    /// Records per transaction.
    pub batch: usize,
    /// Transactions.
    pub transactions: usize,
    /// Records per second, fetching included.
    pub records_per_s: f64,
    /// From the begin of a transaction to the end of its commit, ns, sorted.
    pub whole: Vec<u64>,
    /// Until every delivery was acknowledged.
    pub drained: Vec<u64>,
    /// The offsets.
    pub offsets: Vec<u64>,
    /// The commit's call.
    pub commits: Vec<u64>,
}

/// A quantile of sorted ns, ms.
pub fn ms(sorted: &[u64], quantile: f64) -> f64 {
    let at = (sorted.len() as f64 * quantile) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |it| *it as f64 / 1e6)
}

fn broker(error: BrokerError) -> BenchError {
    BenchError::Broker(error.to_string())
}

/// Runs every batch size.
pub async fn run(house: &House, batches: &[usize]) -> Result<Vec<Passed>, BenchError> {
    fill(house).await?;
    let client = KafkaBroker::new(KafkaSettings::new(house.brokers(), "bench"), house.ids.clone());
    let client = client.map_err(BenchError::pipeline)?;
    let mut passed = Vec::new();
    for batch in batches {
        progress(&format!("a bare passthrough of {batch} records per transaction"));
        passed.push(pass(house, &client, *batch).await?);
    }
    Ok(passed)
}

async fn fill(house: &House) -> Result<(), BenchError> {
    let brokers = house.brokers().to_owned();
    blocking(move || {
        let error = |it: rdkafka::error::KafkaError| BenchError::Broker(it.to_string());
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "20")
            .set("queue.buffering.max.messages", (2 * RECORDS).to_string())
            .create()
            .map_err(error)?;
        let value = [b'x'; VALUE_BYTES];
        for number in 0..RECORDS {
            let key = number.to_string();
            let record = BaseRecord::to(INPUT.name()).partition(0).key(&key).payload(&value);
            producer.send(record).map_err(|it| error(it.0))?;
        }
        producer.flush(Duration::from_secs(60)).map_err(error)
    })
    .await
}

async fn pass(house: &House, client: &KafkaBroker, batch: usize) -> Result<Passed, BenchError> {
    let group = format!("bench.passthrough-{batch}");
    let member = client.join(&group, INPUT).map_err(broker)?;
    loop {
        match member.next_event().await {
            GroupEvent::Assigned(partitions) if partitions.contains(&0) => break,
            GroupEvent::Failed(error) => return Err(broker(error)),
            _ => {}
        }
    }
    let producer = client.producer(&format!("bench.passthrough.{batch}")).map_err(broker)?;
    producer.init().await.map_err(broker)?;
    member.fetch_from(0, 0).await.map_err(broker)?;
    let transactions = (RECORDS / batch.max(1)).clamp(TRANSACTIONS_MIN, TRANSACTIONS_MAX);
    let mut passed = Passed {
        batch,
        transactions,
        records_per_s: 0.0,
        whole: Vec::new(),
        drained: Vec::new(),
        offsets: Vec::new(),
        commits: Vec::new(),
    };
    let began_ns = house.clock.monotonic_ns();
    for _ in 0..transactions {
        let deadline = tokio::time::timeout(BATCH_MAX, one(house, &*member, &*producer, &group, &mut passed));
        deadline.await.map_err(|_| BenchError::Broker("a transaction has hung".into()))??;
    }
    let seconds = (house.clock.monotonic_ns() - began_ns) as f64 / 1e9;
    passed.records_per_s = (transactions * batch) as f64 / seconds;
    for it in [&mut passed.whole, &mut passed.drained, &mut passed.offsets, &mut passed.commits] {
        it.sort_unstable();
    }
    member.leave().await;
    Ok(passed)
}

async fn fetch(member: &dyn GroupMember, batch: usize) -> Result<Vec<Record>, BenchError> {
    let mut records: Vec<Record> = Vec::with_capacity(batch);
    while records.len() < batch {
        let limit = ReadLimit { records_max: batch - records.len(), bytes_max: usize::MAX };
        let taken = member.take(0, limit).map_err(broker)?;
        if taken.is_empty() {
            member.wait_buffered(0, 0).await;
        }
        records.extend(taken);
    }
    Ok(records)
}

/// One batch: produce, drain, send the offset, commit.
async fn one(
    house: &House,
    member: &dyn GroupMember,
    producer: &dyn TransactionalProducer,
    group: &str,
    passed: &mut Passed,
) -> Result<(), BenchError> {
    let records = fetch(member, passed.batch).await?;
    let next = records.last().map_or(0, |it| it.offset + 1);
    let to = TopicPartition::new(OUTPUT, 0);
    let out = |it: Record| ProduceRecord { to, key: it.key, value: Some(it.value), headers: it.headers };
    let records: Vec<ProduceRecord> = records.into_iter().map(out).collect();
    let generation = member.metadata().map_err(broker)?;
    let clock = Arc::clone(&house.clock);
    let began_ns = clock.monotonic_ns();
    producer.begin().await.map_err(broker)?;
    producer.produce(records).await.map_err(broker)?;
    producer.drain().await.map_err(broker)?;
    let drained_ns = clock.monotonic_ns();
    let offset = GroupOffset { offset: next, metadata: String::new() };
    let input = TopicPartition::new(INPUT, 0);
    producer.send_offset(group, &generation, input, offset).await.map_err(broker)?;
    let sent_ns = clock.monotonic_ns();
    producer.commit().await.map_err(broker)?;
    let ended_ns = clock.monotonic_ns();
    passed.whole.push(ended_ns - began_ns);
    passed.drained.push(drained_ns - began_ns);
    passed.offsets.push(sent_ns - drained_ns);
    passed.commits.push(ended_ns - sent_ns);
    Ok(())
}
