//! `topics`.

use super::Target;
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
