//! What a consumer with `read_committed` sees.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tillstream_schemas::Topic;
use tokio::time::Instant;

/// A record as it lies there.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Its topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: String,
    /// Its value; `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// Offsets by topic and partition.
pub type Places = BTreeMap<(Topic, i32), i64>;

fn consumer(brokers: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "audit")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .create()
        .expect("a consumer")
}

/// Where the topics end now. Blocks.
pub fn ends(brokers: &str, topics: &[Topic], partitions: u32) -> Places {
    let consumer = consumer(brokers);
    let end = |topic: Topic, partition: i32| {
        let marks = consumer.fetch_watermarks(topic.name(), partition, Duration::from_secs(20));
        marks.expect("the broker tells where a topic ends").1
    };
    let all = topics.iter().flat_map(|it| (0..partitions as i32).map(move |partition| (*it, partition)));
    all.map(|(topic, partition)| ((topic, partition), end(topic, partition))).collect()
}

/// Where every partition of these topics begins.
pub fn beginnings(topics: &[Topic], partitions: u32) -> Places {
    let all = topics.iter().flat_map(|it| (0..partitions as i32).map(move |partition| ((*it, partition), 0)));
    all.collect()
}

/// Every committed record of these topics from these places to what is stable now. Blocks.
pub fn read(brokers: &str, from: &Places) -> Vec<Raw> {
    let topics: BTreeSet<Topic> = from.keys().map(|(topic, _)| *topic).collect();
    // A client for each: it tells of an end by the partition alone.
    std::thread::scope(|scope| {
        let read = |topic: Topic| {
            let places = from.iter().filter(move |((it, _), _)| *it == topic);
            let places: BTreeMap<i32, i64> = places.map(|((_, partition), at)| (*partition, *at)).collect();
            scope.spawn(move || read_topic(&consumer(brokers), topic, &places))
        };
        let readers: Vec<_> = topics.into_iter().map(read).collect();
        readers.into_iter().flat_map(|it| it.join().expect("a reader does not panic")).collect()
    })
}

fn read_topic(consumer: &BaseConsumer, topic: Topic, from: &BTreeMap<i32, i64>) -> Vec<Raw> {
    let mut records = Vec::new();
    let mut list = TopicPartitionList::new();
    for (partition, offset) in from {
        list.add_partition_offset(topic.name(), *partition, Offset::Offset(*offset)).expect("an offset");
    }
    consumer.assign(&list).expect("partitions can be assigned");
    let mut left: BTreeSet<i32> = from.keys().copied().collect();
    let deadline = Instant::now() + Duration::from_secs(40);
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "{topic} has no end in {left:?}");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => records.push(Raw {
                topic,
                partition: message.partition(),
                offset: message.offset(),
                key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                value: message.payload().map(<[u8]>::to_vec),
            }),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            // A broker that was just killed; the client comes back by itself.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
            ))) => {}
            Some(Err(error)) => panic!("reading {topic}: {error}"),
        }
    }
    records
}
