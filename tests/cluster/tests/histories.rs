//! Histories of load and faults on real servers. `TILLSTREAM_HISTORIES` says how many, `TILLSTREAM_SEED` where to begin.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use tillstream_e2e_cluster::cluster::Cluster;
use tillstream_e2e_cluster::faults::Fault::{self, *};
use tillstream_e2e_cluster::{from_environment, history};
use tillstream_random::Random;

/// The short histories of `make test`; more than these are drawn.
const SHORT: [&[Fault]; 25] = [
    &[],
    &[KillWorker],
    &[StrayAbort],
    &[KillTwo],
    &[Rebalance],
    &[Freeze],
    &[KillBroker],
    &[KillWorker, StrayAbort],
    &[SlowDatabase],
    &[KillWorker, KillWorker],
    &[KillDatabase],
    &[KillAll],
    &[Rebalance, KillWorker],
    &[StrayAbort, StrayAbort],
    &[KillBroker, KillWorker],
    &[Freeze],
    &[KillTwo, StrayAbort],
    &[SlowDatabase, KillWorker],
    &[KillWorker, KillTwo],
    &[Rebalance, StrayAbort],
    &[KillDatabase, KillWorker],
    &[KillAll, KillWorker],
    &[SlowDatabase, KillTwo],
    &[Freeze, KillWorker],
    &[KillBroker, StrayAbort],
];

const ANY: [Fault; 13] = [
    KillWorker,
    KillWorker,
    KillWorker,
    KillTwo,
    KillTwo,
    KillAll,
    Freeze,
    KillBroker,
    KillDatabase,
    Rebalance,
    Rebalance,
    SlowDatabase,
    StrayAbort,
];

fn faults(seed: u64, n: u64) -> Vec<Fault> {
    if let Some(short) = SHORT.get(n as usize) {
        return short.to_vec();
    }
    let mut random = Random::new(seed ^ 0xfa17);
    (0..1 + random.below(4)).map(|_| ANY[random.below(ANY.len())]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_of_faults_leaves_each_order_once_and_the_books_in_balance() {
    let histories = from_environment("TILLSTREAM_HISTORIES", SHORT.len() as u64);
    let first = from_environment("TILLSTREAM_FIRST_HISTORY", 0);
    let seed = from_environment("TILLSTREAM_SEED", 0x5eed_0004);
    let cluster = Cluster::start().await;
    cluster.add_ready(&["", "", ""]).await;
    println!("TILLSTREAM_SEED={seed}");
    let mut orders = 0;
    for n in first..first + histories {
        let own = Random::new(seed.wrapping_add(n)).next_u64();
        orders += history::run(&cluster, &faults(own, n), own, n).await.orders;
    }
    println!("{histories} histories, {orders} orders");
    cluster.stop_workers().await;
}
