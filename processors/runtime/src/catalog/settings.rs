//! What a catalog works with, and how.

use crate::Clock;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::Log;
use tillstream_state::State;

/// Products held when nothing else is asked for: about 60 MB of them.
pub const CATALOG_ENTRIES_MAX: usize = 60_000;

/// How much a catalog holds, and what it believes of the store.
#[derive(Clone, Copy, Debug)]
pub struct CatalogSettings {
    /// Products held.
    pub entries_max: usize,
    /// How far rows may be behind the topic. `None`: a record that can be read has its row.
    pub behind: Option<StoreBehind>,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self { entries_max: CATALOG_ENTRIES_MAX, behind: None }
    }
}

/// A store whose rows follow the log later.
#[derive(Clone, Copy, Debug)]
pub struct StoreBehind {
    /// Records before the topic's present end from which it is followed, per partition: what is before them is stored.
    pub replay_records: u64,
    /// Products of which it is noted where their newest record stands, per partition. Once there are so many, the topic
    /// is followed no further until the store has some of them for good.
    pub notes_max: usize,
    /// A row that is there, and still there so much later, is there for good: a store that crashes loses of what it has
    /// acknowledged only the newest.
    pub durable_after: Duration,
}

/// What a catalog works with.
#[derive(Clone)]
pub struct CatalogPorts {
    /// Where `catalog.products` is followed.
    pub follower: Arc<dyn Log>,
    /// Where single records of it are read.
    pub log: Arc<dyn Log>,
    /// The rows.
    pub state: Arc<dyn State>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}
