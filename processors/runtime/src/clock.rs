//! Time, passed in: the same loop runs on the wall clock and in a simulation.

use futures::future::BoxFuture;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The wall clock, ms since the epoch. May jump.
    fn now_ms(&self) -> i64;

    /// A clock that never goes back, ns since some fixed moment.
    fn monotonic_ns(&self) -> u64;

    /// Resolves once [`Clock::monotonic_ns`] has reached `deadline_ns`.
    fn sleep_until(&self, deadline_ns: u64) -> BoxFuture<'static, ()>;

    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.deadline(duration))
    }

    /// The monotonic time `duration` from now, ns.
    fn deadline(&self, duration: Duration) -> u64 {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.monotonic_ns().saturating_add(ns)
    }
}

/// What the future gives, or `None` when `deadline_ns` (monotonic) comes first.
pub async fn timeout<F: Future>(clock: &dyn Clock, deadline_ns: u64, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep_until(deadline_ns) => None,
    }
}

/// The clocks of the machine, and tokio's timer.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[allow(clippy::disallowed_methods, reason = "the shell's one clock")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the shell's one clock")]
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, deadline_ns: u64) -> BoxFuture<'static, ()> {
        let deadline = self.started + Duration::from_nanos(deadline_ns);
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }
}
