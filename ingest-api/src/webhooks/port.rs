//! What this crate needs of webhooks in the same process.

use crate::problem::{Code, Problem};
use futures::future::BoxFuture;
use std::sync::Arc;
use thiserror::Error;
use tillstream_log::LogError;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::WebhookEndpointEvent;
use tillstream_webhooks::{Endpoint, EndpointBook, EndpointRefusal, TargetError};

/// Why a change could not be made.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// It is in the log, but was not followed in time.
    #[error("the change is durable but not in force yet; look at the endpoint in a moment")]
    NotInForceYet,
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::NotInForceYet => Self::new(Code::NotInForceYet, error.to_string()).retry_after(1),
            WebhookError::Log(error) => error.into(),
        }
    }
}

/// What a test message came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingReply {
    /// Whether a 2xx came back.
    pub delivered: bool,
    /// The message's id.
    pub message_id: Text,
    /// The response's status, if there was a response.
    pub status: Option<i32>,
    /// Why there was none.
    pub error: Option<Text>,
    /// How long it took, ms.
    pub latency_ms: i64,
    /// The first bytes of the response.
    pub response: Text,
}

/// Endpoints, and messages that test them.
pub trait Webhooks: Send + Sync {
    /// Every endpoint, as of now.
    fn book(&self) -> Arc<EndpointBook>;

    /// Appends a change; the inner result is what the fold says about it.
    fn append(
        &self,
        event: WebhookEndpointEvent,
    ) -> BoxFuture<'_, Result<Result<(), EndpointRefusal>, WebhookError>>;

    /// Whether deliveries may go there, as far as can be told now; asked again for every connection.
    fn check_target<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), TargetError>>;

    /// Sends one message that only tests the endpoint; `None`: too many tests run already.
    fn ping(&self, endpoint: Arc<Endpoint>, message_id: Text) -> BoxFuture<'_, Option<PingReply>>;
}
