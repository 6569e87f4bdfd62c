//! What can go wrong with the database, at a test's hand.

use super::{RowCall, RowsSnapshot, SimRows};
use std::time::Duration;
use tillstream_stage::Table;

/// How a call fails. Its caller is always told [`tillstream_log::LogError::Unavailable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// Nothing was written.
    Nothing,
    /// Some of it was written, by the seed.
    Part,
    /// All of it was written.
    All,
    /// It is written later, in any order: when released.
    Late,
}

/// What a crash loses of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    All,
    /// The writes after some moment, by the seed.
    BySeed,
}

/// The hooks.
#[derive(Clone)]
pub struct RowFaults {
    rows: SimRows,
}

impl RowFaults {
    pub(crate) fn new(rows: SimRows) -> Self {
        Self { rows }
    }

    /// The next call of this kind fails.
    pub fn fail(&self, call: RowCall, fault: WriteFault) {
        self.fail_later(call, 0, fault);
    }

    /// A call of this kind fails, after `skip` that do not.
    pub fn fail_later(&self, call: RowCall, skip: usize, fault: WriteFault) {
        self.rows.lock().faults.push((call, skip, fault));
    }

    /// Faults asked for that have not struck.
    pub fn pending(&self) -> usize {
        self.rows.lock().faults.len()
    }

    /// Forgets faults that have not struck.
    pub fn forget(&self) {
        self.rows.lock().faults.clear();
    }

    /// The database answers nobody, or answers again.
    pub fn set_available(&self, available: bool) {
        self.rows.lock().unavailable = !available;
        self.rows.changed.notify_waiters();
    }

    /// Every call takes so long.
    pub fn set_slow(&self, duration: Duration) {
        self.rows.lock().slow = duration;
    }

    /// Writes from now on wait for their release (or are released, and wait no more). A caller whose wait ends by timeout is
    /// told so; its write may still be released.
    pub fn hold_writes(&self, hold: bool) {
        self.rows.lock().holding = hold;
        if !hold {
            self.release_writes(usize::MAX);
        }
    }

    /// Lets so many held writes happen, chosen and ordered by the seed. Tells how many.
    pub fn release_writes(&self, count: usize) -> usize {
        let now_ns = self.rows.clock.monotonic_ns();
        let mut inner = self.rows.lock();
        let mut numbers: Vec<u64> = inner.held.keys().copied().collect();
        inner.random.shuffle(&mut numbers);
        numbers.truncate(count);
        for number in &numbers {
            let mutations = inner.held.remove(number).unwrap_or_default();
            inner.apply(now_ns, mutations);
            inner.released.insert(*number);
        }
        drop(inner);
        self.rows.changed.notify_waiters();
        numbers.len()
    }

    /// Writes that failed as [`WriteFault::Late`] arrive now, in an order of the seed. Tells how many.
    pub fn arrive_late_writes(&self) -> usize {
        let now_ns = self.rows.clock.monotonic_ns();
        let mut inner = self.rows.lock();
        let mut late = std::mem::take(&mut inner.late);
        inner.random.shuffle(&mut late);
        let count = late.len();
        inner.apply(now_ns, late);
        count
    }

    /// The node crashes and starts again: it loses of what was not synced, and has a new incarnation. Held and late
    /// writes are lost too.
    pub fn crash(&self, loss: Loss) {
        let mut inner = self.rows.lock();
        let unsynced = std::mem::take(&mut inner.unsynced);
        let kept = match loss {
            Loss::All => 0,
            Loss::BySeed => inner.random.below(unsynced.len() + 1),
        };
        for (_, mutation) in unsynced.into_iter().take(kept) {
            inner.synced.apply(mutation);
        }
        inner.live = inner.synced.clone();
        inner.held.clear();
        inner.late.clear();
        inner.incarnation += 1;
    }

    /// The start of the node cannot be asked, or can again.
    pub fn hide_incarnation(&self, hidden: bool) {
        self.rows.lock().incarnation_hidden = hidden;
    }

    /// The database is brought back to an older copy.
    pub fn restore(&self, snapshot: &RowsSnapshot) {
        let mut inner = self.rows.lock();
        inner.live = snapshot.clone();
        inner.synced = snapshot.clone();
        inner.unsynced.clear();
        inner.held.clear();
        inner.late.clear();
        inner.incarnation += 1;
    }

    /// Somebody truncates one table: its rows and the marks in it are gone, checkpoints and timers stay.
    pub fn truncate_table(&self, table: Table) {
        let mut inner = self.rows.lock();
        inner.live.truncate_table(table);
        inner.synced.truncate_table(table);
        inner.unsynced.retain(|(_, mutation)| match mutation {
            super::Mutation::Row(key, _) => key.table != table,
            super::Mutation::Mark(marked, ..) => *marked != table,
            super::Mutation::Timer(..) | super::Mutation::Checkpoint(..) | super::Mutation::Flushed(..) => {
                true
            }
        });
    }
}
