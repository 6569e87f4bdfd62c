//! Keeps an executor running over the errors that a new life mends.

use super::{ExecutorPorts, ExecutorSettings, WebhooksError, run_executor, stopped};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tillstream_log::LogError;
use tillstream_state::TaskId;
use tillstream_webhooks::Source;
use tokio::sync::watch;

/// The first wait before a failed executor starts again; doubles each time it got nowhere.
const RESTART_WAIT: Duration = Duration::from_millis(100);
/// The longest such wait.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);

/// Runs the webhooks executor of one task; after a retryable error (a full disk, a failed read) starts it again.
///
/// # Errors
/// The fatal error it ended with: the process must halt.
pub async fn supervise_executor(
    task: TaskId,
    ports: ExecutorPorts,
    settings: ExecutorSettings,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), WebhooksError> {
    let Some(source) = Source::of(task.kind) else {
        return Err(LogError::Stopped(format!("{task} is no task of webhooks")).into());
    };
    let restarts = ports.metrics.restarts.with_label_values(&[task.kind.as_str()]);
    let mut wait = RESTART_WAIT;
    let mut last_offset = None;
    loop {
        let life = run_executor(task, source, &ports, &settings, shutdown.clone());
        let ended = AssertUnwindSafe(life).catch_unwind().await;
        let failed = match ended.unwrap_or(Err(WebhooksError::Panicked { task })) {
            Ok(()) => return Ok(()),
            // The registry's follower may see the shutdown first.
            Err(_) if *shutdown.borrow() => return Ok(()),
            Err(failed) if failed.is_fatal() => {
                tracing::error!(%task, error = %failed, "the webhooks executor has ended for good");
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
        tracing::warn!(%task, error = %failed, wait_ms = wait.as_millis(), "the webhooks executor starts again");
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return Ok(()),
            () = ports.clock.sleep(wait) => {}
        }
        wait = (wait * 2).min(RESTART_WAIT_MAX);
    }
}
