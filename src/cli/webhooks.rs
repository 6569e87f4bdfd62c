//! How outgoing webhooks are sent.

use clap::Args;

/// Outgoing webhooks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Webhooks")]
pub struct Webhooks {
    /// Development alone: deliveries may go to private addresses, and over plain http.
    #[arg(long, env = "TILLSTREAM_WEBHOOKS_ALLOW_PRIVATE")]
    pub webhooks_allow_private: bool,
    /// Waits after each failed attempt, ms; after the last the delivery is given up. By default ten attempts within a good
    /// three days.
    #[arg(
        long,
        env = "TILLSTREAM_WEBHOOKS_RETRY_WAITS_MS",
        value_delimiter = ',',
        value_name = "WAITS",
        value_parser = clap::value_parser!(i64).range(1..=604_800_000)
    )]
    pub webhooks_retry_waits_ms: Vec<i64>,
    /// An endpoint that has only failed for so long is switched off, s.
    #[arg(long, env = "TILLSTREAM_WEBHOOKS_DISABLE_AFTER_SECONDS", default_value_t = 432_000, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub webhooks_disable_after_seconds: u64,
    /// Failures in a row after which an endpoint counts as out of service: one attempt at a time finds out whether it is
    /// back, and no delivery's attempts are used up.
    #[arg(long, env = "TILLSTREAM_WEBHOOKS_OUTAGE_AFTER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub webhooks_outage_after: u32,
    /// How long one attempt may take, ms.
    #[arg(long, env = "TILLSTREAM_WEBHOOKS_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub webhooks_timeout_ms: u64,
    /// How long the delivery log remembers, days.
    #[arg(long, env = "TILLSTREAM_WEBHOOKS_LOG_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub webhooks_log_days: u32,
}
