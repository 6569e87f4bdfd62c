//! The drain: N orders stand in the log before the tasks start; then the whole chain runs in this process.
//!
//! Timed from the start of the tasks until the last order is paid for; CPU until every task has read its input to the
//! end, so that the work behind an order (its stock sold, its revenue counted) is in the figure.

use crate::BenchError;
use crate::generator::Generator;
use crate::process::{Usage, machine_cpu_seconds, threads, usage};
use crate::report::{Report, progress, rounded};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tillstream_effects::{
    BreakerSettings, EffectsMetrics, ExecutorPorts, ExecutorSettings, GuardedProvider, PaymentProvider,
    SandboxProvider, SandboxSettings, supervise_executor,
};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_runtime::{
    CatalogCache, CatalogPorts, CatalogSettings, Clock, Metrics, Progress, SystemClock, TaskPorts,
    TaskSettings, supervise,
};
use tillstream_schemas::codec::{self, Wire};
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::key;
use tillstream_stage::partition::partition_of;
use tillstream_stage::rule::NoRules;
use tillstream_stage::task::{Task, TaskKind};
use tillstream_state::{Shared, TaskId};
use tillstream_tasks::{AnalyticsTask, ItemTask, OrderTask};
use tokio::sync::{mpsc, watch};

mod figures;
mod verify;

/// Records of one append while loading.
const APPEND_RECORDS: usize = 2_000;
/// Appends under way while loading.
const APPENDS_AHEAD: usize = 4;
/// As `serve` does: deltas are gathered so long.
const ANALYTICS_LINGER: Duration = Duration::from_millis(100);
/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A run that takes longer has hung.
const DRAIN_MAX: Duration = Duration::from_secs(900);

/// What to drain.
#[derive(Clone, Debug)]
pub struct DrainSettings {
    /// Orders.
    pub orders: u64,
    /// SKUs of each tenant.
    pub skus: usize,
    /// Seed of the workload.
    pub seed: u64,
    /// Partitions per topic.
    pub partitions: u32,
    /// Records per batch, at most.
    pub batch_records_max: usize,
    /// Approximate bytes of decoded rows one task keeps between batches.
    pub cache_bytes_max: usize,
    /// Where the store is made; a fresh temporary directory when absent.
    pub dir: Option<PathBuf>,
}

/// The pipeline in this process.
struct House {
    store: Arc<EmbeddedStore>,
    sandbox: Arc<SandboxProvider>,
    provider: Arc<dyn PaymentProvider>,
    effects: EffectsMetrics,
    ports: TaskPorts,
    batch: TaskSettings,
    partitions: u32,
    stop: watch::Sender<bool>,
    failed: mpsc::UnboundedSender<String>,
    failures: mpsc::UnboundedReceiver<String>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl House {
    fn open(dir: &Path, settings: &DrainSettings) -> Result<Self, BenchError> {
        let store = EmbeddedStore::open(EmbeddedSettings {
            partitions: settings.partitions,
            ..EmbeddedSettings::new(dir.join("store"))
        })
        .map_err(BenchError::pipeline)?;
        let sandbox = SandboxSettings::new(dir.join("sandbox"));
        let sandbox = Arc::new(SandboxProvider::open(sandbox).map_err(BenchError::pipeline)?);
        let metrics = Arc::new(Metrics::new().map_err(BenchError::pipeline)?);
        let effects = EffectsMetrics::register(&metrics.registry).map_err(BenchError::pipeline)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let catalog = CatalogPorts {
            follower: store.clone(),
            log: store.clone(),
            state: store.clone(),
            clock: Arc::clone(&clock),
        };
        let catalog = CatalogCache::new(catalog, CatalogSettings::default());
        let provider = Arc::new(GuardedProvider::new(
            sandbox.clone(),
            BreakerSettings::default(),
            Duration::from_secs(30),
            Arc::clone(&clock),
            &effects,
        ));
        let ports = TaskPorts {
            sessions: Arc::new(Shared(store.clone())),
            catalog: Some(catalog.map_err(BenchError::pipeline)?),
            rules: Arc::new(NoRules),
            metrics,
            clock,
            progress: Arc::new(Progress::new()),
        };
        let (failed, failures) = mpsc::unbounded_channel();
        Ok(Self {
            store,
            sandbox,
            provider,
            effects,
            ports,
            batch: TaskSettings {
                records_max: settings.batch_records_max,
                cache_bytes_max: settings.cache_bytes_max,
                ..TaskSettings::default()
            },
            partitions: settings.partitions,
            stop: watch::Sender::new(false),
            failed,
            failures,
            workers: Vec::new(),
        })
    }

    fn spawn<E: std::fmt::Display>(&mut self, work: impl Future<Output = Result<(), E>> + Send + 'static) {
        let failed = self.failed.clone();
        self.workers.push(tokio::spawn(async move {
            if let Err(error) = work.await {
                let _ = failed.send(error.to_string());
            }
        }));
    }

    fn start_task<T: Task>(&mut self, make: impl Fn() -> T, kind: TaskKind, linger: Duration) {
        for partition in 0..self.partitions {
            let id = TaskId { kind, partition };
            self.ports.progress.register(id);
            let settings = TaskSettings { linger, ..self.batch.clone() };
            let task = supervise(Arc::new(make()), id, self.ports.clone(), settings, self.stop.subscribe());
            self.spawn(task);
        }
    }

    fn start_catalog(&mut self) {
        if let Some(catalog) = self.ports.catalog.clone() {
            let stopping = self.stop.subscribe();
            self.spawn(async move { catalog.run_follower(stopping).await });
        }
    }

    fn start_effects(&mut self) {
        for partition in 0..self.partitions {
            self.ports.progress.register(TaskId { kind: TaskKind::Effects, partition });
            let ports = ExecutorPorts {
                sessions: Arc::clone(&self.ports.sessions),
                clock: Arc::clone(&self.ports.clock),
                metrics: Arc::clone(&self.ports.metrics),
                effects: self.effects.clone(),
                progress: Arc::clone(&self.ports.progress),
            };
            let (provider, stopping) = (Arc::clone(&self.provider), self.stop.subscribe());
            let settings = ExecutorSettings::default();
            self.spawn(supervise_executor(partition, ports, provider, settings, stopping));
        }
    }

    /// An error when a task has ended for good, or time is over.
    fn check(&mut self, deadline_ns: u64) -> Result<(), BenchError> {
        if let Ok(failure) = self.failures.try_recv() {
            return Err(BenchError::Pipeline(failure));
        }
        if self.ports.clock.monotonic_ns() > deadline_ns {
            let statuses = self.ports.progress.statuses(&*self.store).map_err(BenchError::pipeline)?;
            return Err(BenchError::Pipeline(format!("it has hung: {statuses:?}")));
        }
        Ok(())
    }

    fn is_idle(&self) -> Result<bool, BenchError> {
        let ends = self.ports.progress.ends(&*self.store).map_err(BenchError::pipeline)?;
        Ok(self.ports.progress.caught_up_with(&ends))
    }

    async fn wait_idle(&mut self, deadline_ns: u64) -> Result<(), BenchError> {
        while !self.is_idle()? {
            self.check(deadline_ns)?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn orders_paid(&self) -> u64 {
        self.ports.metrics.order_seconds.with_label_values(&["paid"]).get_sample_count()
    }

    async fn stop(self) -> Result<(), BenchError> {
        self.stop.send_replace(true);
        for worker in self.workers {
            worker.await.map_err(BenchError::pipeline)?;
        }
        self.store.close().await.map_err(BenchError::pipeline)
    }
}

/// Appends records in chunks, some of them at a time.
struct Loader<'a> {
    store: &'a EmbeddedStore,
    chunk: Vec<NewRecord>,
    under_way: FuturesUnordered<BoxFuture<'a, Result<(), tillstream_log::LogError>>>,
}

impl<'a> Loader<'a> {
    fn new(store: &'a EmbeddedStore) -> Self {
        Self { store, chunk: Vec::with_capacity(APPEND_RECORDS), under_way: FuturesUnordered::new() }
    }

    async fn put<T: Wire>(
        &mut self,
        topic: Topic,
        tenant: &str,
        rest: &str,
        value: &T,
    ) -> Result<(), BenchError> {
        let key = key(tenant, rest);
        let partition = partition_of(key.as_bytes(), self.store.partitions(topic));
        self.chunk.push(NewRecord {
            to: TopicPartition::new(topic, partition),
            key: bytes::Bytes::copy_from_slice(key.as_bytes()),
            value: codec::encode(value).map_err(BenchError::pipeline)?.into(),
            headers: Headers::new(),
        });
        if self.chunk.len() == APPEND_RECORDS {
            self.flush(APPENDS_AHEAD).await?;
        }
        Ok(())
    }

    /// Appends what is gathered, and waits until fewer than `ahead` appends are under way.
    async fn flush(&mut self, ahead: usize) -> Result<(), BenchError> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(APPEND_RECORDS));
        if !chunk.is_empty() {
            self.under_way.push(self.store.append(chunk));
        }
        while self.under_way.len() >= ahead.max(1) {
            let Some(ended) = self.under_way.next().await else { break };
            ended.map_err(BenchError::pipeline)?;
        }
        Ok(())
    }
}

async fn load_items(house: &mut House, generator: &Generator, deadline_ns: u64) -> Result<(), BenchError> {
    let now_ms = house.ports.clock.now_ms();
    let tenants: Vec<Text> = generator.tenants().to_vec();
    let mut loader = Loader::new(&house.store);
    for tenant in &tenants {
        for sku in generator.skus() {
            for command in generator.item_commands(tenant, sku, now_ms) {
                loader.put(Topic::ItemCommands, tenant, sku, &command).await?;
            }
        }
    }
    loader.flush(1).await?;
    drop(loader);
    house.wait_idle(deadline_ns).await
}

async fn load_orders(house: &House, generator: &Generator, orders: u64) -> Result<(), BenchError> {
    let now_ms = house.ports.clock.now_ms();
    let mut loader = Loader::new(&house.store);
    for index in 0..orders {
        let command = generator.order(index).into_command(now_ms);
        loader.put(Topic::OrderCommands, &command.tenant, &command.order_id, &command).await?;
    }
    loader.flush(1).await
}

/// Where the counters stood.
struct Mark {
    at_ns: u64,
    usage: Usage,
    machine_cpu_seconds: f64,
    threads: BTreeMap<String, f64>,
    store_groups: u64,
    sandbox_groups: u64,
    figures: BTreeMap<String, f64>,
}

impl Mark {
    fn now(house: &House) -> Result<Self, BenchError> {
        let pid = std::process::id();
        Ok(Self {
            at_ns: house.ports.clock.monotonic_ns(),
            usage: usage(pid)?,
            machine_cpu_seconds: machine_cpu_seconds()?,
            threads: threads(pid)?,
            store_groups: house.store.groups_committed(),
            sandbox_groups: house.sandbox.groups_committed(),
            figures: figures::read(&house.ports.metrics),
        })
    }
}

/// Loads, drains, verifies, and prints the report.
pub async fn run(settings: DrainSettings) -> Result<(), BenchError> {
    let temporary = match &settings.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .map_err(BenchError::io("a directory for the store"))?;
    let generator = Generator::new(settings.seed, settings.skus);
    let mut house = House::open(temporary.path(), &settings)?;
    let deadline_ns = house.ports.clock.deadline(DRAIN_MAX);
    house.start_catalog();
    house.start_task(|| ItemTask, TaskKind::Item, Duration::ZERO);
    progress(&format!("loading {} products", generator.tenants().len() * generator.skus().len()));
    load_items(&mut house, &generator, deadline_ns).await?;
    progress(&format!("appending {} orders", settings.orders));
    load_orders(&house, &generator, settings.orders).await?;

    progress("draining");
    let before = Mark::now(&house)?;
    house.start_task(|| OrderTask, TaskKind::Order, Duration::ZERO);
    house.start_task(|| AnalyticsTask, TaskKind::Analytics, ANALYTICS_LINGER);
    house.start_effects();
    while house.orders_paid() < settings.orders {
        house.check(deadline_ns)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let paid_ns = house.ports.clock.monotonic_ns();
    house.wait_idle(deadline_ns).await?;
    let after = Mark::now(&house)?;

    progress("verifying");
    let verified = verify::verify(&house.store, &house.sandbox, settings.orders).await;
    report(&settings, &before, paid_ns, &after, verified.is_ok()).print()?;
    house.stop().await?;
    verified
}

fn report(settings: &DrainSettings, before: &Mark, paid_ns: u64, after: &Mark, verified: bool) -> Report {
    let mut report = Report::new("drain");
    let seconds = |until_ns: u64| until_ns.saturating_sub(before.at_ns) as f64 / 1e9;
    let thousands = settings.orders.max(1) as f64 / 1e3;
    let per_second = |until_ns: u64| settings.orders as f64 / seconds(until_ns).max(1e-9);
    report.figure("orders", settings.orders, settings.orders.to_string());
    report.number("orders_per_s", per_second(paid_ns), 0, "orders/s until the last was paid");
    report.number(
        "orders_per_s_to_rest",
        per_second(after.at_ns),
        0,
        "orders/s until nothing was left to do",
    );
    let cpu_seconds = after.usage.cpu_seconds - before.usage.cpu_seconds;
    report.number("cpu_s_per_1k", cpu_seconds / thousands, 4, "CPU-seconds per 1,000 orders");
    let machine_seconds = after.machine_cpu_seconds - before.machine_cpu_seconds;
    let foreign = (machine_seconds - cpu_seconds).max(0.0);
    report.number(
        "foreign_cpu_s",
        foreign,
        2,
        "CPU-seconds of other processes: repeat the run if it is not near 0",
    );
    report.number("peak_rss_mb", after.usage.peak_rss_bytes as f64 / 1e6, 0, "MB, loading included");
    report.figure("verified", verified, if verified { "yes" } else { "NO" });
    let groups = (after.store_groups - before.store_groups, after.sandbox_groups - before.sandbox_groups);
    report.figure("store_groups", groups.0, format!("{} groups, a sync each", groups.0));
    report.figure("sandbox_groups", groups.1, format!("{} groups, a sync each", groups.1));
    let mut by_thread = serde_json::Map::new();
    for (name, spent) in &after.threads {
        let spent = (spent - before.threads.get(name).copied().unwrap_or(0.0)) / thousands;
        if spent > 0.0 {
            by_thread.insert(name.clone(), rounded(spent).into());
        }
    }
    let text: Vec<String> = by_thread.iter().map(|(name, spent)| format!("{name} {spent}")).collect();
    report.figure("cpu_s_per_1k_by_thread", by_thread, text.join(", "));
    figures::add(&mut report, &before.figures, &after.figures, thousands);
    report
}
