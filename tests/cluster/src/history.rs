//! One history: clients, faults, and the look at what is left.

use crate::audit;
use crate::cluster::Cluster;
use crate::faults::Fault;
use crate::load::Load;
use crate::topics::ends;
use crate::{blocking, from_environment, wait_for};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_random::Random;
use tillstream_schemas::Topic;
use tokio::time::Instant;

/// How long the tables and topics may take to come to rest.
const REST: Duration = Duration::from_secs(45);

/// What a history came to.
#[derive(Debug)]
pub struct Outcome {
    /// Orders acknowledged.
    pub orders: usize,
    /// By their last status.
    pub statuses: BTreeMap<String, u64>,
}

/// Runs one, and panics with everything that does not hold.
pub async fn run(cluster: &Arc<Cluster>, faults: &[Fault], seed: u64, n: u64) -> Outcome {
    let began = Instant::now();
    let brokers = cluster.stack.kafka.address().to_owned();
    let topics: Vec<Topic> = Topic::ALL.to_vec();
    let from = blocking(move || ends(&brokers, &topics, crate::cluster::PARTITIONS)).await;
    let load = Arc::new(Load::new(seed, n));
    load.stock_up(cluster).await;
    let clients = load.begin(cluster);
    let mut random = Random::new(seed);
    for fault in faults {
        load.more(10 + random.below(30)).await;
        fault.strike(cluster, &mut random).await;
    }
    cluster.ready().await;
    load.more(20).await;
    load.end(clients).await;
    let struck = began.elapsed();
    let left = cluster.drained().await;
    let drained = began.elapsed();
    let mut audit = audit::Audit::new(cluster, &load, from).await;
    let mut found = None;
    let clean = wait_for(REST, async || {
        let outcome = audit.look().await;
        let done = outcome.problems.is_empty();
        found = Some(outcome);
        done.then_some(())
    });
    let clean = clean.await.is_some();
    let found = found.expect("it looked at least once");
    if !clean {
        let shown: Vec<&str> = found.problems.iter().take(30).map(String::as_str).collect();
        panic!(
            "history {n}, seed {seed:#x}, {faults:?}: {left:?} left, {} problems:\n{}\n{}",
            found.problems.len(),
            shown.join("\n"),
            cluster.tails()
        );
    }
    assert!(left.is_empty(), "history {n}, seed {seed:#x}, {faults:?}: {left:?} left\n{}", cluster.tails());
    let audited = began.elapsed();
    let verified = cluster.state(&["verify", "--strict"]).await;
    assert_eq!(verified.code, Some(0), "history {n}, seed {seed:#x}, {faults:?}: {}", verified.text);
    for worker in cluster.workers() {
        assert!(!worker.has_died(), "{} has ended by itself:\n{}", worker.name, worker.tail(40));
    }
    if from_environment("TILLSTREAM_SHOW", 0) > 0 {
        println!("{}", cluster.tails());
    }
    let outcome = Outcome { orders: load.book.lock().orders.len(), statuses: found.statuses };
    println!(
        "history {n:>3} seed {seed:#018x} {faults:?}: {} orders {:?}, {:.1} s of load, drained after {:.1} s, \
         looked at after {:.1} s, verified after {:.1} s",
        outcome.orders,
        outcome.statuses,
        struck.as_secs_f64(),
        drained.as_secs_f64(),
        audited.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    outcome
}
