//! Keeps an executor running over the errors that a new life mends.

use super::{ExecutorError, ExecutorPorts, ExecutorSettings, run_executor, stopped};
use crate::provider::PaymentProvider;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tokio::sync::watch;

/// The first wait before a failed executor starts again; doubles each time it got nowhere.
const RESTART_WAIT: Duration = Duration::from_millis(100);
/// The longest such wait.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);

/// Runs the executor of one partition; after a retryable error (a full disk, a failed read) starts it again.
///
/// # Errors
/// The fatal error it ended with: the process must halt.
pub async fn supervise_executor(
    partition: u32,
    ports: ExecutorPorts,
    provider: Arc<dyn PaymentProvider>,
    settings: ExecutorSettings,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ExecutorError> {
    let task = TaskId { kind: TaskKind::Effects, partition };
    let restarts = ports.metrics.restarts.with_label_values(&[super::STAGE]);
    let mut wait = RESTART_WAIT;
    let mut last_offset = None;
    loop {
        let life =
            run_executor(partition, ports.clone(), Arc::clone(&provider), settings.clone(), shutdown.clone());
        let ended = AssertUnwindSafe(life).catch_unwind().await;
        let failed = match ended.unwrap_or(Err(ExecutorError::Panicked { task })) {
            Ok(()) => return Ok(()),
            Err(failed) if failed.is_fatal() => {
                tracing::error!(%task, error = %failed, "the executor has ended for good");
                return Err(failed);
            }
            Err(failed) => failed,
        };
        let offset = ports.progress.committed_offset(task);
        if offset != last_offset {
            wait = RESTART_WAIT;
            last_offset = offset;
        }
        restarts.inc();
        tracing::warn!(%task, error = %failed, wait_ms = wait.as_millis(), "the executor starts again");
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return Ok(()),
            () = ports.clock.sleep(wait) => {}
        }
        wait = (wait * 2).min(RESTART_WAIT_MAX);
    }
}
