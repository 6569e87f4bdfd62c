//! Kept-alive HTTP/1.1 connections to one server, and what is certain about a call that failed.

use super::RemoteSettings;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

type Sender = SendRequest<Full<Bytes>>;

/// No answer that this client asks for is larger, bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Why a call has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// Not a byte of it left this process.
    NotSent(String),
    /// It was, or may have been, sent.
    NoAnswer(String),
}

/// Connections to one server: as many as calls are in flight, at most `connections_max`; more calls wait their turn.
pub(super) struct Pool {
    host: String,
    port: u16,
    authority: String,
    connect_timeout: Duration,
    wait_timeout: Duration,
    answer_timeout: Duration,
    places: Semaphore,
    idle: Mutex<Vec<Sender>>,
}

impl Pool {
    pub fn new(host: &str, port: u16, settings: &RemoteSettings) -> Self {
        // An IPv6 address stands in brackets in a URL, and without them in a call to the system.
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self {
            host: bare,
            port,
            authority: format!("{host}:{port}"),
            connect_timeout: settings.connect_timeout,
            wait_timeout: settings.wait_timeout,
            answer_timeout: settings.answer_timeout,
            places: Semaphore::new(settings.connections_max.clamp(1, Semaphore::MAX_PERMITS)),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// One call: its status and whole body. A caller who goes away closes the connection with him.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        let _place = timeout(self.wait_timeout, self.places.acquire())
            .await
            .map_err(|_| CallError::NotSent("no connection came free in time".to_owned()))?
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        let (sender, response) = self.send(request).await?;
        self.idle.lock().push(sender);
        Ok(response)
    }

    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Sender, (StatusCode, Bytes)), CallError> {
        loop {
            let kept = self.kept().await;
            let fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let answered = timeout(self.answer_timeout, async {
                let response =
                    sender.try_send_request(request).await.map_err(|it| Failed::Send(Box::new(it)))?;
                let status = response.status();
                let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
                Ok((status, body.map_err(|error| Failed::Read(error.to_string()))?.to_bytes()))
            });
            request = match answered.await {
                Ok(Ok(response)) => return Ok((sender, response)),
                Err(_) => return Err(CallError::NoAnswer("no answer in time".to_owned())),
                Ok(Err(Failed::Read(why))) => return Err(CallError::NoAnswer(why)),
                Ok(Err(Failed::Send(mut error))) => match error.take_message() {
                    // The server had closed this kept connection before anything was written to it.
                    Some(request) if !fresh => request,
                    Some(_) => return Err(CallError::NotSent(error.error().to_string())),
                    None => return Err(CallError::NoAnswer(error.error().to_string())),
                },
            };
        }
    }

    /// A kept connection that is still good.
    async fn kept(&self) -> Option<Sender> {
        loop {
            let mut sender = self.idle.lock().pop()?;
            // Its task may not yet have seen that the last answer is read, or that the server has gone.
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    async fn connect(&self) -> Result<Sender, CallError> {
        let opened = timeout(self.connect_timeout, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)
        });
        let (sender, connection) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(CallError::NotSent(error.to_string())),
            Err(_) => return Err(CallError::NotSent("no connection in time".to_owned())),
        };
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Where a call failed.
enum Failed {
    /// Before an answer began.
    Send(Box<TrySendError<Request<Full<Bytes>>>>),
    /// Within the answer.
    Read(String),
}
