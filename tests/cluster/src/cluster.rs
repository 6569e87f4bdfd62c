//! Servers, a sandbox, and the workers of one deployment.

use crate::command::{self, Done};
use crate::spawn::spawn;
use crate::worker::Worker;
use crate::{blocking, from_environment, wait_for};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tillstream_e2e::{Server, binary, free_port, metric_values};
use tillstream_servers::{CassandraOptions, KafkaOptions, Stack};
use tokio::time::{Instant, MissedTickBehavior};

/// Partitions of every topic.
pub const PARTITIONS: u32 = 4;
/// A worker that is silent so long loses its partitions.
pub const SESSION_TIMEOUT: Duration = Duration::from_millis(2_000);
/// The broker aborts a transaction that takes longer.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_millis(3_000);
/// How long anything may take to come back after a fault.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// The gauges follow within a second: so many looks, 20 ms apart, must find nothing left.
const QUIET_LOOKS: u32 = 50;

/// How a deployment differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Wires {
    /// Instead of the broker's plain address.
    pub brokers: Option<String>,
    /// More options for the broker, such as for TLS and logins.
    pub broker: Vec<String>,
    /// More options for the database.
    pub database: Vec<String>,
    /// Options of workers that take the place of the usual ones.
    pub workers: Vec<String>,
    /// More of the environment, such as passwords.
    pub environment: Vec<(String, String)>,
    /// More options of the sandbox.
    pub sandbox: Vec<String>,
}

/// A deployment on servers of its own.
pub struct Cluster {
    /// The servers.
    pub stack: Arc<Stack>,
    /// The deployment's name.
    pub deployment: String,
    /// Its keyspace.
    pub keyspace: String,
    wires: Wires,
    sandbox: Server,
    dir: TempDir,
    workers: Mutex<Vec<Arc<Worker>>>,
    made: AtomicUsize,
    turn: AtomicUsize,
}

impl Cluster {
    /// Starts servers with their default options, makes topics, registers schemas, starts the sandbox; no workers yet.
    pub async fn start() -> Arc<Self> {
        Self::start_with(KafkaOptions::default(), CassandraOptions::default(), |_| Wires::default()).await
    }

    /// The same with options.
    pub async fn start_with(
        kafka: KafkaOptions,
        cassandra: CassandraOptions,
        wires: impl FnOnce(&Stack) -> Wires,
    ) -> Arc<Self> {
        let stack = blocking(move || Stack::start_with(kafka, cassandra)).await;
        let stack = Arc::new(stack.expect("the servers start"));
        let wires = wires(&stack);
        let dir = tempfile::tempdir().expect("a folder for data");
        let sandbox = start_sandbox(&dir.path().join("sandbox"), &wires.sandbox).await;
        let cluster = Self {
            stack,
            deployment: "shop".into(),
            keyspace: "shop".into(),
            wires,
            sandbox,
            dir,
            workers: Mutex::default(),
            made: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
        };
        cluster.create_topics().await;
        cluster
            .run(&["schemas", "register"], &["--schema-registry", cluster.stack.registry.address()])
            .await
            .ok();
        Arc::new(cluster)
    }

    /// Makes what topics are missing.
    pub async fn create_topics(&self) {
        let partitions = PARTITIONS.to_string();
        let command = ["topics", "create", "--partitions", &partitions, "--replication-factor", "1"];
        let mut broker = vec!["--brokers", self.brokers()];
        broker.extend(self.wires.broker.iter().map(String::as_str));
        self.run(&command, &broker).await.ok();
    }

    /// Runs a command with arguments.
    pub async fn run(&self, command: &[&str], arguments: &[&str]) -> Done {
        let all = command.iter().chain(arguments).map(ToString::to_string).collect();
        command::tillstream(all).await
    }

    /// Runs `tillstream state …` on this deployment.
    pub async fn state(&self, command: &[&str]) -> Done {
        let mut all = vec!["state".to_owned()];
        all.extend(command.iter().map(ToString::to_string));
        all.extend(self.deployment_arguments(&self.deployment));
        command::tillstream(all).await
    }

    /// Where workers find the broker.
    pub fn brokers(&self) -> &str {
        self.wires.brokers.as_deref().unwrap_or(self.stack.kafka.address())
    }

    fn deployment_arguments(&self, deployment: &str) -> Vec<String> {
        let partitions = PARTITIONS.to_string();
        let pairs = [
            ("--brokers", self.brokers()),
            ("--scylla", self.stack.cassandra.address()),
            ("--keyspace", &self.keyspace),
            ("--schema-registry", self.stack.registry.address()),
            ("--partitions", &partitions),
            ("--deployment", deployment),
            ("--session-timeout-ms", &SESSION_TIMEOUT.as_millis().to_string()),
            ("--transaction-timeout-ms", &TRANSACTION_TIMEOUT.as_millis().to_string()),
            ("--durable-after-ms", "2500"),
            ("--flush-interval-ms", "100"),
        ]
        .map(|(name, value)| [name.to_owned(), value.to_owned()]);
        let more = self.wires.broker.iter().chain(&self.wires.database).cloned();
        pairs.into_iter().flatten().chain(more).collect()
    }

    /// A worker that is not started; `roles` empty for all.
    pub fn worker(&self, roles: &str, more: &[&str]) -> Arc<Worker> {
        self.worker_of(&self.deployment, roles, more)
    }

    /// The same, of a deployment by another name.
    pub fn worker_of(&self, deployment: &str, roles: &str, more: &[&str]) -> Arc<Worker> {
        let name = format!("w{}", self.made.fetch_add(1, Ordering::Relaxed));
        let mut arguments = vec!["--mode".to_owned(), "cluster".to_owned()];
        arguments.extend(std::env::var("TILLSTREAM_E2E_LOG").ok().map(|it| format!("--log={it}")));
        arguments.extend(self.deployment_arguments(deployment));
        arguments.extend(["--sandbox-url".to_owned(), self.sandbox.url().to_owned()]);
        if !roles.is_empty() {
            arguments.extend(["--roles".to_owned(), roles.to_owned()]);
        }
        let usual: Vec<&str> = self.wires.workers.iter().map(String::as_str).collect();
        override_with(&mut arguments, &usual);
        override_with(&mut arguments, more);
        let dir: PathBuf = self.dir.path().join(&name);
        Arc::new(Worker::new(&name, dir, arguments, self.wires.environment.clone()))
    }

    /// Starts a worker and makes it one of the deployment's.
    pub fn add(&self, roles: &str) -> Arc<Worker> {
        let worker = self.worker(roles, &[]);
        worker.start();
        self.adopt(worker.clone());
        worker
    }

    /// Makes a started worker one of the deployment's.
    pub fn adopt(&self, worker: Arc<Worker>) {
        self.workers.lock().push(worker);
    }

    /// Starts workers and waits until all are ready.
    pub async fn add_ready(&self, roles: &[&str]) {
        roles.iter().for_each(|it| drop(self.add(it)));
        self.ready().await;
    }

    /// Takes one out of the list; its process is the caller's to end.
    pub fn remove(&self, worker: &Arc<Worker>) {
        self.workers.lock().retain(|it| !Arc::ptr_eq(it, worker));
    }

    /// All workers.
    pub fn workers(&self) -> Vec<Arc<Worker>> {
        self.workers.lock().clone()
    }

    /// SIGTERM to every worker; all must exit 0.
    pub async fn stop_workers(&self) {
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            let status = worker.terminate().await;
            assert!(status.success(), "{} ended with {status}:\n{}", worker.name, worker.tail(40));
        }
    }

    /// Waits until every worker is ready, by itself.
    pub async fn ready(&self) {
        for worker in self.workers() {
            let ready = wait_for(RECOVERY, async || {
                assert!(!worker.has_died(), "{} has ended by itself:\n{}", worker.name, worker.tail(40));
                worker.is_ready().await.then_some(())
            });
            assert!(ready.await.is_some(), "{} is not ready:\n{}", worker.name, worker.tail(60));
        }
    }

    /// Waits until no task has anything left to do for a while; what is left after [`RECOVERY`].
    pub async fn drained(&self) -> Vec<String> {
        let mut quiet = 0;
        let mut lag: Vec<String> = Vec::new();
        let drained = wait_for(RECOVERY, async || {
            let worker = self.workers().into_iter().find(|it| it.answers())?;
            let metrics = worker.call(Method::GET, "/metrics", None, None).await?.text;
            let name = "tillstream_stage_lag_records";
            lag = metrics
                .lines()
                .filter(|it| it.starts_with(name) && !it.ends_with(" 0"))
                .map(str::to_owned)
                .collect();
            let empty = lag.is_empty() && !metric_values(&metrics, name).is_empty();
            quiet = if empty { quiet + 1 } else { 0 };
            (quiet >= QUIET_LOOKS).then_some(())
        });
        if drained.await.is_some() { Vec::new() } else { lag }
    }

    /// The end of every worker's log.
    pub fn tails(&self) -> String {
        let tails = self
            .workers()
            .iter()
            .map(|it| {
                format!("--- {}\n{}\n", it.name, it.tail(from_environment("TILLSTREAM_TAIL", 25) as usize))
            })
            .collect::<Vec<_>>();
        tails.concat()
    }

    /// Posts to one live worker after the other until one acknowledges it or refuses it for good.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, Some(key), Some(body)).await
    }

    /// A GET that some live worker answers 200.
    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send(Method::GET, path, None, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// A call that some live worker must answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let mut last = String::new();
        let deadline = Instant::now() + RECOVERY;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < deadline {
            ticks.tick().await;
            let live: Vec<_> = self.workers().into_iter().filter(|it| it.answers()).collect();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let Some(worker) = live.get(turn % live.len().max(1)) else { continue };
            match worker.call(method.clone(), path, key, body).await {
                Some(answer) if answer.status != StatusCode::SERVICE_UNAVAILABLE => {
                    return (answer.status, answer.json);
                }
                Some(refused) => last = refused.text,
                None => last = format!("{} did not answer", worker.name),
            }
        }
        panic!("{path} {key:?} was never answered, last {last}:\n{}", self.tails())
    }

    /// Every payment the provider knows.
    pub async fn payments(&self) -> Vec<Value> {
        let (mut all, mut after): (Vec<Value>, String) = Default::default();
        loop {
            let path = format!("/v1/payments?after={after}&limit=10000");
            let page = self.sandbox.call(Method::GET, &path, None, None).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text);
            let lines = page.text.lines().map(|it| serde_json::from_str(it).expect("a line is JSON"));
            let lines: Vec<Value> = lines.collect();
            let Some(last) = lines.last() else { return all };
            after = last["id"].as_str().expect("a payment has an id").to_owned();
            all.extend(lines);
        }
    }
}

/// Options given again take the place of earlier ones; all have a value.
fn override_with(arguments: &mut Vec<String>, more: &[&str]) {
    for pair in more.chunks(2) {
        match arguments.iter().position(|it| it == pair[0]) {
            Some(place) => arguments[place + 1] = pair[1].to_owned(),
            None => arguments.extend(pair.iter().map(ToString::to_string)),
        }
    }
}

async fn start_sandbox(data_dir: &std::path::Path, more: &[String]) -> Server {
    let port = free_port();
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TILLSTREAM_"))
    {
        command.env_remove(name);
    }
    command.arg("sandbox").arg("--data-dir").arg(data_dir).args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(more);
    let sandbox = spawn(&command, port);
    let up = wait_for(RECOVERY, async || {
        let answer = sandbox.try_call(Method::GET, "/healthz", None, None).await.ok()?;
        answer.status.is_success().then_some(())
    });
    assert!(up.await.is_some(), "the sandbox does not start: {:?}", sandbox.output());
    sandbox
}
