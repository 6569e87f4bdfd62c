//! Where endpoints come from, and how one is switched off: what the executor needs of the registry.

use futures::future::BoxFuture;
use std::sync::Arc;
use tillstream_log::LogError;
use tillstream_schemas::Text;
use tillstream_webhooks::EndpointBook;
use tokio::sync::watch;

/// An endpoint to switch off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disablement {
    /// The tenant.
    pub tenant: Text,
    /// The endpoint.
    pub endpoint: Text,
    /// The life it has failed in: when it was switched on, ms since the epoch.
    pub active_since_ms: i64,
    /// Stable code.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

/// Every endpoint there is.
pub trait Endpoints: Send + Sync {
    /// Resolves once every change that was acknowledged before this call is in the book: an event is never held against
    /// endpoints older than itself.
    fn caught_up(&self) -> BoxFuture<'_, Result<(), LogError>>;

    /// As they are now.
    fn book(&self) -> Arc<EndpointBook>;

    /// Tells whenever the book changes.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Switches an endpoint off, unless it has been switched on since; durable once it returns.
    fn disable(&self, disablement: Disablement) -> BoxFuture<'_, Result<(), LogError>>;
}
