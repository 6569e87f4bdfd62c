//! Connections that only go where they may: the name is resolved, each address is checked, and the address that was
//! checked is the one connected to. Nobody resolves the name a second time.

use crate::transport::NoResponse;
use http::Uri;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tillstream_webhooks::{TargetError, TargetPolicy};
use tokio::net::TcpStream;
use tower::Service;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("the name cannot be resolved: {0}")]
    Dns(io::Error),
    #[error("it leads to no public address")]
    Private,
    #[error("nobody takes the connection: {0}")]
    Refused(io::Error),
    #[error("connecting takes too long")]
    Slow,
}

impl ConnectError {
    pub fn reason(&self) -> NoResponse {
        match self {
            Self::Dns(_) => NoResponse::Dns,
            Self::Private => NoResponse::PrivateAddress,
            Self::Refused(_) => NoResponse::Connect,
            Self::Slow => NoResponse::Timeout,
        }
    }
}

/// Makes TCP connections to checked addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckedConnector {
    pub policy: TargetPolicy,
    pub timeout: Duration,
}

impl CheckedConnector {
    async fn connect(self, uri: Uri) -> Result<TcpStream, ConnectError> {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => tokio::net::lookup_host((host, port)).await.map_err(ConnectError::Dns)?.collect(),
        };
        let mut refused = None;
        for address in found.into_iter().filter(|it| self.policy.check_address(it.ip()).is_ok()) {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A request is one small write: it must not wait for another.
                    stream.set_nodelay(true).map_err(ConnectError::Refused)?;
                    return Ok(stream);
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.map_or(ConnectError::Private, ConnectError::Refused))
    }
}

/// How long a name may take when an endpoint is made.
const LOOKUP_MAX: Duration = Duration::from_secs(3);

/// Whether deliveries may go to a URL, as far as can be told now: a name that leads to private addresses alone is refused,
/// one that leads nowhere yet is not. Every connection is checked again.
///
/// # Errors
/// [`TargetError`]
pub async fn check_target(policy: TargetPolicy, url: &str) -> Result<(), TargetError> {
    let url = policy.check(url)?;
    let Some(url::Host::Domain(name)) = url.host() else { return Ok(()) };
    let port = url.port_or_known_default().unwrap_or(443);
    let lookup = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((name, port))).await;
    let Ok(Ok(found)) = lookup else { return Ok(()) };
    let mut refused = None;
    for address in found {
        match policy.check_address(address.ip()) {
            Ok(()) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), Err)
}

impl Service<Uri> for CheckedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = *self;
        Box::pin(async move {
            let connected = tokio::time::timeout(connector.timeout, connector.connect(uri)).await;
            Ok(TokioIo::new(connected.map_err(|_| ConnectError::Slow)??))
        })
    }
}
