//! `dlq`.

use super::Target;
use clap::{ArgGroup, Args, Subcommand};

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
    /// Sends dead letters back to the topic they came from, with their history in headers.
    ///
    /// A command that is sent back twice is judged by its id and done once. An analytics delta only adds: its letter is
    /// sent back once and refused after. What fails again has a new letter, which the same run leaves alone.
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
        /// Letters a second, where there are many. The pipeline keeps it, for each caller.
        #[arg(long, env = "TILLSTREAM_DLQ_RATE", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
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
