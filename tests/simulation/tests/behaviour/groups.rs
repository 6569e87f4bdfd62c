//! Members that come, go, stand still and do not know what they lost.

use super::*;
use tillstream_simulation::broker::Notice;

async fn two_members(broker: &SimBroker) -> (Arc<dyn GroupMember>, Arc<dyn GroupMember>) {
    let (a, b) = (broker.client("a"), broker.client("b"));
    let one = a.join("g", Topic::OrderCommands).unwrap();
    assert_eq!(assigned(&*one).await, [0, 1, 2, 3]);
    let two = b.join("g", Topic::OrderCommands).unwrap();
    let GroupEvent::Revoked(revoked, release) = event(&*one).await else { panic!("a revocation") };
    assert_eq!(revoked, [2, 3], "as few as can be");
    assert!(at_once(two.next_event()).await.is_none(), "not before the release");
    drop(release);
    assert_eq!(assigned(&*two).await, [2, 3]);
    (one, two)
}

#[tokio::test(start_paused = true)]
async fn partitions_move_one_by_one_and_stay_even() {
    let broker = broker();
    let (one, two) = two_members(&broker).await;
    let owned =
        |broker: &SimBroker| broker.members("g").into_iter().map(|it| it.partitions).collect::<Vec<_>>();
    assert_eq!(owned(&broker), [vec![0, 1], vec![2, 3]]);
    let three = broker.client("c").join("g", Topic::OrderCommands).unwrap();
    let GroupEvent::Revoked(revoked, release) = event(&*two).await else { panic!("a revocation") };
    drop(release);
    assert_eq!(assigned(&*three).await, revoked);
    one.leave().await;
    let mut all = owned(&broker).concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert!(owned(&broker).iter().all(|it| it.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn a_crashed_member_is_missed_after_its_session_one_that_leaves_at_once() {
    let broker = broker();
    let (one, two) = two_members(&broker).await;
    drop(one);
    assert!(at_once(two.next_event()).await.is_none());
    assert_eq!(assigned(&*two).await, [0, 1], "by time alone");
    let three = broker.client("c").join("g", Topic::OrderCommands).unwrap();
    let GroupEvent::Revoked(_, release) = event(&*two).await else { panic!("a revocation") };
    drop(release);
    assigned(&*three).await;
    two.leave().await;
    assert_eq!(at_once(assigned(&*three)).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_held_too_long_costs_everything() {
    let broker = broker();
    let one = broker.client("a").join("g", Topic::OrderCommands).unwrap();
    assigned(&*one).await;
    let two = broker.client("b").join("g", Topic::OrderCommands).unwrap();
    let GroupEvent::Revoked(_, held) = event(&*one).await else { panic!("a revocation") };
    let GroupEvent::Lost(lost) = event(&*one).await else { panic!("a loss") };
    assert_eq!(lost, [0, 1, 2, 3]);
    assert!(!assigned(&*two).await.is_empty());
    let generation = broker.generation("g");
    drop(held);
    assert_eq!(broker.generation("g"), generation, "the release is of no use any more");
}

#[tokio::test(start_paused = true)]
async fn a_zombie_works_on_and_commits_nothing() {
    let broker = broker();
    let (one, two) = two_members(&broker).await;
    let old = producer(&broker, "order.0").await;
    broker.append(INPUT, "k", Some(b"v"));
    one.fetch_from(0, 0).await.unwrap();
    broker.faults().expel(broker.members("g")[0].member, Notice::Later);
    assert_eq!(assigned(&*two).await, [0, 1]);

    assert!(at_once(one.next_event()).await.is_none(), "it does not know");
    assert_eq!(one.buffered(0), 1, "and fetches");
    open(&*old, change("zombie")).await;
    let sent = old.send_offset("g", &one.metadata().unwrap(), INPUT, place(1)).await;
    assert!(matches!(sent, Err(BrokerError::Abortable(_))), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expelled_member_that_is_told_loses_all_and_joins_again() {
    let broker = broker();
    let (one, two) = two_members(&broker).await;
    let first = broker.members("g")[0].member;
    broker.faults().expel(first, Notice::Later);
    assert_eq!(assigned(&*two).await, [0, 1]);
    broker.faults().tell(first);
    let GroupEvent::Lost(lost) = event(&*one).await else { panic!("a loss") };
    assert_eq!(lost, [0, 1]);
    assert!(one.fetch_from(0, 0).await.is_err(), "it is not its any more");
    let GroupEvent::Revoked(revoked, release) = event(&*two).await else { panic!("a revocation") };
    drop(release);
    assert_eq!(assigned(&*one).await, revoked);
}

#[tokio::test(start_paused = true)]
async fn every_rebalance_is_a_generation() {
    let broker = broker();
    let (one, two) = two_members(&broker).await;
    let captured = one.metadata().unwrap();
    let producer = producer(&broker, "order.0").await;
    open(&*producer, Vec::new()).await;
    producer.send_offset("g", &captured, INPUT, place(1)).await.unwrap();
    producer.commit().await.unwrap();
    two.leave().await;
    open(&*producer, Vec::new()).await;
    assert!(producer.send_offset("g", &captured, INPUT, place(2)).await.is_err());
    producer.abort().await.unwrap();
    open(&*producer, Vec::new()).await;
    producer.send_offset("g", &one.metadata().unwrap(), INPUT, place(2)).await.unwrap();
    producer.commit().await.unwrap();
    assert_eq!(broker.group_offset("g", INPUT), Some(place(2)));
}
