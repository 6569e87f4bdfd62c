//! The events of one subject on their way to one endpoint, in order.

use std::collections::VecDeque;
use tillstream_schemas::Text;

/// One event on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its offset in the partition.
    pub offset: u64,
    /// Whether somebody asked for it again.
    pub again: bool,
}

/// What a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneState {
    Ready,
    InFlight,
    Waiting,
}

/// The events of one subject, first to be sent first.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub items: VecDeque<Item>,
    /// Failed attempts of the first.
    pub failed: u32,
    pub state: LaneState,
    pub stored: bool,
    pub next_attempt_ms: i64,
}

impl Lane {
    pub fn new(first: Item) -> Self {
        Self {
            items: VecDeque::from([first]),
            failed: 0,
            state: LaneState::Ready,
            stored: false,
            next_attempt_ms: 0,
        }
    }

    pub fn restored(stored: StoredLane) -> Self {
        let StoredLane { items, failed, next_attempt_ms } = stored;
        Self { items: items.into(), failed, state: LaneState::Waiting, stored: true, next_attempt_ms }
    }

    pub fn to_stored(&self) -> StoredLane {
        StoredLane {
            items: self.items.iter().copied().collect(),
            failed: self.failed,
            next_attempt_ms: self.next_attempt_ms,
        }
    }
}

/// A lane as its row keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLane {
    /// Its events, first to be sent first; never empty.
    pub items: Vec<Item>,
    /// Failed attempts of the first.
    pub failed: u32,
    /// When the next one is, ms since the epoch.
    pub next_attempt_ms: i64,
}

/// A lane's row and timer, as the next commit must leave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneChange {
    /// The order or item.
    pub subject: Text,
    /// When the timer was due until now, ms since the epoch, if there was a row.
    pub was_due_ms: Option<i64>,
    /// The row from now on; `None` deletes it.
    pub row: Option<StoredLane>,
}
