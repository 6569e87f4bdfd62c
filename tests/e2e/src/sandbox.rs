//! A sandbox provider in a process of its own, and the list of what it charged.

use crate::{Server, bare_command};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Lines of one page of the list.
const PAGE_LINES: usize = 1_000;

/// A running `tillstream sandbox`.
pub struct Sandbox {
    server: Server,
    dir: PathBuf,
    port: u16,
    arguments: Vec<String>,
}

impl Sandbox {
    /// Starts it on a data dir and port, and waits until it answers.
    pub async fn start(dir: &Path, port: u16, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        Self::run(dir.to_path_buf(), port, arguments).await
    }

    async fn run(dir: PathBuf, port: u16, arguments: Vec<String>) -> Self {
        let mut command = bare_command();
        command.arg("sandbox").arg("--data-dir").arg(&dir).args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(&arguments);
        let server = Server::spawn_command(command, port);
        server.until_answered("/healthz").await;
        Self { server, dir, port, arguments }
    }

    /// What `--sandbox-url` takes.
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// SIGKILL, and a new process on the same ledger and port.
    pub async fn kill_and_restart(self) -> Self {
        self.server.kill();
        Self::run(self.dir, self.port, self.arguments).await
    }

    /// Every payment with its charges and refunds, in id order.
    pub async fn payments(&self) -> Vec<Value> {
        let (mut all, mut after) = (Vec::<Value>::new(), String::new());
        loop {
            let path = format!("/v1/payments?after={after}&limit={PAGE_LINES}");
            let page = self.server.call(Method::GET, &path, None, None).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text);
            let lines = page.text.lines().map(|it| serde_json::from_str(it).expect("a line is JSON"));
            let before = all.len();
            all.extend(lines);
            if all.len() - before < PAGE_LINES {
                return all;
            }
            after = all.last().and_then(|it| it["id"].as_str()).expect("a payment has an id").to_owned();
        }
    }
}
