//! The partitions a group gives this process, and the tasks that run on them.

use crate::ports::Spawner;
use futures::future::{BoxFuture, join_all};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::broker::{BrokerError, GroupEvent, GroupMember};
use tillstream_runtime::Clock;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tokio::sync::{oneshot, watch};

/// Makes the work of a task that runs until its shutdown turns true.
pub type StartTask = Arc<dyn Fn(TaskId, watch::Receiver<bool>) -> BoxFuture<'static, ()> + Send + Sync>;

struct Running {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Running {
    fn stop(&self) {
        // Nobody listens only once it has ended.
        let _ = self.stop.send(true);
    }

    async fn ended(self) {
        // A dropped sender is an end too.
        let _ = self.ended.await;
    }
}

/// Runs a task on every partition the member is given, until `shutdown`; then leaves the group.
///
/// # Errors
/// When the group cannot go on.
pub async fn run_member(
    kind: TaskKind,
    member: Arc<dyn GroupMember>,
    start: StartTask,
    spawner: Arc<dyn Spawner>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), BrokerError> {
    let mut running: BTreeMap<u32, Running> = BTreeMap::new();
    let ended = loop {
        let event = tokio::select! {
            biased;
            _ = shutdown.wait_for(|it| *it) => break Ok(()),
            event = member.next_event() => event,
        };
        match event {
            GroupEvent::Assigned(partitions) => {
                tracing::info!(stage = kind.as_str(), ?partitions, "partitions assigned");
                for partition in partitions {
                    // An earlier life of this partition that was lost and not waited for must be gone first.
                    let before = running.remove(&partition);
                    running.insert(partition, begin(kind, partition, before, &start, &*spawner));
                }
            }
            GroupEvent::Revoked(partitions, release) => {
                tracing::info!(stage = kind.as_str(), ?partitions, "partitions revoked");
                stop_all(partitions.iter().filter_map(|it| running.remove(it)).collect()).await;
                drop(release);
            }
            GroupEvent::Lost(partitions) => {
                tracing::warn!(
                    stage = kind.as_str(),
                    ?partitions,
                    "partitions lost: another member has them"
                );
                for task in partitions.iter().filter_map(|it| running.get(it)) {
                    task.stop();
                }
            }
            GroupEvent::Failed(error) => break Err(error),
        }
    };
    stop_all(std::mem::take(&mut running).into_values().collect()).await;
    member.leave().await;
    ended
}

/// Runs a task's work; when it is to stop and does not within `longest`, it is dropped: it may wait for a database that is
/// away. That is the end of its life like any other, and a transaction it left open is ended by the next life.
pub async fn stopped_within(
    longest: Duration,
    task: TaskId,
    work: BoxFuture<'static, ()>,
    mut stopping: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
) {
    let overdue = async {
        // A dropped sender is a stop, too.
        let _ = stopping.wait_for(|it| *it).await;
        clock.sleep(longest).await;
    };
    tokio::select! {
        biased;
        () = work => {}
        () = overdue => tracing::warn!(%task, "it did not stop in time: what it was at is left to its next life"),
    }
}

async fn stop_all(tasks: Vec<Running>) {
    tasks.iter().for_each(Running::stop);
    join_all(tasks.into_iter().map(Running::ended)).await;
}

fn begin(
    kind: TaskKind,
    partition: u32,
    before: Option<Running>,
    start: &StartTask,
    spawner: &dyn Spawner,
) -> Running {
    let (stop, stopping) = watch::channel(false);
    let (end, ended) = oneshot::channel();
    let start = Arc::clone(start);
    spawner.spawn(Box::pin(async move {
        if let Some(before) = before {
            before.stop();
            before.ended().await;
        }
        start(TaskId { kind, partition }, stopping).await;
        // Whoever waited may be gone.
        let _ = end.send(());
    }));
    Running { stop, ended }
}
