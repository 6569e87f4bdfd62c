//! The bare commit path: consume → produce in a transaction, without any work in between. Prints the time from the
//! begin of a transaction to its commit, and the throughput, by records per transaction.
//!
//! `TILLSTREAM_BROKERS=host:port passthrough [records] [lz4]`; makes missing topics, uses `items.commands` and
//! `items.events` in a deployment of its own, partition 0.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tillstream_kafka::{Compression, KafkaAdmin, KafkaBroker, KafkaLog, KafkaSettings, TopicsSpec};
use tillstream_log::broker::{
    Broker, GroupEvent, GroupMember, GroupOffset, ProduceRecord, TransactionalProducer,
};
use tillstream_log::{Headers, Log, NewRecord, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;

type Done<T> = Result<T, Box<dyn Error>>;

const INPUT: TopicPartition = TopicPartition { topic: Topic::ItemCommands, partition: 0 };
const OUTPUT: TopicPartition = TopicPartition { topic: Topic::ItemEvents, partition: 0 };
const VALUE_BYTES: usize = 200;

#[tokio::main]
async fn main() -> Done<()> {
    let brokers = std::env::var("TILLSTREAM_BROKERS").map_err(|_| "TILLSTREAM_BROKERS is not set")?;
    let mut arguments = std::env::args().skip(1);
    let records: u64 = arguments.next().map_or(Ok(20_000), |it| it.parse())?;
    let mut settings = KafkaSettings::new(brokers, "passthrough");
    if arguments.next().as_deref() == Some("lz4") {
        settings.compression = Compression::Lz4;
    }
    KafkaAdmin::new(&settings)?.create_topics(&TopicsSpec::new(4, 1)).await?;
    let broker = KafkaBroker::new(settings, Arc::default())?;
    let log = KafkaLog::open(&broker).await?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:>10} {:>12} {:>9} {:>9} {:>10}",
        "per commit", "transactions", "p50 ms", "p99 ms", "records/s"
    )?;
    for size in [10, 100, 1_000, 5_000] {
        let measured = measure(&broker, &log, size, records.min(size as u64 * 500)).await?;
        writeln!(out, "{size:>10} {measured}")?;
    }
    Ok(())
}

/// Feeds the input, and passes it on.
async fn measure(broker: &KafkaBroker, log: &KafkaLog, size: usize, records: u64) -> Done<String> {
    let start = broker.bounds(INPUT).await?.1;
    let mut fed = 0;
    while fed < records {
        let some = (records - fed).min(5_000);
        log.append((0..some).map(|n| record(fed + n)).collect()).await?;
        fed += some;
    }
    let group = "passthrough.item";
    let member = broker.join(group, INPUT.topic)?;
    loop {
        match member.next_event().await {
            GroupEvent::Assigned(partitions) if partitions.contains(&INPUT.partition) => break,
            GroupEvent::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    let producer = broker.producer("passthrough.item.0")?;
    producer.init().await?;
    member.fetch_from(INPUT.partition, start).await?;
    let mut times = Vec::new();
    let (began, mut passed) = (now(), 0);
    while passed < records {
        let taken = pass_on(&*member, &*producer, group, size.min((records - passed) as usize)).await?;
        times.push(taken.1);
        passed += taken.0;
    }
    let seconds = began.elapsed().as_secs_f64();
    member.leave().await;
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let per_second = records as f64 / seconds;
    Ok(format!("{:>12} {:>9.2} {:>9.2} {per_second:>10.0}", times.len(), at(0.5), at(0.99)))
}

/// One transaction: how many records, and how long from its begin to its commit.
async fn pass_on(
    member: &dyn GroupMember,
    producer: &dyn TransactionalProducer,
    group: &str,
    size: usize,
) -> Done<(u64, Duration)> {
    member.wait_buffered(INPUT.partition, size - 1).await;
    let records = member.take(INPUT.partition, ReadLimit { records_max: size, bytes_max: 64 << 20 })?;
    let generation = member.metadata()?;
    let next_offset = records.last().map_or(0, |it| it.offset + 1);
    let count = records.len() as u64;
    let began = now();
    producer.begin().await?;
    let out = records.into_iter().map(|it| ProduceRecord {
        to: OUTPUT,
        key: it.key,
        value: Some(it.value),
        headers: it.headers,
    });
    producer.produce(out.collect()).await?;
    producer.drain().await?;
    let place = GroupOffset { offset: next_offset, metadata: String::new() };
    producer.send_offset(group, &generation, INPUT, place).await?;
    producer.commit().await?;
    Ok((count, began.elapsed()))
}

fn record(n: u64) -> NewRecord {
    NewRecord {
        to: INPUT,
        key: format!("demo/sku-{n}").into_bytes().into(),
        value: vec![b'a' + (n % 26) as u8; VALUE_BYTES].into(),
        headers: Headers::new(),
    }
}

#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}
