//! Keeps an executor running over the errors that a new life mends.

use super::{ExecutorPorts, ExecutorSettings, WebhooksError, run_executor};
use std::sync::Arc;
use tillstream_log::LogError;
use tillstream_runtime::{LifeError, Lives, TaskSettings};
use tillstream_state::TaskId;
use tillstream_webhooks::Source;
use tokio::sync::watch;

impl LifeError for WebhooksError {
    fn is_fatal(&self) -> bool {
        Self::is_fatal(self)
    }

    fn panicked(task: TaskId, message: &str) -> Self {
        Self::Panicked { task, message: message.to_owned() }
    }
}

/// Runs the webhooks executor of one task; after a retryable error (a full disk, a failed read) starts it again.
///
/// # Errors
/// The fatal error it ended with: the process must halt.
pub async fn supervise_executor(
    task: TaskId,
    ports: ExecutorPorts,
    settings: ExecutorSettings,
    shutdown: watch::Receiver<bool>,
) -> Result<(), WebhooksError> {
    let Some(source) = Source::of(task.kind) else {
        return Err(LogError::Stopped(format!("{task} is no task of webhooks")).into());
    };
    let TaskSettings { restart_wait, restart_wait_max, .. } = TaskSettings::default();
    let lives = Lives {
        task,
        clock: Arc::clone(&ports.clock),
        metrics: Arc::clone(&ports.metrics),
        progress: Arc::clone(&ports.progress),
        restart_wait,
        restart_wait_max,
    };
    lives.run(shutdown.clone(), || run_executor(task, source, &ports, &settings, shutdown.clone())).await
}
