//! A broker that stops answering: what is lost is told, calls end, and everything goes on afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tillstream_kafka::{KafkaAdmin, KafkaBroker, KafkaLog, KafkaSettings, TopicsSpec};
use tillstream_log::broker::{Broker, BrokerError, GroupEvent, GroupMember, ProduceRecord};
use tillstream_log::{Headers, Log, LogError, NewRecord, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_servers::{Kafka, KafkaOptions};

const ALL: ReadLimit = ReadLimit { records_max: 1_000, bytes_max: 1 << 20 };

async fn soon<T>(what: &str, it: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), it).await.unwrap_or_else(|_| panic!("{what} took 30 s"))
}

async fn assigned(member: &dyn GroupMember) {
    loop {
        match soon("partitions", member.next_event()).await {
            GroupEvent::Assigned(partitions) if !partitions.is_empty() => return,
            GroupEvent::Assigned(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn record(to: TopicPartition, text: &str) -> ProduceRecord {
    ProduceRecord { to, key: text.to_owned().into(), value: Some("value".into()), headers: Headers::new() }
}

fn new(to: TopicPartition, text: &str) -> NewRecord {
    NewRecord { to, key: text.to_owned().into(), value: "value".into(), headers: Headers::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_costs_partitions_and_open_transactions_and_nothing_else() {
    let server = Kafka::start(KafkaOptions::default()).unwrap();
    let mut settings = KafkaSettings::new(server.address(), "outage");
    settings.session_timeout_ms = 2_000;
    settings.transaction_timeout_ms = 4_000;
    settings.request_timeout_ms = 3_000;
    soon("topics", KafkaAdmin::new(&settings).unwrap().create_topics(&TopicsSpec::new(1, 1))).await.unwrap();
    let broker = KafkaBroker::new(settings, Arc::default()).unwrap();
    let log = soon("the log", KafkaLog::open(&broker)).await.unwrap();
    let follower = log.follower(&[Topic::OrderEvents]).unwrap();
    let (input, output) =
        (TopicPartition::new(Topic::OrderCommands, 0), TopicPartition::new(Topic::OrderEvents, 0));
    let member = broker.join("outage.order", Topic::OrderCommands).unwrap();
    assigned(&*member).await;
    soon("fetch", member.fetch_from(0, 0)).await.unwrap();
    let producer = broker.producer("outage.order.0").unwrap();
    soon("init", producer.init()).await.unwrap();
    soon("begin", producer.begin()).await.unwrap();
    soon("produce", producer.produce(vec![record(output, "before")])).await.unwrap();
    soon("drain", producer.drain()).await.unwrap();
    soon("commit", producer.commit()).await.unwrap();
    soon("begin", producer.begin()).await.unwrap();
    soon("produce", producer.produce(vec![record(output, "perhaps committed")])).await.unwrap();
    soon("drain", producer.drain()).await.unwrap();

    server.pause().unwrap();
    let committing = soon("commit", producer.commit());
    let appending = soon("append", log.append(vec![new(input, "too early")]));
    let asking = soon("bounds", broker.bounds(input));
    let losing = soon("the loss", member.next_event());
    let (committed, appended, asked, lost) = tokio::join!(committing, appending, asking, losing);
    assert!(matches!(committed, Err(BrokerError::Unknown(_))), "{committed:?}");
    assert!(matches!(appended, Err(LogError::Unavailable(_))), "{appended:?}");
    assert!(matches!(asked, Err(BrokerError::Unavailable(_))), "{asked:?}");
    assert!(matches!(&lost, GroupEvent::Lost(partitions) if partitions == &[0]), "{lost:?}");
    assert_eq!(member.take(0, ALL), Ok(Vec::new()));
    assert!(matches!(soon("fetch", member.fetch_from(0, 0)).await, Err(BrokerError::Unavailable(_))));
    drop(producer);

    server.resume().unwrap();
    assigned(&*member).await;
    let next = broker.producer("outage.order.0").unwrap();
    let init = async {
        while let Err(error) = next.init().await {
            assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
        }
    };
    soon("init", init).await;
    soon("begin", next.begin()).await.unwrap();
    soon("produce", next.produce(vec![record(output, "after")])).await.unwrap();
    soon("drain", next.drain()).await.unwrap();
    soon("commit", next.commit()).await.unwrap();
    soon("fetch", member.fetch_from(0, 0)).await.unwrap();
    soon("append", log.append(vec![new(input, "late")])).await.unwrap();
    let found = async {
        let mut keys = Vec::new();
        while keys.last().is_none_or(|it| it != "late") {
            member.wait_buffered(0, 0).await;
            let taken = member.take(0, ALL).unwrap();
            keys.extend(taken.into_iter().map(|it| String::from_utf8_lossy(&it.key).into_owned()));
        }
    };
    soon("the append", found).await;
    soon("refresh", follower.refresh(&[output])).await.unwrap();
    let (end, mut at, mut keys) = (follower.end_offset(output).unwrap(), 0, Vec::new());
    while at < end {
        soon("more", follower.wait_past(output, at)).await.unwrap();
        let (records, next_offset) = soon("records", follower.read_on(output, at, ALL)).await.unwrap();
        keys.extend(records.into_iter().map(|it| String::from_utf8_lossy(&it.key).into_owned()));
        at = next_offset;
    }
    // The frozen broker may have had the commit in its socket: it is all or nothing, and nobody guessed.
    keys.retain(|it| it != "perhaps committed");
    assert_eq!(keys, ["before", "after"]);
    soon("leave", member.leave()).await;
}
