//! The servers, and the worker process under test.

use super::ClusterSettings;
use super::scrape::Scrape;
use super::wire;
use crate::BenchError;
use crate::client::{Call, Connection, Target};
use crate::report::progress;
use crate::server::{API_KEY, free_address};
use http::Method;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tillstream_registry::{Registry, RegistrySettings};
use tillstream_runtime::{Clock, SystemClock};
use tillstream_schemas::Topic;
use tillstream_schemas::wire_ids::WireIds;
use tillstream_servers::{CassandraOptions, Stack};
use tokio::process::{Child, Command};

/// How long a start, a stop or a command may take.
const STEP_MAX: Duration = Duration::from_secs(120);
/// How long the tasks may take to catch up.
const IDLE_MAX: Duration = Duration::from_secs(900);
/// Between two looks at a worker's log: as often as the comparison program looks at its own.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks at the lag, which the worker itself learns every half second.
const LAG_LOOK: Duration = Duration::from_millis(700);
/// The lag must be 0 so many times in a row.
const IDLE_LOOKS: u32 = 3;

/// Broker, database, registry, topics and schemas; they end with this.
pub struct House {
    stack: Stack,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The registry's ids.
    pub ids: Arc<WireIds>,
    /// Partitions per topic.
    pub partitions: u32,
    bin: PathBuf,
    serve: Vec<String>,
    dir: tempfile::TempDir,
    workers: AtomicU32,
}

impl House {
    /// Starts the servers, makes the topics and registers the schemas.
    pub async fn start(settings: &ClusterSettings) -> Result<Self, BenchError> {
        progress("starting a broker, a database and a registry");
        let stack = tokio::task::spawn_blocking(Stack::start);
        let stack = stack.await.map_err(BenchError::pipeline)?.map_err(BenchError::pipeline)?;
        let dir = tempfile::tempdir().map_err(BenchError::io("a data dir"))?;
        let mut house = Self {
            stack,
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(WireIds::identity()),
            partitions: settings.partitions,
            bin: settings.bin.clone(),
            serve: settings.serve.clone(),
            dir,
            workers: AtomicU32::new(0),
        };
        let partitions = settings.partitions.to_string();
        let brokers = house.brokers().to_owned();
        let url = house.stack.registry.address().to_owned();
        let topics = ["topics", "create", "--brokers", &brokers, "--partitions", &partitions];
        house.command(&[&topics[..], &["--replication-factor", "1"]].concat()).await?;
        house.command(&["schemas", "register", "--schema-registry", &url]).await?;
        let registry = Registry::new(RegistrySettings::new(url)).map_err(BenchError::pipeline)?;
        house.ids = Arc::new(registry.resolve().await.map_err(BenchError::pipeline)?);
        Ok(house)
    }

    /// Runs a command of the binary.
    async fn command(&self, arguments: &[&str]) -> Result<(), BenchError> {
        let run = Command::new(&self.bin).args(arguments).kill_on_drop(true).output();
        let ended = tokio::time::timeout(STEP_MAX, run).await;
        let ended = ended.map_err(|_| BenchError::Server(format!("{arguments:?} takes too long")))?;
        let ended = ended.map_err(BenchError::io(self.bin.display().to_string()))?;
        match ended.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&ended.stderr).into_owned();
                Err(BenchError::Server(format!("{arguments:?} failed: {said}")))
            }
        }
    }

    /// The broker's address.
    pub fn brokers(&self) -> &str {
        self.stack.kafka.address()
    }

    /// The broker's process.
    pub fn broker_pid(&self) -> Result<u32, BenchError> {
        self.stack.kafka.pid().map_err(BenchError::pipeline)
    }

    /// The database's process.
    pub fn database_pid(&self) -> Result<u32, BenchError> {
        self.stack.cassandra.pid().map_err(BenchError::pipeline)
    }

    /// A folder that goes with this.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where a topic's partitions end now.
    pub async fn ends(&self, topic: Topic) -> Result<Vec<i64>, BenchError> {
        let (brokers, partitions) = (self.brokers().to_owned(), self.partitions);
        blocking(move || wire::ends(&brokers, topic, partitions)).await
    }

    /// Starts a worker with these roles; all of them when none is named.
    pub fn worker(&self, roles: &[&str]) -> Result<Worker, BenchError> {
        let address = free_address()?;
        let name = format!("worker-{}.log", self.workers.fetch_add(1, Ordering::Relaxed));
        let log = self.dir.path().join(name);
        let file = std::fs::File::create(&log).map_err(BenchError::io("a worker's log"))?;
        let errors = file.try_clone().map_err(BenchError::io("a worker's log"))?;
        let mut command = Command::new(&self.bin);
        command.args(["serve", "--mode", "cluster", "--log-format", "json"]);
        command.args(["--brokers", self.brokers(), "--scylla", self.stack.cassandra.address()]);
        command.args(["--schema-registry", self.stack.registry.address()]);
        command.args(["--partitions", &self.partitions.to_string()]);
        command.args(["--http", &address.to_string()]);
        // The provider's ledger is in it: every worker of a run has the same, one after the other.
        command.arg("--data-dir").arg(self.dir.path().join("data"));
        let synced_ms = 2 * CassandraOptions::default().commitlog_sync_period_ms;
        command.args(["--durable-after-ms", &synced_ms.to_string()]);
        if !roles.is_empty() {
            command.args(["--roles", &roles.join(",")]);
        }
        command.args(&self.serve).env("TILLSTREAM_DEMO_KEY", API_KEY);
        command.stdout(file).stderr(errors).kill_on_drop(true);
        let child = command.spawn().map_err(BenchError::io(self.bin.display().to_string()))?;
        let target = Target { address, api_key: API_KEY.to_owned() };
        let pid = child.id().ok_or_else(|| BenchError::Server("it has ended".into()))?;
        progress(&format!("worker {pid} at {address}, log {}", log.display()));
        Ok(Worker { child, pid, target, log, clock: self.clock.clone() })
    }
}

/// A worker process; it is killed when this is dropped.
pub struct Worker {
    child: Child,
    /// Its process.
    pub pid: u32,
    target: Target,
    log: PathBuf,
    clock: Arc<dyn Clock>,
}

impl Worker {
    /// An error when it has ended.
    pub fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait().map_err(BenchError::io("the worker"))? {
            None => Ok(()),
            Some(status) => {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(20)..].join("\n");
                Err(BenchError::Server(format!("a worker ended with {status}: {tail}")))
            }
        }
    }

    /// Waits until it has partitions of this kind of task.
    pub async fn assigned(&mut self, stage: &str) -> Result<(), BenchError> {
        let deadline_ns = self.clock.deadline(STEP_MAX);
        let stage = format!("\"stage\":\"{stage}\"");
        while self.clock.monotonic_ns() < deadline_ns {
            let log = std::fs::read_to_string(&self.log).map_err(BenchError::io("a worker's log"))?;
            if log.lines().any(|it| it.contains("partitions assigned") && it.contains(&stage)) {
                return Ok(());
            }
            self.check()?;
            tokio::time::sleep(LOOK).await;
        }
        Err(BenchError::Server("no partition was assigned".into()))
    }

    async fn get(&self, path: &str) -> Result<String, BenchError> {
        let mut connection = Connection::open(&self.target).await?;
        let answer = connection.call(Call::json(Method::GET, path, String::new())).await?.success()?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) -> Result<(), BenchError> {
        let deadline_ns = self.clock.deadline(STEP_MAX);
        while self.get("/readyz").await.is_err() {
            self.check()?;
            if self.clock.monotonic_ns() > deadline_ns {
                return Err(BenchError::Server("it did not become ready".into()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Its metrics now.
    pub async fn scrape(&self) -> Result<Scrape, BenchError> {
        Ok(Scrape::parse(&self.get("/metrics").await?))
    }

    /// Waits until the tasks of the deployment have read all of their input and no row waits for the database.
    pub async fn idle(&mut self) -> Result<(), BenchError> {
        let deadline_ns = self.clock.deadline(IDLE_MAX);
        let mut looks = 0;
        while looks < IDLE_LOOKS {
            self.check()?;
            if self.clock.monotonic_ns() > deadline_ns {
                return Err(BenchError::Server("its tasks did not catch up".into()));
            }
            tokio::time::sleep(LAG_LOOK).await;
            // It may not listen yet.
            let idle = self.scrape().await.is_ok_and(|it| it.is_idle());
            looks = if idle { looks + 1 } else { 0 };
        }
        Ok(())
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(mut self) -> Result<(), BenchError> {
        self.check()?;
        terminate(self.pid)?;
        let ended = tokio::time::timeout(STEP_MAX, self.child.wait()).await;
        let status = ended.map_err(|_| BenchError::Server("it does not stop".into()))?;
        let status = status.map_err(BenchError::io("the worker"))?;
        if status.success() {
            return Ok(());
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        Err(BenchError::Server(format!("it ended with {status}: {}", lines.last().unwrap_or(&""))))
    }
}

/// SIGTERM to a child that was not waited for yet.
pub fn terminate(pid: u32) -> Result<(), BenchError> {
    let gone = || BenchError::Server(format!("process {pid} cannot be signalled"));
    let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM).map_err(|_| gone())
}

/// Runs what blocks away from the tasks' threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BenchError> + Send + 'static,
) -> Result<T, BenchError> {
    tokio::task::spawn_blocking(work).await.map_err(BenchError::pipeline)?
}
