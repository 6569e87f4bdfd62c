//! Log and state that do not fit together any more: each halts by its own code, and the command it names repairs it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_e2e_cluster::cluster::Cluster;
use tillstream_e2e_cluster::faults::Fault::{self, Rebalance};
use tillstream_e2e_cluster::history;
use tillstream_schemas::Topic;

/// Two workers, a history whose end is looked at, and an orderly stop.
async fn works(cluster: &Arc<Cluster>, faults: &[Fault]) {
    static HISTORY: AtomicU64 = AtomicU64::new(1_000);
    let n = HISTORY.fetch_add(1, Ordering::Relaxed);
    cluster.add_ready(&["", ""]).await;
    history::run(cluster, faults, n, n).await;
    cluster.stop_workers().await;
}

async fn verified(cluster: &Cluster) {
    let text = cluster.state(&["verify", "--strict"]).await.ok();
    assert!(text.contains(" 0 different, 0 not flushed yet"), "{text}");
}

async fn a_truncated_table(cluster: &Arc<Cluster>) {
    cluster.stack.cassandra.execute(&format!("TRUNCATE {}.\"order\"", cluster.keyspace)).unwrap();
    let verify = cluster.state(&["verify"]).await;
    assert_eq!(verify.code, Some(1), "{}", verify.text);
    assert!(
        verify.text.contains("order/demo/ord_") && verify.text.contains("missing in the database"),
        "{}",
        verify.text
    );
    let output = cluster.halts_with("TS0325").await;
    assert!(output.contains("state rebuild"), "{output}");
    let rebuilt = cluster.state(&["rebuild"]).await.ok();
    assert!(rebuilt.contains("were written"), "{rebuilt}");
    verified(cluster).await;
    works(cluster, &[]).await;
}

async fn an_older_database(cluster: &Arc<Cluster>) {
    let copy = cluster.copy_database().await;
    // Long enough for checkpoints to become durable and to be told to the log.
    works(cluster, &[Rebalance, Rebalance, Rebalance]).await;
    works(cluster, &[]).await;
    cluster.restore_database(copy).await;
    cluster.halts_with("TS0324").await;
    cluster.state(&["rebuild"]).await.ok();
    verified(cluster).await;
    works(cluster, &[]).await;
}

async fn a_recreated_input(cluster: &Arc<Cluster>) {
    cluster.recreate_topic(Topic::OrderCommands.name()).await;
    let output = cluster.halts_with("TS032").await;
    assert!(output.contains("TS0320") || output.contains("TS0322"), "{output}");
    cluster.repair("accept-offsets", "order", &["--from", "earliest"]).await;
    works(cluster, &[]).await;
}

async fn deleted_offsets(cluster: &Arc<Cluster>) {
    let group = format!("{}.item", cluster.deployment);
    let topic = Topic::ItemCommands.name();
    cluster.groups_tool(&["--delete-offsets", "--group", &group, "--topic", topic]).await.ok();
    cluster.halts_with("TS0320").await;
    cluster.repair("accept-offsets", "item", &["--from", "latest"]).await;
    works(cluster, &[]).await;
}

async fn a_recreated_changelog(cluster: &Arc<Cluster>) {
    cluster.recreate_topic(Topic::OrderChangelog.name()).await;
    cluster.halts_with("TS0323").await;
    cluster.repair("adopt-changelog", "order", &[]).await;
    verified(cluster).await;
    works(cluster, &[]).await;
}

async fn another_deployment(cluster: &Arc<Cluster>) {
    let other = cluster.worker_of("other", "", &[]);
    other.start();
    let status = other.ended().await;
    let output = other.output().join("\n");
    assert!(!status.success() && output.contains("TS0326"), "{status}: {output}");
    works(cluster, &[]).await;
}

async fn another_partition_count(cluster: &Arc<Cluster>) {
    cluster.topics_tool(&["--alter", "--topic", Topic::OrderEvents.name(), "--partitions", "6"]).await.ok();
    cluster.halts_with("TS0327").await;
    let fewer = cluster.worker("", &["--partitions", "3"]);
    fewer.start();
    assert!(!fewer.ended().await.success());
    let output = fewer.output().join("\n");
    assert!(output.contains("TS0327"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_together_halts_by_name_and_can_be_repaired() {
    let cluster = Cluster::start().await;
    works(&cluster, &[]).await;
    another_deployment(&cluster).await;
    println!("another deployment: halted");
    a_truncated_table(&cluster).await;
    println!("a truncated table: repaired");
    an_older_database(&cluster).await;
    println!("an older database: repaired");
    deleted_offsets(&cluster).await;
    println!("deleted offsets: repaired");
    a_recreated_input(&cluster).await;
    println!("a recreated input: repaired");
    a_recreated_changelog(&cluster).await;
    println!("a recreated changelog: repaired");
    another_partition_count(&cluster).await;
    println!("another partition count: halted");
}
