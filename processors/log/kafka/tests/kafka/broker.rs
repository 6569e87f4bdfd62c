//! The protocol's broker.

use crate::support::{PARTITIONS, broker, commit, event, keys, producer, record, server, settings, soon};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tillstream_kafka::KafkaBroker;
use tillstream_log::broker::{Broker, BrokerError, GroupEvent, GroupMember, GroupOffset, ProduceRecord};
use tillstream_log::{ReadLimit, TopicPartition};
use tillstream_schemas::Topic;

const ALL: ReadLimit = ReadLimit { records_max: 10_000, bytes_max: 64 << 20 };

fn at(topic: Topic, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_producer_cannot_commit() {
    let server = server();
    let broker = broker(&server);
    let to = at(Topic::OrderChangelog, 0);
    let (_, before) = soon("bounds", broker.bounds(to)).await.unwrap();
    let old = producer(&broker, "fence.0").await;
    soon("begin", old.begin()).await.unwrap();
    soon("produce", old.produce(vec![record(to, "by the old one")])).await.unwrap();
    soon("drain", old.drain()).await.unwrap();
    let new = producer(&broker, "fence.0").await;
    let refused = soon("commit", old.commit()).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Fenced(_)), "{refused:?}");
    commit(&*new, vec![record(to, "by the new one")]).await;
    assert_eq!(keys(&broker, to, before).await, ["by the new one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_visible_at_once_and_what_is_aborted_never() {
    let server = server();
    let broker = broker(&server);
    let (a, b) = (at(Topic::OrderChangelog, 1), at(Topic::ItemChangelog, 1));
    let start = (broker.bounds(a).await.unwrap().1, broker.bounds(b).await.unwrap().1);
    let producer = producer(&broker, "visible.1").await;
    soon("begin", producer.begin()).await.unwrap();
    let records = vec![record(a, "a1"), record(b, "b1"), record(a, "a2")];
    soon("produce", producer.produce(records)).await.unwrap();
    let offsets = soon("drain", producer.drain()).await.unwrap();
    assert_eq!(offsets, [start.0, start.1, start.0 + 1], "in the order of handing over");
    // The open transaction holds the last stable offset where it was.
    assert_eq!(broker.bounds(a).await.unwrap().1, start.0);
    assert!(keys(&broker, a, start.0).await.is_empty());
    soon("commit", producer.commit()).await.unwrap();
    assert_eq!(keys(&broker, a, start.0).await, ["a1", "a2"]);
    assert_eq!(keys(&broker, b, start.1).await, ["b1"]);

    soon("begin", producer.begin()).await.unwrap();
    soon("produce", producer.produce(vec![record(a, "given up"), record(b, "given up")])).await.unwrap();
    soon("abort", producer.abort()).await.unwrap();
    commit(&*producer, vec![record(a, "a3")]).await;
    assert_eq!(keys(&broker, a, start.0).await, ["a1", "a2", "a3"]);
    assert_eq!(keys(&broker, b, start.1).await, ["b1"]);
    // A tombstone is a record without a value, and headers come back.
    let deleted = ProduceRecord { value: None, ..record(a, "a1") };
    commit(&*producer, vec![deleted]).await;
    let mut replay = broker.replay(a, start.0).unwrap();
    let step = soon("replay", replay.next()).await.unwrap();
    assert_eq!(step.last().unwrap().value, None);
    assert_eq!(step.first().unwrap().value.as_deref(), Some(&b"value of a1"[..]));
    assert!(soon("replay", replay.next()).await.unwrap().is_empty());
    assert!(soon("replay", replay.next()).await.unwrap().is_empty(), "the end stays the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_transaction_with_records_still_on_their_way_ends_at_once() {
    let server = server();
    let broker = broker(&server);
    let to = at(Topic::AnalyticsChangelog, 0);
    let producer = producer(&broker, "abort.0").await;
    let start = broker.bounds(to).await.unwrap().1;
    for round in 0..3 {
        soon("begin", producer.begin()).await.unwrap();
        let records = (0..2_000).map(|n| record(to, &format!("{round}-{n}"))).collect();
        soon("produce", producer.produce(records)).await.unwrap();
        // Unserved, the reports would keep it until the transaction's timeout.
        tokio::time::timeout(Duration::from_secs(5), producer.abort()).await.unwrap().unwrap();
    }
    // Reports of the transactions before are not taken for this one's.
    let offsets = commit(&*producer, vec![record(to, "kept"), record(to, "kept too")]).await;
    assert!(offsets[0] >= start && offsets[1] == offsets[0] + 1, "{offsets:?}");
    assert_eq!(keys(&broker, to, start).await, ["kept", "kept too"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_place_and_its_metadata_come_back_and_are_stable() {
    let server = server();
    let broker = broker(&server);
    let group = "offsets";
    let partitions: Vec<_> = (0..PARTITIONS).map(|it| at(Topic::ItemCommands, it)).collect();
    let found = soon("offsets", broker.group_offsets(group, &partitions)).await.unwrap();
    assert_eq!(found, vec![None; 4]);
    let member = broker.join(group, Topic::ItemCommands).unwrap();
    assert!(matches!(event(&*member).await, GroupEvent::Assigned(it) if it.len() == 4));
    let producer = producer(&broker, "offsets.0").await;
    let place = GroupOffset { offset: 7, metadata: "v1 generation=1 checkpoint=5".into() };
    soon("begin", producer.begin()).await.unwrap();
    let to = at(Topic::ItemChangelog, 0);
    soon("produce", producer.produce(vec![record(to, "row")])).await.unwrap();
    soon("drain", producer.drain()).await.unwrap();
    let generation = member.metadata().unwrap();
    let sent = producer.send_offset(group, &generation, partitions[2], place.clone());
    soon("offset", sent).await.unwrap();
    // Asked while the transaction is open, the answer waits for its end: whoever asks for another group meanwhile has
    // an answer at once.
    let mut asking = std::pin::pin!(broker.group_offsets(group, &partitions));
    for _ in 0..5 {
        tokio::select! {
            biased;
            early = asking.as_mut() => panic!("{early:?} while the transaction is open"),
            others = soon("other offsets", broker.group_offsets("another", &partitions)) => {
                assert_eq!(others.unwrap(), vec![None; 4]);
            }
        }
    }
    soon("commit", producer.commit()).await.unwrap();
    assert_eq!(soon("offsets", asking).await.unwrap(), vec![None, None, Some(place), None]);
    soon("leave", member.leave()).await;

    // An old generation cannot commit.
    soon("begin", producer.begin()).await.unwrap();
    let place = GroupOffset { offset: 9, metadata: String::new() };
    let refused = soon("offset", producer.send_offset(group, &generation, partitions[2], place)).await;
    assert!(matches!(refused, Err(BrokerError::Abortable(_))), "{refused:?}");
    soon("abort", producer.abort()).await.unwrap();
}

/// Follows a member until it owns exactly these partitions, giving up what it is asked for.
async fn owns(member: &dyn GroupMember, owned: &mut BTreeSet<u32>, wanted: usize) {
    while owned.len() != wanted {
        match event(member).await {
            GroupEvent::Assigned(partitions) => owned.extend(partitions),
            GroupEvent::Revoked(partitions, release) => {
                partitions.iter().for_each(|it| assert!(owned.remove(it)));
                drop(release);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_and_a_revocation_waits_for_its_release() {
    let server = server();
    let broker = broker(&server);
    let group = "share";
    let topic = Topic::EffectRequests;
    let feed = producer(&broker, "share.feed").await;
    let records: Vec<_> = (0..100).map(|n| record(at(topic, n % PARTITIONS), &format!("r{n}"))).collect();
    commit(&*feed, records).await;

    let first = broker.join(group, topic).unwrap();
    let mut firsts = BTreeSet::new();
    owns(&*first, &mut firsts, 4).await;
    // Nothing is fetched before it is asked for.
    assert_eq!((0..4).map(|it| first.buffered(it)).sum::<usize>(), 0);
    for partition in 0..PARTITIONS {
        let start = broker.bounds(at(topic, partition)).await.unwrap().0;
        soon("fetch", first.fetch_from(partition, start + 5)).await.unwrap();
        soon("records", first.wait_buffered(partition, 19)).await;
        let taken = first.take(partition, ALL).unwrap();
        assert_eq!(taken.len(), 20);
        assert_eq!(taken[0].offset, start + 5);
        // Back again, within what was fetched.
        soon("fetch", first.fetch_from(partition, start)).await.unwrap();
        soon("records", first.wait_buffered(partition, 24)).await;
        let step = first.take(partition, ReadLimit { records_max: 10, bytes_max: 1 << 20 }).unwrap();
        assert_eq!((step.len(), step[0].offset), (10, start));
        assert_eq!(first.buffered(partition), 15);
    }

    let second = broker.join(group, topic).unwrap();
    let (revoked, release) = loop {
        match event(&*first).await {
            GroupEvent::Revoked(partitions, release) => break (partitions, release),
            GroupEvent::Assigned(more) => assert!(more.is_empty()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(revoked.len(), 2);
    // Held up: the second member has nothing, the first has what it fetched.
    let kept = (0..PARTITIONS).find(|it| !revoked.contains(it)).unwrap();
    commit(&*feed, vec![record(at(topic, kept), "while it is held up")]).await;
    assert_eq!(first.take(revoked[0], ALL).unwrap().len(), 15);
    let early = tokio::time::timeout(Duration::from_millis(700), async {
        loop {
            match second.next_event().await {
                GroupEvent::Assigned(partitions) if partitions.is_empty() => {}
                other => break other,
            }
        }
    });
    let early = early.await;
    assert!(early.is_err(), "the partitions went before they were released: {early:?}");
    drop(release);
    soon("the record", first.wait_buffered(kept, 15)).await;
    let mut seconds = BTreeSet::new();
    owns(&*second, &mut seconds, 2).await;
    assert_eq!(seconds, revoked.into_iter().collect());
    assert!(first.take(*seconds.first().unwrap(), ALL).unwrap().is_empty(), "not ours any more");

    // The second leaves: all is the first's again.
    soon("leave", second.leave()).await;
    firsts.retain(|it| !seconds.contains(it));
    owns(&*first, &mut firsts, 4).await;
    assert_eq!(broker.group_members(group).await.unwrap(), 1);
    soon("leave", first.leave()).await;
    assert_eq!(broker.group_members(group).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_never_comes_holds_the_group_up_only_so_long() {
    let server = server();
    let mut settings = settings(&server);
    settings.release_timeout_ms = 500;
    let broker = KafkaBroker::new(settings, Arc::default()).unwrap();
    let (group, topic) = ("held", Topic::AnalyticsDeltas);
    let first = broker.join(group, topic).unwrap();
    owns(&*first, &mut BTreeSet::new(), 4).await;
    let second = broker.join(group, topic).unwrap();
    let held = loop {
        if let GroupEvent::Revoked(_, release) = event(&*first).await {
            break release;
        }
    };
    owns(&*second, &mut BTreeSet::new(), 2).await;
    drop(held);
    soon("leave", first.leave()).await;
    soon("leave", second.leave()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_not_there_is_told() {
    let server = server();
    let broker = broker(&server);
    let topic = Topic::OrderCommandsDlq;
    let member = broker.join("range", topic).unwrap();
    owns(&*member, &mut BTreeSet::new(), 4).await;
    soon("fetch", member.fetch_from(1, 1_000)).await.unwrap();
    soon("an error", member.wait_buffered(1, 0)).await;
    let error = member.take(1, ALL).unwrap_err();
    assert!(
        matches!(&error, BrokerError::OutOfRange { partition, offset: 1_000, .. } if *partition == at(topic, 1))
    );
    // It is over with the next start.
    soon("fetch", member.fetch_from(1, 0)).await.unwrap();
    assert_eq!(member.take(1, ALL), Ok(Vec::new()));
    let producer = producer(&broker, "range.0").await;
    commit(&*producer, vec![record(at(topic, 1), "there")]).await;
    soon("a record", member.wait_buffered(1, 0)).await;
    assert_eq!(member.take(1, ALL).unwrap().len(), 1);
    soon("leave", member.leave()).await;

    let mut replay = broker.replay(at(topic, 2), 1_000).unwrap();
    let error = soon("replay", replay.next()).await.unwrap_err();
    assert!(matches!(error, BrokerError::OutOfRange { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_stops_fetching_and_loses_nothing() {
    let server = server();
    let mut settings = settings(&server);
    settings.buffered_bytes_max = 64 << 10;
    let broker = KafkaBroker::new(settings, Arc::default()).unwrap();
    let topic = Topic::ItemEvents;
    let feed = producer(&broker, "full.feed").await;
    let start = broker.bounds(at(topic, 3)).await.unwrap().1;
    let large = |n: u32| ProduceRecord {
        value: Some(vec![n as u8; 1_000].into()),
        ..record(at(topic, 3), &n.to_string())
    };
    for step in 0..4 {
        commit(&*feed, (step * 1_000..(step + 1) * 1_000).map(large).collect()).await;
    }
    let member = broker.join("full", topic).unwrap();
    owns(&*member, &mut BTreeSet::new(), 4).await;
    soon("fetch", member.fetch_from(3, start)).await.unwrap();
    // Resolves though there will never be so many at once.
    soon("records", member.wait_buffered(3, 100_000)).await;
    let mut seen = Vec::new();
    while seen.len() < 4_000 {
        assert!(member.buffered(3) < 2_500, "{}", member.buffered(3));
        let taken = member.take(3, ReadLimit { records_max: 100, bytes_max: 1 << 20 }).unwrap();
        if taken.is_empty() {
            soon("records", member.wait_buffered(3, 0)).await;
        }
        seen.extend(taken.into_iter().map(|it| String::from_utf8_lossy(&it.key).parse::<u32>().unwrap()));
    }
    assert_eq!(seen, (0..4_000).collect::<Vec<_>>());
    soon("leave", member.leave()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_clusters_are_known() {
    let server = server();
    let broker = broker(&server);
    for topic in Topic::every() {
        assert_eq!(soon("partitions", broker.partitions(topic)).await.unwrap(), Some(PARTITIONS));
    }
    let id = soon("cluster", broker.cluster_id()).await.unwrap();
    assert!(!id.is_empty());
}
