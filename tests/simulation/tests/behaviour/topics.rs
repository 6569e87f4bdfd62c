//! Topics that are made anew, trimmed, compacted or resized.

use super::*;
use tillstream_log::ReadLimit;

async fn replayed(broker: &SimBroker, from: u64) -> Result<Vec<(u64, Option<String>)>, BrokerError> {
    let mut replay = broker.replay(CHANGELOG, from)?;
    let mut all = Vec::new();
    loop {
        let more = replay.next().await?;
        if more.is_empty() {
            return Ok(all);
        }
        let text = |value: Bytes| String::from_utf8(value.to_vec()).unwrap();
        all.extend(more.into_iter().map(|it| (it.offset, it.value.map(text))));
    }
}

async fn member_at(broker: &SimBroker, offset: u64) -> Arc<dyn GroupMember> {
    let member = broker.join("g", Topic::OrderCommands).unwrap();
    assigned(&*member).await;
    member.fetch_from(0, offset).await.unwrap();
    member
}

const ALL: ReadLimit = ReadLimit { records_max: 100, bytes_max: 1 << 20 };

fn is_out_of_range<T>(result: &Result<T, BrokerError>) -> bool {
    matches!(result, Err(BrokerError::OutOfRange { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_is_empty_and_no_group_has_a_place_in_it() {
    let broker = broker();
    for _ in 0..3 {
        broker.append(INPUT, "k", Some(b"v"));
        broker.append(CHANGELOG, "k", Some(b"v"));
    }
    broker.set_group_offset("g", INPUT, place(3)).await.unwrap();
    let member = member_at(&broker, 3).await;
    broker.faults().recreate(Topic::OrderCommands);
    member.wait_buffered(0, 0).await;
    assert!(is_out_of_range(&member.take(0, ALL)));
    assert_eq!(broker.group_offsets("g", &[INPUT]).await, Ok(vec![None]));
    assert_eq!(broker.bounds(INPUT).await, Ok((0, 0)));

    let mut replay = broker.replay(CHANGELOG, 0).unwrap();
    broker.faults().recreate(Topic::OrderChangelog);
    assert!(replay.next().await.is_err(), "it is another log");
    assert!(is_out_of_range(&replayed(&broker, 3).await));
    broker.append(INPUT, "k", Some(b"new"));
    assert_eq!(broker.records(INPUT, Seen::Committed)[0].offset, 0);
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_is_out_of_range() {
    let broker = broker();
    for _ in 0..5 {
        broker.append(INPUT, "k", Some(b"v"));
        broker.append(CHANGELOG, "k", Some(b"v"));
    }
    broker.faults().trim(INPUT, 3);
    broker.faults().trim(CHANGELOG, 3);
    assert_eq!(broker.bounds(CHANGELOG).await, Ok((3, 5)));
    assert!(is_out_of_range(&replayed(&broker, 2).await));
    assert_eq!(replayed(&broker, 3).await.unwrap().len(), 2);
    let member = member_at(&broker, 0).await;
    member.wait_buffered(0, 0).await;
    assert!(is_out_of_range(&member.take(0, ALL)), "and nothing is reset");
    broker.faults().drop_offset("g", INPUT);
    assert_eq!(broker.group_offset("g", INPUT), None);
}

#[tokio::test(start_paused = true)]
async fn compaction_keeps_the_last_record_of_every_key_where_it_is() {
    let broker = broker();
    let producer = producer(&broker, "one").await;
    open(&*producer, vec![record(CHANGELOG, "a", Some("a1")), record(CHANGELOG, "b", Some("b1"))]).await;
    producer.commit().await.unwrap();
    open(&*producer, vec![record(CHANGELOG, "a", Some("aborted"))]).await;
    producer.abort().await.unwrap();
    open(&*producer, vec![record(CHANGELOG, "a", Some("a2")), record(CHANGELOG, "c", Some("c1"))]).await;
    producer.produce(vec![record(CHANGELOG, "c", None)]).await.unwrap();
    producer.commit().await.unwrap();
    open(&*producer, vec![record(CHANGELOG, "b", Some("open"))]).await;

    let bounds = broker.bounds(CHANGELOG).await.unwrap();
    broker.faults().compact(Topic::OrderChangelog, false);
    let expected = vec![(1, Some("b1".to_owned())), (5, Some("a2".to_owned())), (7, None)];
    assert_eq!(replayed(&broker, 0).await.unwrap(), expected);
    assert_eq!(broker.bounds(CHANGELOG).await, Ok(bounds), "offsets stay");
    broker.faults().compact(Topic::OrderChangelog, true);
    assert_eq!(replayed(&broker, 0).await.unwrap(), expected[..2]);
    producer.commit().await.unwrap();
    assert_eq!(replayed(&broker, 6).await.unwrap(), [(9, Some("open".to_owned()))]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_may_have_other_partitions_or_none() {
    let broker = broker();
    broker.faults().set_partitions(Topic::OrderChangelog, 2);
    assert_eq!(broker.partitions(Topic::OrderChangelog).await, Ok(Some(2)));
    let gone = TopicPartition::new(Topic::OrderChangelog, 3);
    assert!(matches!(broker.bounds(gone).await, Err(BrokerError::Refused(_))));
    broker.faults().set_partitions(Topic::OrderChangelog, 0);
    assert_eq!(broker.partitions(Topic::OrderChangelog).await, Ok(None));
}
