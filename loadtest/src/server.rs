//! The server under test: the real binary, as a child with a data dir of its own.

use crate::client::{Call, Connection, Target};
use crate::generator::Generator;
use crate::process::{Usage, usage};
use crate::report::progress;
use crate::{BenchError, latency};
use http::Method;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_runtime::Clock;
use tokio::process::{Child, Command};

/// Only this machine can reach the server, and only for the length of the run.
pub(crate) const API_KEY: &str = "tk_bench_0123456789abcdef0123456789abcdef";
/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);
/// How long the tasks may take to catch up.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Connections that load the catalog.
const LOADERS: usize = 32;

/// A running server; it is killed when this is dropped.
pub struct Server {
    child: Child,
    /// Where and as whom to call it.
    pub target: Target,
    _data_dir: tempfile::TempDir,
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(BenchError::io("a free port"))?;
    listener.local_addr().map_err(BenchError::io("a free port"))
}

impl Server {
    /// Starts the binary on an empty data dir, and waits until it is ready. `extra` are more options of `serve`.
    pub async fn start(bin: &Path, extra: &[String], clock: &dyn Clock) -> Result<Self, BenchError> {
        let address = free_address()?;
        let data_dir = tempfile::tempdir().map_err(BenchError::io("a data dir"))?;
        let child = Command::new(bin)
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir.path())
            .args(["--http", &address.to_string()])
            .args(extra)
            .env("TILLSTREAM_DEMO_KEY", API_KEY)
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::io(bin.display().to_string()))?;
        let target = Target { address, api_key: API_KEY.to_owned() };
        let mut server = Self { child, target, _data_dir: data_dir };
        server.wait_ready(clock).await?;
        Ok(server)
    }

    /// Starts the yardstick: this very program, as a process of its own on a directory of its own.
    pub async fn start_bare(clock: &dyn Clock) -> Result<Self, BenchError> {
        let address = free_address()?;
        let data_dir = tempfile::tempdir().map_err(BenchError::io("a data dir"))?;
        let this = std::env::current_exe().map_err(BenchError::io("this program"))?;
        let child = Command::new(this)
            .arg("bare")
            .args(["--http", &address.to_string()])
            .arg("--dir")
            .arg(data_dir.path())
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::io("this program"))?;
        let target = Target { address, api_key: API_KEY.to_owned() };
        let mut server = Self { child, target, _data_dir: data_dir };
        server.wait_ready(clock).await?;
        Ok(server)
    }

    async fn wait_ready(&mut self, clock: &dyn Clock) -> Result<(), BenchError> {
        let deadline_ns = clock.deadline(START_MAX);
        while clock.monotonic_ns() < deadline_ns {
            if let Some(status) = self.child.try_wait().map_err(BenchError::io("the server"))? {
                return Err(BenchError::Server(format!("it ended: {status}")));
            }
            if let Ok(mut connection) = Connection::open(&self.target).await
                && let Ok(answer) = connection.call(Call::json(Method::GET, "/readyz", String::new())).await
                && answer.status.is_success()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(BenchError::Server("it did not become ready".into()))
    }

    /// Waits until its tasks have read all of their input, as `/metrics` tells.
    pub async fn wait_idle(&self, clock: &dyn Clock) -> Result<(), BenchError> {
        let deadline_ns = clock.deadline(IDLE_MAX);
        let mut connection = Connection::open(&self.target).await?;
        while clock.monotonic_ns() < deadline_ns {
            let answer =
                connection.call(Call::json(Method::GET, "/metrics", String::new())).await?.success()?;
            if lag_records(&String::from_utf8_lossy(&answer.body)) == Some(0.0) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(BenchError::Server("its tasks did not catch up".into()))
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, BenchError> {
        let pid = self.child.id().ok_or_else(|| BenchError::Server("it has ended".into()))?;
        usage(pid)
    }

    /// Puts the workload's products and their stock in place, for the tenant of the key.
    pub async fn load_catalog(&self, generator: &Arc<Generator>) -> Result<(), BenchError> {
        let total = generator.skus().len();
        progress(&format!("loading {total} products"));
        let next = Arc::new(AtomicUsize::new(0));
        let loaders = (0..LOADERS).map(|_| {
            let (generator, next, target) = (Arc::clone(generator), Arc::clone(&next), self.target.clone());
            tokio::spawn(async move { load(&generator, &next, &target).await })
        });
        for ended in futures::future::join_all(loaders).await {
            ended.map_err(BenchError::http)??;
        }
        Ok(())
    }
}

/// The lag of all tasks together, out of the text format of Prometheus; `None` when it is not there.
fn lag_records(metrics: &str) -> Option<f64> {
    let lags = metrics.lines().filter(|it| it.starts_with("tillstream_stage_lag_records{"));
    let lags = lags.map(|it| it.rsplit_once(' ').and_then(|it| it.1.parse::<f64>().ok()));
    lags.reduce(|sum, lag| Some(sum? + lag?)).flatten()
}

/// Loads products until none is left.
async fn load(generator: &Generator, next: &AtomicUsize, target: &Target) -> Result<(), BenchError> {
    let mut connection = Connection::open(target).await?;
    while let Some(sku) = generator.skus().get(next.fetch_add(1, Ordering::Relaxed)) {
        let product = generator.product(latency::TENANT, sku);
        let path = format!("/v1/products/{sku}");
        connection.call(Call::json(Method::PUT, &path, product.json())).await?.success()?;
        let path = format!("/v1/inventory/{sku}/adjustments");
        let call = Call::json(Method::POST, &path, product.stock_json());
        connection.call(call.with_key(&format!("stock-{sku}"))).await?.success()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_summed_over_all_tasks() {
        let metrics = "# TYPE tillstream_stage_lag_records gauge\n\
            tillstream_stage_lag_records{partition=\"0\",stage=\"order\"} 3\n\
            tillstream_stage_lag_records{partition=\"1\",stage=\"order\"} 4\n\
            tillstream_stage_restarts_total{stage=\"order\"} 5\n";
        assert_eq!(lag_records(metrics), Some(7.0));
        assert_eq!(lag_records("up 1\n"), None);
    }
}
