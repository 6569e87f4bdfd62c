//! `tillstream sandbox`: the sandbox provider as a process of its own, for the workers of a cluster.

use crate::cli;
use std::sync::Arc;
use tillstream_effects::{SandboxProvider, SandboxSettings, serve_sandbox};
use tokio::net::TcpListener;
use tracing::info;

/// Serves it until SIGTERM or SIGINT.
pub async fn run(options: &cli::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    let settings = SandboxSettings {
        latency_ms: (options.latency_min_ms, options.latency_max_ms.max(options.latency_min_ms)),
        decline_rate: options.decline_rate,
        lost_reply_rate: options.lost_reply_rate,
        unavailable_rate: options.unavailable_rate,
        ..SandboxSettings::new(options.data_dir.join("sandbox"))
    };
    let provider = Arc::new(SandboxProvider::open(settings)?);
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        format!("TS0755: cannot listen on {}: {error}; --listen chooses another", options.listen)
    })?;
    info!(address = %options.listen, data_dir = %options.data_dir.display(), "the sandbox listens");
    serve_sandbox(listener, provider, crate::serve::asked_to_stop()).await?;
    info!("stopped");
    Ok(())
}
