//! Speaks to a running pipeline over HTTP, for the commands that need one.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// Where the pipeline is, and who asks.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    api_key: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("TS0711: {url} does not answer: {error}; is `tillstream serve` running there?")]
    Unreachable {
        /// The call.
        url: String,
        /// The library's words.
        error: String,
    },
    /// It answered, but said no.
    #[error("TS0712: {method} {path} was answered {status}: {problem}")]
    Refused {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// The status.
        status: u16,
        /// The problem document in words.
        problem: String,
    },
    /// It answered something this version does not understand.
    #[error("TS0713: {path} answered what this version cannot read: {detail}")]
    Unreadable {
        /// The path.
        path: String,
        /// What was wrong.
        detail: String,
    },
}

impl Client {
    /// A client for the pipeline at `url`.
    pub fn new(url: &str, api_key: &str) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(120))
            .build()
            .map_err(|error| ClientError::Unreachable { url: url.to_owned(), error: error.to_string() })?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), api_key: api_key.to_owned() })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.api_key)
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        call: reqwest::RequestBuilder,
    ) -> Result<Value, ClientError> {
        let text = self.text(call).await?;
        let body = serde_json::from_str(&text.1).unwrap_or(Value::Null);
        if text.0.is_success() {
            return Ok(body);
        }
        let problem = problem_text(&body).unwrap_or(text.1);
        Err(ClientError::Refused { method, path: path.to_owned(), status: text.0.as_u16(), problem })
    }

    async fn text(&self, call: reqwest::RequestBuilder) -> Result<(StatusCode, String), ClientError> {
        let failed = |error: reqwest::Error| ClientError::Unreachable {
            url: self.url.clone(),
            error: root_cause(&error),
        };
        let response = call.send().await.map_err(failed)?;
        let status = response.status();
        Ok((status, response.text().await.map_err(failed)?))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.answer(Method::GET, path, self.request(Method::GET, path)).await
    }

    /// GET of something that is not JSON.
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let (status, text) = self.text(self.request(Method::GET, path)).await?;
        if status.is_success() {
            return Ok(text);
        }
        Err(ClientError::Refused {
            method: Method::GET,
            path: path.to_owned(),
            status: status.as_u16(),
            problem: text,
        })
    }

    /// PUT of JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.answer(Method::PUT, path, self.request(Method::PUT, path).json(body)).await
    }

    /// PUT of bytes.
    pub async fn put_bytes(&self, path: &str, media_type: &str, body: Vec<u8>) -> Result<Value, ClientError> {
        let call = self.request(Method::PUT, path).header("Content-Type", media_type).body(body);
        self.answer(Method::PUT, path, call).await
    }

    /// POST of JSON, with an Idempotency-Key where one is given.
    pub async fn post(
        &self,
        path: &str,
        idempotency_key: Option<&str>,
        body: &Value,
    ) -> Result<Value, ClientError> {
        let mut call = self.request(Method::POST, path).json(body);
        if let Some(key) = idempotency_key {
            call = call.header("Idempotency-Key", key);
        }
        self.answer(Method::POST, path, call).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.answer(Method::DELETE, path, self.request(Method::DELETE, path)).await
    }

    /// POST of NDJSON; the answer's lines, parsed.
    pub async fn post_ndjson(&self, path: &str, lines: String) -> Result<Vec<Value>, ClientError> {
        let call =
            self.request(Method::POST, path).header("Content-Type", "application/x-ndjson").body(lines);
        let (status, text) = self.text(call).await?;
        if !status.is_success() {
            let problem = serde_json::from_str(&text).ok().as_ref().and_then(problem_text).unwrap_or(text);
            return Err(ClientError::Refused {
                method: Method::POST,
                path: path.to_owned(),
                status: status.as_u16(),
                problem,
            });
        }
        text.lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_str(line).map_err(|error| ClientError::Unreadable {
                    path: path.to_owned(),
                    detail: error.to_string(),
                })
            })
            .collect()
    }
}

/// The innermost cause: "connection refused" says more than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A problem document as one line: title, detail, and each field with its fix.
pub fn problem_text(body: &Value) -> Option<String> {
    let title = body.get("title")?.as_str()?;
    let mut text = title.to_owned();
    if let Some(detail) = body.get("detail").and_then(Value::as_str).filter(|it| *it != title) {
        text.push_str(": ");
        text.push_str(detail);
    }
    for error in body.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!("; {}: {} ({})", word("field"), word("message"), word("fix")));
    }
    Some(text)
}

/// Percent-encodes one path segment.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
