//! The pipeline on a real broker, database and registry, beside the comparison program on the same broker.
//!
//! What is compared: the comparison program's last record of an order is `fulfilled` (its shipment is a stub that follows
//! the payment at once) or why it failed. Here a shipment is a merchant's command, so an order's last event without one is
//! `payment.captured`, which confirms it; `order.rejected`, `payment.failed` and `order.cancelled` end it too. Both are
//! seen by a reader of committed records in another process. CPU is counted from the assignment of partitions.

pub mod commit;
mod drain;
mod house;
mod latency;
mod load;
mod report;
mod scrape;
mod spent;
mod verify;
mod wire;
mod yardstick;

use crate::BenchError;
use crate::generator::{Generator, SKUS};
use drain::Drained;
use house::House;
use latency::{Round, Seen};
use std::path::PathBuf;
use std::sync::Arc;
use verify::{Before, Verdict};
use yardstick::{Figures, Yardstick};

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Orders that stand in the log before the worker starts.
    Drain,
    /// Open loop: from sending to the final event, at steady rates.
    Latency,
    /// The comparison program, in every part that is run.
    Yardstick,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The parts.
    pub parts: Vec<Part>,
    /// The binary.
    pub bin: PathBuf,
    /// More options of `serve`.
    pub serve: Vec<String>,
    /// Where the comparison program lies.
    pub yardstick: PathBuf,
    /// Orders to drain.
    pub orders: u64,
    /// Orders drained before, so that the servers are warm; not measured.
    pub warm_orders: u64,
    /// SKUs of each tenant.
    pub skus: usize,
    /// Seed of the workload.
    pub seed: u64,
    /// Partitions per topic.
    pub partitions: u32,
    /// Orders per second; with the comparison program's drain, half of what it reached comes on top.
    pub rates: Vec<u32>,
    /// How long each rate is measured, seconds.
    pub seconds: u64,
    /// Sent before at the same rate and not counted, seconds.
    pub warmup: u64,
    /// The comparison program's commit interval when tuned for latency, ms.
    pub tuned_commit_ms: u32,
}

/// One rate of the comparison program.
struct TheirLatency {
    rate: u32,
    tuned: bool,
    figures: Figures,
}

/// All there is to print.
#[derive(Default)]
struct Results {
    drained: Option<Drained>,
    seen: Vec<Seen>,
    their_drain: Option<Figures>,
    their_latency: Vec<TheirLatency>,
}

/// Runs all parts and prints the report.
pub async fn run(settings: ClusterSettings) -> Result<(), BenchError> {
    let has = |part| settings.parts.contains(&part);
    let theirs = match has(Part::Yardstick) {
        true => Some(Yardstick::copy(&settings.yardstick).await?),
        false => None,
    };
    let house = House::start(&settings).await?;
    let generator = Arc::new(Generator::new(settings.seed, settings.skus));
    load::items(&house, &generator).await?;
    let mut results = Results::default();
    let mut first = 0;
    let mut rates = settings.rates.clone();
    if has(Part::Drain) {
        let before = Before::now(&house).await?;
        // The broker's and the database's machine code is made while they run: neither program is to pay for it alone.
        let nothing = Verdict::default();
        let warm = drain::run(&house, &generator, (0, settings.warm_orders), &before, &nothing).await?;
        let orders = (settings.warm_orders, settings.orders);
        results.drained = Some(drain::run(&house, &generator, orders, &before, &warm.verdict).await?);
        first = settings.warm_orders + settings.orders;
        if let Some(theirs) = &theirs {
            let orders = ("N", settings.orders.to_string());
            let figures = theirs.run(&house, "drain", &[orders, seed(&settings)]).await?;
            rates.push((figures.get("orders_per_s_from_assignment") / 2.0) as u32);
            results.their_drain = Some(figures);
        }
    }
    if has(Part::Latency) {
        for rate in rates {
            let round = Round { rate, seconds: settings.seconds, warmup: settings.warmup };
            results.seen.push(latency::run(&house, &generator, first, round).await?);
            first += u64::from(rate) * (settings.seconds + settings.warmup);
            if let Some(theirs) = &theirs {
                for tuned in [false, true] {
                    let figures = their_latency(theirs, &house, &settings, rate, tuned).await?;
                    results.their_latency.push(TheirLatency { rate, tuned, figures });
                }
            }
        }
    }
    report::print(&settings, &results)?;
    let wrong = results.drained.iter().map(|it| &it.verdict).find(|it| !it.holds());
    match wrong.or(results
        .seen
        .iter()
        .map(|it| &it.verdict)
        .find(|it| it.other + it.missing + it.wrong + it.duplicates > 0))
    {
        Some(verdict) => Err(BenchError::Unverified(format!("{verdict:?}"))),
        None => Ok(()),
    }
}

fn seed(settings: &ClusterSettings) -> (&'static str, String) {
    ("SEED", settings.seed.to_string())
}

async fn their_latency(
    theirs: &Yardstick,
    house: &House,
    settings: &ClusterSettings,
    rate: u32,
    tuned: bool,
) -> Result<Figures, BenchError> {
    let mut options = vec![
        ("RATE", rate.to_string()),
        ("SECS", settings.seconds.to_string()),
        ("WARMUP", settings.warmup.to_string()),
        seed(settings),
    ];
    if tuned {
        options.push(("COMMIT_MS", settings.tuned_commit_ms.to_string()));
    }
    theirs.run(house, "latency", &options).await
}

/// The commit alone at several batch sizes, and the pipeline's own commits in a drain and at a steady rate.
pub async fn run_commit(settings: ClusterSettings, batches: &[usize]) -> Result<(), BenchError> {
    let house = House::start(&settings).await?;
    let passed = commit::run(&house, batches).await?;
    let generator = Arc::new(Generator::new(settings.seed, settings.skus.clamp(1, SKUS)));
    load::items(&house, &generator).await?;
    let before = Before::now(&house).await?;
    let warm =
        drain::run(&house, &generator, (0, settings.warm_orders), &before, &Verdict::default()).await?;
    let orders = (settings.warm_orders, settings.orders);
    let drained = drain::run(&house, &generator, orders, &before, &warm.verdict).await?;
    let mut seen = Vec::new();
    let mut first = settings.warm_orders + settings.orders;
    for rate in &settings.rates {
        let round = Round { rate: *rate, seconds: settings.seconds, warmup: settings.warmup };
        seen.push(latency::run(&house, &generator, first, round).await?);
        first += u64::from(*rate) * (settings.seconds + settings.warmup);
    }
    report::print_commits(&passed, &drained, &seen)
}
