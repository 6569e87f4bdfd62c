//! Keeps tasks and executors running over the errors that a new life mends.

use crate::dead_letter::panic_message;
use crate::shell::{TaskPorts, is_stopped, run_task, stopped};
use crate::{Clock, Metrics, Progress, RuntimeError, TaskSettings};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tillstream_stage::task::Task;
use tillstream_state::TaskId;
use tokio::sync::watch;
use tracing::{error, warn};

/// What a life may end with.
pub trait LifeError: std::fmt::Display {
    /// Whether starting again cannot help: the process must halt.
    fn is_fatal(&self) -> bool;

    /// The life itself panicked, with these words.
    fn panicked(task: TaskId, message: &str) -> Self;
}

impl LifeError for RuntimeError {
    fn is_fatal(&self) -> bool {
        Self::is_fatal(self)
    }

    fn panicked(task: TaskId, message: &str) -> Self {
        Self::Panicked { task, message: message.to_owned() }
    }
}

/// The lives of one task or executor, one after the other.
pub struct Lives {
    /// Whose.
    pub task: TaskId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where restarts are counted.
    pub metrics: Arc<Metrics>,
    /// Where it is told how far the task is.
    pub progress: Arc<Progress>,
    /// The first wait before a new life; doubles each time one got nowhere.
    pub restart_wait: Duration,
    /// The longest such wait.
    pub restart_wait_max: Duration,
}

impl Lives {
    /// Runs `life`; after a retryable error again, waiting longer each time it got nowhere.
    ///
    /// # Errors
    /// The fatal error it ended with: the process must halt.
    pub async fn run<E: LifeError, L: Future<Output = Result<(), E>>>(
        self,
        mut shutdown: watch::Receiver<bool>,
        mut life: impl FnMut() -> L,
    ) -> Result<(), E> {
        let task = self.task;
        let restarts = self.metrics.restarts.with_label_values(&[task.kind.as_str()]);
        let mut wait = self.restart_wait;
        let mut last_offset = None;
        loop {
            let ended = AssertUnwindSafe(life()).catch_unwind().await;
            let failed = match ended.unwrap_or_else(|it| Err(E::panicked(task, panic_message(&*it)))) {
                Ok(()) => return Ok(()),
                Err(failed) if failed.is_fatal() => {
                    error!(%task, error = %failed, "the task has ended for good");
                    return Err(failed);
                }
                Err(_) if is_stopped(&shutdown) => return Ok(()),
                Err(failed) => failed,
            };
            let offset = self.progress.committed_offset(task);
            if offset != last_offset {
                wait = self.restart_wait;
                last_offset = offset;
            }
            restarts.inc();
            warn!(%task, error = %failed, wait_ms = wait.as_millis(), "the task starts again");
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => return Ok(()),
                () = self.clock.sleep(wait) => {}
            }
            wait = (wait * 2).min(self.restart_wait_max);
        }
    }
}

/// Runs the task; after a retryable error starts it again, waiting longer each time it got nowhere.
///
/// # Errors
/// The fatal error the task ended with: the process must halt.
pub async fn supervise<T: Task>(
    task: Arc<T>,
    id: TaskId,
    ports: TaskPorts,
    settings: TaskSettings,
    shutdown: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    let lives = Lives {
        task: id,
        clock: Arc::clone(&ports.clock),
        metrics: Arc::clone(&ports.metrics),
        progress: Arc::clone(&ports.progress),
        restart_wait: settings.restart_wait,
        restart_wait_max: settings.restart_wait_max,
    };
    let life = || run_task(Arc::clone(&task), id, ports.clone(), settings.clone(), shutdown.clone());
    lives.run(shutdown.clone(), life).await
}
