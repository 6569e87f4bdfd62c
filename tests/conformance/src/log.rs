//! What every log promises.

use crate::{DEADLINE, EVERYTHING, events, record, values};
use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;
use tillstream_log::headers::{TRACEPARENT, header};
use tillstream_log::{Header, Log, LogError, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;
use tokio::time::timeout;

/// Runs every case on a log of its own.
pub async fn log_suite<S: Log + 'static>(make: impl AsyncFn() -> Arc<S>) {
    an_empty_partition_reads_as_nothing(&*make().await).await;
    records_come_back_in_order_with_all_they_had(&*make().await).await;
    limits_bound_a_read_but_never_to_nothing(&*make().await).await;
    reading_on_from_any_offset_gives_the_rest(&*make().await).await;
    partitions_and_topics_do_not_mix(&*make().await).await;
    what_does_not_exist_is_an_error_and_appends_nothing(&*make().await).await;
    concurrent_appends_are_all_there_once_and_in_each_ones_order(make().await).await;
    a_waiter_wakes_when_there_is_more(make().await).await;
    a_waiter_for_what_is_there_does_not_wait(&*make().await).await;
}

async fn an_empty_partition_reads_as_nothing(log: &impl Log) {
    for topic in Topic::ALL {
        assert!(log.partitions(topic) >= 2, "{topic}: the suite needs two partitions");
        let partition = TopicPartition::new(topic, 1);
        assert_eq!((log.start_offset(partition), log.end_offset(partition)), (Ok(0), Ok(0)));
        assert_eq!(log.read(partition, 0, EVERYTHING).await, Ok(Vec::new()));
    }
}

async fn records_come_back_in_order_with_all_they_had(log: &impl Log) {
    let mut first = record(events(0), "demo/ord_1", "placed");
    first.headers.push(header(TRACEPARENT, "00-0af7-b7ad-01"));
    first.headers.push(Header { name: Bytes::from_static(b"x-own"), value: Bytes::new() });
    let second = record(events(0), "", "");
    log.append(vec![first.clone(), second.clone()]).await.unwrap();
    let read = log.read(events(0), 0, EVERYTHING).await.unwrap();
    assert_eq!(read.len(), 2);
    for (offset, (read, new)) in read.iter().zip([&first, &second]).enumerate() {
        assert_eq!(read.offset, offset as u64);
        assert_eq!((&read.key, &read.value, &read.headers), (&new.key, &new.value, &new.headers));
        assert!(read.timestamp_ms > 1_600_000_000_000, "the append time is {}", read.timestamp_ms);
    }
    assert_eq!(log.end_offset(events(0)), Ok(2));
}

async fn limits_bound_a_read_but_never_to_nothing(log: &impl Log) {
    log.append((0..10).map(|it| record(events(0), "k", &format!("{it:09}"))).collect()).await.unwrap();
    let cases = [(3, 1 << 20, 3), (100, 35, 3), (100, 1, 1), (1, 0, 1), (0, 0, 1), (100, 1 << 20, 10)];
    for (records_max, bytes_max, expected) in cases {
        let read = log.read(events(0), 0, ReadLimit { records_max, bytes_max }).await.unwrap();
        assert_eq!(read.len(), expected, "{records_max} records, {bytes_max} bytes");
    }
}

async fn reading_on_from_any_offset_gives_the_rest(log: &impl Log) {
    let mut next = 0;
    for size in [1, 40, 7, 100, 1] {
        let batch = (next..next + size).map(|it| record(events(1), "k", &it.to_string()));
        log.append(batch.collect()).await.unwrap();
        next += size;
    }
    for from in 0..=next {
        let expected: Vec<_> = (from..next).map(|it| it.to_string()).collect();
        let read = log.read(events(1), from, EVERYTHING).await.unwrap();
        assert_eq!(values(&read), expected, "from {from}");
    }
    let mut offset = 0;
    while offset < next {
        let read =
            log.read(events(1), offset, ReadLimit { records_max: 11, bytes_max: 1 << 20 }).await.unwrap();
        assert_eq!(read.first().map(|it| it.offset), Some(offset), "nothing may be skipped or repeated");
        offset = read.last().unwrap().offset + 1;
    }
}

async fn partitions_and_topics_do_not_mix(log: &impl Log) {
    let commands = TopicPartition::new(Topic::OrderCommands, 1);
    let interleaved = vec![
        record(events(0), "k", "a"),
        record(commands, "k", "b"),
        record(events(1), "k", "c"),
        record(events(0), "k", "d"),
    ];
    log.append(interleaved).await.unwrap();
    for (partition, expected) in [(events(0), vec!["a", "d"]), (events(1), vec!["c"]), (commands, vec!["b"])]
    {
        let read = log.read(partition, 0, EVERYTHING).await.unwrap();
        assert_eq!(values(&read), expected, "{partition}");
    }
}

async fn what_does_not_exist_is_an_error_and_appends_nothing(log: &impl Log) {
    let beyond = events(log.partitions(Topic::OrderEvents));
    let missing = LogError::NoSuchPartition(beyond);
    let mixed = vec![record(events(0), "k", "v"), record(beyond, "k", "v")];
    assert_eq!(log.append(mixed).await, Err(missing.clone()));
    assert_eq!(log.end_offset(events(0)), Ok(0), "all records or none");
    assert_eq!(log.read(beyond, 0, EVERYTHING).await, Err(missing.clone()));
    assert_eq!(log.end_offset(beyond), Err(missing.clone()));
    assert_eq!(log.start_offset(beyond), Err(missing));
    let out_of_range = LogError::OutOfRange { partition: events(0), start: 0, end: 0, asked: 1 };
    assert_eq!(log.read(events(0), 1, EVERYTHING).await, Err(out_of_range));
}

async fn concurrent_appends_are_all_there_once_and_in_each_ones_order(log: Arc<impl Log + 'static>) {
    let (writers, rounds) = (16, 20);
    let write = |writer: usize| {
        let log = log.clone();
        tokio::spawn(async move {
            for round in 0..rounds {
                log.append(vec![record(events(0), &writer.to_string(), &round.to_string())]).await.unwrap();
                let end = log.end_offset(events(0)).unwrap();
                assert!(end > round, "an append that returned is readable");
            }
        })
    };
    for done in join_all((0..writers).map(write)).await {
        done.unwrap();
    }
    let read = log.read(events(0), 0, EVERYTHING).await.unwrap();
    assert!(read.iter().enumerate().all(|(index, it)| it.offset == index as u64), "offsets have gaps");
    for writer in 0..writers {
        let own =
            read.iter().filter(|it| it.key == writer.to_string().as_bytes()).cloned().collect::<Vec<_>>();
        let expected: Vec<_> = (0..rounds).map(|it| it.to_string()).collect();
        assert_eq!(values(&own), expected, "writer {writer}");
    }
}

async fn a_waiter_wakes_when_there_is_more(log: Arc<impl Log + 'static>) {
    for round in 0..200 {
        let waiting = {
            let log = log.clone();
            tokio::spawn(async move {
                log.wait_past(events(0), round).await.unwrap();
                log.end_offset(events(0)).unwrap()
            })
        };
        log.append(vec![record(events(0), "k", "v")]).await.unwrap();
        let end = timeout(DEADLINE, waiting).await.expect("the waiter slept on").unwrap();
        assert!(end > round);
    }
}

async fn a_waiter_for_what_is_there_does_not_wait(log: &impl Log) {
    log.append(vec![record(events(0), "k", "v")]).await.unwrap();
    timeout(DEADLINE, log.wait_past(events(0), 0)).await.expect("the end is past 0").unwrap();
    let elsewhere = timeout(std::time::Duration::from_millis(50), log.wait_past(events(1), 0)).await;
    assert!(elsewhere.is_err(), "partition 1 is empty, nothing is past 0");
}
