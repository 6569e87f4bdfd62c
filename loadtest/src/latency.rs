//! From sending to confirmed at a steady rate: open loop, measured from the time an order was due to be sent.
//!
//! `Prefer: wait` answers once the order has left `pending`, so the answer's arrival is what a merchant would see. An
//! open loop does not slow down when the server does: waiting in the client counts.

use crate::BenchError;
use crate::client::{Call, Connection, Target};
use crate::generator::Generator;
use crate::report::{Report, progress, rounded};
use crate::server::Server;
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tillstream_runtime::{Clock, SystemClock};

/// The tenant of the server's key.
pub const TENANT: &str = "demo";
/// How long one order may take, seconds.
const WAIT_SECONDS: u32 = 30;

/// What to send.
#[derive(Clone, Debug)]
pub struct LatencySettings {
    /// The binary of the server.
    pub bin: PathBuf,
    /// More options of `serve`.
    pub serve: Vec<String>,
    /// Orders per second, one run each.
    pub rates: Vec<u32>,
    /// How long each rate is measured.
    pub length: Duration,
    /// Sent before at the same rate, and not counted.
    pub warmup: Duration,
    /// Products in the catalog.
    pub skus: usize,
    /// Seed of the workload.
    pub seed: u64,
}

/// What one rate came to.
struct Seen {
    micros: Histogram<u64>,
    /// Orders that were not confirmed in time, or refused.
    failed: u64,
}

/// Runs all rates and prints the report.
pub async fn run(settings: LatencySettings) -> Result<(), BenchError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let generator = Arc::new(Generator::new(settings.seed, settings.skus));
    let server = Server::start(&settings.bin, &settings.serve, &*clock).await?;
    server.load_catalog(&generator).await?;
    let mut report = Report::new("latency");
    let mut first = 0;
    for rate in &settings.rates {
        progress(&format!("{rate} orders/s for {} s", (settings.warmup + settings.length).as_secs()));
        let cpu_seconds = server.usage()?.cpu_seconds;
        let round = Round { rate: *rate, first, settings: &settings };
        let seen = round.run(&server.target, &generator, &clock).await?;
        let sent = round.orders();
        first += sent;
        let cpu_seconds = server.usage()?.cpu_seconds - cpu_seconds;
        add(&mut report, *rate, &seen, cpu_seconds * 1_000.0 / sent.max(1) as f64);
    }
    report.number("server_peak_rss_mb", server.usage()?.peak_rss_bytes as f64 / 1e6, 0, "MB");
    report.print()
}

fn add(report: &mut Report, rate: u32, seen: &Seen, cpu_s_per_1k: f64) {
    let ms = |quantile: f64| seen.micros.value_at_quantile(quantile) as f64 / 1e3;
    let (p50, p99, p999) = (ms(0.5), ms(0.99), ms(0.999));
    let text = format!(
        "p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms, max {:.1} ms, {} confirmed, {} failed, {cpu_s_per_1k:.3} CPU-s per 1,000",
        ms(1.0),
        seen.micros.len(),
        seen.failed,
    );
    let figures = serde_json::json!({
        "p50_ms": rounded(p50), "p99_ms": rounded(p99), "p999_ms": rounded(p999), "max_ms": rounded(ms(1.0)),
        "confirmed": seen.micros.len(), "failed": seen.failed, "server_cpu_s_per_1k": rounded(cpu_s_per_1k),
    });
    report.figure(&format!("at_{rate}_per_s"), figures, text);
}

struct Round<'a> {
    rate: u32,
    /// Orders of earlier rounds.
    first: u64,
    settings: &'a LatencySettings,
}

impl Round<'_> {
    fn orders(&self) -> u64 {
        ((self.settings.warmup + self.settings.length).as_secs_f64() * f64::from(self.rate)) as u64
    }

    async fn run(
        &self,
        target: &Target,
        generator: &Arc<Generator>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Seen, BenchError> {
        let micros = Histogram::new_with_bounds(1, 120_000_000, 3).map_err(BenchError::http)?;
        let shared = Arc::new(Shared {
            seen: Mutex::new(Seen { micros, failed: 0 }),
            idle: Mutex::new(Vec::new()),
            target: target.clone(),
            generator: Arc::clone(generator),
            clock: Arc::clone(clock),
        });
        let period_ns = 1_000_000_000 / u64::from(self.rate.max(1));
        let begin_ns = clock.monotonic_ns();
        let counted_ns = begin_ns + u64::try_from(self.settings.warmup.as_nanos()).unwrap_or(u64::MAX);
        let mut sent = tokio::task::JoinSet::new();
        for index in 0..self.orders() {
            let due_ns = begin_ns + index * period_ns;
            if due_ns > clock.monotonic_ns() {
                clock.sleep_until(due_ns).await;
            }
            let order = Order { index: self.first + index, due_ns, counts: due_ns >= counted_ns };
            sent.spawn(Arc::clone(&shared).send(order));
            while let Some(ended) = sent.try_join_next() {
                ended.map_err(BenchError::http)??;
            }
        }
        while let Some(ended) = sent.join_next().await {
            ended.map_err(BenchError::http)??;
        }
        let shared =
            Arc::try_unwrap(shared).map_err(|_| BenchError::Http("an order is still under way".into()))?;
        Ok(shared.seen.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Order {
    index: u64,
    due_ns: u64,
    counts: bool,
}

struct Shared {
    seen: Mutex<Seen>,
    /// Connections without a request; one is opened when none is left.
    idle: Mutex<Vec<Connection>>,
    target: Target,
    generator: Arc<Generator>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    async fn send(self: Arc<Self>, order: Order) -> Result<(), BenchError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.target).await?,
        };
        let generated = self.generator.order(order.index);
        let mut call =
            Call::json(Method::POST, "/v1/orders", generated.json(false)).with_key(&generated.reference);
        call.wait_seconds = Some(WAIT_SECONDS);
        let answer = connection.call(call).await?;
        let took_us = self.clock.monotonic_ns().saturating_sub(order.due_ns) / 1_000;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        if !order.counts {
            return Ok(());
        }
        let confirmed = answer.status == StatusCode::OK
            && serde_json::from_slice::<serde_json::Value>(&answer.body)
                .is_ok_and(|it| it["status"] == "confirmed");
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if confirmed {
            seen.micros.saturating_record(took_us);
        } else {
            seen.failed += 1;
        }
        Ok(())
    }
}
