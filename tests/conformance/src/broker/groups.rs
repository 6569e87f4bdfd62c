//! Consumer groups: whose partitions, whose offsets, and what is fetched.

use super::{
    BrokerCase, CHANGELOG, DEADLINE, INPUT, abort, commit, new_record, offset_of, open, soon, until_shared,
    wire,
};
use crate::EVERYTHING;
use bytes::Bytes;
use futures::future::join;
use tillstream_log::broker::{BrokerError, GroupMember};
use tillstream_log::{Headers, NewRecord, ReadLimit, Record, TopicPartition};
use tokio::time::timeout;

pub(super) async fn run(make: &impl AsyncFn(&str) -> BrokerCase) {
    offsets_and_their_metadata_are_committed_with_the_records(make("offsets").await).await;
    offsets_of_an_open_transaction_are_waited_for(make("unstable").await).await;
    one_member_has_every_partition(make("alone").await).await;
    a_revoked_partition_waits_for_its_release(make("handover").await).await;
    a_batch_of_an_old_generation_is_not_committed(make("generation").await).await;
    fetching_goes_on_from_where_it_was_told(make("fetch").await).await;
    takes_are_bounded_but_never_to_nothing(make("take").await).await;
    a_waiter_wakes_when_enough_is_there(make("wait").await).await;
    only_what_is_committed_is_fetched(make("committed").await).await;
    a_fetch_from_nowhere_fails_and_does_not_reset(make("nowhere").await).await;
    a_repair_sets_the_place_of_a_group_without_members(make("repair").await).await;
}

impl BrokerCase {
    pub(super) async fn partitions(&self) -> usize {
        let count = soon("partitions", self.broker.partitions(INPUT.topic)).await.unwrap();
        count.expect("the input topic is there") as usize
    }

    async fn append(&self, texts: &[&str]) {
        let record = |text: &&str| NewRecord {
            to: INPUT,
            key: Bytes::from_static(b"demo/x"),
            value: wire(INPUT.topic, text),
            headers: Headers::new(),
        };
        self.log.append(texts.iter().map(record).collect()).await.unwrap();
    }

    /// The only member of a new group, once it has every partition.
    async fn alone(&self, group: &str) -> super::Member {
        let mut member = self.member(&self.named(group)).await;
        member.until_owns(self.partitions().await).await;
        member
    }
}

fn said(records: &[Record]) -> Vec<&str> {
    records.iter().map(|it| std::str::from_utf8(&it.value[5..]).unwrap()).collect()
}

async fn take_all(member: &dyn GroupMember, count: usize) -> Vec<Record> {
    soon("a fetch", async {
        let mut records = Vec::new();
        while records.len() < count {
            member.wait_buffered(INPUT.partition, 0).await;
            let taken = member.take(INPUT.partition, EVERYTHING).unwrap();
            assert!(!taken.is_empty(), "the waiter woke for nothing");
            records.extend(taken);
        }
        records
    })
    .await
}

async fn offsets_and_their_metadata_are_committed_with_the_records(case: BrokerCase) {
    let group = case.named("g");
    let member = case.alone("g").await;
    let producer = case.producer("a").await;
    let other = TopicPartition::new(INPUT.topic, 1);
    assert_eq!(case.group_offset(&group, INPUT).await, None);
    open(&*producer, vec![new_record(CHANGELOG, "x")]).await;
    producer.send_offset(&group, &member.metadata(), INPUT, offset_of(5, "5@1")).await.unwrap();
    producer.send_offset(&group, &member.metadata(), INPUT, offset_of(6, "6@1")).await.unwrap();
    commit(&*producer).await;
    assert_eq!(case.group_offset(&group, INPUT).await, Some(offset_of(6, "6@1")), "the last one counts");
    assert_eq!(case.group_offset(&group, other).await, None);

    open(&*producer, Vec::new()).await;
    producer.send_offset(&group, &member.metadata(), INPUT, offset_of(9, "9@1")).await.unwrap();
    producer.send_offset(&group, &member.metadata(), other, offset_of(1, "")).await.unwrap();
    abort(&*producer).await;
    assert_eq!(case.group_offset(&group, INPUT).await, Some(offset_of(6, "6@1")), "aborted with it");
    assert_eq!(case.group_offset(&group, other).await, None);
    assert_eq!(case.group_offset(&case.named("g2"), INPUT).await, None, "groups do not mix");

    let asked = [other, INPUT];
    let found = case.broker.group_offsets(&group, &asked).await.unwrap();
    assert_eq!(found, [None, Some(offset_of(6, "6@1"))], "answers in the order of the questions");
}

async fn offsets_of_an_open_transaction_are_waited_for(case: BrokerCase) {
    let group = case.named("g");
    let member = case.alone("g").await;
    let producer = case.producer("a").await;
    for round in 1..=3 {
        open(&*producer, vec![new_record(CHANGELOG, "x")]).await;
        producer.send_offset(&group, &member.metadata(), INPUT, offset_of(round, "")).await.unwrap();
        let end = async {
            // One more round trip, so that the question is likely to be there first.
            case.stable_end(CHANGELOG).await;
            if round == 2 { abort(&*producer).await } else { commit(&*producer).await }
        };
        let (found, ()) = join(case.group_offset(&group, INPUT), end).await;
        assert_eq!(found, Some(offset_of(if round == 2 { 1 } else { round }, "")), "round {round}");
    }
}

async fn one_member_has_every_partition(case: BrokerCase) {
    let mut member = case.alone("g").await;
    assert_eq!(member.owned, (0..case.partitions().await as u32).collect::<Vec<_>>());
    assert!(
        member.member.take(INPUT.partition, EVERYTHING).unwrap().is_empty(),
        "nothing before a fetch_from"
    );
    member.leave().await;
    let next = case.alone("g").await;
    assert_eq!(next.owned.len(), case.partitions().await, "what was left goes to the next");
}

async fn a_revoked_partition_waits_for_its_release(case: BrokerCase) {
    let group = case.named("g");
    let count = case.partitions().await;
    let mut one = case.alone("g").await;
    let mut two = case.member(&group).await;
    let event = soon("a revocation", one.events.recv()).await.expect("events go on");
    let (revoked, release) = one.take_in(event).expect("the first event is a revocation");
    assert!(!revoked.is_empty());
    // While it is held: the other may be given nothing of it. Producing is still possible, as a last batch needs it.
    let producer = case.producer("last").await;
    open(&*producer, vec![new_record(CHANGELOG, "the last batch")]).await;
    let place = TopicPartition::new(INPUT.topic, revoked[0]);
    producer.send_offset(&group, &one.metadata(), place, offset_of(3, "last")).await.unwrap();
    commit(&*producer).await;
    assert_eq!(case.group_offset(&group, place).await, Some(offset_of(3, "last")));
    while let Ok(event) = two.events.try_recv() {
        drop(two.take_in(event));
    }
    assert!(two.owned.iter().all(|it| !revoked.contains(it)), "{:?} before the release", two.owned);
    drop(release);
    until_shared(&mut one, &mut two, count).await;
    assert!(one.owned.iter().all(|it| !two.owned.contains(it)), "{:?} and {:?}", one.owned, two.owned);
    two.leave().await;
    one.until_owns(count).await;
}

async fn a_batch_of_an_old_generation_is_not_committed(case: BrokerCase) {
    let group = case.named("g");
    let count = case.partitions().await;
    let mut one = case.alone("g").await;
    let captured = one.metadata();
    let mut two = case.member(&group).await;
    until_shared(&mut one, &mut two, count).await;

    let producer = case.producer("a").await;
    open(&*producer, vec![new_record(CHANGELOG, "x")]).await;
    let sent = soon("offsets", producer.send_offset(&group, &captured, INPUT, offset_of(4, ""))).await;
    assert!(matches!(sent, Err(BrokerError::Abortable(_))), "{sent:?}");
    assert!(soon("a commit", producer.commit()).await.is_err(), "only an abort helps");
    abort(&*producer).await;
    assert_eq!(case.group_offset(&group, INPUT).await, None);

    // A generation may follow another at once: what was captured is tried with the newest.
    let committed = timeout(DEADLINE, async {
        loop {
            while let Ok(event) = one.events.try_recv() {
                drop(one.take_in(event));
            }
            open(&*producer, vec![new_record(CHANGELOG, "y")]).await;
            match producer.send_offset(&group, &one.metadata(), INPUT, offset_of(4, "new")).await {
                Ok(()) => return commit(&*producer).await,
                Err(BrokerError::Abortable(_)) => abort(&*producer).await,
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(committed.await.is_ok(), "the newest generation is never taken");
    assert_eq!(case.group_offset(&group, INPUT).await, Some(offset_of(4, "new")));
}

async fn fetching_goes_on_from_where_it_was_told(case: BrokerCase) {
    let from = case.begin_at(INPUT).await;
    case.append(&["a", "b", "c", "d"]).await;
    let member = case.alone("g").await;
    let member = &*member.member;
    soon("a fetch", member.fetch_from(INPUT.partition, from)).await.unwrap();
    let records = take_all(member, 4).await;
    assert_eq!(said(&records), ["a", "b", "c", "d"]);
    assert_eq!(records.iter().map(|it| it.offset).collect::<Vec<_>>(), [from, from + 1, from + 2, from + 3]);
    assert!(records.iter().all(|it| it.timestamp_ms > 1_600_000_000_000), "append times");
    assert_eq!(member.buffered(INPUT.partition), 0);
    assert!(member.take(INPUT.partition, EVERYTHING).unwrap().is_empty());

    case.append(&["e"]).await;
    assert_eq!(said(&take_all(member, 1).await), ["e"], "and goes on by itself");
    soon("a fetch", member.fetch_from(INPUT.partition, from + 2)).await.unwrap();
    assert_eq!(said(&take_all(member, 3).await), ["c", "d", "e"], "back again");
    soon("a fetch", member.fetch_from(INPUT.partition, from)).await.unwrap();
    soon("a full buffer", member.wait_buffered(INPUT.partition, 4)).await;
    soon("a fetch", member.fetch_from(INPUT.partition, from + 3)).await.unwrap();
    assert_eq!(said(&take_all(member, 2).await), ["d", "e"], "what was buffered is dropped");
}

async fn takes_are_bounded_but_never_to_nothing(case: BrokerCase) {
    let from = case.begin_at(INPUT).await;
    let texts: Vec<String> = (0..40).map(|it| format!("{it:04}")).collect();
    case.append(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let member = case.alone("g").await;
    let member = &*member.member;
    // A record has 6 bytes of key and 9 of value.
    let cases = [(3, 1 << 20, 3), (100, 45, 3), (100, 1, 1), (1, 0, 1), (0, 0, 1), (100, 1 << 20, 40)];
    for (records_max, bytes_max, expected) in cases {
        soon("a fetch", member.fetch_from(INPUT.partition, from)).await.unwrap();
        soon("a full buffer", member.wait_buffered(INPUT.partition, 39)).await;
        assert_eq!(member.buffered(INPUT.partition), 40, "and nothing from before");
        let taken = member.take(INPUT.partition, ReadLimit { records_max, bytes_max }).unwrap();
        assert_eq!(taken.len(), expected, "{records_max} records, {bytes_max} bytes");
        assert_eq!(member.buffered(INPUT.partition), 40 - expected);
        let rest = member.take(INPUT.partition, EVERYTHING).unwrap();
        assert_eq!(said(&taken).into_iter().chain(said(&rest)).collect::<Vec<_>>(), texts);
    }
}

async fn a_waiter_wakes_when_enough_is_there(case: BrokerCase) {
    let from = case.begin_at(INPUT).await;
    let member = case.alone("g").await;
    let member = &*member.member;
    soon("a fetch", member.fetch_from(INPUT.partition, from)).await.unwrap();
    for round in 0..20 {
        let append = async {
            case.append(&["1"]).await;
            case.append(&["2", "3"]).await;
        };
        let ((), ()) = soon("enough", join(member.wait_buffered(INPUT.partition, 2), append)).await;
        assert!(member.buffered(INPUT.partition) > 2, "round {round}");
        assert_eq!(said(&member.take(INPUT.partition, EVERYTHING).unwrap()), ["1", "2", "3"]);
    }
}

async fn only_what_is_committed_is_fetched(case: BrokerCase) {
    let from = case.begin_at(INPUT).await;
    let member = case.alone("g").await;
    let member = &*member.member;
    let (one, two) = (case.producer("a").await, case.producer("b").await);
    soon("a fetch", member.fetch_from(INPUT.partition, from)).await.unwrap();
    open(&*two, vec![new_record(INPUT, "aborted")]).await;
    open(&*one, vec![new_record(INPUT, "committed")]).await;
    case.append(&["plain"]).await;
    commit(&*one).await;
    assert!(member.take(INPUT.partition, EVERYTHING).unwrap().is_empty(), "nothing past an open transaction");
    abort(&*two).await;
    assert_eq!(said(&take_all(member, 2).await), ["committed", "plain"]);
}

async fn a_fetch_from_nowhere_fails_and_does_not_reset(case: BrokerCase) {
    let end = case.begin_at(INPUT).await;
    case.append(&["x"]).await;
    let member = case.alone("g").await;
    let member = &*member.member;
    soon("a fetch", member.fetch_from(INPUT.partition, end + 1_000)).await.unwrap();
    soon("the failure", member.wait_buffered(INPUT.partition, 0)).await;
    let taken = member.take(INPUT.partition, EVERYTHING);
    let expected = end + 1_000;
    assert!(
        matches!(&taken, Err(BrokerError::OutOfRange { partition, offset, .. })
            if *partition == INPUT && *offset == expected),
        "{taken:?}"
    );
    soon("a fetch", member.fetch_from(INPUT.partition, end)).await.unwrap();
    assert_eq!(said(&take_all(member, 1).await), ["x"], "and is mended by another place");
}

async fn a_repair_sets_the_place_of_a_group_without_members(case: BrokerCase) {
    let group = case.named("g");
    let other = TopicPartition::new(INPUT.topic, 1);
    case.broker.set_group_offset(&group, INPUT, offset_of(4, "by hand")).await.unwrap();
    assert_eq!(case.group_offset(&group, INPUT).await, Some(offset_of(4, "by hand")));
    assert_eq!(case.group_offset(&group, other).await, None);

    let mut member = case.alone("g").await;
    let refused = soon("a repair", case.broker.set_group_offset(&group, INPUT, offset_of(9, ""))).await;
    assert!(refused.is_err(), "somebody is at work");
    let producer = case.producer("a").await;
    open(&*producer, Vec::new()).await;
    producer.send_offset(&group, &member.metadata(), INPUT, offset_of(5, "5@1")).await.unwrap();
    commit(&*producer).await;
    member.leave().await;
    assert_eq!(case.group_offset(&group, INPUT).await, Some(offset_of(5, "5@1")));
    case.broker.set_group_offset(&group, INPUT, offset_of(2, "back")).await.unwrap();
    assert_eq!(case.group_offset(&group, INPUT).await, Some(offset_of(2, "back")));
}
