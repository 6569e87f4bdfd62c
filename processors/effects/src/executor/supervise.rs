//! Keeps an executor running over the errors that a new life mends.

use super::{ExecutorError, ExecutorPorts, ExecutorSettings, run_executor};
use crate::provider::PaymentProvider;
use std::sync::Arc;
use tillstream_runtime::{LifeError, Lives, TaskSettings};
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tokio::sync::watch;

impl LifeError for ExecutorError {
    fn is_fatal(&self) -> bool {
        Self::is_fatal(self)
    }

    fn panicked(task: TaskId, message: &str) -> Self {
        Self::Panicked { task, message: message.to_owned() }
    }
}

/// Runs the executor of one partition; after a retryable error (a full disk, a failed read) starts it again.
///
/// # Errors
/// The fatal error it ended with: the process must halt.
pub async fn supervise_executor(
    partition: u32,
    ports: ExecutorPorts,
    provider: Arc<dyn PaymentProvider>,
    settings: ExecutorSettings,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ExecutorError> {
    let TaskSettings { restart_wait, restart_wait_max, .. } = TaskSettings::default();
    let lives = Lives {
        task: TaskId { kind: TaskKind::Effects, partition },
        clock: Arc::clone(&ports.clock),
        metrics: Arc::clone(&ports.metrics),
        progress: Arc::clone(&ports.progress),
        restart_wait,
        restart_wait_max,
    };
    let life = || {
        let provider = Arc::clone(&provider);
        run_executor(partition, ports.clone(), provider, settings.clone(), shutdown.clone())
    };
    lives.run(shutdown.clone(), life).await
}
