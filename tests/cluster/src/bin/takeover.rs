//! `make bench-takeover KEYS=10000`: from kill -9 of a worker to the first new commit on the partitions it had.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a benchmark prints, and fails by saying what it saw"
)]

use std::time::Duration;
use tillstream_e2e_cluster::cluster::{Cluster, Wires};
use tillstream_e2e_cluster::{from_environment, takeover};
use tillstream_servers::{CassandraOptions, KafkaOptions};

/// An order of one line leaves its row, its place in the list, its hold and its stock row's share.
const ROWS_PER_ORDER: u64 = 3;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let keys = from_environment("TILLSTREAM_KEYS", 10_000);
    let runs = from_environment("TILLSTREAM_RUNS", 5);
    let kafka = KafkaOptions { heap_mib: 1_024, ..KafkaOptions::default() };
    let cassandra = CassandraOptions { heap_mib: 2_048, ..CassandraOptions::default() };
    let cluster = Cluster::start_with(kafka, cassandra, |_| wires()).await;
    cluster.add_ready(&["", ""]).await;
    takeover::stock_up(&cluster).await;
    let orders = usize::try_from(keys / ROWS_PER_ORDER).expect("few orders");
    takeover::load(&cluster, orders, 0).await;
    takeover::settled(&cluster).await;
    println!("{orders} orders loaded; {} rows and timers", rows(&cluster).await);
    println!(
        "{:>3} {:<12} {:>12} {:>14} {:>10} {:>9}",
        "run", "task", "detection", "first commit", "opening", "replayed"
    );
    let mut worst = Duration::ZERO;
    for run in 0..runs {
        for it in takeover::measure(&cluster, 1_000 + run).await {
            println!(
                "{run:>3} {:<12} {:>9} ms {:>11} ms {:>7} ms {:>9}",
                it.task,
                it.detection.as_millis(),
                it.first_commit.as_millis(),
                it.opening.as_millis(),
                it.replayed
            );
            worst = worst.max(it.first_commit);
        }
    }
    println!("worst from assignment to first commit: {} ms", worst.as_millis());
}

/// A worker that is silent for two seconds is gone; the rest as by default, so that a busy machine ends no batch early.
fn wires() -> Wires {
    let workers =
        ["--session-timeout-ms", "2000", "--transaction-timeout-ms", "12000", "--flush-interval-ms", "250"];
    Wires { workers: workers.map(str::to_owned).to_vec(), ..Wires::default() }
}

/// As `state verify` counts them.
async fn rows(cluster: &Cluster) -> String {
    let text = cluster.state(&["verify"]).await.text;
    text.lines().last().unwrap_or_default().to_owned()
}
