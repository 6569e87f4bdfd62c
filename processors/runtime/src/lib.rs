//! The shell: poll, load, rule, decide, commit, release effects.
//!
//! Everything here speaks to the world through [`tillstream_log::Log`], [`tillstream_state::State`],
//! [`tillstream_state::Commit`] and [`Clock`], and spawns nothing itself: the same loop runs on the embedded
//! store, on a cluster and in a simulation.

mod batch;
pub mod catalog;
pub mod clock;
mod dead_letter;
mod error;
pub mod follow;
mod generations;
mod meter;
pub mod metrics;
mod outputs;
mod overlay;
mod poison;
pub mod progress;
mod settings;
mod shell;
pub mod subscriptions;
mod supervise;
pub mod tenant_feed;
mod timers;

pub use catalog::{
    CATALOG_ENTRIES_MAX, CatalogCache, CatalogPorts, CatalogSettings, CatalogSnapshot, ProductWaiter,
    StoreBehind,
};
pub use clock::{Clock, SystemClock, timeout};
pub use dead_letter::{PANIC_CODE, PARTITION_CODE};
pub use error::RuntimeError;
pub use metrics::Metrics;
pub use progress::{Progress, TaskProgress, TaskStatus};
pub use settings::TaskSettings;
pub use shell::{TaskPorts, run_task};
pub use subscriptions::{HubEvent, Subscription, Subscriptions};
pub use supervise::{LifeError, Lives, supervise};
pub use tenant_feed::{TenantEvent, TenantFeed};
