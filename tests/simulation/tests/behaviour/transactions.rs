//! When records arrive, and how transactions end that nobody ends well.

use super::*;
use tillstream_simulation::broker::{Call, CommitFate, Effect, Hold};

#[tokio::test(start_paused = true)]
async fn records_are_in_the_log_at_the_drain_and_not_before() {
    let broker = broker();
    let (one, two) = (producer(&broker, "one").await, producer(&broker, "two").await);
    one.begin().await.unwrap();
    one.produce(change("first produced")).await.unwrap();
    assert_eq!(broker.ends(CHANGELOG), Some((0, 0, 0)));
    assert_eq!(open(&*two, change("first drained")).await, [0]);
    assert_eq!(one.drain().await, Ok(vec![1]), "whoever guessed the offset guessed wrong");
}

#[tokio::test(start_paused = true)]
async fn a_client_may_send_before_the_drain() {
    let mut settings = settings();
    settings.eager_percent = 100;
    let broker = SimBroker::new(settings);
    let producer = producer(&broker, "one").await;
    producer.begin().await.unwrap();
    producer.produce(change("sent")).await.unwrap();
    assert_eq!(said(broker.records(CHANGELOG, Seen::Uncommitted)), ["sent"]);
    assert_eq!(producer.drain().await, Ok(vec![0]));
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_a_drain_flushes_and_fails_when_that_fails() {
    let broker = broker();
    let producer = producer(&broker, "one").await;
    producer.begin().await.unwrap();
    producer.produce(change("flushed")).await.unwrap();
    producer.commit().await.unwrap();
    assert_eq!(committed(&broker), ["flushed"]);

    let undelivered = BrokerError::Abortable("message timed out".into());
    broker.faults().fail(Call::Deliver, "one", Effect::None, undelivered.clone());
    producer.begin().await.unwrap();
    producer.produce(change("not delivered")).await.unwrap();
    assert_eq!(producer.commit().await, Err(undelivered.clone()));
    assert_eq!(producer.commit().await, Err(undelivered), "only an abort helps");
    producer.abort().await.unwrap();
    open(&*producer, change("next")).await;
    producer.commit().await.unwrap();
    assert_eq!(committed(&broker), ["flushed", "next"]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_open_too_long_is_aborted_and_its_producer_fenced() {
    let broker = broker();
    let producer = producer(&broker, "one").await;
    open(&*producer, change("too slow")).await;
    pass(9).await;
    assert_eq!(broker.bounds(CHANGELOG).await, Ok((0, 0)));
    pass(2).await;
    assert_eq!(broker.bounds(CHANGELOG).await, Ok((0, 2)), "a record and a marker");
    assert_eq!(committed(&broker), Vec::<String>::new());
    assert_eq!(broker.aborted_offsets(CHANGELOG), [0]);
    assert!(is_fenced(producer.commit().await));
    assert!(is_fenced(producer.begin().await), "for good");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_sees_a_transaction_time_out_without_being_told() {
    let broker = broker();
    let member = broker.join("g", Topic::OrderCommands).unwrap();
    assigned(&*member).await;
    let producer = producer(&broker, "one").await;
    open(&*producer, Vec::new()).await;
    producer.send_offset("g", &member.metadata().unwrap(), INPUT, place(3)).await.unwrap();
    pass(6).await;
    assert_eq!(broker.group_offsets("g", &[INPUT]).await, Ok(vec![None]));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_not_answered_may_have_happened() {
    for (fate, in_log) in [(CommitFate::Happened, true), (CommitFate::NeverArrived, false)] {
        let broker = broker();
        let old = producer(&broker, "one").await;
        open(&*old, change("x")).await;
        broker.faults().unknown_commit("one", fate);
        assert!(matches!(old.commit().await, Err(BrokerError::Unknown(_))));
        assert!(old.begin().await.is_err(), "nothing goes on from there");
        let new = producer(&broker, "one").await;
        assert_eq!(!committed(&broker).is_empty(), in_log, "{fate:?}");
        assert!(is_fenced(old.commit().await));
        open(&*new, change("y")).await;
        new.commit().await.unwrap();
        assert_eq!(committed(&broker).last().unwrap(), "y");
    }
}

#[tokio::test(start_paused = true)]
async fn asking_again_tells_what_became_of_a_commit() {
    for fate in [CommitFate::Happened, CommitFate::NeverArrived] {
        let broker = broker();
        let producer = producer(&broker, "one").await;
        open(&*producer, change("x")).await;
        producer.produce(change("not drained")).await.unwrap();
        broker.faults().unknown_commit("", fate);
        assert!(producer.commit().await.is_err());
        assert_eq!(producer.commit().await, Ok(()), "{fate:?}");
        assert_eq!(committed(&broker), ["x", "not drained"], "{fate:?}");
        open(&*producer, change("y")).await;
        producer.commit().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_counts_unless_its_producer_is_fenced() {
    for fenced in [false, true] {
        let broker = broker();
        let old = producer(&broker, "one").await;
        open(&*old, change("x")).await;
        broker.faults().unknown_commit("one", CommitFate::ArrivesLater);
        assert!(matches!(old.commit().await, Err(BrokerError::Unknown(_))));
        assert_eq!(broker.open_transactions().len(), 1);
        if fenced {
            producer(&broker, "one").await;
        }
        assert_eq!(broker.faults().arrive_late_commits(), usize::from(!fenced));
        assert_eq!(committed(&broker).len(), usize::from(!fenced));
        assert_eq!(broker.open_transactions().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn held_markers_hold_back_readers_offsets_the_next_drain_and_the_next_owner() {
    let broker = broker();
    let member = broker.join("g", Topic::OrderCommands).unwrap();
    assigned(&*member).await;
    let old = producer(&broker, "one").await;
    open(&*old, change("decided")).await;
    old.send_offset("g", &member.metadata().unwrap(), INPUT, place(3)).await.unwrap();
    broker.faults().hold_markers("one", Hold::UntilReleased);
    old.commit().await.unwrap();
    broker.append(CHANGELOG, "behind", Some(b"behind"));
    assert_eq!(broker.bounds(CHANGELOG).await, Ok((0, 0)));
    assert!(at_once(broker.group_offsets("g", &[INPUT])).await.is_none(), "unstable");
    old.begin().await.unwrap();
    old.produce(change("next")).await.unwrap();
    assert!(at_once(old.drain()).await.is_none(), "one transaction after the other");
    let new = broker.producer("one").unwrap();
    assert!(at_once(new.init()).await.is_none(), "what is decided is completed first");
    let timed_out = broker.group_offsets("g", &[INPUT]).await;
    assert!(matches!(timed_out, Err(BrokerError::Unavailable(_))), "{timed_out:?}");

    broker.faults().release_markers();
    new.init().await.unwrap();
    assert_eq!(committed(&broker), ["decided", "behind"]);
    assert_eq!(broker.group_offsets("g", &[INPUT]).await, Ok(vec![Some(place(3))]));
    assert!(is_fenced(old.drain().await));
}

#[tokio::test(start_paused = true)]
async fn markers_may_be_late_by_a_time() {
    let broker = broker();
    let producer = producer(&broker, "one").await;
    broker.faults().hold_markers("", Hold::For(Duration::from_secs(2)));
    open(&*producer, change("x")).await;
    producer.commit().await.unwrap();
    assert_eq!(committed(&broker), Vec::<String>::new());
    let log = broker.log();
    tillstream_log::Log::wait_past(&log, CHANGELOG, 0).await.unwrap();
    assert_eq!(committed(&broker), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_stray_abort_fences() {
    let broker = broker();
    let producer = producer(&broker, "one").await;
    assert!(!broker.faults().abort("one"), "nothing is open");
    open(&*producer, change("x")).await;
    assert!(broker.faults().abort("one"));
    assert!(is_fenced(producer.commit().await));
    assert_eq!(committed(&broker), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_is_dropped_leaves_its_transaction_open() {
    let broker = broker();
    let producer = producer(&broker, "one").await;
    open(&*producer, change("x")).await;
    producer.produce(change("never sent")).await.unwrap();
    drop(producer);
    assert_eq!(broker.bounds(CHANGELOG).await, Ok((0, 0)));
    pass(11).await;
    assert_eq!(broker.bounds(CHANGELOG).await, Ok((0, 2)));
}

#[tokio::test(start_paused = true)]
async fn faults_strike_the_call_they_were_asked_for_once() {
    let broker = broker();
    let (one, two) = (producer(&broker, "order.1").await, producer(&broker, "order.2").await);
    let away = BrokerError::Unavailable("away".into());
    broker.faults().fail_later(Call::Begin, "order.2", 1, Effect::None, away.clone());
    for producer in [&one, &two] {
        producer.begin().await.unwrap();
        producer.abort().await.unwrap();
    }
    one.begin().await.unwrap();
    assert_eq!(two.begin().await, Err(away.clone()));
    assert_eq!(two.begin().await, Ok(()), "it had no effect");
    broker.faults().fail(Call::Produce, "order.2", Effect::Full, away.clone());
    assert_eq!(two.produce(change("x")).await, Err(away));
    assert_eq!(two.drain().await, Ok(vec![0]), "it had its effect");
    assert_eq!((broker.faults().pending(), broker.faults_struck()), (0, 2));
    assert_eq!(broker.count(Call::Begin), 5);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_for_long_leaves_a_commit_unknown() {
    let broker = broker();
    let producer = producer(&broker, "one").await;
    open(&*producer, change("x")).await;
    broker.faults().set_available(false);
    assert!(matches!(broker.bounds(CHANGELOG).await, Err(BrokerError::Unavailable(_))));
    let back = async {
        pass(2).await;
        broker.faults().set_available(true);
    };
    let (bounds, ()) = futures::future::join(broker.bounds(CHANGELOG), back).await;
    assert_eq!(bounds, Ok((0, 0)), "away for a while is only slow");
    broker.faults().set_available(false);
    assert!(matches!(producer.commit().await, Err(BrokerError::Unknown(_))));
    broker.faults().set_available(true);
    assert_eq!(committed(&broker), Vec::<String>::new());
}
