//! `state` and `topics create`: what operators do to a cluster itself.

use crate::cli::{Broker, Deployment, StateCommand};
use crate::cluster::{self, ClusterError, Connections};
use crate::output::line;
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use std::sync::Arc;
use tillstream_cluster::{
    ClusterMetrics, ClusterPorts, From, NodeWatch, RebuildProgress, TokioSpawner, Verified, accept_offsets,
    adopt_changelog, rebuild, verify,
};
use tillstream_kafka::{KafkaAdmin, TopicsSpec};
use tillstream_log::LogError;
use tillstream_runtime::{Clock, Metrics, SystemClock};
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;

/// `topics create`.
pub async fn create_topics(
    broker: &Broker,
    partitions: u32,
    replication: u32,
    retention_hours: u32,
) -> Result<ExitCode, ClusterError> {
    let mut wanted = TopicsSpec::new(partitions, replication);
    wanted.retention_ms = i64::from(retention_hours) * 3_600_000;
    let admin = KafkaAdmin::new(&cluster::kafka_settings(broker)?)?;
    // What is there and differs is told before anything is made.
    let differences = admin.check_topics(&wanted).await?;
    let (missing, other): (Vec<_>, Vec<_>) = differences.into_iter().partition(|it| it.setting == "topic");
    if !other.is_empty() {
        for it in &other {
            line(it);
        }
        let named = format!("{} settings differ, and nothing was changed", other.len());
        return Err(ClusterError::Topics(named));
    }
    let created = admin.create_topics(&wanted).await?;
    for topic in &created {
        line(format_args!("created {topic} with {partitions} partitions"));
    }
    let there = wanted.topics.len() - created.len();
    line(format_args!("{} topics created, {there} were there and are as they must be", created.len()));
    if missing.len() > created.len() {
        line("another process has made some of them meanwhile");
    }
    Ok(ExitCode::SUCCESS)
}

async fn ports(deployment: &Deployment) -> Result<(ClusterPorts, Connections), ClusterError> {
    let registry = crate::schemas::connect(&deployment.registry.url, &deployment.registry.access)?;
    let ids = Arc::new(registry.resolve().await?);
    let made = cluster::connect(&deployment.broker, &deployment.database, deployment.partitions, ids).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Metrics::new().map_err(|error| LogError::Stopped(error.to_string()))?;
    let counters =
        ClusterMetrics::register(&metrics).map_err(|error| LogError::Stopped(error.to_string()))?;
    let ports = ClusterPorts {
        broker: made.broker.clone(),
        nodes: NodeWatch::begin(&*made.rows, &*clock).await?,
        rows: made.rows.clone(),
        clock,
        spawner: Arc::new(TokioSpawner(tokio::runtime::Handle::current())),
        metrics: Arc::new(counters),
        settings: Arc::new(made.settings.clone()),
    };
    Ok((ports, made))
}

/// Nobody may work on what is being repaired.
async fn check_idle(made: &Connections, kinds: &[TaskKind]) -> Result<(), ClusterError> {
    for kind in kinds {
        let group = made.settings.group(*kind);
        let members = made.broker.group_members(&group).await?;
        if members > 0 {
            return Err(ClusterError::Working { group, members });
        }
    }
    Ok(())
}

/// `state`.
pub async fn run(command: StateCommand) -> Result<ExitCode, ClusterError> {
    match command {
        StateCommand::Verify { differences, strict, deployment } => {
            run_verify(&deployment, differences, strict).await
        }
        StateCommand::Rebuild { deployment } => run_rebuild(&deployment).await,
        StateCommand::AcceptOffsets { task, from, deployment } => {
            let from = match from.as_str() {
                "earliest" => From::Earliest,
                "latest" => From::Latest,
                other => From::Offset(other.parse().map_err(|_| ClusterError::From(from.clone()))?),
            };
            let (ports, made) = ports(&deployment).await?;
            check_idle(&made, &[task.kind]).await?;
            let accepted = accept_offsets(&ports, task, from).await?;
            let before = accepted.before.map_or("nowhere".to_owned(), |it| it.to_string());
            line(format_args!(
                "{task} stood at {before} and goes on from {} ({}..{} is there)",
                accepted.offset, accepted.start, accepted.end
            ));
            Ok(ExitCode::SUCCESS)
        }
        StateCommand::AdoptChangelog { task, deployment } => {
            let (ports, made) = ports(&deployment).await?;
            check_idle(&made, &[task.kind]).await?;
            let written = adopt_changelog(&ports, task).await?;
            line(format_args!("{written} rows and timers of {task} were written to its changelog"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run_rebuild(deployment: &Deployment) -> Result<ExitCode, ClusterError> {
    let (ports, made) = ports(deployment).await?;
    check_idle(&made, &TaskKind::ALL).await?;
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} records, {elapsed}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut task_shown = None;
    let written = rebuild(&ports, |it: RebuildProgress| {
        if task_shown != Some(it.task) {
            task_shown = Some(it.task);
            tracing::info!(task = %it.task, done = it.tasks_done, tasks = it.tasks, written = it.written, "rebuilding");
            bar.set_message(format!("{} ({} of {})", it.task, it.tasks_done + 1, it.tasks));
        }
        bar.set_length(it.end);
        bar.set_position(it.offset);
    })
    .await?;
    bar.finish_and_clear();
    line(format_args!("{written} rows and timers were written; `tillstream state verify` compares them"));
    Ok(ExitCode::SUCCESS)
}

async fn run_verify(
    deployment: &Deployment,
    differences_max: usize,
    strict: bool,
) -> Result<ExitCode, ClusterError> {
    let (ports, _made) = ports(deployment).await?;
    let mut all = Verified::default();
    for kind in TaskKind::ALL.into_iter().filter(|it| it.changelog().is_some()) {
        for partition in 0..deployment.partitions {
            let task = TaskId { kind, partition };
            let found = verify(&ports, task, differences_max).await?;
            line(format_args!(
                "{:<14} {:>10} alike {:>8} different {:>8} not flushed yet",
                task.to_string(),
                found.alike,
                found.different,
                found.unflushed
            ));
            for it in found.differences.iter().take(differences_max.saturating_sub(all.differences.len())) {
                line(format_args!("  {it}"));
            }
            all.alike += found.alike;
            all.different += found.different;
            all.unflushed += found.unflushed;
            all.differences.extend(found.differences);
        }
    }
    let wrong = all.different + if strict { all.unflushed } else { 0 };
    line(format_args!("{} alike, {} different, {} not flushed yet", all.alike, all.different, all.unflushed));
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
