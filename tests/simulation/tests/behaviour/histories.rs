//! Random histories: whatever fails, a transaction is there whole or not at all, and the seed decides all of it.

use super::*;
use std::collections::BTreeMap;
use tillstream_random::Random;
use tillstream_simulation::broker::{Call, CommitFate, Effect, Hold};

const PARTITIONS: u32 = 3;

/// What a producer was told of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Committed,
    Ended,
    Nothing,
}

struct Sent {
    told: Told,
    /// How many records went to each partition.
    records: BTreeMap<u32, usize>,
}

async fn one_transaction(
    producer: &dyn TransactionalProducer,
    random: &mut Random,
    tag: &str,
    sent: &mut BTreeMap<u32, usize>,
) -> Result<(), BrokerError> {
    producer.begin().await?;
    for _ in 0..random.below(4) {
        let partition = random.below(PARTITIONS as usize) as u32;
        let count = sent.entry(partition).or_default();
        let text = format!("{tag}/{count}");
        *count += 1;
        let to = TopicPartition::new(Topic::OrderChangelog, partition);
        producer.produce(vec![record(to, &text, Some(&text))]).await?;
    }
    if random.percent(70) {
        producer.drain().await?;
    }
    if random.percent(15) {
        return Err(BrokerError::Abortable("by choice".into()));
    }
    producer.commit().await
}

async fn worker(broker: SimBroker, id: usize, mut random: Random) -> BTreeMap<String, Sent> {
    let name = format!("t.{}", id % 2);
    let mut all = BTreeMap::new();
    let mut producer = None;
    for round in 0..20 {
        if producer.is_none() {
            let new = broker.producer(&name).unwrap();
            if new.init().await.is_err() {
                continue;
            }
            producer = Some(new);
        }
        let Some(current) = producer.clone() else { continue };
        let tag = format!("{id}.{round}");
        let mut records = BTreeMap::new();
        let done = one_transaction(&*current, &mut random, &tag, &mut records).await;
        let told = match done {
            Ok(()) => Told::Committed,
            Err(BrokerError::Abortable(_)) => {
                if current.abort().await.is_err() {
                    producer = None;
                }
                Told::Ended
            }
            Err(_) => {
                producer = None;
                Told::Nothing
            }
        };
        all.insert(tag, Sent { told, records });
    }
    all
}

async fn trouble(broker: SimBroker, mut random: Random) {
    let faults = broker.faults();
    for _ in 0..40 {
        SimClock::default().sleep(Duration::from_millis(random.next_u64() % 20)).await;
        let fate =
            [CommitFate::Happened, CommitFate::NeverArrived, CommitFate::ArrivesLater][random.below(3)];
        let error = BrokerError::Abortable("simulated".into());
        match random.below(9) {
            0 | 1 => faults.unknown_commit("t.", fate),
            2 => drop(faults.abort(&format!("t.{}", random.below(2)))),
            3 => faults.hold_markers("t.", Hold::For(Duration::from_millis(50))),
            4 => faults.release_markers(),
            5 => drop(faults.arrive_late_commits()),
            6 => faults.fail(Call::Deliver, "t.", Effect::None, error),
            7 => faults.fail(Call::Drain, "t.", Effect::Full, error),
            _ => faults.set_available(random.percent(70)),
        }
    }
    faults.set_available(true);
    faults.release_markers();
    faults.forget();
}

/// Runs a history and checks it; its trace.
async fn history(seed: u64) -> (u64, u64) {
    let mut settings = SimSettings::new(PARTITIONS, seed, Arc::new(SimClock::default()));
    settings.latency_max = Duration::from_millis(3);
    settings.markers_lag_max = Duration::from_millis(10);
    let broker = SimBroker::new(settings);
    let mut random = Random::new(seed);
    let workers: Vec<_> =
        (0..4).map(|id| tokio::spawn(worker(broker.clone(), id, Random::new(random.next_u64())))).collect();
    trouble(broker.clone(), random).await;
    let mut sent = BTreeMap::new();
    for worker in workers {
        sent.extend(worker.await.unwrap());
    }
    for id in ["t.0", "t.1"] {
        broker.faults().forget();
        producer(&broker, id).await;
    }
    assert_eq!(broker.faults().arrive_late_commits(), 0, "all are fenced");

    let mut found: BTreeMap<String, BTreeMap<u32, Vec<String>>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let at = TopicPartition::new(Topic::OrderChangelog, partition);
        let (_, stable, end) = broker.ends(at).unwrap();
        assert_eq!(stable, end, "nothing is open");
        for text in said(broker.records(at, Seen::Committed)) {
            let (tag, number) = text.split_once('/').unwrap();
            found.entry(tag.to_owned()).or_default().entry(partition).or_default().push(number.to_owned());
        }
    }
    for (tag, sent) in sent {
        let whole: BTreeMap<u32, Vec<String>> = sent
            .records
            .iter()
            .map(|(at, count)| (*at, (0..*count).map(|it| it.to_string()).collect()))
            .collect();
        let found = found.remove(&tag).unwrap_or_default();
        match sent.told {
            Told::Committed => assert_eq!(found, whole, "seed {seed}, {tag}"),
            Told::Ended => assert!(found.is_empty(), "seed {seed}, {tag}: {found:?}"),
            Told::Nothing => assert!(found.is_empty() || found == whole, "seed {seed}, {tag}: {found:?}"),
        }
    }
    assert!(found.is_empty(), "seed {seed}: {found:?} was never sent");
    (broker.trace_hash(), broker.faults_struck())
}

#[tokio::test(start_paused = true)]
async fn transactions_are_whole_or_not_there_under_two_hundred_seeds() {
    let mut struck = 0;
    for seed in 0..200 {
        struck += history(seed).await.1;
    }
    assert!(struck > 400, "only {struck} faults have struck");
}

#[test]
fn the_seed_decides_everything() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(history(seed)).0
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
        assert_ne!(run(seed), run(seed + 1));
    }
}
