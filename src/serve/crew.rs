//! The workers of a process: tasks, executors, followers. One that fails for good stops everything.

use super::webhooks::Webhooks;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tillstream_effects::{
    EffectsMetrics, ExecutorPorts, ExecutorSettings, PaymentProvider, supervise_executor,
};
use tillstream_runtime::{TaskPorts, TaskSettings, supervise};
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tillstream_tasks::{AnalyticsTask, ItemTask, OrderTask};
use tillstream_webhook_sender::supervise_executor as supervise_webhooks;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::error;

/// Analytics gathers deltas for so long, so that a window is rewritten a few times a second, not per batch.
const ANALYTICS_LINGER: Duration = Duration::from_millis(100);

/// How a worker stops the whole process.
#[derive(Clone)]
pub struct Halt {
    /// Why workers stopped, for `/readyz`.
    pub reasons: Arc<Mutex<Vec<String>>>,
    /// Who, and why.
    pub channel: mpsc::UnboundedSender<(String, String)>,
}

impl Halt {
    fn tell(&self, task: String, reason: String) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{task}: {reason}"));
        // Nobody listens only once the process is ending anyway.
        let _ = self.channel.send((task, reason));
    }
}

/// Starts workers that halt the process when they end with an error.
#[derive(Clone)]
pub struct Crew {
    /// What tasks run on.
    pub ports: TaskPorts,
    /// What they are set to.
    pub settings: TaskSettings,
    /// Who performs payments.
    pub provider: Arc<dyn PaymentProvider>,
    /// What executors count.
    pub effects: EffectsMetrics,
    /// Outgoing webhooks.
    pub webhooks: Webhooks,
    /// Where they run.
    pub on: Handle,
    /// Turns true when all must stop.
    pub stopping: watch::Receiver<bool>,
    /// How they stop the process.
    pub halt: Halt,
}

impl Crew {
    /// A task's work until `stopping` turns true.
    pub fn work(&self, id: TaskId, stopping: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        self.ports.progress.register(id);
        let (ports, settings) = (self.ports.clone(), self.settings.clone());
        match id.kind {
            TaskKind::Order => {
                self.watched(id, supervise(Arc::new(OrderTask), id, ports, settings, stopping))
            }
            TaskKind::Item => self.watched(id, supervise(Arc::new(ItemTask), id, ports, settings, stopping)),
            TaskKind::Analytics => {
                // Where a commit is dear, as on a cluster, it is also made less often.
                let linger = if settings.linger.is_zero() { ANALYTICS_LINGER } else { ANALYTICS_LINGER * 5 };
                let settings = TaskSettings { linger, ..settings };
                self.watched(id, supervise(Arc::new(AnalyticsTask), id, ports, settings, stopping))
            }
            TaskKind::OrderWebhooks | TaskKind::ItemWebhooks => {
                let (ports, settings) = self.webhooks.executor(&ports);
                self.watched(id, supervise_webhooks(id, ports, settings, stopping))
            }
            TaskKind::Effects => {
                let ports = ExecutorPorts {
                    sessions: ports.sessions,
                    clock: ports.clock,
                    metrics: ports.metrics,
                    effects: self.effects.clone(),
                    progress: ports.progress,
                };
                let provider = self.provider.clone();
                let settings = ExecutorSettings {
                    gather: settings.linger,
                    pace_max: settings.pace_max,
                    ..ExecutorSettings::default()
                };
                self.watched(id, supervise_executor(id.partition, ports, provider, settings, stopping))
            }
        }
    }

    /// Work that halts the process when it fails.
    pub fn watched<E: std::fmt::Display>(
        &self,
        name: impl std::fmt::Display,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let (name, halt) = (name.to_string(), self.halt.clone());
        Box::pin(async move {
            if let Err(failure) = work.await {
                error!(task = name, error = %failure, "halting");
                halt.tell(name, failure.to_string());
            }
        })
    }

    /// Starts it.
    pub fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        self.on.spawn(work)
    }
}
