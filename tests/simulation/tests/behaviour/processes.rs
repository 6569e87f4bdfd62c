//! Processes that stand still, cannot reach the broker, or die.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_too_long_is_fenced_and_has_lost_its_partitions() {
    let broker = broker();
    let (a, b) = (broker.client("a"), broker.client("b"));
    let one = a.join("g", Topic::OrderCommands).unwrap();
    assigned(&*one).await;
    let old = producer(&a, "order.0").await;
    open(&*old, change("zombie")).await;
    old.send_offset("g", &one.metadata().unwrap(), INPUT, place(1)).await.unwrap();

    broker.faults().pause("a");
    let two = b.join("g", Topic::OrderCommands).unwrap();
    let commit = tokio::spawn({
        let old = old.clone();
        async move { old.commit().await }
    });
    assert!(!assigned(&*two).await.is_empty(), "after the session, whatever the process holds");
    let new = producer(&b, "order.0").await;
    assert_eq!(broker.group_offsets("g", &[INPUT]).await, Ok(vec![None]));
    open(&*new, change("new")).await;
    new.send_offset("g", &two.metadata().unwrap(), INPUT, place(1)).await.unwrap();
    new.commit().await.unwrap();
    pass(30).await;
    assert!(!commit.is_finished());

    broker.faults().resume("a");
    assert!(is_fenced(commit.await.unwrap()));
    let GroupEvent::Lost(lost) = event(&*one).await else { panic!("a loss") };
    assert_eq!(lost, [0, 1, 2, 3]);
    assert_eq!(committed(&broker), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_changes_nothing() {
    let broker = broker();
    let a = broker.client("a");
    let one = a.join("g", Topic::OrderCommands).unwrap();
    assigned(&*one).await;
    let producer = producer(&a, "order.0").await;
    open(&*producer, change("x")).await;
    broker.faults().pause("a");
    pass(5).await;
    broker.faults().resume("a");
    producer.send_offset("g", &one.metadata().unwrap(), INPUT, place(1)).await.unwrap();
    producer.commit().await.unwrap();
    assert!(at_once(one.next_event()).await.is_none());
    assert_eq!(committed(&broker), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_cut_off_from_the_broker_is_alone_in_that() {
    let broker = broker();
    let (a, b) = (broker.client("a"), broker.client("b"));
    let producer = producer(&a, "order.0").await;
    open(&*producer, change("x")).await;
    broker.faults().set_reachable("a", false);
    assert_eq!(b.bounds(CHANGELOG).await, Ok((0, 0)));
    assert!(matches!(a.bounds(CHANGELOG).await, Err(BrokerError::Unavailable(_))));
    broker.faults().set_reachable("a", true);
    assert_eq!(producer.commit().await, Ok(()), "the transaction was still open");
    open(&*producer, change("y")).await;
    broker.faults().set_reachable("a", false);
    assert!(matches!(producer.commit().await, Err(BrokerError::Unknown(_))));
    broker.faults().set_reachable("a", true);
    assert_eq!(committed(&broker), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_never_hears_again_and_its_unsent_records_are_gone() {
    let broker = broker();
    let a = broker.client("a");
    let producer = producer(&a, "order.0").await;
    open(&*producer, change("sent")).await;
    producer.produce(change("unsent")).await.unwrap();
    broker.faults().kill("a");
    let commit = tokio::spawn({
        let producer = producer.clone();
        async move { producer.commit().await }
    });
    pass(60).await;
    assert!(!commit.is_finished());
    commit.abort();
    assert_eq!(said(broker.records(CHANGELOG, Seen::Uncommitted)), ["sent"]);
    assert_eq!(committed(&broker), Vec::<String>::new());
}
