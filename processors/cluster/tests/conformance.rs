//! The engines of a cluster keep the promises of a store, over a simulated broker and database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::ClusterSettings;
use tillstream_conformance::{ClusterParts, ClusterStore, commit_suite, log_suite, state_suite};
use tillstream_simulation::{RowSettings, SimBroker, SimClock, SimRows, SimSettings};

const PARTITIONS: u32 = 3;

async fn store(seed: u64) -> Arc<ClusterStore> {
    let clock = Arc::new(SimClock::default());
    let broker = SimBroker::new(SimSettings::new(PARTITIONS, seed, clock.clone()));
    let mut settings = ClusterSettings::new("conformance", PARTITIONS);
    settings.durable_after = Duration::from_millis(500);
    let parts = ClusterParts {
        broker: Arc::new(broker.clone()),
        log: Arc::new(broker.log()),
        rows: Arc::new(SimRows::new(RowSettings::new(PARTITIONS, seed, clock.clone()))),
        clock,
        settings,
    };
    ClusterStore::new(parts).await
}

#[tokio::test(start_paused = true)]
async fn log() {
    log_suite(async || store(1).await).await;
}

#[tokio::test(start_paused = true)]
async fn state() {
    for seed in 0..5 {
        state_suite(async || store(seed).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn commits() {
    for seed in 0..5 {
        commit_suite(async || store(seed).await).await;
    }
}
