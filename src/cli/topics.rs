//! `topics`.

use super::{Broker, Target};
use clap::{Args, Subcommand};

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
    /// Makes every topic of a cluster with its settings; says how existing ones differ, and changes none.
    Create {
        /// Partitions per topic; they cannot be changed later.
        #[arg(long, env = "TILLSTREAM_PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
        partitions: u32,
        /// Copies of each partition.
        #[arg(long, env = "TILLSTREAM_REPLICATION_FACTOR", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
        replication_factor: u32,
        /// How long topics that are not compacted keep their records.
        #[arg(long, env = "TILLSTREAM_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..))]
        retention_hours: u32,
        /// The broker.
        #[command(flatten)]
        broker: Box<Broker>,
    },
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
