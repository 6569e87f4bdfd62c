//! Effects after the commit: the executor, and the sandbox payment provider.
//!
//! A stage never calls a provider: it writes a request, in its commit, to `effects.payment.requests.v1`. The executor
//! reads requests once they are durable, performs them with the idempotency key they carry, and appends each answer as
//! a command to the order. A crash in between only means that a request is performed again with the same key.

pub mod breaker;
pub mod executor;
pub mod guard;
pub mod metrics;
pub mod provider;
pub mod sandbox;
mod window;

pub use breaker::{Breaker, BreakerSettings, BreakerState};
pub use executor::{ExecutorError, ExecutorPorts, ExecutorSettings, run_executor, supervise_executor};
pub use guard::GuardedProvider;
pub use metrics::EffectsMetrics;
pub use provider::{Lookup, PaymentProvider, ProviderReply};
pub use sandbox::remote::{RemoteSandbox, RemoteSettings, serve_sandbox};
pub use sandbox::{
    ActedPayment, LedgerError, SandboxLedger, SandboxMove, SandboxPayment, SandboxProvider, SandboxSettings,
    SandboxStatus, SandboxTotals,
};

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod testing;
