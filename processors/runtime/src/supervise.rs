//! Keeps a task running over the errors that a new life mends.

use crate::dead_letter::panic_message;
use crate::shell::{TaskPorts, is_stopped, run_task, stopped};
use crate::{RuntimeError, TaskSettings};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tillstream_stage::task::Task;
use tillstream_state::TaskId;
use tokio::sync::watch;
use tracing::{error, warn};

/// Runs the task; after a retryable error starts it again, waiting longer each time it got nowhere.
///
/// # Errors
/// The fatal error the task ended with: the process must halt.
pub async fn supervise<T: Task>(
    task: Arc<T>,
    id: TaskId,
    ports: TaskPorts,
    settings: TaskSettings,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    let clock = Arc::clone(&ports.clock);
    let restarts = ports.metrics.restarts.with_label_values(&[id.kind.as_str()]);
    let mut wait = settings.restart_wait;
    let mut last_offset = None;
    loop {
        let life = run_task(Arc::clone(&task), id, ports.clone(), settings.clone(), shutdown.clone());
        let ended = AssertUnwindSafe(life).catch_unwind().await.unwrap_or_else(|payload| {
            Err(RuntimeError::Panicked { task: id, message: panic_message(&*payload).to_owned() })
        });
        let failed = match ended {
            Ok(()) => return Ok(()),
            Err(failed) if failed.is_fatal() => {
                error!(task = %id, error = %failed, "the task has ended for good");
                return Err(failed);
            }
            Err(_) if is_stopped(&shutdown) => return Ok(()),
            Err(failed) => failed,
        };
        let offset = ports.progress.committed_offset(id);
        if offset != last_offset {
            wait = settings.restart_wait;
            last_offset = offset;
        }
        restarts.inc();
        warn!(task = %id, error = %failed, wait_ms = wait.as_millis(), "the task starts again");
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return Ok(()),
            () = clock.sleep(wait) => {}
        }
        wait = (wait * 2).min(settings.restart_wait_max);
    }
}
