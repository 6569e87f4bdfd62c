//! `serve`.

use super::{Broker, Database, Load, Role, SchemaRegistryAccess, Webhooks};
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// On a Kafka-API broker, a CQL database and a schema registry, in as many processes as there are.
    Cluster,
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
    /// Origins whose pages may call from a browser (CORS), such as `https://shop.example`; none by default.
    #[arg(long, env = "TILLSTREAM_CORS_ORIGINS", value_delimiter = ',', value_parser = origin, value_name = "ORIGINS")]
    pub cors_origins: Vec<String>,
    /// How long the head of a request may take to arrive, and a connection may idle.
    #[arg(long, env = "TILLSTREAM_HTTP_HEAD_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub http_head_timeout_ms: u64,
    /// Most connections at a time; others wait.
    #[arg(long, env = "TILLSTREAM_HTTP_CONNECTIONS_MAX", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub http_connections_max: u32,
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
    /// Where compiled rules are kept; left out: `rules` in the data dir. What is lost here is compiled again.
    #[arg(long, env = "TILLSTREAM_RULES_DIR", value_name = "DIR")]
    pub rules_dir: Option<PathBuf>,
    /// Where backtests are kept; left out: `backtests` in the data dir. Processes that share it show each other's, and any of
    /// them can go on with one whose process has ended.
    #[arg(long, env = "TILLSTREAM_BACKTESTS_DIR", value_name = "DIR")]
    pub backtests_dir: Option<PathBuf>,
    /// Units of fuel per second that the rules of one tenant may use in this process before they fall back.
    #[arg(long, env = "TILLSTREAM_RULE_FUEL_PER_SECOND", default_value_t = 400_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rule_fuel_per_second: u64,
    /// Worker threads for tasks; 0: one per core.
    #[arg(long, env = "TILLSTREAM_THREADS", default_value_t = 0)]
    pub threads: usize,
    /// URL of a sandbox provider that `tillstream sandbox` serves, which then has the settings of its own command. All
    /// workers of a cluster must ask one; without it the ledger is in the data dir, and this process's alone.
    #[arg(long, env = "TILLSTREAM_SANDBOX_URL", value_name = "URL")]
    pub sandbox_url: Option<String>,
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
    /// What the door refuses.
    #[command(flatten)]
    pub load: Load,
    /// What this process does on a cluster; all by default.
    #[arg(long, env = "TILLSTREAM_ROLES", value_enum, value_delimiter = ',', value_name = "ROLES")]
    pub roles: Vec<Role>,
    /// The broker.
    #[command(flatten)]
    pub broker: Broker,
    /// The database.
    #[command(flatten)]
    pub database: Database,
    /// URL of the schema registry's Confluent API.
    #[arg(long, env = "TILLSTREAM_SCHEMA_REGISTRY", value_name = "URL")]
    pub schema_registry: Option<String>,
    /// How to get into it.
    #[command(flatten)]
    pub registry_access: SchemaRegistryAccess,
    /// Outgoing webhooks.
    #[command(flatten)]
    pub webhooks: Webhooks,
    /// How log lines look.
    #[arg(long, env = "TILLSTREAM_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Which log lines are written, such as `info` or `tillstream_runtime=debug`.
    #[arg(long, env = "TILLSTREAM_LOG", default_value = "info")]
    pub log: String,
}

impl Serve {
    /// What this process does. A role that is named twice is one: two members of a process in one group would share its
    /// partitions out between them, and the tasks of one would wait for ever.
    pub fn roles(&self) -> Vec<Role> {
        let all = self.mode == Mode::Embedded || self.roles.is_empty();
        Role::ALL.into_iter().filter(|it| all || self.roles.contains(it)).collect()
    }
}

fn origin(text: &str) -> Result<String, String> {
    tillstream_ingest_api::parse_origin(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|it| (0.0..=1.0).contains(it))
        .ok_or_else(|| format!("'{text}' is not a share from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command, Role};
    use clap::Parser;

    #[test]
    fn a_role_that_is_named_twice_is_one() {
        let words = ["tillstream", "serve", "--mode", "cluster", "--roles", "item,order,item"];
        let Command::Serve(serve) = Cli::parse_from(words).command else { panic!("another command") };
        assert_eq!(serve.roles(), [Role::Order, Role::Item]);
    }
}
