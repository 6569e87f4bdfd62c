//! `sandbox`.

use super::serve::{LogFormat, share};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Options of `sandbox`.
#[derive(Debug, Args)]
pub struct Sandbox {
    /// Where the ledger is kept, in `sandbox/` of it. One process at a time may use it.
    #[arg(long, env = "TILLSTREAM_DATA_DIR", default_value = "tillstream-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address and port to serve on. It asks nobody for a key: only the deployment may reach it.
    #[arg(long, env = "TILLSTREAM_SANDBOX_LISTEN", default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Shortest latency of an answer.
    #[arg(long, env = "TILLSTREAM_SANDBOX_LATENCY_MIN_MS", default_value_t = 0)]
    pub latency_min_ms: u64,
    /// Longest latency of an answer.
    #[arg(long, env = "TILLSTREAM_SANDBOX_LATENCY_MAX_MS", default_value_t = 0)]
    pub latency_max_ms: u64,
    /// Share of authorizations it declines, 0 to 1.
    #[arg(long, env = "TILLSTREAM_SANDBOX_DECLINE_RATE", default_value_t = 0.0, value_parser = share)]
    pub decline_rate: f64,
    /// Share of calls whose reply is lost although it did what was asked, 0 to 1.
    #[arg(long, env = "TILLSTREAM_SANDBOX_LOST_REPLY_RATE", default_value_t = 0.0, value_parser = share)]
    pub lost_reply_rate: f64,
    /// Share of calls that it does not take, 0 to 1.
    #[arg(long, env = "TILLSTREAM_SANDBOX_UNAVAILABLE_RATE", default_value_t = 0.0, value_parser = share)]
    pub unavailable_rate: f64,
    /// How log lines look.
    #[arg(long, env = "TILLSTREAM_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Which log lines are written, such as `info` or `tillstream_effects=debug`.
    #[arg(long, env = "TILLSTREAM_LOG", default_value = "info")]
    pub log: String,
}
