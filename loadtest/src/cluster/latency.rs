//! From the moment an order was due to be sent until a reader of committed records had its final event.

use super::drain::wait_for;
use super::house::House;
use super::load::{self, OpenLoop};
use super::scrape::Scrape;
use super::spent::{Mark, Spent};
use super::verify::{self, Verdict};
use super::wire::Finals;
use crate::BenchError;
use crate::generator::Generator;
use crate::process::usage;
use crate::report::progress;
use std::sync::Arc;
use std::time::Duration;

/// The first order is due so long after the decision.
const BEGIN: Duration = Duration::from_millis(200);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Orders per second.
    pub rate: u32,
    /// How long it is measured, seconds.
    pub seconds: u64,
    /// Sent before at the same rate and not counted, seconds.
    pub warmup: u64,
}

/// What one rate came to.
pub struct Seen {
    /// What was sent.
    pub round: Round,
    /// From due to seen, ns, sorted; the warm-up left out.
    nanos: Vec<u64>,
    /// CPU-seconds per second, from the end of the warm-up.
    pub cores: Spent,
    /// The worker's peak, bytes.
    pub rss_bytes: u64,
    /// The worker's counters after the warm-up.
    pub counted: Scrape,
    /// Whether the totals are right.
    pub verdict: Verdict,
}

impl Seen {
    /// A quantile, ms.
    pub fn ms(&self, quantile: f64) -> f64 {
        let at = (self.nanos.len() as f64 * quantile) as usize;
        let nanos = self.nanos.get(at.min(self.nanos.len().saturating_sub(1)));
        nanos.map_or(f64::NAN, |it| *it as f64 / 1e6)
    }
}

/// Starts one worker with all roles, sends orders from `first` on, and measures them.
pub async fn run(
    house: &House,
    generator: &Arc<Generator>,
    first: u64,
    round: Round,
) -> Result<Seen, BenchError> {
    let Round { rate, seconds, warmup } = round;
    progress(&format!("{rate} orders/s for {} s", seconds + warmup));
    let mut worker = house.worker(&[])?;
    worker.assigned("order").await?;
    worker.ready().await?;
    let count = u64::from(rate) * (seconds + warmup);
    let ids = load::ids(generator, first, count);
    let finals =
        Finals::follow(house.brokers(), house.ids.clone(), house.partitions, ids, house.clock.clone())?;
    let begin_ns = house.clock.deadline(BEGIN);
    let plan = Arc::new(OpenLoop { first, count, rate, begin_ns });
    let sending = plan.start(house, generator)?;
    house.clock.sleep_until(begin_ns + warmup * 1_000_000_000).await;
    let warm = Mark::now(house, &worker)?;
    let counted_before = worker.scrape().await?;
    let deadline_ns = house.clock.deadline(Duration::from_secs(2 * seconds + 60));
    wait_for(&finals, count, &*house.clock, &mut worker, deadline_ns).await?;
    let end = Mark::now(house, &worker)?;
    let counted = worker.scrape().await?.since(&counted_before);
    let rss_bytes = usage(worker.pid)?.peak_rss_bytes;
    super::house::blocking(move || {
        sending.join().map_err(|_| BenchError::Broker("the sender panicked".into()))?
    })
    .await?;
    worker.idle().await?;
    worker.stop().await?;
    let finals = finals.stop()?;
    let counts_from = first + u64::from(rate) * warmup;
    let counting = finals.iter().filter(|it| it.index >= counts_from);
    let mut nanos: Vec<u64> = counting.map(|it| it.at_ns.saturating_sub(plan.due_ns(it.index))).collect();
    nanos.sort_unstable();
    let spent = Spent::between(&warm, &end);
    Ok(Seen {
        round,
        nanos,
        cores: spent.per(spent.seconds),
        rss_bytes,
        counted,
        verdict: verify::finals(generator, first, count, &finals)?,
    })
}
