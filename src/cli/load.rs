//! What the HTTP door refuses past which bound.

use clap::Args;

/// Bounds of the door.
#[derive(Debug, Args)]
pub struct Load {
    /// New work is refused (503) while more commands than this wait for all order tasks together.
    #[arg(long, env = "TILLSTREAM_ORDER_LAG_RECORDS_MAX", default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub order_lag_records_max: u64,
    /// The same for the item tasks.
    #[arg(long, env = "TILLSTREAM_ITEM_LAG_RECORDS_MAX", default_value_t = 800_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub item_lag_records_max: u64,
    /// The same for payments that wait for their provider.
    #[arg(long, env = "TILLSTREAM_EFFECTS_LAG_RECORDS_MAX", default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub effects_lag_records_max: u64,
    /// The same for the analytics tasks, whose records hold a whole batch each.
    #[arg(long, env = "TILLSTREAM_ANALYTICS_LAG_RECORDS_MAX", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub analytics_lag_records_max: u64,
    /// New work is refused while this process has more memory than this, MiB; 0: four fifths of what the machine (or
    /// its cgroup) has.
    #[arg(long, env = "TILLSTREAM_MEMORY_MAX_MIB", default_value_t = 0)]
    pub memory_max_mib: u64,
    /// Streams of events (SSE and WebSocket) that one tenant may have open in this process; more get 429.
    #[arg(long, env = "TILLSTREAM_STREAMS_PER_TENANT_MAX", default_value_t = 100)]
    pub streams_per_tenant_max: u32,
}
