//! What a process is made of, whichever engine it runs on.

use super::crew::Crew;
use super::{ServeError, patience::Patience, payments::Payments};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use tillstream_effects::EffectsMetrics;
use tillstream_ingest_api::ports;
use tillstream_log::Log;
use tillstream_runtime::{CatalogCache, Clock, Metrics, Progress, Subscriptions};
use tillstream_state::{Health, Keys, Sessions, State};
use tokio::task::JoinHandle;

/// What the parts of a process share.
pub struct House {
    /// Where the door writes, and reads what is asked for.
    pub log: Arc<dyn Log>,
    /// The log, for who follows the registry of webhook endpoints.
    pub endpoints: Arc<dyn Log>,
    /// Rows for the door.
    pub state: Arc<dyn State>,
    /// Where rules are followed and changed.
    pub rules_log: Arc<dyn Log>,
    /// What tenants configured: followed and appended to.
    pub registries: Arc<dyn Log>,
    /// API keys of earlier versions.
    pub earlier_keys: Arc<dyn Keys>,
    /// Whether new work is taken.
    pub health: Arc<dyn Health>,
    /// Where tasks begin their lives.
    pub sessions: Arc<dyn Sessions>,
    /// Products.
    pub catalog: Arc<CatalogCache>,
    /// Live events.
    pub events: Arc<Subscriptions>,
    /// Payments.
    pub payments: Payments,
    /// What executors count.
    pub effects: EffectsMetrics,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How far the tasks of this process are.
    pub progress: Arc<Progress>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How long the start still waits for what does not answer.
    pub patience: Patience,
}

/// Embedded or cluster.
pub trait Engine: Send + Sync {
    /// How far the tasks are, for the door.
    fn progress(&self, house: &House, halted: Arc<Mutex<Vec<String>>>) -> Arc<dyn ports::Progress>;

    /// Starts the tasks of this process.
    fn start(&self, crew: &Crew) -> Result<Vec<JoinHandle<()>>, ServeError>;

    /// Makes everything durable and lets go, once all workers have ended.
    fn close(&self) -> BoxFuture<'_, Result<(), ServeError>>;
}
