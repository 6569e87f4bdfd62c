//! A small HTTP/1.1 client: one connection, one request at a time, kept alive.

use crate::BenchError;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Where and as whom to call.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The API key.
    pub api_key: String,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The path, with its query.
    pub path: &'a str,
    /// `Idempotency-Key`.
    pub key: Option<&'a str>,
    /// `Prefer: wait`, seconds.
    pub wait_seconds: Option<u32>,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl<'a> Call<'a> {
    /// A call with a JSON body.
    pub fn json(method: Method, path: &'a str, body: String) -> Self {
        let body = Bytes::from(body);
        Self { method, path, key: None, wait_seconds: None, content_type: "application/json", body }
    }

    /// With an Idempotency-Key.
    pub fn with_key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// One kept-alive connection.
pub struct Connection {
    target: Target,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects.
    pub async fn open(target: &Target) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(target.address).await.map_err(BenchError::io("connect"))?;
        stream.set_nodelay(true).map_err(BenchError::io("connect"))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(BenchError::http)?;
        tokio::spawn(connection);
        Ok(Self { target: target.clone(), sender })
    }

    /// Sends one request and reads its answer.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Answer, BenchError> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::HOST, self.target.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.target.api_key))
            .header(header::CONTENT_TYPE, call.content_type);
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(seconds) = call.wait_seconds {
            request = request.header("prefer", format!("wait={seconds}"));
        }
        let request = request.body(Full::new(call.body)).map_err(BenchError::http)?;
        self.sender.ready().await.map_err(BenchError::http)?;
        let response = self.sender.send_request(request).await.map_err(BenchError::http)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(BenchError::http)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Answer {
    /// The answer, if its status is 2xx; else an error with its body.
    pub fn success(self) -> Result<Self, BenchError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(&self.body);
        Err(BenchError::Server(format!("{}: {}", self.status, body.chars().take(500).collect::<String>())))
    }
}
