//! The simulated broker, log and database keep the promises that the real ones keep.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;
use tillstream_conformance::{
    BrokerCase, ROW_BUCKETS, ROW_PARTITIONS, broker_suite, log_suite, row_store_suite,
};
use tillstream_simulation::{RowSettings, SimBroker, SimClock, SimRows, SimSettings};

fn case_on(broker: &SimBroker, prefix: &str) -> BrokerCase {
    BrokerCase { broker: Arc::new(broker.clone()), log: Arc::new(broker.log()), prefix: prefix.to_owned() }
}

fn calm(seed: u64) -> SimSettings {
    SimSettings::new(4, seed, Arc::new(SimClock::default()))
}

#[tokio::test(start_paused = true)]
async fn broker_fresh_for_every_case() {
    broker_suite(async |_| case_on(&SimBroker::new(calm(1)), "")).await;
}

#[tokio::test(start_paused = true)]
async fn broker_that_outlives_the_cases_under_twenty_seeds() {
    for seed in 0..20 {
        let mut settings = calm(seed);
        settings.markers_lag_max = Duration::from_millis(30);
        settings.latency_max = Duration::from_millis(5);
        settings.eager_percent = 60;
        settings.replay_records_max = 3;
        let broker = SimBroker::new(settings);
        broker_suite(async |name| case_on(&broker, &format!("{name}."))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn log() {
    log_suite(async || Arc::new(SimBroker::new(calm(1)).log())).await;
}

#[tokio::test(start_paused = true)]
async fn rows() {
    row_store_suite(async || {
        let mut settings = RowSettings::new(ROW_PARTITIONS, 1, Arc::new(SimClock::default()));
        settings.buckets = ROW_BUCKETS;
        Arc::new(SimRows::new(settings))
    })
    .await;
}
