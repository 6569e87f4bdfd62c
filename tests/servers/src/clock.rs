//! Deadlines: the one place of this crate that reads a clock.

use std::time::{Duration, Instant};

/// A moment by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `after` from now.
    #[allow(clippy::disallowed_methods, reason = "the shell's one clock")]
    pub(crate) fn after(after: Duration) -> Self {
        Self(Instant::now() + after)
    }

    /// Whether it has come.
    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// How long until it comes.
    #[allow(clippy::disallowed_methods, reason = "the shell's one clock")]
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}
