//! A cluster of the real binary on real servers: workers that are killed, frozen and moved while clients go on, and an
//! independent look at what that left behind.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a harness prints what it did, and fails by panicking with what it saw"
)]

pub mod audit;
pub mod avro;
pub mod cluster;
pub mod command;
pub mod faults;
pub mod history;
pub mod load;
pub mod operator;
pub mod python;
pub mod spawn;
pub mod tables;
pub mod takeover;
pub mod topics;
pub mod worker;

use std::time::Duration;
use tokio::time::Instant;

/// Lets a span of time pass: a fault's duration is a condition of time.
pub async fn pass(span: Duration) {
    tokio::time::sleep_until(Instant::now() + span).await;
}

/// Asks every 20 ms until the answer is there; `None` when `within` is over.
pub async fn wait_for<T>(within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
    }
}

/// Runs what blocks away from the clients' threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("blocking work does not panic")
}

/// A number from the environment.
pub fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}
