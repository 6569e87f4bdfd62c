//! Attempts over HTTP/1.1, with TLS by the system's authorities, connections kept for the next attempt, no redirects, and
//! no more of a response than is worth keeping.

use crate::connect::{CheckedConnector, ConnectError};
use crate::transport::{NoResponse, Post, Reply, Transport};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::time::Duration;
use tillstream_webhooks::TargetPolicy;

/// Bytes of a response that are read; of a longer one the rest is left, and the connection is closed.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
const AGENT: &str = concat!("Tillstream-Webhooks/", env!("CARGO_PKG_VERSION"));

/// How attempts are made.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// Where they may go.
    pub policy: TargetPolicy,
    /// How long name, connection and TLS may take.
    pub connect_timeout: Duration,
    /// How long the whole attempt may take.
    pub timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            policy: TargetPolicy::default(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
        }
    }
}

/// Attempts over HTTP.
pub struct HttpTransport {
    /// `None`: the system has no certificate authorities, so that nobody can be trusted.
    secure: Option<Client<HttpsConnector<CheckedConnector>, Full<Bytes>>>,
    /// For development: [`TargetPolicy`] refuses `http` everywhere else.
    plain: Client<CheckedConnector, Full<Bytes>>,
    settings: HttpSettings,
}

impl HttpTransport {
    /// Reads the system's certificate authorities (or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`). Where there are none,
    /// it says so, and every attempt over TLS fails.
    pub fn new(settings: HttpSettings) -> Self {
        let tcp = CheckedConnector { policy: settings.policy, timeout: settings.connect_timeout };
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(16)
            .pool_timer(TokioTimer::new());
        let secure = match hyper_rustls::HttpsConnectorBuilder::new().with_native_roots() {
            Ok(tls) => Some(builder.build(tls.https_only().enable_http1().wrap_connector(tcp))),
            Err(error) => {
                tracing::error!(
                    %error, code = "TS0902",
                    "the system's certificate authorities cannot be read: no webhook is sent over TLS; SSL_CERT_FILE names \
                     a file of them"
                );
                None
            }
        };
        Self { secure, plain: builder.build(tcp), settings }
    }

    async fn attempt(&self, post: Post) -> Reply {
        let Ok(url) = self.settings.policy.check(&post.url) else {
            return Reply::none(NoResponse::PrivateAddress);
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT)
            .header("webhook-id", post.id.as_str())
            .header("webhook-timestamp", post.timestamp_seconds)
            .header("webhook-signature", post.signature)
            .body(Full::new(post.body));
        let Ok(request) = request else { return Reply::none(NoResponse::Protocol) };
        let response = match (&self.secure, url.scheme()) {
            (_, "http") => self.plain.request(request).await,
            (Some(secure), _) => secure.request(request).await,
            (None, _) => return Reply::none(NoResponse::Tls),
        };
        match response {
            Ok(response) => reply(response).await,
            Err(error) => Reply::none(reason(&error)),
        }
    }
}

impl Transport for HttpTransport {
    fn post(&self, post: Post) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            let attempt = tokio::time::timeout(self.settings.timeout, self.attempt(post));
            attempt.await.unwrap_or_else(|_| Reply::none(NoResponse::Timeout))
        })
    }
}

async fn reply(response: Response<Incoming>) -> Reply {
    let (parts, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    while body.len() < RESPONSE_BYTES_MAX
        && let Some(frame) = incoming.frame().await
    {
        // A body that ends early changes nothing about the status.
        let Ok(frame) = frame else { break };
        if let Some(data) = frame.data_ref() {
            body.extend_from_slice(&data[..data.len().min(RESPONSE_BYTES_MAX - body.len())]);
        }
    }
    Reply { status: Ok(parts.status), retry_after_ms: retry_after_ms(&parts.headers), body: body.freeze() }
}

/// The seconds of `Retry-After`. A date is left alone: nobody knows how well the receiver's clock goes.
fn retry_after_ms(headers: &HeaderMap) -> Option<i64> {
    let seconds: u32 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(i64::from(seconds) * 1_000)
}

fn reason(error: &ClientError) -> NoResponse {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(it) = cause {
        if let Some(connect) = it.downcast_ref::<ConnectError>() {
            return connect.reason();
        }
        cause = it.source();
    }
    // The connector below TLS tells itself what failed.
    if error.is_connect() { NoResponse::Tls } else { NoResponse::Protocol }
}

#[cfg(test)]
mod tests;
