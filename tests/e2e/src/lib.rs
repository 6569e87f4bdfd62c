//! The real binary under test: started on its own data dir and port, spoken to over HTTP, ended by its own pid.
#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails by panicking with what it saw")]

pub mod audit;
pub mod deliveries;
pub mod disk;
pub mod events;
pub mod kills;
pub mod receiver;
pub mod sandbox;
pub mod scrape;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// The API key every test uses.
pub const KEY: &str = "till_e2e_0123456789abcdef0123456789abcdef";

/// How long anything may take before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// The binary under test: `TILLSTREAM_BIN`, or the release build of this checkout.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("TILLSTREAM_BIN")
        .map_or_else(|| root().join("target/release/tillstream"), PathBuf::from);
    assert!(path.exists(), "{} does not exist: run `make build`, or set TILLSTREAM_BIN", path.display());
    path
}

/// The root of this checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tests/e2e lies two levels deep")
        .to_path_buf()
}

/// A file of real orders.
pub fn shared_data(name: &str) -> PathBuf {
    let dir = std::env::var_os("TILLSTREAM_SHARED_DATA")
        .map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing; TILLSTREAM_SHARED_DATA names the folder it lies in",
        path.display()
    );
    path
}

/// A port nobody listens on right now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("its address").port()
}

/// A running `tillstream serve`.
pub struct Server {
    child: Mutex<Child>,
    /// The child is the tracer, and what it traces is killed through it.
    traced: bool,
    url: String,
    output: Arc<Mutex<Vec<String>>>,
    client: reqwest::Client,
}

/// An answer: status, body as JSON (`Null` if it is none), body as text.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, parsed.
    pub json: Value,
    /// The body.
    pub text: String,
}

impl Server {
    /// Starts `serve` on a data dir without waiting for anything.
    pub fn spawn(data_dir: &Path, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut command = serve_command(data_dir, port);
        command.args(arguments).env("TILLSTREAM_DEMO_KEY", KEY);
        Self::spawn_command(command, port)
    }

    /// Starts a prepared command that listens on `port`.
    pub fn spawn_command(mut command: Command, port: u16) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("stdout is piped"), output.clone());
        collect(child.stderr.take().expect("stderr is piped"), output.clone());
        Self {
            child: Mutex::new(child),
            traced: false,
            url: format!("http://127.0.0.1:{port}"),
            output,
            client: reqwest::Client::new(),
        }
    }

    /// Starts `serve` on a data dir under the tracer of [`disk`]; `flags` are the tracer's.
    pub fn spawn_traced(data_dir: &Path, arguments: &[&str], flags: &[&str]) -> Self {
        let port = free_port();
        let mut command = serve_command(data_dir, port);
        command.args(arguments).env("TILLSTREAM_DEMO_KEY", KEY);
        Self::spawn_command_traced(&command, port, data_dir, flags)
    }

    /// The same for a prepared command that listens on `port` and keeps its files below `data_dir`.
    pub fn spawn_command_traced(command: &Command, port: u16, data_dir: &Path, flags: &[&str]) -> Self {
        let mut server = Self::spawn_command(disk::traced(command, data_dir, flags), port);
        server.traced = true;
        server
    }

    /// Waits until `/readyz` says 200 (true) or the process has ended (false).
    pub async fn ready_or_ended(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        loop {
            ticks.tick().await;
            if self.has_ended() {
                return false;
            }
            if let Ok(answer) = self.try_call(Method::GET, "/readyz", None, None).await
                && answer.status == StatusCode::OK
            {
                return true;
            }
            assert!(Instant::now() < deadline, "neither ready nor ended:\n{}", self.output().join("\n"));
        }
    }

    /// Waits until a GET of this path is answered 200.
    pub async fn until_answered(&self, path: &str) {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            let answer = self.try_call(Method::GET, path, None, None).await;
            if answer.is_ok_and(|it| it.status == StatusCode::OK) {
                return;
            }
            assert!(Instant::now() < deadline, "{path} is not answered:\n{}", self.output().join("\n"));
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.child().try_wait().expect("the child can be asked").is_some()
    }

    /// Starts `serve` and waits until it is ready.
    pub async fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::spawn(data_dir, arguments);
        server.ready().await;
        server
    }

    /// Waits until `/readyz` says 200.
    pub async fn ready(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if let Ok(answer) = self.try_call(Method::GET, "/readyz", None, None).await
                && answer.status == StatusCode::OK
            {
                return;
            }
            if let Some(status) = self.child().try_wait().expect("the child can be asked") {
                panic!("it ended with {status}:\n{}", self.output().join("\n"));
            }
            assert!(Instant::now() < deadline, "not ready in time:\n{}", self.output().join("\n"));
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().expect("nobody panicked")
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// What it wrote so far, both streams.
    pub fn output(&self) -> Vec<String> {
        self.output.lock().expect("no reader panicked").clone()
    }

    /// One call; an error is a connection that failed.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        self.try_call_with(method, path, key, body, None).await
    }

    /// One call with a `Prefer` header.
    pub async fn try_call_with(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
        prefer: Option<&str>,
    ) -> Result<Answer, reqwest::Error> {
        let mut call = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(KEY);
        if let Some(key) = key {
            call = call.header("Idempotency-Key", key);
        }
        if let Some(prefer) = prefer {
            call = call.header("Prefer", prefer);
        }
        if let Some(body) = body {
            call = call.json(body);
        }
        let response = call.timeout(Duration::from_secs(30)).send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok(Answer { status, json: serde_json::from_str(&text).unwrap_or(Value::Null), text })
    }

    /// One call that must be answered.
    pub async fn call(&self, method: Method, path: &str, key: Option<&str>, body: Option<&Value>) -> Answer {
        match self.try_call(method, path, key, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{path}: {error}\n{}", self.output().join("\n")),
        }
    }

    /// GET that must be answered 200.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call(Method::GET, path, None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.json
    }

    /// POST that must be answered 2xx.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Value {
        let answer = self.call(Method::POST, path, Some(key), Some(body)).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
        answer.json
    }

    /// PUT that must be answered 2xx.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(Method::PUT, path, None, Some(body)).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
        answer.json
    }

    /// A GET repeated until `done` likes the answer.
    pub async fn until(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            let answer = self.call(Method::GET, path, None, None).await;
            if answer.status.is_success() && done(&answer.json) {
                return answer.json;
            }
            assert!(Instant::now() < deadline, "{path} did not get there: {} {}", answer.status, answer.text);
        }
    }

    /// Waits until no task has anything left to do, three looks in a row.
    pub async fn drained(&self) {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let mut quiet = 0;
        while quiet < 5 {
            ticks.tick().await;
            let metrics = self.call(Method::GET, "/metrics", None, None).await.text;
            let lag: f64 = metric_values(&metrics, "tillstream_stage_lag_records").iter().sum();
            quiet = if lag == 0.0 { quiet + 1 } else { 0 };
            assert!(Instant::now() < deadline, "{lag} records are left");
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(self) {
        self.end_at_once().expect("it can be killed");
    }

    fn end_at_once(&self) -> std::io::Result<ExitStatus> {
        if self.traced && !self.has_ended() {
            Command::new("kill").args(["-USR1", &self.pid().to_string()]).status()?;
        } else {
            self.child().kill()?;
        }
        self.child().wait()
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(self) -> ExitStatus {
        let status =
            Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success());
        self.wait().await
    }

    /// Waits for the end.
    pub async fn wait(&self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if let Some(status) = self.child().try_wait().expect("the child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.output().join("\n"));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.end_at_once();
    }
}

/// The binary, with nothing inherited that would change what it does.
pub fn bare_command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TILLSTREAM_") {
            command.env_remove(name);
        }
    }
    command
}

/// `serve` on a data dir and port.
pub fn serve_command(data_dir: &Path, port: u16) -> Command {
    let mut command = bare_command();
    command.arg("serve").arg("--data-dir").arg(data_dir).args(["--http", &format!("127.0.0.1:{port}")]);
    command
}

fn collect(stream: impl std::io::Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            into.lock().expect("no reader panicked").push(line);
        }
    });
}

/// The values of every series of a metric.
pub fn metric_values(metrics: &str, name: &str) -> Vec<f64> {
    metrics
        .lines()
        .filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}
