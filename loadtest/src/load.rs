//! Posts against the real server: single orders over kept-alive connections, then bulk bodies. The yardstick takes the
//! same load before it, in the same run; with a rule, a second server takes it once more.

use crate::BenchError;
use crate::client::{Call, Connection, Target};
use crate::generator::Generator;
use crate::report::{Report, progress};
use crate::rule;
use crate::server::Server;
use hdrhistogram::Histogram;
use http::Method;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tillstream_runtime::{Clock, SystemClock};

/// Orders in one bulk body.
const BULK_ORDERS: u64 = 5_000;

/// What to send.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// The binary of the server.
    pub bin: PathBuf,
    /// More options of `serve`.
    pub serve: Vec<String>,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Connections of the bulk part.
    pub bulk_connections: usize,
    /// How long single orders are posted.
    pub length: Duration,
    /// Orders sent in bulk.
    pub bulk_orders: u64,
    /// A rule's module, to measure with it as well.
    pub rule: Option<PathBuf>,
    /// Products in the catalog.
    pub skus: usize,
    /// Seed of the workload.
    pub seed: u64,
}

/// What came of one part.
struct Part {
    accepted: u64,
    refused: u64,
    /// How long single posts took, µs.
    micros: Histogram<u64>,
    /// Until the last answer.
    seconds: f64,
    /// Until the tasks had caught up.
    rest_seconds: f64,
    /// Until then.
    server_cpu_seconds: f64,
}

/// What one connection did.
struct Worked {
    accepted: u64,
    refused: u64,
    micros: Histogram<u64>,
}

impl Worked {
    fn new() -> Result<Self, BenchError> {
        let micros = Histogram::new_with_bounds(1, 120_000_000, 3).map_err(BenchError::http)?;
        Ok(Self { accepted: 0, refused: 0, micros })
    }
}

/// Loads the yardstick and the server, and prints the report.
pub async fn run(settings: LoadSettings) -> Result<(), BenchError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let generator = Arc::new(Generator::new(settings.seed, settings.skus));
    let mut report = Report::new("http");
    report.figure("connections", settings.connections, settings.connections.to_string());

    progress("the yardstick: parse, append, fdatasync, answer");
    let bare = Server::start_bare(&*clock).await?;
    load(&bare, &settings, &generator, &clock, "bare_", false, &mut report).await?;
    drop(bare);

    let server = Server::start(&settings.bin, &settings.serve, &*clock).await?;
    server.load_catalog(&generator).await?;
    load(&server, &settings, &generator, &clock, "", true, &mut report).await?;
    drop(server);

    if let Some(file) = &settings.rule {
        let server = Server::start(&settings.bin, &settings.serve, &*clock).await?;
        server.load_catalog(&generator).await?;
        progress(&format!("with the rule of {}", file.display()));
        rule::activate(&server.target, file).await?;
        load(&server, &settings, &generator, &clock, "rule_", true, &mut report).await?;
    }
    report.print()
}

/// Both parts against one server; `chain`: whether tasks behind it go on once it has answered.
async fn load(
    server: &Server,
    settings: &LoadSettings,
    generator: &Arc<Generator>,
    clock: &Arc<dyn Clock>,
    prefix: &str,
    chain: bool,
    report: &mut Report,
) -> Result<(), BenchError> {
    progress("posting single orders");
    let deadline_ns = clock.deadline(settings.length);
    let next = Arc::new(AtomicU64::new(0));
    let single = part(server, &**clock, settings.connections, chain, |target| {
        post_singles(target, Arc::clone(generator), Arc::clone(&next), Arc::clone(clock), deadline_ns)
    })
    .await?;

    progress("posting in bulk");
    // The keys of the single orders are not used again.
    let first = next.load(Ordering::Relaxed);
    let next = Arc::new(AtomicU64::new(first));
    let end = first + settings.bulk_orders;
    let bulk = part(server, &**clock, settings.bulk_connections, chain, |target| {
        post_bulk(target, Arc::clone(generator), Arc::clone(&next), end)
    })
    .await?;

    let name = |it: &str| format!("{prefix}{it}");
    let behind = if chain { ", with the chain behind" } else { "" };
    report.number(&name("posts_per_s"), single.accepted as f64 / single.seconds, 0, "posts/s accepted");
    for (quantile, label) in [(0.5, "post_p50_ms"), (0.99, "post_p99_ms")] {
        report.number(&name(label), single.micros.value_at_quantile(quantile) as f64 / 1e3, 1, "ms");
    }
    report.number(
        &name("post_cpu_us"),
        cpu_micros(&single),
        0,
        &format!("CPU-µs of the server per post{behind}"),
    );
    report.figure(&name("posts_refused"), single.refused, single.refused.to_string());
    report.number(&name("bulk_orders_per_s"), bulk.accepted as f64 / bulk.seconds, 0, "orders/s accepted");
    report.number(
        &name("bulk_cpu_us"),
        cpu_micros(&bulk),
        0,
        &format!("CPU-µs of the server per order{behind}"),
    );
    if chain {
        let rate = bulk.accepted as f64 / bulk.rest_seconds;
        report.number(&name("bulk_orders_per_s_to_rest"), rate, 0, "orders/s through the chain");
    }
    report.figure(&name("bulk_refused"), bulk.refused, bulk.refused.to_string());
    let peak = server.usage()?.peak_rss_bytes as f64 / 1e6;
    report.number(&name("server_peak_rss_mb"), peak, 0, "MB");
    Ok(())
}

fn cpu_micros(part: &Part) -> f64 {
    part.server_cpu_seconds * 1e6 / part.accepted.max(1) as f64
}

/// Runs one worker per connection and measures them together.
async fn part<F>(
    server: &Server,
    clock: &dyn Clock,
    connections: usize,
    chain: bool,
    worker: impl Fn(Target) -> F,
) -> Result<Part, BenchError>
where
    F: Future<Output = Result<Worked, BenchError>> + Send + 'static,
{
    let cpu_seconds = server.usage()?.cpu_seconds;
    let began_ns = clock.monotonic_ns();
    let workers = (0..connections).map(|_| tokio::spawn(worker(server.target.clone())));
    let mut all = Worked::new()?;
    for ended in futures::future::join_all(workers).await {
        let worked = ended.map_err(BenchError::http)??;
        all.accepted += worked.accepted;
        all.refused += worked.refused;
        all.micros.add(worked.micros).map_err(BenchError::http)?;
    }
    let Worked { accepted, refused, micros } = all;
    let seconds = (clock.monotonic_ns() - began_ns) as f64 / 1e9;
    if chain {
        server.wait_idle(clock).await?;
    }
    let rest_seconds = (clock.monotonic_ns() - began_ns) as f64 / 1e9;
    let server_cpu_seconds = server.usage()?.cpu_seconds - cpu_seconds;
    Ok(Part { accepted, refused, micros, seconds, rest_seconds, server_cpu_seconds })
}

async fn post_singles(
    target: Target,
    generator: Arc<Generator>,
    next: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    deadline_ns: u64,
) -> Result<Worked, BenchError> {
    let mut connection = Connection::open(&target).await?;
    let mut worked = Worked::new()?;
    while clock.monotonic_ns() < deadline_ns {
        let order = generator.order(next.fetch_add(1, Ordering::Relaxed));
        let call = Call::json(Method::POST, "/v1/orders", order.json(false)).with_key(&order.reference);
        let sent_ns = clock.monotonic_ns();
        let answer = connection.call(call).await?;
        worked.micros.saturating_record((clock.monotonic_ns() - sent_ns) / 1_000);
        // 503 and 429 are the server's honest answers under load; anything else is a mistake of this program.
        match answer.status.as_u16() {
            200..=299 => worked.accepted += 1,
            429 | 503 => worked.refused += 1,
            _ => return Err(answer.success().err().unwrap_or(BenchError::Server("odd".into()))),
        }
    }
    Ok(worked)
}

async fn post_bulk(
    target: Target,
    generator: Arc<Generator>,
    next: Arc<AtomicU64>,
    end: u64,
) -> Result<Worked, BenchError> {
    let mut connection = Connection::open(&target).await?;
    let mut worked = Worked::new()?;
    loop {
        let first = next.fetch_add(BULK_ORDERS, Ordering::Relaxed);
        if first >= end {
            return Ok(worked);
        }
        let mut body = String::new();
        for index in first..end.min(first + BULK_ORDERS) {
            body.push_str(&generator.order(index).json(true));
            body.push('\n');
        }
        let mut call = Call::json(Method::POST, "/v1/orders/bulk", body);
        call.content_type = "application/x-ndjson";
        let answer = connection.call(call).await?.success()?;
        for line in answer.body.split(|it| *it == b'\n').filter(|it| !it.is_empty()) {
            if is_accepted(line) {
                worked.accepted += 1;
            } else {
                worked.refused += 1;
            }
        }
    }
}

/// Whether a result line says that its order was taken.
fn is_accepted(line: &[u8]) -> bool {
    // Parsing every line would cost the client more than the server's work on it.
    const TAKEN: &[u8] = br#""status":20"#;
    line.windows(TAKEN.len()).any(|it| it == TAKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_accepted_by_its_status() {
        let cases: [(&[u8], bool); 4] = [
            (br#"{"line":1,"status":202,"id":"ord_1"}"#, true),
            (br#"{"line":2,"status":200,"id":"ord_1"}"#, true),
            (br#"{"line":3,"status":422,"problem":{"status":422}}"#, false),
            (br#"{"line":4,"status":503,"problem":{"code":"status"}}"#, false),
        ];
        for (line, expected) in cases {
            assert_eq!(is_accepted(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }
}
