//! A server for a test, and stores on it.

use std::time::Duration;
use tillstream_conformance::{ROW_BUCKETS, ROW_PARTITIONS};
use tillstream_log::LogError;
use tillstream_scylla::{Replication, ReplicationClass, ScyllaSettings, ScyllaStore};

pub fn settings(address: &str, keyspace: &str) -> ScyllaSettings {
    ScyllaSettings {
        nodes: vec![address.into()],
        keyspace: keyspace.into(),
        replication: Replication { class: ReplicationClass::Simple, factor: 1 },
        request_timeout_ms: 10_000,
        ..ScyllaSettings::default()
    }
}

pub async fn connect(settings: &ScyllaSettings) -> Result<ScyllaStore, LogError> {
    ScyllaStore::connect(settings, ROW_PARTITIONS, ROW_BUCKETS).await
}

/// Asks again until it is so.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}
