//! The executor over a store in memory and over the embedded one.

use super::*;
use crate::sandbox::{SandboxProvider, SandboxSettings};
use crate::testing::{ManualClock, MemoryStore, NOW_MS, ScriptedProvider, request};
use std::collections::BTreeSet;
use tillstream_log::Log;
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{
    OrderCommand, OrderCommandPayload, PaymentOperation, PaymentOutcome,
};
use tillstream_state::Shared;

const INPUT: TopicPartition = TopicPartition { topic: Topic::EffectRequests, partition: 0 };

fn ports(store: &Arc<MemoryStore>) -> ExecutorPorts {
    let metrics = Metrics::new().unwrap();
    ExecutorPorts {
        sessions: Arc::new(Shared(store.clone())),
        clock: Arc::new(ManualClock::default()),
        effects: EffectsMetrics::register(&metrics.registry).unwrap(),
        metrics: Arc::new(metrics),
        progress: Arc::new(Progress::new()),
    }
}

fn effect(order: usize, method: &str) -> EffectRequest {
    EffectRequest {
        id: format!("eff_{order}").into(),
        tenant: "demo".into(),
        order_id: format!("ord_{order}").into(),
        requested_at_ms: NOW_MS,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        payload: EffectPayload::Payment(PaymentRequest {
            payment_id: format!("pay_{order}").into(),
            method: method.into(),
            ..request(&format!("req_{order}"), PaymentOperation::Authorize, 100)
        }),
    }
}

fn put(store: &MemoryStore, effect: &EffectRequest) {
    let key = tillstream_stage::ids::key(&effect.tenant, &effect.order_id);
    store.put(INPUT, &key, codec::encode(effect).unwrap());
}

/// Every answer: the command, with the record's key.
fn answers(store: &MemoryStore) -> Vec<(String, OrderCommand)> {
    let key = |it: &Record| String::from_utf8(it.key.to_vec()).unwrap();
    let records = store.records(Topic::OrderCommands);
    records.iter().map(|it| (key(it), codec::decode(&it.value).unwrap())).collect()
}

fn outcome(command: &OrderCommand) -> PaymentOutcome {
    match &command.payload {
        OrderCommandPayload::PaymentResult(result) => result.outcome,
        other => panic!("not a payment result: {other:?}"),
    }
}

/// Runs the executor until `done`, then stops it.
async fn run_until(
    store: &Arc<MemoryStore>,
    provider: Arc<dyn PaymentProvider>,
    done: impl Fn(&MemoryStore) -> bool,
) -> Result<(), ExecutorError> {
    run_as(ExecutorSettings::default(), store, provider, done).await
}

async fn run_as(
    settings: ExecutorSettings,
    store: &Arc<MemoryStore>,
    provider: Arc<dyn PaymentProvider>,
    done: impl Fn(&MemoryStore) -> bool,
) -> Result<(), ExecutorError> {
    let (stop, shutdown) = watch::channel(false);
    let executor = supervise_executor(0, ports(store), provider, settings, shutdown);
    let stopper = async {
        store.wait_until(done).await;
        stop.send_replace(true);
    };
    tokio::join!(executor, stopper).0
}

fn committed(store: &MemoryStore) -> u64 {
    store.commits().last().map_or(0, |it| it.1)
}

#[tokio::test]
async fn every_request_is_answered_to_its_order_and_committed() {
    let store = Arc::new(MemoryStore::default());
    for order in 0..500 {
        put(&store, &effect(order, "pm_card_visa"));
    }
    let provider = Arc::new(ScriptedProvider::default());
    run_until(&store, provider.clone(), |it| committed(it) == 500).await.unwrap();

    let answers = answers(&store);
    assert_eq!(answers.len(), 500);
    for (key, command) in &answers {
        assert_eq!(*key, format!("demo/{}", command.order_id));
        assert_eq!(outcome(command), PaymentOutcome::Captured);
        assert_eq!(command.fingerprint, "");
        assert!(command.traceparent.is_some());
    }
    let ids: BTreeSet<_> = answers.iter().map(|it| it.1.id.clone()).collect();
    assert_eq!(ids.len(), 500);
    assert_eq!(provider.calls(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_holds_the_offset_back_but_not_the_other_answers() {
    let store = Arc::new(MemoryStore::default());
    for order in 0..10 {
        put(&store, &effect(order, "pm_card_visa"));
    }
    let provider = Arc::new(ScriptedProvider::default());
    provider.hang_next(1);
    run_until(&store, provider.clone(), |it| answers(it).len() == 9).await.unwrap();
    assert_eq!(committed(&store), 0, "the first request is not answered");
    assert!(store.commits().iter().all(|it| *it == (0, 0)));

    // The next life begins with the unanswered one, and repeats the others under the same ids.
    let before: BTreeSet<_> = answers(&store).into_iter().map(|it| it.1.id).collect();
    run_until(&store, provider, |it| committed(it) == 10).await.unwrap();
    let after: BTreeSet<_> = answers(&store).into_iter().map(|it| it.1.id).collect();
    assert_eq!(after.len(), 10, "repeats carry the ids they had");
    assert!(before.is_subset(&after));
}

#[tokio::test(start_paused = true)]
async fn answers_wait_for_those_asked_for_together_but_not_for_a_slow_one() {
    let gather = Duration::from_millis(5);
    let pace_max = Duration::from_millis(25);
    let settings = ExecutorSettings { gather, pace_max, ..ExecutorSettings::default() };
    for (hanging, answered, waits) in [(0, 10, Duration::ZERO), (1, 9, gather)] {
        let store = Arc::new(MemoryStore::default());
        for order in 0..10 {
            put(&store, &effect(order, "pm_card_visa"));
        }
        let provider = Arc::new(ScriptedProvider::default());
        provider.hang_next(hanging);
        let begun = tokio::time::Instant::now();
        let waited = std::sync::OnceLock::new();
        run_as(settings.clone(), &store, provider, |it| {
            let all = answers(it).len() == answered;
            if all {
                waited.get_or_init(|| begun.elapsed());
            }
            all
        })
        .await
        .unwrap();
        assert_eq!(store.commits().len(), 1, "one commit of all that was answered");
        // The timer of the runtime counts whole milliseconds.
        let waited = *waited.get().unwrap();
        assert!(
            waited >= waits && waited < waits + Duration::from_millis(2),
            "{waited:?} for {hanging} hanging"
        );
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_read_becomes_a_dead_letter_and_the_partition_goes_on() {
    let store = Arc::new(MemoryStore::default());
    put(&store, &effect(0, "pm_card_visa"));
    store.put(INPUT, "demo/ord_1", b"nonsense".to_vec());
    put(&store, &effect(2, "pm_card_visa"));
    run_until(&store, Arc::new(ScriptedProvider::default()), |it| committed(it) == 3).await.unwrap();
    assert_eq!(answers(&store).len(), 2);
    let letters = store.records(Topic::EffectRequestsDlq);
    assert_eq!(letters.len(), 1);
    let letter: DeadLetter = codec::decode(&letters[0].value).unwrap();
    assert_eq!((letter.offset, letter.partition, letter.reason.as_str()), (1, 0, "decode"));
    assert_eq!((letter.key.as_slice(), letter.value.as_slice()), (&b"demo/ord_1"[..], &b"nonsense"[..]));
    let origin = tillstream_log::headers::find(&letters[0].headers, tillstream_log::headers::ORIGIN);
    assert_eq!(origin, Some("effects.payment.requests.v1/0/1"));
}

#[tokio::test]
async fn a_crash_before_the_commit_charges_once() {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = || Arc::new(SandboxProvider::open(SandboxSettings::new(dir.path())).unwrap());
    let store = Arc::new(MemoryStore::default());
    for order in 0..50 {
        put(&store, &effect(order, "pm_card_visa"));
    }
    store.fail_commits(true);
    let provider = sandbox();
    let (_stop, shutdown) = watch::channel(false);
    let died = run_executor(0, ports(&store), provider.clone(), ExecutorSettings::default(), shutdown).await;
    assert!(matches!(died, Err(ExecutorError::Log(LogError::Stopped(_)))));
    assert!(answers(&store).is_empty(), "no answer without its commit");
    drop(provider);

    store.fail_commits(false);
    let provider = sandbox();
    run_until(&store, provider.clone(), |it| committed(it) == 50).await.unwrap();
    let answers = answers(&store);
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|it| outcome(&it.1) == PaymentOutcome::Captured));
    let totals = provider.totals().unwrap();
    assert_eq!((totals["GBP"].captured_payments, totals["GBP"].captured_minor), (50, 5_000));
}

#[tokio::test]
async fn requests_older_than_their_key_are_looked_up_before_they_are_made() {
    let store = Arc::new(MemoryStore::default());
    for order in 0..3 {
        let mut effect = effect(order, "pm_card_visa");
        let EffectPayload::Payment(payment) = &mut effect.payload;
        payment.first_asked_at_ms =
            if order < 2 { NOW_MS - 23 * 3_600_000 - 1 } else { NOW_MS - 23 * 3_600_000 };
        put(&store, &effect);
    }
    let provider = Arc::new(ScriptedProvider::default());
    provider.known.lock().extend(["req_0".to_owned(), "req_2".to_owned()]);
    run_until(&store, provider.clone(), |it| committed(it) == 3).await.unwrap();
    let executed = provider.executed.lock().clone();
    assert_eq!(executed, ["req_1", "req_2"], "the first was found; the last is young enough for its key");
    assert_eq!(answers(&store).len(), 3);
}

#[tokio::test]
async fn outcomes_of_one_request_have_ids_of_their_own() {
    let store = Arc::new(MemoryStore::default());
    put(&store, &effect(0, "pm_card_visa"));
    let mut retry = effect(0, "pm_card_visa");
    let EffectPayload::Payment(payment) = &mut retry.payload;
    payment.attempt = 2;
    put(&store, &retry);
    let provider = Arc::new(ScriptedProvider::default());
    provider.fail_next(1);
    run_until(&store, provider, |it| committed(it) == 2).await.unwrap();
    let answers = answers(&store);
    let outcomes: Vec<_> = answers.iter().map(|it| outcome(&it.1)).collect();
    assert_eq!(outcomes, [PaymentOutcome::Unknown, PaymentOutcome::Captured]);
    assert_ne!(answers[0].1.id, answers[1].1.id);
}

#[tokio::test]
async fn that_nothing_happened_is_not_said_of_what_an_earlier_life_may_have_done() {
    let store = Arc::new(MemoryStore::default());
    put(&store, &effect(0, "pm_card_visa"));
    let provider = Arc::new(ScriptedProvider::default());
    provider.fail_next(2);
    let (stop, shutdown) = watch::channel(false);
    let executor = supervise_executor(0, ports(&store), provider, ExecutorSettings::default(), shutdown);
    let later = async {
        store.wait_until(|it| committed(it) == 1).await;
        put(&store, &effect(1, "pm_card_visa"));
        store.wait_until(|it| committed(it) == 2).await;
        stop.send_replace(true);
    };
    tokio::join!(executor, later).0.unwrap();
    let outcomes: Vec<_> = answers(&store).iter().map(|it| outcome(&it.1)).collect();
    assert_eq!(outcomes, [PaymentOutcome::Unknown, PaymentOutcome::Unavailable]);
}

#[tokio::test]
async fn a_log_shorter_than_the_committed_offset_halts() {
    let store = Arc::new(MemoryStore::default());
    put(&store, &effect(0, "pm_card_visa"));
    let provider: Arc<dyn PaymentProvider> = Arc::new(ScriptedProvider::default());
    run_until(&store, provider.clone(), |it| committed(it) == 1).await.unwrap();
    let cut = Arc::new(MemoryStore::default());
    let sessions = Session { log: cut, state: store.clone(), commit: store.clone() };
    let ports = ExecutorPorts { sessions: Arc::new(sessions), ..ports(&store) };
    let (_stop, shutdown) = watch::channel(false);
    let halted = run_executor(0, ports, provider, ExecutorSettings::default(), shutdown).await;
    assert!(matches!(halted, Err(ExecutorError::OffsetsLost { committed: 1, end: 0, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_for_and_loses_nothing() {
    let store = Arc::new(MemoryStore::default());
    for order in 0..20 {
        put(&store, &effect(order, "pm_card_visa"));
    }
    store.fail_next_commit(LogError::DiskFull { available_bytes: 1, needed_bytes: 2 });
    let provider = Arc::new(ScriptedProvider::default());
    run_until(&store, provider.clone(), |it| committed(it) == 20).await.unwrap();
    assert_eq!(answers(&store).len(), 20);
    let keys: BTreeSet<String> = provider.executed.lock().iter().cloned().collect();
    assert_eq!(keys.len(), 20, "whatever was repeated was repeated under its own key");
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_becomes_a_dead_letter_and_is_passed() {
    let store = Arc::new(MemoryStore::default());
    for order in 0..5 {
        put(&store, &effect(order, "pm_card_visa"));
    }
    let detail = "checksum".to_owned();
    store.fail_next_read(LogError::Corrupt { partition: INPUT, offset: 0, next_offset: 2, detail });
    run_until(&store, Arc::new(ScriptedProvider::default()), |it| committed(it) == 5).await.unwrap();
    let orders: Vec<_> = answers(&store).into_iter().map(|it| it.1.order_id).collect();
    assert_eq!(orders, ["ord_2", "ord_3", "ord_4"]);
    let letters = store.records(Topic::EffectRequestsDlq);
    let letter: DeadLetter = codec::decode(&letters[0].value).unwrap();
    assert_eq!((letters.len(), letter.reason.as_str(), letter.code.as_str()), (1, "corrupt", "TS0303"));
}

#[tokio::test]
async fn works_on_the_embedded_store_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = Arc::new(SandboxProvider::open(SandboxSettings::new(dir.path().join("sandbox"))).unwrap());
    let mut orders = 0;
    for life in 1..=2u64 {
        let mut settings = tillstream_embedded::EmbeddedSettings::new(dir.path().join("store"));
        settings.disk_reserve_bytes = 0;
        let store = tillstream_embedded::EmbeddedStore::open(settings).unwrap();
        let records = (0..300).map(|_| {
            orders += 1;
            let effect = effect(orders, "pm_card_visa");
            let key = key_bytes(&effect.tenant, &effect.order_id);
            let value = codec::encode(&effect).unwrap().into();
            NewRecord { to: INPUT, key, value, headers: tillstream_log::Headers::new() }
        });
        store.append(records.collect()).await.unwrap();
        let memory = Arc::new(MemoryStore::default());
        let ports = ExecutorPorts { sessions: Arc::new(Shared(store.clone())), ..ports(&memory) };
        let progress = Arc::clone(&ports.progress);
        let (stop, shutdown) = watch::channel(false);
        let executor = run_executor(0, ports, sandbox.clone(), ExecutorSettings::default(), shutdown);
        let stopper = async {
            let task = TaskId { kind: TaskKind::Effects, partition: 0 };
            progress.wait_caught_up(&[(task, life * 300)]).await;
            stop.send_replace(true);
        };
        tokio::join!(executor, stopper).0.unwrap();
        let answered: u64 =
            (0..4).map(|it| store.end_offset(TopicPartition::new(Topic::OrderCommands, it)).unwrap()).sum();
        assert_eq!(answered, life * 300);
        store.close().await.unwrap();
    }
    assert_eq!(sandbox.totals().unwrap()["GBP"].captured_payments, 600);
}
