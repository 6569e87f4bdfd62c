//! Row keys with time in them.

use crate::Key;
use std::fmt::Write;

/// A time as 16 hex digits that sort as the time does (for times ≥ 0).
pub fn ascending(time_ms: i64) -> Key {
    let mut key = Key::with_capacity(16);
    let _ = write!(key, "{:016x}", time_ms.max(0));
    key
}

/// A time as 16 hex digits that sort newest first.
pub fn descending(time_ms: i64) -> Key {
    ascending(i64::MAX - time_ms.max(0))
}
