//! The command line: every option is also `TILLSTREAM_…` in the environment and a key of the TOML file.

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// An order pipeline for high-volume commerce, in one binary.
#[derive(Debug, Parser)]
#[command(name = "tillstream", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// TOML file with the options' long names as keys, at the top level or under the command's name.
    /// A flag wins over the environment, the environment over the file.
    #[arg(long, global = true, env = "TILLSTREAM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the whole pipeline in this process, on the embedded store.
    Serve(Serve),
    /// Brings real order history in from a CSV file, with a report of what became of every row.
    Import(Import),
    /// Looks at topics.
    Topics(Topics),
    /// Looks at dead letters and sends them back.
    Dlq(Dlq),
    /// Makes, lists and revokes API keys.
    Keys(Keys),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Everything in one process, on the embedded store.
    Embedded,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where the pipeline runs.
    #[arg(long, env = "TILLSTREAM_MODE", value_enum, default_value = "embedded")]
    pub mode: Mode,
    /// Where everything is kept. One process at a time may use it.
    #[arg(long, env = "TILLSTREAM_DATA_DIR", default_value = "tillstream-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address and port of the HTTP API.
    #[arg(long, env = "TILLSTREAM_HTTP", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// API key of tenant `demo`; without it, a first start makes one and prints it once.
    #[arg(long, env = "TILLSTREAM_DEMO_KEY", hide_env_values = true, value_name = "KEY")]
    pub demo_key: Option<String>,
    /// Partitions per topic; fixed when the data dir is made.
    #[arg(long, env = "TILLSTREAM_PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub partitions: u32,
    /// How long the log keeps what every task has read; commands not yet read are never removed.
    #[arg(long, env = "TILLSTREAM_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..))]
    pub retention_hours: u32,
    /// Bytes the log may keep per partition before the oldest read records go.
    #[arg(long, env = "TILLSTREAM_LOG_BYTES_MAX", default_value_t = 4 << 30)]
    pub log_bytes_max: u64,
    /// New work is refused when the disk has less than this left.
    #[arg(long, env = "TILLSTREAM_DISK_RESERVE_BYTES", default_value_t = 256 << 20)]
    pub disk_reserve_bytes: u64,
    /// Most records a task takes per batch.
    #[arg(long, env = "TILLSTREAM_BATCH_RECORDS_MAX", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch_records_max: u32,
    /// Worker threads for tasks; 0: one per core.
    #[arg(long, env = "TILLSTREAM_THREADS", default_value_t = 0)]
    pub threads: usize,
    /// Sandbox provider: shortest latency of an answer.
    #[arg(long, env = "TILLSTREAM_SANDBOX_LATENCY_MIN_MS", default_value_t = 0)]
    pub sandbox_latency_min_ms: u64,
    /// Sandbox provider: longest latency of an answer.
    #[arg(long, env = "TILLSTREAM_SANDBOX_LATENCY_MAX_MS", default_value_t = 0)]
    pub sandbox_latency_max_ms: u64,
    /// Sandbox provider: share of authorizations it declines, 0 to 1.
    #[arg(long, env = "TILLSTREAM_SANDBOX_DECLINE_RATE", default_value_t = 0.0, value_parser = share)]
    pub sandbox_decline_rate: f64,
    /// Sandbox provider: share of calls whose reply is lost although it did what was asked, 0 to 1.
    #[arg(long, env = "TILLSTREAM_SANDBOX_LOST_REPLY_RATE", default_value_t = 0.0, value_parser = share)]
    pub sandbox_lost_reply_rate: f64,
    /// Sandbox provider: share of calls that it does not take, 0 to 1.
    #[arg(long, env = "TILLSTREAM_SANDBOX_UNAVAILABLE_RATE", default_value_t = 0.0, value_parser = share)]
    pub sandbox_unavailable_rate: f64,
    /// How log lines look.
    #[arg(long, env = "TILLSTREAM_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Which log lines are written, such as `info` or `tillstream_runtime=debug`.
    #[arg(long, env = "TILLSTREAM_LOG", default_value = "info")]
    pub log: String,
}

/// The running pipeline that a command speaks to.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Its URL.
    #[arg(long, env = "TILLSTREAM_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// An API key of the tenant.
    #[arg(long, env = "TILLSTREAM_API_KEY", hide_env_values = true)]
    pub api_key: String,
}

/// Options of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The file: columns InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country.
    #[arg(value_name = "FILE.csv")]
    pub file: PathBuf,
    /// The pipeline.
    #[command(flatten)]
    pub target: Target,
    /// Units received per stocked SKU before anything is sold.
    #[arg(long, env = "TILLSTREAM_STOCK_PER_SKU", default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    pub stock_per_sku: i64,
    /// ISO 4217 code of the file's amounts.
    #[arg(long, env = "TILLSTREAM_IMPORT_CURRENCY", default_value = "GBP")]
    pub currency: String,
    /// Where the report goes: one NDJSON line per row. Default: the file's name with `.report.ndjson`, here.
    #[arg(long, env = "TILLSTREAM_IMPORT_REPORT", value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How long the pipeline may take to settle an order.
    #[arg(long, env = "TILLSTREAM_IMPORT_SETTLE_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub settle_seconds: u64,
}

/// `topics`.
#[derive(Debug, Args)]
pub struct Topics {
    /// What to do.
    #[command(subcommand)]
    pub command: TopicsCommand,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Every topic with its partitions and offsets.
    List {
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// One topic, partition by partition.
    Describe {
        /// Full or short name, such as `orders.events`.
        topic: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Prints records as they come, until interrupted.
    Tail {
        /// Full or short name, such as `orders.events`.
        topic: String,
        /// Start with the oldest record kept.
        #[arg(long, env = "TILLSTREAM_FROM_BEGINNING")]
        from_beginning: bool,
        /// One JSON object per record, whole.
        #[arg(long, env = "TILLSTREAM_JSON")]
        json: bool,
        /// Stop after this many records, or when there are no more.
        #[arg(long, env = "TILLSTREAM_TAIL_LIMIT")]
        limit: Option<u64>,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
}

/// `dlq`.
#[derive(Debug, Args)]
pub struct Dlq {
    /// What to do.
    #[command(subcommand)]
    pub command: DlqCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Dead letters, newest last.
    List {
        /// Only of this source topic (full or short name).
        #[arg(long, env = "TILLSTREAM_DLQ_TOPIC")]
        topic: Option<String>,
        /// Only with this reason: decode, stage, panic, partition, overflow, corrupt.
        #[arg(long, env = "TILLSTREAM_DLQ_REASON")]
        reason: Option<String>,
        /// At most this many.
        #[arg(long, env = "TILLSTREAM_DLQ_LIMIT", default_value_t = 100)]
        limit: u32,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// One dead letter, whole.
    Show {
        /// Its place, `topic/partition/offset`, as `list` prints it.
        #[arg(value_parser = dead_letter_place)]
        id: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Sends dead letters back to the topic they came from.
    #[command(group = ArgGroup::new("which").required(true).multiple(true).args(["id", "topic", "reason", "all"]))]
    Redrive {
        /// One, by its place as `list` prints it; without it, all that the filters match.
        #[arg(value_parser = dead_letter_place)]
        id: Option<String>,
        /// Only of this source topic.
        #[arg(long, env = "TILLSTREAM_DLQ_TOPIC")]
        topic: Option<String>,
        /// Only with this reason.
        #[arg(long, env = "TILLSTREAM_DLQ_REASON")]
        reason: Option<String>,
        /// All of them, where no filter is given.
        #[arg(long, env = "TILLSTREAM_DLQ_ALL")]
        all: bool,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
}

/// `keys`.
#[derive(Debug, Args)]
pub struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Makes a key of the caller's tenant and prints it, once.
    Create {
        /// What people call it.
        #[arg(long, env = "TILLSTREAM_KEY_NAME", default_value = "")]
        name: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// The tenant's keys; never the keys themselves.
    List {
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Revokes a key.
    Revoke {
        /// Its id, as `list` prints it.
        id: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
}

fn share(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|it| (0.0..=1.0).contains(it))
        .ok_or_else(|| format!("'{text}' is not a share from 0 to 1"))
}

/// A dead letter's place as it was given, when it has the three parts of one.
fn dead_letter_place(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        [topic, partition, offset]
            if !topic.is_empty() && partition.parse::<u32>().is_ok() && offset.parse::<u64>().is_ok() =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("'{text}' is not topic/partition/offset, as `tillstream dlq list` prints it")),
    }
}
