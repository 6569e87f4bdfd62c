//! The log: appends, reads, followers.

use crate::support::{PARTITIONS, broker, commit, producer, record, server, settings, soon};
use std::sync::Arc;
use std::time::Duration;
use tillstream_kafka::{KafkaBroker, KafkaLog};
use tillstream_log::broker::{Broker, ProduceRecord};
use tillstream_log::headers::{CE_ID, header};
use tillstream_log::{Headers, Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_schemas::codec::Version;
use tillstream_schemas::wire_ids::WireIds;

const ALL: ReadLimit = ReadLimit { records_max: 1_000, bytes_max: 1 << 20 };

fn new(to: TopicPartition, text: &str) -> NewRecord {
    let ProduceRecord { key, value, .. } = record(to, text);
    let headers: Headers = [header(CE_ID, text.as_bytes().to_vec())].into_iter().collect();
    NewRecord { to, key, value: value.unwrap(), headers }
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|it| String::from_utf8_lossy(&it.key).into_owned()).collect()
}

/// Reads until `offset` is reached: as a follower does.
async fn follow(log: &dyn Log, at: TopicPartition, mut offset: u64, to: u64) -> Vec<String> {
    let mut all = Vec::new();
    while offset < to {
        soon("more", log.wait_past(at, offset)).await.unwrap();
        let (records, next_offset) = soon("records", log.read_on(at, offset, ALL)).await.unwrap();
        all.extend(texts(&records));
        offset = next_offset;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_read_again_with_headers_and_time() {
    let server = server();
    let log = KafkaLog::open(&broker(&server)).await.unwrap();
    assert_eq!(log.partitions(Topic::OrderCommands), PARTITIONS);
    let at = TopicPartition::new(Topic::OrderCommands, 0);
    let start = log.end_offset(at).unwrap();
    let records = (0..10).map(|n| new(at, &format!("r{n}"))).collect();
    soon("append", log.append(records)).await.unwrap();
    assert_eq!(log.end_offset(at).unwrap(), start + 10, "known without being asked for");
    soon("past", log.wait_past(at, start + 9)).await.unwrap();
    // In steps, on from where the read before stood, and back.
    let few = ReadLimit { records_max: 4, bytes_max: 1 << 20 };
    let (first, next) = soon("read", log.read_on(at, start, few)).await.unwrap();
    assert_eq!((texts(&first), next), (vec!["r0".into(), "r1".into(), "r2".into(), "r3".into()], start + 4));
    assert_eq!(first[1].headers, new(at, "r1").headers);
    assert_eq!(&first[1].value[..], b"value of r1");
    assert!(first[1].timestamp_ms > 1_600_000_000_000);
    let (second, next) = soon("read", log.read_on(at, next, few)).await.unwrap();
    assert_eq!((second.len(), next), (4, start + 8));
    // Between two reads more comes: the reader that stands there does not take an old end for the new one.
    soon("append", log.append(vec![new(at, "r10")])).await.unwrap();
    let rest = soon("read", log.read_on(at, next, ALL)).await.unwrap();
    assert_eq!((texts(&rest.0), rest.1), (vec!["r8".into(), "r9".into(), "r10".into()], start + 11));
    assert_eq!(soon("read", log.read_on(at, start + 11, ALL)).await.unwrap(), (Vec::new(), start + 11));
    let one = ReadLimit { records_max: 9, bytes_max: 1 };
    assert_eq!(texts(&soon("read", log.read(at, start + 2, one)).await.unwrap()), ["r2"]);

    let error = soon("read", log.read(at, start + 1_000, ALL)).await.unwrap_err();
    assert!(
        matches!(error, LogError::OutOfRange { end, asked, .. } if end == start + 11 && asked == start + 1_000)
    );
    let nowhere = TopicPartition::new(Topic::OrderCommands, 9);
    let refused = soon("append", log.append(vec![new(nowhere, "x")])).await;
    assert_eq!(refused, Err(LogError::NoSuchPartition(nowhere)));
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_past_the_bound_are_refused_and_the_room_comes_back() {
    let server = server();
    let mut settings = settings(&server);
    settings.append_bytes_max = 100_000;
    let log = KafkaLog::open(&KafkaBroker::new(settings, Arc::default()).unwrap()).await.unwrap();
    let at = TopicPartition::new(Topic::OrderCommands, 1);
    let large = || vec![NewRecord { value: vec![7; 60_000].into(), ..new(at, "large") }];
    let (first, second) =
        soon("appends", async { tokio::join!(log.append(large()), log.append(large())) }).await;
    assert_eq!(first, Ok(()));
    assert!(matches!(second, Err(LogError::Unavailable(_))), "{second:?}");
    soon("append", log.append(large())).await.unwrap();
    // One that is too large for its topic is told, and its room comes back too.
    let huge = vec![NewRecord { value: vec![7; 5 << 20].into(), ..new(at, "huge") }];
    assert!(matches!(soon("append", log.append(huge)).await, Err(LogError::Unavailable(_))));
    soon("append", log.append(large())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reaches_an_end_that_is_only_markers() {
    let server = server();
    let broker = broker(&server);
    let log = KafkaLog::open(&broker).await.unwrap();
    let follower = log.follower(&[Topic::Products]).unwrap();
    let at = TopicPartition::new(Topic::Products, 2);
    let start = follower.end_offset(at).unwrap();
    let writer = producer(&broker, "markers.0").await;
    commit(&*writer, vec![record(at, "a"), record(at, "b")]).await;
    commit(&*writer, vec![record(at, "c")]).await;
    soon("begin", writer.begin()).await.unwrap();
    soon("produce", writer.produce(vec![record(at, "given up")])).await.unwrap();
    soon("drain", writer.drain()).await.unwrap();
    soon("abort", writer.abort()).await.unwrap();

    soon("refresh", follower.refresh(&[at])).await.unwrap();
    let end = follower.end_offset(at).unwrap();
    assert_eq!(end, start + 7, "three records, one that was given up, three markers");
    assert_eq!(follow(&*follower, at, start, end).await, ["a", "b", "c"]);
    // At rest nothing is waited for in vain, and what comes later is not passed over.
    let waiting = tokio::time::timeout(Duration::from_millis(200), follower.wait_past(at, end));
    assert!(waiting.await.is_err());
    commit(&*writer, vec![record(at, "d")]).await;
    soon("refresh", follower.refresh(&[at])).await.unwrap();
    let later = follower.end_offset(at).unwrap();
    assert_eq!(follow(&*follower, at, end, later).await, ["d"]);
    // A reader may go back, and ad hoc readers go past markers too.
    assert_eq!(follow(&*follower, at, start + 1, later).await, ["b", "c", "d"]);
    let (records, next) = soon("read", log.read_on(at, start + 3, ALL)).await.unwrap();
    assert_eq!((texts(&records), next), (vec!["c".into(), "d".into()], later));
    assert_eq!(soon("read", log.read_on(at, start + 5, ONE_BYTE)).await.unwrap().1, start + 8);
}

const ONE_BYTE: ReadLimit = ReadLimit { records_max: 1, bytes_max: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_woken_by_records_and_sees_ends_by_itself() {
    let server = server();
    let broker = broker(&server);
    let log = KafkaLog::open(&broker).await.unwrap();
    let follower = log.follower(&[Topic::OrderEvents]).unwrap();
    let at = TopicPartition::new(Topic::OrderEvents, 3);
    let start = follower.end_offset(at).unwrap();
    let reading = follow(&*follower, at, start, start + 1);
    let writer = producer(&broker, "woken.0").await;
    // The reader is polled first: it waits before there is a record.
    let writing = commit(&*writer, vec![record(at, "event")]);
    let (read, _) = soon("the event", async { tokio::join!(reading, writing) }).await;
    assert_eq!(read, ["event"]);
    // Nobody asks, and the end is known before long.
    let known = async {
        while follower.end_offset(at).unwrap() < start + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the end", known).await;
    let gone = soon("read", follower.read_on(at, start + 100, ALL)).await;
    assert_eq!(gone, Ok((Vec::new(), start + 100)), "nothing is buffered yet");
    soon("the error", follower.wait_past(at, start + 100)).await.unwrap();
    let error = soon("read", follower.read_on(at, start + 100, ALL)).await.unwrap_err();
    assert!(matches!(error, LogError::OutOfRange { end, .. } if end == start + 2), "{error:?}");
    // What is not followed is read all the same.
    let other = TopicPartition::new(Topic::AnalyticsWindows, 0);
    let end = follower.end_offset(other).unwrap();
    soon("append", follower.append(vec![new(other, "window")])).await.unwrap();
    soon("past", follower.wait_past(other, end)).await.unwrap();
    assert_eq!(texts(&soon("read", follower.read(other, end, ALL)).await.unwrap()), ["window"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_ids_are_the_registrys_on_the_wire_and_ours_in_the_process() {
    let server = server();
    let pairs = Version::all().map(|it| (it.id, it.id + 1_000));
    let ids = Arc::new(WireIds::new(pairs).unwrap());
    let ours = KafkaBroker::new(settings(&server), ids).unwrap();
    let raw = broker(&server);
    let value = |id: u32| [&[0][..], &id.to_be_bytes(), b"avro"].concat();

    let at = TopicPartition::new(Topic::AnalyticsChangelog, 3);
    let start = raw.bounds(at).await.unwrap().1;
    let writer = producer(&ours, "ids.0").await;
    let no_header = ProduceRecord { value: Some("1".into()), ..record(at, "timer") };
    commit(&*writer, vec![ProduceRecord { value: Some(value(2).into()), ..record(at, "row") }, no_header])
        .await;
    for (broker, wanted) in [(&raw, value(1_002)), (&ours, value(2))] {
        let mut replay = broker.replay(at, start).unwrap();
        let step = soon("replay", replay.next()).await.unwrap();
        assert_eq!(step[0].value.as_deref(), Some(&wanted[..]));
        assert_eq!(step[1].value.as_deref(), Some(&b"1"[..]));
    }

    let at = TopicPartition::new(Topic::ItemCommandsDlq, 0);
    let (our_log, raw_log) = (KafkaLog::open(&ours).await.unwrap(), KafkaLog::open(&raw).await.unwrap());
    let start = raw_log.end_offset(at).unwrap();
    soon("append", our_log.append(vec![NewRecord { value: value(9).into(), ..new(at, "letter") }]))
        .await
        .unwrap();
    for (log, wanted) in [(&raw_log, value(1_009)), (&our_log, value(9))] {
        assert_eq!(&soon("read", log.read(at, start, ALL)).await.unwrap()[0].value[..], wanted);
    }
}
