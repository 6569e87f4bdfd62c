//! Everything in one process, on the embedded store.

use super::crew::Crew;
use super::house::{Engine, House};
use super::patience::Patience;
use super::payments::{self, Payments};
use super::ports::LocalProgress;
use super::{SUBSCRIBER_EVENTS_MAX, ServeError};
use crate::cli::Serve;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use tillstream_effects::EffectsMetrics;
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_ingest_api::ports;
use tillstream_runtime::{
    CatalogCache, CatalogPorts, CatalogSettings, Clock, Metrics, Progress, Subscriptions, SystemClock,
};
use tillstream_stage::task::TaskKind;
use tillstream_state::{Shared, TaskId};
use tokio::task::JoinHandle;

/// The embedded store as an engine.
pub struct Embedded {
    store: Arc<EmbeddedStore>,
    partitions: u32,
}

fn settings(options: &Serve) -> EmbeddedSettings {
    EmbeddedSettings {
        partitions: options.partitions,
        retention_ms: i64::from(options.retention_hours) * 3_600_000,
        log_bytes_max: options.log_bytes_max,
        disk_reserve_bytes: options.disk_reserve_bytes,
        ..EmbeddedSettings::new(&options.data_dir)
    }
}

/// Opens the store and puts the parts together.
pub fn build(options: &Serve) -> Result<(House, Box<dyn Engine>), ServeError> {
    let store = EmbeddedStore::open(settings(options))?;
    let metrics = Arc::new(Metrics::new()?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let effects = EffectsMetrics::register(&metrics.registry).map_err(ServeError::Metrics)?;
    let payments: Payments = payments::build(options, store.clone(), clock.clone(), &effects)?;
    let catalog = CatalogPorts {
        follower: store.clone(),
        log: store.clone(),
        state: store.clone(),
        clock: clock.clone(),
    };
    let house = House {
        catalog: CatalogCache::new(catalog, CatalogSettings::default())?,
        events: Subscriptions::new(store.clone(), SUBSCRIBER_EVENTS_MAX),
        progress: Arc::new(Progress::new()),
        sessions: Arc::new(Shared(store.clone())),
        log: store.clone(),
        rules_log: store.clone(),
        endpoints: store.clone(),
        state: store.clone(),
        registries: store.clone(),
        earlier_keys: store.clone(),
        health: store.clone(),
        payments,
        effects,
        patience: Patience::begin(clock.clone()),
        clock,
        metrics,
    };
    Ok((house, Box::new(Embedded { store, partitions: options.partitions })))
}

impl Engine for Embedded {
    fn progress(&self, house: &House, halted: Arc<Mutex<Vec<String>>>) -> Arc<dyn ports::Progress> {
        Arc::new(LocalProgress {
            progress: house.progress.clone(),
            store: self.store.clone(),
            metrics: house.metrics.clone(),
            halted,
        })
    }

    fn start(&self, crew: &Crew) -> Result<Vec<JoinHandle<()>>, ServeError> {
        let tasks = (0..self.partitions)
            .flat_map(|partition| TaskKind::ALL.into_iter().map(move |kind| TaskId { kind, partition }));
        Ok(tasks.map(|task| crew.spawn(crew.work(task, crew.stopping.clone()))).collect())
    }

    fn close(&self) -> BoxFuture<'_, Result<(), ServeError>> {
        Box::pin(async move { Ok(self.store.close().await?) })
    }
}
