//! Who performs payments.

use super::ServeError;
use super::ports::Sandbox;
use crate::cli::{Mode, Serve};
use std::sync::Arc;
use std::time::Duration;
use tillstream_effects::{
    BreakerSettings, EffectsMetrics, GuardedProvider, LedgerError, PaymentProvider, RemoteSandbox,
    RemoteSettings, SandboxLedger, SandboxProvider, SandboxSettings,
};
use tillstream_ingest_api::ports::SandboxControl;
use tillstream_log::Log;
use tillstream_runtime::Clock;
use tokio::sync::watch;

/// A provider that takes longer is asked again with the same key.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(30);

/// The provider, and its back door where it is the sandbox.
pub struct Payments {
    /// Performs payments.
    pub provider: Arc<dyn PaymentProvider>,
    /// The sandbox's back door.
    pub control: Option<Arc<dyn SandboxControl>>,
    /// The sandbox, where its ledger is this process's.
    own: Option<Arc<SandboxProvider>>,
}

impl Payments {
    /// Watches over this process's ledger, if it has one, until `stopping` turns true.
    ///
    /// # Errors
    /// It takes nothing more.
    pub fn watch_ledger(
        &self,
        mut stopping: watch::Receiver<bool>,
    ) -> Option<impl Future<Output = Result<(), LedgerError>> + Send + use<>> {
        let failed = self.own.as_ref()?.stopped();
        Some(async move {
            tokio::select! {
                biased;
                failed = failed => Err(failed),
                _ = stopping.wait_for(|it| *it) => Ok(()),
            }
        })
    }
}

/// The provider that the options choose.
pub fn build(
    options: &Serve,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    effects: &EffectsMetrics,
) -> Result<Payments, ServeError> {
    let mut own_sandbox = None;
    let (provider, ledger): (Arc<dyn PaymentProvider>, Arc<dyn SandboxLedger>) = match &options.sandbox_url {
        Some(url) => {
            let sandbox = Arc::new(RemoteSandbox::new(RemoteSettings::new(url))?);
            (sandbox.clone(), sandbox)
        }
        None => {
            if options.mode == Mode::Cluster {
                tracing::warn!(
                    "no --sandbox-url: payments are kept in this process's data dir, so no other worker may have the \
                     effects role"
                );
            }
            let sandbox = Arc::new(own(options)?);
            own_sandbox = Some(sandbox.clone());
            (sandbox.clone(), sandbox)
        }
    };
    let provider =
        GuardedProvider::new(provider, BreakerSettings::default(), PROVIDER_TIMEOUT, clock.clone(), effects);
    let control = Sandbox { provider: ledger, log, clock };
    Ok(Payments { provider: Arc::new(provider), control: Some(Arc::new(control)), own: own_sandbox })
}

/// The sandbox of this process alone.
fn own(options: &Serve) -> Result<SandboxProvider, LedgerError> {
    SandboxProvider::open(SandboxSettings {
        latency_ms: (
            options.sandbox_latency_min_ms,
            options.sandbox_latency_max_ms.max(options.sandbox_latency_min_ms),
        ),
        decline_rate: options.sandbox_decline_rate,
        lost_reply_rate: options.sandbox_lost_reply_rate,
        unavailable_rate: options.sandbox_unavailable_rate,
        // The provider is another company: its ledger is a database of its own.
        ..SandboxSettings::new(options.data_dir.join("sandbox"))
    })
}
