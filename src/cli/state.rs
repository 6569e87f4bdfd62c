//! `state`.

use super::{Broker, Database, SchemaRegistry};
use clap::{Args, Subcommand};
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;

/// `state`.
#[derive(Debug, Args)]
pub struct State {
    /// What to do.
    #[command(subcommand)]
    pub command: StateCommand,
}

/// The deployment whose state it is.
#[derive(Clone, Debug, Args)]
pub struct Deployment {
    /// Partitions per topic.
    #[arg(long, env = "TILLSTREAM_PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub partitions: u32,
    /// The broker.
    #[command(flatten)]
    pub broker: Broker,
    /// The database.
    #[command(flatten)]
    pub database: Database,
    /// The registry: a changelog carries its schema ids, the tables this build's.
    #[command(flatten)]
    pub registry: SchemaRegistry,
}

/// What to do with a cluster's state.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Compares every table with a replay of its changelog and names differences; exit code 1 when there are any.
    Verify {
        /// Differences named, at most.
        #[arg(long, env = "TILLSTREAM_VERIFY_DIFFERENCES", default_value_t = 100)]
        differences: usize,
        /// Also count rows as different that a running task may not have flushed yet.
        #[arg(long, env = "TILLSTREAM_VERIFY_STRICT")]
        strict: bool,
        /// The deployment.
        #[command(flatten)]
        deployment: Deployment,
    },
    /// Empties every table and fills it from the changelogs. Stop all workers first.
    Rebuild {
        /// The deployment.
        #[command(flatten)]
        deployment: Deployment,
    },
    /// Sets where a task goes on, and so gives up what lies between. Stop all workers first.
    AcceptOffsets {
        /// The task, such as `order.0`.
        #[arg(long, env = "TILLSTREAM_TASK", value_parser = task)]
        task: TaskId,
        /// `earliest`, `latest`, or an offset.
        #[arg(long, env = "TILLSTREAM_FROM", value_name = "OFFSET")]
        from: String,
        /// The deployment.
        #[command(flatten)]
        deployment: Deployment,
    },
    /// Writes a task's changelog anew from its tables, after its topic was recreated. Stop all workers first.
    AdoptChangelog {
        /// The task, such as `order.0`.
        #[arg(long, env = "TILLSTREAM_TASK", value_parser = task)]
        task: TaskId,
        /// The deployment.
        #[command(flatten)]
        deployment: Deployment,
    },
}

fn task(text: &str) -> Result<TaskId, String> {
    let parsed = text.split_once('.').and_then(|(kind, partition)| {
        let kind = TaskKind::ALL.into_iter().find(|it| it.as_str() == kind)?;
        Some(TaskId { kind, partition: partition.parse().ok()? })
    });
    parsed.ok_or_else(|| {
        format!("'{text}' is no task; one is called order.0, item.3, analytics.1 or effects.2")
    })
}
