//! Fetching partitions: a consumer on a thread of its own, and a bounded buffer per partition.

mod buffers;
mod context;
mod thread;

pub(crate) use buffers::Buffers;
pub(crate) use context::Shift;
pub(crate) use thread::{Command, Fetching, Membership, start};

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// Wakes the thread.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Something is to be done.
    pub(crate) fn wake(&self) {
        let mut woken = self.woken.lock();
        if !*woken {
            *woken = true;
            self.changed.notify_one();
        }
    }

    /// Waits until woken, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let mut woken = self.woken.lock();
        if !*woken && !at_most.is_zero() {
            // Woken or not, the thread looks.
            let _ = self.changed.wait_for(&mut woken, at_most);
        }
        *woken = false;
    }
}
