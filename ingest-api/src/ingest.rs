//! What every call needs: log, state, keys, and how far the tasks are.

use crate::access::{ApiKeys, Rates};
use crate::in_flight::InFlight;
use crate::limiter::Limiter;
use crate::observe::HttpMetrics;
use crate::overload::{LoadBounds, Overload};
use crate::ports::{Backtests, OrderEventsHub, ProductsInForce, Progress, Rules, SandboxControl};
use crate::problem::{Code, Problem};
use crate::streams::Streams;
use crate::webhooks::Webhooks;
use prometheus::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tillstream_log::{Log, LogError, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_schemas::Text;
use tillstream_stage::task::TaskKind;
use tillstream_state::{Health, State, TaskId};

/// The tasks whose inputs this crate writes or whose rows it reads.
const TASKS: [TaskKind; 3] = [TaskKind::Order, TaskKind::Item, TaskKind::Analytics];

/// What [`Ingest`] is made of.
pub struct Parts {
    /// Where commands go.
    pub log: Arc<dyn Log>,
    /// Where rows are read.
    pub state: Arc<dyn State>,
    /// API keys.
    pub keys: ApiKeys,
    /// Whether the store takes writes.
    pub health: Arc<dyn Health>,
    /// Live events of orders.
    pub order_events: Arc<dyn OrderEventsHub>,
    /// The catalog as pricing sees it.
    pub products: Arc<dyn ProductsInForce>,
    /// How far the tasks are.
    pub progress: Arc<dyn Progress>,
    /// The sandbox provider, if payments go to it.
    pub sandbox: Option<Arc<dyn SandboxControl>>,
    /// Rules, if this process runs any.
    pub rules: Option<Arc<dyn Rules>>,
    /// Backtests, where rules run.
    pub backtests: Option<Arc<dyn Backtests>>,
    /// Webhook endpoints.
    pub webhooks: Arc<dyn Webhooks>,
    /// What `/metrics` shows; the HTTP metrics are registered here.
    pub registry: Registry,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// What is refused past which bound.
    pub bounds: Bounds,
    /// The tenant of whoever runs this deployment: it also sees dead letters that are no tenant's.
    pub operator_tenant: Option<Text>,
    /// Whether a row may be older than an event of its order that was already read, as on a cluster.
    pub rows_follow_the_log: bool,
}

/// What is refused past which bound.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// New work, by load.
    pub load: LoadBounds,
    /// Streams of events that one tenant may have open.
    pub streams_per_tenant: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { load: LoadBounds::default(), streams_per_tenant: 100 }
    }
}

/// The state of the HTTP door.
pub struct Ingest {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) state: Arc<dyn State>,
    pub(crate) keys: ApiKeys,
    pub(crate) health: Arc<dyn Health>,
    pub(crate) order_events: Arc<dyn OrderEventsHub>,
    pub(crate) products: Arc<dyn ProductsInForce>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) sandbox: Option<Arc<dyn SandboxControl>>,
    pub(crate) rules: Option<Arc<dyn Rules>>,
    pub(crate) backtests: Option<Arc<dyn Backtests>>,
    pub(crate) webhooks: Arc<dyn Webhooks>,
    pub(crate) registry: Registry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limiter: Limiter,
    pub(crate) rates: Rates,
    /// Modules that tenants sent.
    pub(crate) uploads: Rates,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) metrics: HttpMetrics,
    pub(crate) operator_tenant: Option<Text>,
    pub(crate) rows_follow_the_log: bool,
    pub(crate) streams: Arc<Streams>,
    pub(crate) overload: Overload,
    /// Held while dead letters that must not be sent back twice are.
    pub(crate) redriving: tokio::sync::Mutex<()>,
    inputs: Vec<Input>,
    caught_up: AtomicBool,
    lag_records_max: u64,
}

/// One input partition of a task.
struct Input {
    task: TaskId,
    /// Its end when this process started.
    end_at_start: u64,
    /// Its end as far as this process has written.
    end_seen: AtomicU64,
}

impl Ingest {
    /// Puts the parts together and notes where the log ends: tasks must get there before commands are taken.
    ///
    /// # Errors
    /// The log's, or [`LogError::Io`] when the metrics are registered already.
    pub fn new(parts: Parts) -> Result<Self, LogError> {
        let mut inputs = Vec::new();
        for kind in TASKS {
            for partition in 0..parts.log.partitions(kind.input()) {
                let end = parts.log.end_offset(TopicPartition::new(kind.input(), partition))?;
                let task = TaskId { kind, partition };
                inputs.push(Input { task, end_at_start: end, end_seen: AtomicU64::new(end) });
            }
        }
        let failed = |error: prometheus::Error| LogError::Io(error.to_string());
        let metrics = HttpMetrics::register(&parts.registry).map_err(failed)?;
        let streams = Streams::new(&parts.registry, parts.bounds.streams_per_tenant).map_err(failed)?;
        let overload = Overload::new(&parts.registry, parts.bounds.load).map_err(failed)?;
        Ok(Self {
            log: parts.log,
            state: parts.state,
            keys: parts.keys,
            health: parts.health,
            order_events: parts.order_events,
            products: parts.products,
            progress: parts.progress,
            sandbox: parts.sandbox,
            rules: parts.rules,
            backtests: parts.backtests,
            webhooks: parts.webhooks,
            registry: parts.registry,
            clock: parts.clock,
            limiter: Limiter::default(),
            rates: Rates::default(),
            uploads: Rates::default(),
            in_flight: InFlight::new(),
            metrics,
            operator_tenant: parts.operator_tenant,
            rows_follow_the_log: parts.rows_follow_the_log,
            streams,
            overload,
            redriving: tokio::sync::Mutex::default(),
            inputs,
            caught_up: AtomicBool::new(false),
            lag_records_max: parts.bounds.load.order_lag_records,
        })
    }

    /// Ends every stream of events, and resolves once they have ended.
    pub async fn drain_streams(&self) {
        self.streams.drain().await;
    }

    /// API keys, for start-up and the command line.
    pub fn keys(&self) -> &ApiKeys {
        &self.keys
    }

    /// Whether the tasks have read everything that was in the log at the start. Once true, it stays so.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire) || self.behind().is_empty()
    }

    /// Tasks that have not read what was there at the start.
    pub(crate) fn behind(&self) -> Vec<TaskId> {
        if self.caught_up.load(Ordering::Acquire) {
            return Vec::new();
        }
        let waits = |it: &&Input| !self.progress.has_committed(it.task, it.end_at_start);
        let behind: Vec<TaskId> = self.inputs.iter().filter(waits).map(|it| it.task).collect();
        if behind.is_empty() {
            self.caught_up.store(true, Ordering::Release);
        }
        behind
    }

    /// Whether a command can be judged now: what an earlier life accepted must be readable.
    ///
    /// # Errors
    /// 503 until the tasks have caught up.
    pub(crate) fn check_ready(&self) -> Result<(), Problem> {
        if self.is_caught_up() {
            return Ok(());
        }
        let detail = "the tasks have not caught up with the log since the start; see /readyz";
        Err(Problem::new(Code::NotReady, detail).retry_after(1))
    }

    /// Whether a task's partition lags more than `times` its share of the bound behind the log.
    pub(crate) fn lags(&self, task: TaskId, times: u64) -> bool {
        let Some(input) = self.inputs.iter().find(|it| it.task == task) else { return false };
        let partitions = u64::from(self.log.partitions(task.kind.input()).max(1));
        let end = input.end_seen.load(Ordering::Relaxed);
        let bound = end.saturating_sub(self.lag_records_max * times / partitions);
        bound > 0 && !self.progress.has_committed(task, bound)
    }

    /// Notes how far an input partition was written.
    pub(crate) fn saw_end(&self, task: TaskId, end: u64) {
        if let Some(input) = self.inputs.iter().find(|it| it.task == task) {
            input.end_seen.fetch_max(end, Ordering::Relaxed);
        }
    }
}
