//! One attempt, as the executor sees it: a request out, and what came back.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::WebhookAttempt;
use tillstream_webhooks::rows::snippet;
use tillstream_webhooks::{Endpoint, Verdict, signatures};

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Where to; checked again when the connection is made.
    pub url: Text,
    /// `webhook-id`
    pub id: Text,
    /// `webhook-timestamp`, seconds since the epoch.
    pub timestamp_seconds: i64,
    /// `webhook-signature`
    pub signature: String,
    /// The body.
    pub body: Bytes,
}

impl Post {
    /// A message to an endpoint, signed now.
    pub fn new(endpoint: &Endpoint, id: Text, body: Vec<u8>, now_ms: i64) -> Self {
        let timestamp_seconds = now_ms.div_euclid(1_000);
        let signature = signatures(&endpoint.signing(now_ms), &id, timestamp_seconds, &body);
        Self { url: endpoint.settings.url.clone(), id, timestamp_seconds, signature, body: body.into() }
    }
}

/// Why there was no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// It took too long.
    Timeout,
    /// The name leads nowhere.
    Dns,
    /// The name leads to a private address.
    PrivateAddress,
    /// Nobody takes the connection.
    Connect,
    /// The certificate is not good, or no common TLS.
    Tls,
    /// What came back is no HTTP, or it ended early.
    Protocol,
}

impl NoResponse {
    /// Its name in the delivery log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::PrivateAddress => "private_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, or why there is none.
    pub status: Result<StatusCode, NoResponse>,
    /// `Retry-After`, ms from now.
    pub retry_after_ms: Option<i64>,
    /// The first bytes of the body.
    pub body: Bytes,
}

impl Reply {
    /// No response.
    pub fn none(why: NoResponse) -> Self {
        Self { status: Err(why), retry_after_ms: None, body: Bytes::new() }
    }

    /// Whether the event is delivered: any 2xx. A redirect is not followed, and so is a failure.
    pub fn verdict(&self) -> Verdict {
        match self.status {
            Ok(status) if status.is_success() => Verdict::Delivered,
            _ => Verdict::Failed { retry_after_ms: self.retry_after_ms },
        }
    }

    /// Whether the endpoint wants nothing any more: 410.
    pub fn is_gone(&self) -> bool {
        self.status == Ok(StatusCode::GONE)
    }

    /// As the delivery log keeps it.
    pub fn to_attempt(&self, at_ms: i64, latency_ms: i64) -> WebhookAttempt {
        WebhookAttempt {
            at_ms,
            response_status: self.status.ok().map(|it| i32::from(it.as_u16())),
            error: self.status.err().map(|it| Text::const_new(it.as_str())),
            latency_ms,
            response: snippet(&self.body),
        }
    }
}

/// Who makes attempts. It never fails: what goes wrong is the reply.
pub trait Transport: Send + Sync {
    /// One POST, within its time.
    fn post(&self, post: Post) -> BoxFuture<'_, Reply>;
}
