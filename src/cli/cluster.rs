//! How a cluster's broker and database are reached.

use super::Secret;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// The HTTP API.
    Ingest,
    /// The order tasks.
    Order,
    /// The item tasks.
    Item,
    /// The effects executors.
    Effects,
    /// The analytics tasks.
    Analytics,
    /// The webhooks executors.
    Webhooks,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Ingest, Self::Order, Self::Item, Self::Effects, Self::Analytics, Self::Webhooks];
}

/// How passwords log in at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SaslMechanism {
    /// SCRAM-SHA-256
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM-SHA-512
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
    /// PLAIN
    #[value(name = "PLAIN")]
    Plain,
}

/// The broker.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker (cluster mode)")]
pub struct Broker {
    /// Kafka-API brokers, `host:port`, several separated by commas.
    #[arg(long, env = "TILLSTREAM_BROKERS", value_name = "ADDRESSES")]
    pub brokers: Option<String>,
    /// Name of this deployment: the prefix of its consumer groups and transactional ids.
    #[arg(long, env = "TILLSTREAM_DEPLOYMENT", default_value = "tillstream", value_name = "NAME", value_parser = name)]
    pub deployment: String,
    /// Speak TLS to the broker; also on with any of the files below.
    #[arg(long, env = "TILLSTREAM_BROKER_TLS")]
    pub broker_tls: bool,
    /// PEM file of the authorities to trust for the broker, instead of the system's.
    #[arg(long, env = "TILLSTREAM_BROKER_CA_FILE", value_name = "FILE")]
    pub broker_ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate, for mutual TLS.
    #[arg(
        long,
        env = "TILLSTREAM_BROKER_CERTIFICATE_FILE",
        requires = "broker_key_file",
        value_name = "FILE"
    )]
    pub broker_certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(
        long,
        env = "TILLSTREAM_BROKER_KEY_FILE",
        requires = "broker_certificate_file",
        value_name = "FILE"
    )]
    pub broker_key_file: Option<PathBuf>,
    /// How the user logs in.
    #[arg(
        long,
        env = "TILLSTREAM_BROKER_SASL_MECHANISM",
        value_enum,
        default_value = "SCRAM-SHA-256",
        ignore_case = true
    )]
    pub broker_sasl_mechanism: SaslMechanism,
    /// User at the broker.
    #[arg(long, env = "TILLSTREAM_BROKER_USER", value_name = "USER")]
    pub broker_user: Option<String>,
    /// Its password. Others on the machine see what is on a command line: better a file, or the environment.
    #[arg(
        long,
        env = "TILLSTREAM_BROKER_PASSWORD",
        hide_env_values = true,
        requires = "broker_user",
        value_name = "PASSWORD"
    )]
    pub broker_password: Option<Secret>,
    /// File with its password; a line break at the end is none of it.
    #[arg(
        long,
        env = "TILLSTREAM_BROKER_PASSWORD_FILE",
        conflicts_with = "broker_password",
        requires = "broker_user",
        value_name = "FILE"
    )]
    pub broker_password_file: Option<PathBuf>,
    /// A worker that is silent this long loses its partitions, ms.
    #[arg(long, env = "TILLSTREAM_SESSION_TIMEOUT_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1_000..=300_000))]
    pub session_timeout_ms: u32,
    /// The broker aborts a transaction that takes longer, ms; a batch gives up before half of it is over.
    #[arg(long, env = "TILLSTREAM_TRANSACTION_TIMEOUT_MS", default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(2_000..=120_000))]
    pub transaction_timeout_ms: u32,
}

/// The database.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Database (cluster mode)")]
pub struct Database {
    /// Nodes of ScyllaDB (or Cassandra), `host:port`, several separated by commas.
    #[arg(long, env = "TILLSTREAM_SCYLLA", value_name = "ADDRESSES")]
    pub scylla: Option<String>,
    /// Keyspace; made when it is missing. One deployment per keyspace.
    #[arg(long, env = "TILLSTREAM_KEYSPACE", default_value = "tillstream", value_name = "NAME", value_parser = keyspace)]
    pub keyspace: String,
    /// Copies of each row when the keyspace is made.
    #[arg(long, env = "TILLSTREAM_SCYLLA_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub scylla_replication: u32,
    /// Database partitions per table and shard; fixed when the keyspace is made.
    #[arg(long, env = "TILLSTREAM_SCYLLA_BUCKETS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub scylla_buckets: u32,
    /// User at the database.
    #[arg(long, env = "TILLSTREAM_SCYLLA_USER", value_name = "USER")]
    pub scylla_user: Option<String>,
    /// Its password. Others on the machine see what is on a command line: better a file, or the environment.
    #[arg(
        long,
        env = "TILLSTREAM_SCYLLA_PASSWORD",
        hide_env_values = true,
        requires = "scylla_user",
        value_name = "PASSWORD"
    )]
    pub scylla_password: Option<Secret>,
    /// File with its password; a line break at the end is none of it.
    #[arg(
        long,
        env = "TILLSTREAM_SCYLLA_PASSWORD_FILE",
        conflicts_with = "scylla_password",
        requires = "scylla_user",
        value_name = "FILE"
    )]
    pub scylla_password_file: Option<PathBuf>,
    /// Speak TLS to the database; also on with any of the files below.
    #[arg(long, env = "TILLSTREAM_SCYLLA_TLS")]
    pub scylla_tls: bool,
    /// PEM file of the authorities to trust for the database, instead of the system's.
    #[arg(long, env = "TILLSTREAM_SCYLLA_CA_FILE", value_name = "FILE")]
    pub scylla_ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate, for mutual TLS.
    #[arg(
        long,
        env = "TILLSTREAM_SCYLLA_CERTIFICATE_FILE",
        requires = "scylla_key_file",
        value_name = "FILE"
    )]
    pub scylla_certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(
        long,
        env = "TILLSTREAM_SCYLLA_KEY_FILE",
        requires = "scylla_certificate_file",
        value_name = "FILE"
    )]
    pub scylla_key_file: Option<PathBuf>,
    /// Changed rows wait this long for the database, ms, so that a row that changes often is written once.
    #[arg(long, env = "TILLSTREAM_FLUSH_INTERVAL_MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub flush_interval_ms: u64,
    /// An acknowledged write is surely on disk after this long, ms: two of the database's commit-log sync periods.
    #[arg(long, env = "TILLSTREAM_DURABLE_AFTER_MS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub durable_after_ms: u64,
    /// Bytes of changed rows that may wait for the database, per task; then the task waits too.
    #[arg(long, env = "TILLSTREAM_UNFLUSHED_BYTES_MAX", default_value_t = 64 << 20)]
    pub unflushed_bytes_max: usize,
    /// Known keys held per task, so that new ones are told without asking the database; 0: always ask.
    #[arg(long, env = "TILLSTREAM_KNOWN_KEYS_MAX", default_value_t = 8_000_000)]
    pub known_keys_max: usize,
}

/// A name that consumer groups and transactional ids can begin with.
fn name(text: &str) -> Result<String, String> {
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_');
    if (1..=64).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is not 1 to 64 letters, digits, '-' and '_'"))
}

/// A keyspace's name, as CQL takes it without quotes.
fn keyspace(text: &str) -> Result<String, String> {
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
    let begins = text.starts_with(|it: char| it.is_ascii_lowercase());
    if begins && text.len() <= 48 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is not 1 to 48 small letters, digits and '_', the first a letter"))
}
