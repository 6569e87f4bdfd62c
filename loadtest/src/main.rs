//! `tillstream-bench`: the benchmarks, one subcommand each. Prints text for people and one JSON line.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tillstream_loadtest::BenchError;
use tillstream_loadtest::bare;
use tillstream_loadtest::cluster::{self, ClusterSettings, Part};
use tillstream_loadtest::drain::{self, DrainSettings};
use tillstream_loadtest::generator::SKUS;
use tillstream_loadtest::latency::{self, LatencySettings};
use tillstream_loadtest::load::{self, LoadSettings};
use tillstream_loadtest::report::progress;

/// As the server's, so that the drain measures what the server does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(name = "tillstream-bench", version, about = "Benchmarks of tillstream")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Orders that stand in the log before the tasks start, through the whole chain, in this process.
    Drain(Drain),
    /// Posts against a real server, single orders, then bulk bodies; beside the yardstick, and with a rule if one is given.
    Http(Http),
    /// The yardstick of `http`, which starts it by itself: appends bodies to a file and answers once they are durable.
    Bare(Bare),
    /// Open loop: from sending to confirmed, at steady rates.
    Latency(Latency),
    /// The pipeline on a real broker and database, beside the comparison program on the same broker.
    Cluster(Cluster),
    /// The commit alone on a real broker, beside the pipeline's own commits.
    Commit(Commit),
}

#[derive(Debug, Args)]
struct Drain {
    /// Orders.
    #[arg(long, default_value_t = 100_000)]
    orders: u64,
    /// SKUs of each of the 20 tenants.
    #[arg(long, default_value_t = SKUS)]
    skus: usize,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Partitions per topic.
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// Threads that run tasks; 0: one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Records per batch, at most.
    #[arg(long, default_value_t = 1_000)]
    batch_records_max: usize,
    /// Decoded rows that one task keeps between batches, MiB.
    #[arg(long, default_value_t = 12)]
    cache_mib: usize,
    /// Where the store is made; a fresh temporary directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Server {
    /// The server's binary.
    #[arg(long, default_value = "target/release/tillstream")]
    bin: PathBuf,
    /// Products in the catalog.
    #[arg(long, default_value_t = 1_000)]
    skus: usize,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One more option of `serve`; may be repeated.
    #[arg(long = "serve", value_name = "OPTION", allow_hyphen_values = true)]
    serve: Vec<String>,
}

#[derive(Debug, Args)]
struct Http {
    #[command(flatten)]
    server: Server,
    /// Connections that post single orders.
    #[arg(long, default_value_t = 128)]
    connections: usize,
    /// Connections that post in bulk.
    #[arg(long, default_value_t = 2)]
    bulk_connections: usize,
    /// How long single orders are posted, seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Orders posted in bulk.
    #[arg(long, default_value_t = 100_000)]
    bulk_orders: u64,
    /// A rule's module: everything is measured a second time with it active.
    #[arg(long, value_name = "FILE")]
    rule: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Bare {
    /// Where it listens.
    #[arg(long)]
    http: SocketAddr,
    /// Where its file is made.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Latency {
    #[command(flatten)]
    server: Server,
    /// Orders per second; one run each.
    #[arg(long, value_delimiter = ',', default_values_t = [500, 2_000])]
    rates: Vec<u32>,
    /// How long each rate is measured, seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Sent before at the same rate and not counted, seconds.
    #[arg(long, default_value_t = 5)]
    warmup: u64,
}

#[derive(Debug, Args)]
struct Cluster {
    /// What to run; everything by default.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Orders to drain.
    #[arg(long, default_value_t = 100_000)]
    orders: u64,
    /// Orders per second, one run each; half of the comparison program's drain comes on top.
    #[arg(long = "rate", value_delimiter = ',', default_values_t = [300])]
    rates: Vec<u32>,
    /// How long each rate is measured, seconds.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Sent before at the same rate and not counted, seconds.
    #[arg(long, default_value_t = 20)]
    warmup: u64,
    /// The comparison program's commit interval when tuned for latency, ms.
    #[arg(long, default_value_t = 25)]
    tuned_commit_ms: u32,
    /// Where the comparison program lies.
    #[arg(long, default_value = "../shared/yardstick/kafka-streams")]
    yardstick: PathBuf,
    #[command(flatten)]
    common: OnCluster,
}

#[derive(Debug, Args)]
struct Commit {
    /// Records per transaction.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 5_000])]
    batches: Vec<usize>,
    /// Orders to drain.
    #[arg(long, default_value_t = 50_000)]
    orders: u64,
    /// Orders per second, one run each.
    #[arg(long = "rate", value_delimiter = ',', default_values_t = [300])]
    rates: Vec<u32>,
    #[command(flatten)]
    common: OnCluster,
}

#[derive(Debug, Args)]
struct OnCluster {
    /// The binary.
    #[arg(long, default_value = "target/release/tillstream")]
    bin: PathBuf,
    /// SKUs of each of the 20 tenants.
    #[arg(long, default_value_t = SKUS)]
    skus: usize,
    /// Orders drained before, so that the servers are warm; not measured.
    #[arg(long, default_value_t = 30_000)]
    warm_orders: u64,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Partitions per topic.
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// One more option of `serve`; may be repeated.
    #[arg(long = "serve", value_name = "OPTION", allow_hyphen_values = true)]
    serve: Vec<String>,
}

impl OnCluster {
    fn settings(self, parts: Vec<Part>, orders: u64, rates: Vec<u32>) -> ClusterSettings {
        let Self { bin, skus, warm_orders, seed, partitions, serve } = self;
        ClusterSettings {
            parts,
            bin,
            serve,
            yardstick: PathBuf::new(),
            orders,
            warm_orders,
            skus,
            seed,
            partitions,
            rates,
            seconds: 20,
            warmup: 5,
            tuned_commit_ms: 0,
        }
    }
}

async fn on_cluster(cluster: Cluster) -> Result<(), BenchError> {
    let Cluster { mut parts, orders, rates, seconds, warmup, tuned_commit_ms, yardstick, common } = cluster;
    if parts.is_empty() {
        parts = vec![Part::Drain, Part::Latency, Part::Yardstick];
    }
    let settings = common.settings(parts, orders, rates);
    cluster::run(ClusterSettings { seconds, warmup, tuned_commit_ms, yardstick, ..settings }).await
}

async fn measure(bench: Bench) -> Result<(), BenchError> {
    match bench {
        Bench::Cluster(cluster) => on_cluster(cluster).await,
        Bench::Commit(Commit { batches, orders, rates, common }) => {
            let settings = common.settings(vec![Part::Drain, Part::Latency], orders, rates);
            cluster::run_commit(settings, &batches).await
        }
        Bench::Bare(Bare { http, dir }) => bare::run(http, &dir).await,
        Bench::Http(Http { server, connections, bulk_connections, seconds, bulk_orders, rule }) => {
            load::run(LoadSettings {
                bin: server.bin,
                serve: server.serve,
                connections,
                bulk_connections,
                length: Duration::from_secs(seconds),
                bulk_orders,
                rule,
                skus: server.skus,
                seed: server.seed,
            })
            .await
        }
        Bench::Latency(Latency { server, rates, seconds, warmup }) => {
            latency::run(LatencySettings {
                bin: server.bin,
                serve: server.serve,
                rates,
                length: Duration::from_secs(seconds),
                warmup: Duration::from_secs(warmup),
                skus: server.skus,
                seed: server.seed,
            })
            .await
        }
        Bench::Drain(Drain { orders, skus, seed, partitions, batch_records_max, cache_mib, dir, .. }) => {
            let cache_bytes_max = cache_mib << 20;
            let settings =
                DrainSettings { orders, skus, seed, partitions, batch_records_max, cache_bytes_max, dir };
            drain::run(settings).await
        }
    }
}

fn run(bench: Bench) -> Result<(), BenchError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Bench::Drain(Drain { threads: threads @ 1.., .. }) = &bench {
        builder.worker_threads(*threads);
    }
    let runtime = builder.enable_all().thread_name("task").build().map_err(BenchError::io("threads"))?;
    runtime.block_on(measure(bench))
}

fn main() -> ExitCode {
    match run(Cli::parse().bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("tillstream-bench: {error}"));
            ExitCode::FAILURE
        }
    }
}
