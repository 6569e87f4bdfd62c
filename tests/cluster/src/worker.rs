//! One worker process: started, killed, frozen, and started again on its own data dir.

use crate::spawn::spawn;
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tillstream_e2e::{Answer, KEY, Server, free_port, serve_command};

/// How long a worker may take to answer one call; a frozen one never does.
const CALL: Duration = Duration::from_secs(5);

/// A worker. Its place is empty while it is down.
pub struct Worker {
    /// Its name in messages.
    pub name: String,
    dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    place: Mutex<Option<Arc<Server>>>,
    frozen: AtomicBool,
    /// What earlier processes wrote.
    past: Mutex<Vec<String>>,
}

impl Worker {
    /// Not started yet.
    pub fn new(name: &str, dir: PathBuf, arguments: Vec<String>, environment: Vec<(String, String)>) -> Self {
        Self {
            name: name.to_owned(),
            dir,
            arguments,
            environment,
            place: Mutex::new(None),
            frozen: AtomicBool::new(false),
            past: Mutex::default(),
        }
    }

    /// Starts the process; waits for nothing.
    pub fn start(&self) {
        let port = free_port();
        let mut command = serve_command(&self.dir, port);
        command.args(&self.arguments).env("TILLSTREAM_DEMO_KEY", KEY);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        *self.place.lock() = Some(Arc::new(spawn(&command, port)));
    }

    /// The process, if it is not down.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.place.lock().clone()
    }

    /// Whether it has the role of taking orders in, and clients can hope for an answer.
    pub fn answers(&self) -> bool {
        let roles = self.arguments.iter().skip_while(|it| *it != "--roles").nth(1);
        roles.is_none_or(|it| it.contains("ingest"))
            && !self.frozen.load(Ordering::Relaxed)
            && self.place.lock().is_some()
    }

    /// One call; `None` when it was not answered.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let server = self.server()?;
        let call = server.try_call(method, path, key, body);
        tokio::time::timeout(CALL, call).await.ok()?.ok()
    }

    /// Whether `/readyz` says 200.
    pub async fn is_ready(&self) -> bool {
        let ready = self.call(Method::GET, "/readyz", None, None).await;
        ready.is_some_and(|it| it.status == StatusCode::OK)
    }

    fn signal(&self, signal: Signal) {
        let server = self.server().expect("a worker that is down gets no signals");
        let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("a process has a pid");
        kill_process(pid, signal).expect("our own child takes signals");
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.frozen.store(false, Ordering::Relaxed);
        self.leave();
    }

    fn leave(&self) {
        let server = self.place.lock().take();
        if let Some(server) = server {
            self.past.lock().extend(server.output());
        }
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
        self.frozen.store(false, Ordering::Relaxed);
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        let server = self.place.lock().take().expect("it is up");
        let server = unshared(server).await;
        let status = server.wait().await;
        self.past.lock().extend(server.output());
        status
    }

    /// Waits for the end of a process that is to halt by itself.
    pub async fn ended(&self) -> ExitStatus {
        let server = self.place.lock().take().expect("it was started");
        let server = unshared(server).await;
        let status = server.wait().await;
        self.past.lock().extend(server.output());
        status
    }

    /// Whether the process has ended although nobody ended it.
    pub fn has_died(&self) -> bool {
        let Some(server) = self.server() else { return false };
        // A child that has ended and was not waited for is a zombie.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|it| it.is_empty() || it.starts_with('Z'))
    }

    /// What all its processes wrote.
    pub fn output(&self) -> Vec<String> {
        let mut lines = self.past.lock().clone();
        if let Some(server) = self.server() {
            lines.extend(server.output());
        }
        lines
    }

    /// The last lines of that.
    pub fn tail(&self, lines: usize) -> String {
        let output = self.output();
        output[output.len().saturating_sub(lines)..].join("\n")
    }
}

/// Clients let go of a server as soon as their calls have ended.
async fn unshared(server: Arc<Server>) -> Server {
    let mut server = Some(server);
    crate::wait_for(Duration::from_secs(60), async || match Arc::try_unwrap(server.take()?) {
        Ok(alone) => Some(alone),
        Err(shared) => {
            server = Some(shared);
            None
        }
    })
    .await
    .expect("every call ends")
}
