//! Transactions, what readers of committed records see of them, and fencing.

use super::{BrokerCase, CHANGELOG, INPUT, OUTPUT, abort, commit, new_record, offset_of, open, soon, texts};
use bytes::Bytes;
use tillstream_log::broker::{BrokerError, GroupMetadata, ProduceRecord};
use tillstream_log::headers::{CE_ID, header};
use tillstream_log::{Headers, NewRecord, TopicPartition};
use tillstream_schemas::Topic;

pub(super) async fn run(make: &impl AsyncFn(&str) -> BrokerCase) {
    what_is_committed_is_read_at_the_offsets_that_draining_told(make("commit").await).await;
    what_is_aborted_is_never_read(make("abort").await).await;
    an_open_transaction_holds_the_stable_end_back(make("open").await).await;
    a_transaction_is_seen_in_all_its_partitions_or_in_none(make("atomic").await).await;
    many_records_are_drained_in_the_order_they_were_handed_over(make("many").await).await;
    a_commit_of_nothing_is_a_commit(make("nothing").await).await;
    a_tombstone_is_replayed_as_one(make("tombstone").await).await;
    a_replay_from_anywhere_gives_the_rest(make("replay").await).await;
    a_new_producer_ends_the_earlier_ones_transaction(make("fence-open").await).await;
    a_fenced_producer_does_nothing_more(make("fence-idle").await).await;
    producers_of_other_ids_do_not_meet(make("others").await).await;
    calls_out_of_turn_are_errors(make("turns").await).await;
    every_topic_has_its_partitions(make("topics").await).await;
}

async fn what_is_committed_is_read_at_the_offsets_that_draining_told(case: BrokerCase) {
    let (from, events) = (case.begin_at(CHANGELOG).await, case.begin_at(OUTPUT).await);
    let producer = case.producer("a").await;
    let records = vec![
        new_record(CHANGELOG, "one"),
        new_record(OUTPUT, "event"),
        new_record(CHANGELOG, "two"),
        new_record(CHANGELOG, "three"),
    ];
    let offsets = open(&*producer, records).await;
    assert_eq!(offsets, [from, events, from + 1, from + 2]);
    commit(&*producer).await;
    case.stable_past(CHANGELOG, from + 2).await;
    let read = case.replay(CHANGELOG, from).await;
    assert_eq!(texts(&read), ["one", "two", "three"]);
    assert_eq!(read.iter().map(|it| it.offset).collect::<Vec<_>>(), [from, from + 1, from + 2]);
    assert_eq!(read[1].key, "demo/two");
    assert!(case.stable_end(CHANGELOG).await > from + 3, "the marker takes an offset");

    let again = open(&*producer, vec![new_record(CHANGELOG, "four")]).await;
    assert!(again[0] > from + 3, "the next transaction begins behind the marker, at {}", again[0]);
    commit(&*producer).await;
    case.stable_past(CHANGELOG, again[0]).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from + 1).await), ["two", "three", "four"]);
}

async fn what_is_aborted_is_never_read(case: BrokerCase) {
    let from = case.begin_at(CHANGELOG).await;
    let producer = case.producer("a").await;
    let drained = open(&*producer, vec![new_record(CHANGELOG, "gone"), new_record(OUTPUT, "gone")]).await;
    assert_eq!(drained[0], from);
    abort(&*producer).await;
    case.stable_past(CHANGELOG, from).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), Vec::<String>::new());

    producer.begin().await.unwrap();
    producer.produce(vec![new_record(CHANGELOG, "gone too")]).await.unwrap();
    abort(&*producer).await;
    let kept = open(&*producer, vec![new_record(CHANGELOG, "kept")]).await;
    commit(&*producer).await;
    case.stable_past(CHANGELOG, kept[0]).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), ["kept"]);
}

async fn an_open_transaction_holds_the_stable_end_back(case: BrokerCase) {
    let from = case.begin_at(CHANGELOG).await;
    let (one, two) = (case.producer("a").await, case.producer("b").await);
    let held = open(&*one, vec![new_record(CHANGELOG, "first begun")]).await;
    let ahead = open(&*two, vec![new_record(CHANGELOG, "first committed")]).await;
    assert_eq!((held[0], ahead[0]), (from, from + 1));
    commit(&*two).await;
    assert_eq!(case.stable_end(CHANGELOG).await, from, "nothing is stable past an open transaction");
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), Vec::<String>::new());
    commit(&*one).await;
    case.stable_past(CHANGELOG, ahead[0]).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), ["first begun", "first committed"]);
}

async fn a_transaction_is_seen_in_all_its_partitions_or_in_none(case: BrokerCase) {
    let events = TopicPartition::new(Topic::OrderEvents, 0);
    let places = [CHANGELOG, OUTPUT, events];
    let mut from = Vec::new();
    for place in places {
        from.push(case.begin_at(place).await);
    }
    let producer = case.producer("a").await;
    for (round, ends_well) in [false, true, false, true, true].into_iter().enumerate() {
        let records = places.iter().map(|it| new_record(*it, &round.to_string())).collect();
        let offsets = open(&*producer, records).await;
        if ends_well {
            commit(&*producer).await;
        } else {
            abort(&*producer).await;
        }
        for (place, offset) in places.iter().zip(offsets) {
            case.stable_past(*place, offset).await;
        }
    }
    for (place, from) in places.iter().zip(from) {
        assert_eq!(texts(&case.replay(*place, from).await), ["1", "3", "4"], "{place}");
    }
}

async fn many_records_are_drained_in_the_order_they_were_handed_over(case: BrokerCase) {
    let places = [CHANGELOG, OUTPUT];
    let from = case.begin_at(CHANGELOG).await;
    let producer = case.producer("a").await;
    producer.begin().await.unwrap();
    let record = |it: usize| new_record(places[it % 3 % 2], &it.to_string());
    producer.produce((0..2_000).map(record).collect()).await.unwrap();
    producer.produce((2_000..3_000).map(record).collect()).await.unwrap();
    let offsets = soon("a drain", producer.drain()).await.unwrap();
    assert_eq!(offsets.len(), 3_000);
    for place in 0..2 {
        let own: Vec<u64> = (0..3_000).filter(|it| it % 3 % 2 == place).map(|it| offsets[it]).collect();
        assert!(own.windows(2).all(|pair| pair[0] + 1 == pair[1]), "partition {place} is in another order");
    }
    commit(&*producer).await;
    case.stable_past(CHANGELOG, from + 1_999).await;
    let expected: Vec<String> =
        (0..3_000).filter(|it| it % 3 % 2 == 0).map(|it: i32| it.to_string()).collect();
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), expected);
}

async fn a_commit_of_nothing_is_a_commit(case: BrokerCase) {
    let from = case.begin_at(CHANGELOG).await;
    let producer = case.producer("a").await;
    assert_eq!(open(&*producer, Vec::new()).await, Vec::<u64>::new());
    commit(&*producer).await;
    producer.begin().await.unwrap();
    abort(&*producer).await;
    let offsets = open(&*producer, vec![new_record(CHANGELOG, "x")]).await;
    assert_eq!(offsets, [from], "transactions of nothing leave no markers");
    commit(&*producer).await;
}

async fn a_tombstone_is_replayed_as_one(case: BrokerCase) {
    let from = case.begin_at(CHANGELOG).await;
    let producer = case.producer("a").await;
    let key = Bytes::from_static(b"demo/x");
    let tombstone = ProduceRecord { to: CHANGELOG, key, value: None, headers: Headers::new() };
    let offsets = open(&*producer, vec![new_record(CHANGELOG, "x"), tombstone]).await;
    commit(&*producer).await;
    case.stable_past(CHANGELOG, offsets[1]).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), ["x", "-demo/x"]);
}

async fn a_replay_from_anywhere_gives_the_rest(case: BrokerCase) {
    let from = case.begin_at(CHANGELOG).await;
    let producer = case.producer("a").await;
    let mut all = Vec::new();
    for round in 0..6 {
        let records = (0..round + 1).map(|it| new_record(CHANGELOG, &format!("{round}.{it}"))).collect();
        let offsets = open(&*producer, records).await;
        if round % 3 == 1 {
            abort(&*producer).await;
        } else {
            commit(&*producer).await;
            all.extend(offsets.iter().enumerate().map(|(it, offset)| (*offset, format!("{round}.{it}"))));
        }
        case.stable_past(CHANGELOG, *offsets.last().unwrap()).await;
    }
    let end = case.stable_end(CHANGELOG).await;
    for start in from..=end {
        let expected: Vec<&str> =
            all.iter().filter(|(offset, _)| *offset >= start).map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts(&case.replay(CHANGELOG, start).await), expected, "from {start}");
    }
}

async fn a_new_producer_ends_the_earlier_ones_transaction(case: BrokerCase) {
    let (from, group) = (case.begin_at(CHANGELOG).await, case.named("g"));
    let mut member = case.member(&group).await;
    member.until_owns(case.partitions().await).await;
    let old = case.producer("a").await;
    let offsets = open(&*old, vec![new_record(CHANGELOG, "the old one's")]).await;
    old.send_offset(&group, &member.metadata(), INPUT, offset_of(7, "old")).await.unwrap();

    let new = case.producer("a").await;
    assert!(case.stable_end(CHANGELOG).await > offsets[0], "init answers after the transaction is ended");
    assert_eq!(case.group_offset(&group, INPUT).await, None);
    let late = soon("a late commit", old.commit()).await;
    assert!(matches!(late, Err(BrokerError::Fenced(_))), "{late:?}");

    let offsets = open(&*new, vec![new_record(CHANGELOG, "the new one's")]).await;
    new.send_offset(&group, &member.metadata(), INPUT, offset_of(8, "new")).await.unwrap();
    commit(&*new).await;
    case.stable_past(CHANGELOG, offsets[0]).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), ["the new one's"]);
    assert_eq!(case.group_offset(&group, INPUT).await, Some(offset_of(8, "new")));
    member.leave().await;
}

async fn a_fenced_producer_does_nothing_more(case: BrokerCase) {
    let from = case.begin_at(CHANGELOG).await;
    let old = case.producer("a").await;
    let new = case.producer("a").await;
    let done = soon("a fenced producer", async {
        old.begin().await?;
        old.produce(vec![new_record(CHANGELOG, "the old one's")]).await?;
        old.drain().await?;
        old.commit().await
    });
    let done = done.await;
    assert!(matches!(done, Err(BrokerError::Fenced(_))), "{done:?}");
    let offsets = open(&*new, vec![new_record(CHANGELOG, "the new one's")]).await;
    commit(&*new).await;
    case.stable_past(CHANGELOG, offsets[0]).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), ["the new one's"]);
}

async fn producers_of_other_ids_do_not_meet(case: BrokerCase) {
    let from = case.begin_at(CHANGELOG).await;
    let one = case.producer("a").await;
    one.begin().await.unwrap();
    one.produce(vec![new_record(CHANGELOG, "one")]).await.unwrap();
    let two = case.producer("ab").await;
    open(&*two, vec![new_record(CHANGELOG, "two")]).await;
    abort(&*two).await;
    let offsets = soon("a drain", one.drain()).await.unwrap();
    commit(&*one).await;
    case.stable_past(CHANGELOG, offsets[0].max(from + 1)).await;
    assert_eq!(texts(&case.replay(CHANGELOG, from).await), ["one"]);
}

async fn calls_out_of_turn_are_errors(case: BrokerCase) {
    let fresh = case.broker.producer(&case.named("never begun")).unwrap();
    assert!(fresh.begin().await.is_err(), "begin before init");
    let producer = case.producer("a").await;
    assert!(soon("a commit", producer.commit()).await.is_err(), "commit before begin");
    let elsewhere = GroupMetadata(std::sync::Arc::new("no metadata"));
    let sent = producer.send_offset(&case.named("g"), &elsewhere, INPUT, offset_of(1, ""));
    assert!(soon("offsets", sent).await.is_err(), "offsets before begin");
}

async fn every_topic_has_its_partitions(case: BrokerCase) {
    for topic in Topic::every() {
        let count = soon("partitions", case.broker.partitions(topic)).await.unwrap();
        assert!(count.is_some_and(|it| it >= 2), "{topic}: the suite needs two partitions, not {count:?}");
    }
    headers_and_append_times_are_kept(&case).await;
}

async fn headers_and_append_times_are_kept(case: &BrokerCase) {
    let from = case.begin_at(OUTPUT).await;
    let producer = case.producer("headers").await;
    let mut sent = new_record(OUTPUT, "with headers");
    sent.headers.push(header(CE_ID, "evt_1"));
    let offsets = open(&*producer, vec![sent.clone()]).await;
    commit(&*producer).await;
    soon("the follower", case.log.wait_past(OUTPUT, offsets[0])).await.unwrap();
    let (read, next) = case.log.read_on(OUTPUT, from, crate::EVERYTHING).await.unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!((&read[0].key, Some(&read[0].value)), (&sent.key, sent.value.as_ref()));
    assert_eq!(read[0].headers, sent.headers);
    assert!(read[0].timestamp_ms > 1_600_000_000_000, "the append time is {}", read[0].timestamp_ms);
    assert!(next > from);
    let plain = NewRecord { to: OUTPUT, key: sent.key, value: sent.value.unwrap(), headers: sent.headers };
    case.log.append(vec![plain]).await.unwrap();
}
