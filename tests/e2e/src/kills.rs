//! A server that is killed and started again while clients go on: what a merchant's client sees of a crash.

use crate::disk::POINTS;
use crate::{DEADLINE, Server};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_random::Random;
use tokio::sync::RwLock;
use tokio::time::Instant;

/// A server whose place is empty while it is down.
pub struct Mortal {
    place: RwLock<Option<Server>>,
    dir: PathBuf,
    arguments: &'static [&'static str],
    /// How far the clients are; cuts are spread over it.
    pub progress: AtomicUsize,
    /// Set once all cuts are made, where the cuts decide how long the clients go on.
    pub over: AtomicBool,
}

impl Mortal {
    /// Starts the server on a data dir.
    pub async fn start(dir: PathBuf, arguments: &'static [&'static str]) -> Self {
        let server = Server::start(&dir, arguments).await;
        Self {
            place: RwLock::new(Some(server)),
            dir,
            arguments,
            progress: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
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
            tokio::time::sleep_until(Instant::now() + Duration::from_micros(random.below(80_000) as u64))
                .await;
            // Not through the lock: calls in flight must be cut, too.
            let pid = self.place.read().await.as_ref().expect("only this function takes it away").pid();
            Command::new("kill").args(["-KILL", &pid.to_string()]).status().expect("kill runs");
            let mut place = self.place.write().await;
            place.take().expect("only this function takes it away").kill();
            *place = Some(Server::start(&self.dir, self.arguments).await);
        }
    }

    /// Cuts the server `cuts` times inside a group commit: at the points of [`POINTS`] in turn, each the random `n`th time
    /// (1 to 60) that it comes there with a journal, and starts it again. Answers how often each point was met.
    pub async fn cut_in_commits(&self, seed: u64, cuts: usize) -> [usize; POINTS.len()] {
        let mut random = Random::new(seed);
        let mut met = [0; POINTS.len()];
        self.place.write().await.take().expect("it runs").kill();
        for made in 0..cuts {
            let index = made % POINTS.len();
            let point = format!("{}:{}", POINTS[index], 1 + random.below(60));
            let mut server = Server::spawn_traced(&self.dir, self.arguments, &["-k", &point]);
            // One that is cut while it opens its store never gets ready: both ways it ends by itself.
            if server.ready_or_ended().await {
                *self.place.write().await = Some(server);
                self.until_ended().await;
                drop(self.place.write().await.take());
            }
            met[index] += 1;
        }
        *self.place.write().await = Some(Server::start(&self.dir, self.arguments).await);
        self.over.store(true, Ordering::Relaxed);
        met
    }

    async fn until_ended(&self) {
        let deadline = Instant::now() + DEADLINE;
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        loop {
            ticks.tick().await;
            let place = self.place.read().await;
            if place.as_ref().is_none_or(Server::has_ended) {
                return;
            }
            assert!(Instant::now() < deadline, "the server did not come to where it is cut");
        }
    }

    /// The server that is left.
    pub fn into_server(self) -> Server {
        self.place.into_inner().expect("every cut started it again")
    }
}
