//! The server in front of the router: what a client may take its time with, and for how long.

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

/// How patient the door is.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// The head of a request must be here so long after the connection is open, or after the answer before it. So this is
    /// also how long a connection may idle.
    pub head_timeout: Duration,
    /// The most headers of a request; more are answered 431.
    pub headers_max: usize,
    /// The most bytes of a request's head (at least 8192); more are answered 431.
    pub head_bytes_max: usize,
    /// The most connections at a time; others wait until one ends.
    pub connections_max: usize,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(30),
            headers_max: 64,
            head_bytes_max: 32 << 10,
            connections_max: 10_000,
        }
    }
}

/// Between two tries to take a connection when the system has no more file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `closed`; then takes no new connections, lets those that are open finish their answer, and returns.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &DoorSettings,
    closed: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_headers(settings.headers_max)
        .max_buf_size(settings.head_bytes_max.max(8_192));
    let places = Arc::new(Semaphore::new(settings.connections_max.max(1)));
    let (close, closing) = watch::channel(false);
    let mut closed = pin!(closed);
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut closed => break,
            next = next(&listener, &places) => next,
        };
        // Answers are small and waited for: they do not wait for more to fill a packet.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut closing = closing.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                _ = connection.as_mut() => true,
                _ = closing.wait_for(|it| *it) => false,
            };
            if !ended {
                connection.as_mut().graceful_shutdown();
                // One that ends badly is the client's doing: there is nobody to tell.
                let _ = connection.await;
            }
            drop((place, closing));
        });
    }
    drop((listener, closing));
    close.send_replace(true);
    // Every connection holds a receiver.
    close.closed().await;
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // Nobody closes the semaphore.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::debug!(%error, "a connection cannot be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
