//! Orders that stand in the log before the worker starts.

use super::house::House;
use super::load;
use super::scrape::Scrape;
use super::spent::{Mark, Spent};
use super::verify::{self, Before, Verdict};
use super::wire::Finals;
use crate::BenchError;
use crate::generator::Generator;
use crate::process::usage;
use crate::report::progress;
use std::sync::Arc;
use std::time::Duration;
use tillstream_runtime::Clock;

/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A run that takes longer has hung.
const DRAIN_MAX: Duration = Duration::from_secs(900);
/// So long a second final event would be waited for.
const DUPLICATES: Duration = Duration::from_secs(2);

/// What a drain came to.
pub struct Drained {
    /// Orders.
    pub orders: u64,
    /// From the start of the process to the assignment of the order task's partitions, seconds.
    pub start_seconds: f64,
    /// From the assignment to the last final event.
    pub seconds: f64,
    /// From the assignment to the first final event.
    pub first_seconds: f64,
    /// CPU from the assignment to the last final event.
    pub spent: Spent,
    /// CPU from the start of the process to the last final event.
    pub with_startup: Spent,
    /// CPU from the assignment until nothing was left to do.
    pub to_rest: Spent,
    /// The worker's peak until the last final event, bytes.
    pub rss_bytes: u64,
    /// The worker's counters of the drain.
    pub counted: Scrape,
    /// Whether it is right.
    pub verdict: Verdict,
}

/// Waits for so many final events. A reader that has failed tells why when it is stopped.
pub async fn wait_for(
    finals: &Finals,
    count: u64,
    clock: &dyn Clock,
    worker: &mut super::house::Worker,
    deadline_ns: u64,
) -> Result<(), BenchError> {
    let mut told_ns = clock.monotonic_ns();
    while finals.count() < count {
        worker.check()?;
        let now_ns = clock.monotonic_ns();
        if finals.has_ended() {
            return Ok(());
        }
        if now_ns > deadline_ns {
            return Err(BenchError::Pipeline(format!("stuck at {} final events of {count}", finals.count())));
        }
        if now_ns > told_ns + 10_000_000_000 {
            progress(&format!("  {} of {count} final events", finals.count()));
            told_ns = now_ns;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Writes the orders, then starts one worker with all roles and measures it. `before` and `earlier` tell what an
/// earlier part of the run has left behind.
pub async fn run(
    house: &House,
    generator: &Arc<Generator>,
    (first, orders): (u64, u64),
    before: &Before,
    earlier: &Verdict,
) -> Result<Drained, BenchError> {
    load::orders(house, generator, first, orders).await?;
    let ids = load::ids(generator, first, orders);
    let finals =
        Finals::follow(house.brokers(), house.ids.clone(), house.partitions, ids, house.clock.clone())?;

    progress("draining");
    let mut worker = house.worker(&[])?;
    let started = Mark::now(house, &worker)?;
    worker.assigned("order").await?;
    let assigned = Mark::now(house, &worker)?;
    let deadline_ns = house.clock.deadline(DRAIN_MAX);
    wait_for(&finals, orders, &*house.clock, &mut worker, deadline_ns).await?;
    let last = Mark::now(house, &worker)?;
    let rss_bytes = usage(worker.pid)?.peak_rss_bytes;
    let counted = worker.scrape().await?;
    worker.idle().await?;
    let rest = Mark::now(house, &worker)?;

    progress("verifying");
    tokio::time::sleep(DUPLICATES).await;
    let finals = finals.stop()?;
    let verdict = verify::finals(generator, first, orders, &finals)?;
    let verdict = before.complete(house, verdict, earlier).await?;
    worker.stop().await?;
    let (first_ns, last_ns) =
        finals.iter().fold((u64::MAX, 0), |it, next| (it.0.min(next.at_ns), it.1.max(next.at_ns)));
    let after_assignment = |at_ns: u64| at_ns.saturating_sub(assigned.at_ns) as f64 / 1e9;
    Ok(Drained {
        orders,
        start_seconds: assigned.at_ns.saturating_sub(started.at_ns) as f64 / 1e9,
        seconds: after_assignment(last_ns),
        first_seconds: after_assignment(first_ns),
        spent: Spent::between(&assigned, &last),
        with_startup: Spent::between(&started, &last),
        to_rest: Spent::between(&assigned, &rest),
        rss_bytes,
        counted,
        verdict,
    })
}
