//! Simulated time: tokio's, which goes on by itself when nothing else can.

use futures::future::BoxFuture;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tillstream_runtime::Clock;
use tokio::time::Instant;

/// A clock for a runtime whose time is paused (`#[tokio::test(start_paused = true)]`): when every task waits, time
/// goes on to the next deadline at once. The wall clock can jump, the monotonic one cannot.
pub struct SimClock {
    began: Instant,
    wall_at_begin_ms: AtomicI64,
}

impl SimClock {
    /// A clock whose wall time is `wall_ms` (since the epoch) now. To be called inside the runtime.
    pub fn new(wall_ms: i64) -> Self {
        Self { began: Instant::now(), wall_at_begin_ms: AtomicI64::new(wall_ms) }
    }

    /// The wall clock jumps by so much, also back.
    pub fn jump_ms(&self, by_ms: i64) {
        self.wall_at_begin_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Default for SimClock {
    /// At 2026-01-01 00:00 UTC.
    fn default() -> Self {
        Self::new(1_767_225_600_000)
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.wall_at_begin_ms.load(Ordering::Relaxed).saturating_add(elapsed_ms)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, deadline_ns: u64) -> BoxFuture<'static, ()> {
        // Further than tokio's timers reach is never.
        let deadline = Duration::from_nanos(deadline_ns).min(Duration::from_secs(1 << 30));
        Box::pin(tokio::time::sleep_until(self.began + deadline))
    }
}
