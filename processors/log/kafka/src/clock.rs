//! The one place that reads a clock.

use std::time::{Duration, Instant};

/// A moment after which something is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    #[allow(
        clippy::disallowed_methods,
        reason = "a client of a broker is a shell: its waits are bounded by real time"
    )]
    pub(crate) fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// What is left; nothing once it has passed.
    #[allow(clippy::disallowed_methods, reason = "as above")]
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }
}
