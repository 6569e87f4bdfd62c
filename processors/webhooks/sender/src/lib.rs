//! Outgoing webhooks, the shell: the executor that follows events, the HTTP client, and the registry of endpoints.

mod connect;
pub mod endpoints;
pub mod executor;
pub mod gate;
pub mod http_transport;
pub mod metrics;
pub mod registered;
pub mod transport;

pub use connect::check_target;
pub use endpoints::{Disablement, Endpoints};
pub use executor::{ExecutorPorts, ExecutorSettings, WebhooksError, supervise_executor};
pub use gate::Gates;
pub use http_transport::{HttpSettings, HttpTransport};
pub use metrics::WebhookMetrics;
pub use registered::{Registered, RegisteredBook, RegisteredEvent};
pub use transport::{NoResponse, Post, Reply, Transport};

#[cfg(test)]
mod testing;
