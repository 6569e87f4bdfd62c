//! A server that is killed and started again while clients go on: what a merchant's client sees of a crash.

use crate::random::Random;
use crate::{DEADLINE, Server};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::time::Instant;

/// A server whose place is empty while it is down.
pub struct Mortal {
    place: RwLock<Option<Server>>,
    dir: PathBuf,
    arguments: &'static [&'static str],
    /// How far the clients are; cuts are spread over it.
    pub progress: AtomicUsize,
}

impl Mortal {
    /// Starts the server on a data dir.
    pub async fn start(dir: PathBuf, arguments: &'static [&'static str]) -> Self {
        let server = Server::start(&dir, arguments).await;
        Self { place: RwLock::new(Some(server)), dir, arguments, progress: AtomicUsize::new(0) }
    }

    /// Posts until acknowledged or refused for good, whatever happens to the server meanwhile.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
        let deadline = Instant::now() + DEADLINE * 2;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            let guard = self.place.read().await;
            if let Some(server) = guard.as_ref()
                && let Ok(answer) = server.try_call(Method::POST, path, Some(key), Some(body)).await
                && answer.status != StatusCode::SERVICE_UNAVAILABLE
            {
                return (answer.status, answer.json);
            }
            drop(guard);
            assert!(Instant::now() < deadline, "{path} {key} was never answered");
        }
    }

    /// Kills and restarts `cuts` times, each once the clients have done their share of `steps` and a random moment
    /// of up to 80 ms has passed.
    pub async fn cut(&self, seed: u64, cuts: usize, steps: usize) {
        let mut random = Random::new(seed);
        for made in 0..cuts {
            let share = (made + 1) * steps / (cuts + 1);
            let mut ticks = tokio::time::interval(Duration::from_millis(1));
            while self.progress.load(Ordering::Relaxed) < share {
                ticks.tick().await;
            }
            tokio::time::sleep_until(Instant::now() + Duration::from_micros(random.below(80_000))).await;
            // Not through the lock: calls in flight must be cut, too.
            let pid = self.place.read().await.as_ref().expect("only this function takes it away").pid();
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill runs");
            let mut place = self.place.write().await;
            place.take().expect("only this function takes it away").kill();
            *place = Some(Server::start(&self.dir, self.arguments).await);
        }
    }

    /// The server that is left.
    pub fn into_server(self) -> Server {
        self.place.into_inner().expect("every cut started it again")
    }
}
