//! The one place where this crate reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, ms since the epoch; 0 for a clock that stands before it.
#[allow(
    clippy::disallowed_methods,
    reason = "a shell: append times, retention and probes need the wall clock"
)]
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
