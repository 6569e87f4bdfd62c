//! The sandbox that another process serves, as a payment provider.

use super::super::{ActedPayment, LedgerError, SandboxLedger, SandboxPayment};
use super::pool::{CallError, Pool};
use super::{Acted, Authenticate, Execute, Refusal};
use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::PaymentResult;

/// Where a served sandbox is, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// `http://host:port`, perhaps with a path in front of the calls'.
    pub url: String,
    /// Connections at most, and so calls in flight; more calls wait for one.
    pub connections_max: usize,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a call may wait for a connection to come free.
    pub wait_timeout: Duration,
    /// How long an answer may take.
    pub answer_timeout: Duration,
}

impl RemoteSettings {
    /// The usual limits.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: 256,
            connect_timeout: Duration::from_secs(2),
            wait_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(10),
        }
    }
}

/// A sandbox served by another process. It keeps no memory of its own: any number of workers may ask the same one.
pub struct RemoteSandbox {
    url: String,
    /// The path in front of the calls', without a slash at its end.
    prefix: String,
    pool: Pool,
}

impl RemoteSandbox {
    /// A client; it connects when it is first asked.
    ///
    /// # Errors
    /// `LedgerError::Url` when it is not `http://host[:port][/path]`.
    pub fn new(settings: RemoteSettings) -> Result<Self, LedgerError> {
        let fail = |detail: &str| LedgerError::Url { url: settings.url.clone(), detail: detail.to_owned() };
        let url: Uri = settings.url.parse().map_err(|_| fail("it cannot be read"))?;
        if url.scheme_str() != Some("http") {
            return Err(fail("it must begin with http://"));
        }
        if url.query().is_some() {
            return Err(fail("it must have no query"));
        }
        let host = url.host().filter(|it| !it.is_empty()).ok_or_else(|| fail("it names no host"))?;
        let port = url.port_u16().unwrap_or(80);
        let prefix = url.path().trim_end_matches('/').to_owned();
        let pool = Pool::new(host, port, &settings);
        Ok(Self { url: settings.url, prefix, pool })
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), CallError> {
        self.pool.call(Method::GET, &format!("{}{path}", self.prefix), Vec::new()).await
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<(StatusCode, Bytes), CallError> {
        let body = serde_json::to_vec(body).map_err(|error| CallError::NotSent(error.to_string()))?;
        self.pool.call(Method::POST, &format!("{}{path}", self.prefix), body).await
    }

    async fn perform(&self, tenant: &str, order_id: &str, request: &PaymentRequest) -> ProviderReply {
        let body = Execute {
            tenant: Cow::Borrowed(tenant),
            order_id: Cow::Borrowed(order_id),
            request: Cow::Borrowed(request),
        };
        let (status, answer) = match self.post("/v1/payments/execute", &body).await {
            Ok(answered) => answered,
            Err(CallError::NotSent(why)) => {
                let message = format!("The sandbox cannot be reached: {why}.").into();
                return ProviderReply::Unavailable { code: Text::const_new("sandbox_unreachable"), message };
            }
            Err(CallError::NoAnswer(why)) => return silent("sandbox_no_answer", &why),
        };
        if status == StatusCode::OK {
            return match serde_json::from_slice::<PaymentResult>(&answer) {
                Ok(result) if result.request_key == request.request_key => ProviderReply::Answered(result),
                Ok(_) => silent("sandbox_unreadable", "it answered another request"),
                Err(error) => silent("sandbox_unreadable", &error.to_string()),
            };
        }
        match serde_json::from_slice(&answer) {
            Ok(Refusal::Unavailable { code, message }) => ProviderReply::Unavailable { code, message },
            Ok(Refusal::Unknown { code, message }) => ProviderReply::Unknown { code, message },
            // A stranger's "no" says nothing about what stands behind it.
            Ok(Refusal::Absent) | Err(_) => silent("sandbox_unreadable", &format!("it answered {status}")),
        }
    }

    /// The body of a 200; `None` for what is absent.
    fn read<T: DeserializeOwned>(
        &self,
        answered: Result<(StatusCode, Bytes), CallError>,
    ) -> Result<Option<T>, LedgerError> {
        let fail = |detail: String| LedgerError::Remote { url: self.url.clone(), detail };
        let (status, answer) =
            answered.map_err(|(CallError::NotSent(detail) | CallError::NoAnswer(detail))| fail(detail))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).map(Some).map_err(|error| fail(error.to_string()));
        }
        match serde_json::from_slice(&answer) {
            Ok(Refusal::Absent) => Ok(None),
            Ok(Refusal::Unavailable { message, .. } | Refusal::Unknown { message, .. }) => {
                Err(fail(message.into_string()))
            }
            Err(_) => Err(fail(format!("it answered {status}"))),
        }
    }
}

/// It may have happened.
fn silent(code: &'static str, why: &str) -> ProviderReply {
    let message = format!("The sandbox gave no answer that can be used: {why}.").into();
    ProviderReply::Unknown { code: Text::const_new(code), message }
}

/// An id as a path segment.
fn segment(id: &str) -> String {
    let mut segment = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

impl PaymentProvider for RemoteSandbox {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn execute<'a>(
        &'a self,
        tenant: &'a str,
        order_id: &'a str,
        request: &'a PaymentRequest,
    ) -> BoxFuture<'a, ProviderReply> {
        Box::pin(self.perform(tenant, order_id, request))
    }

    fn lookup<'a>(&'a self, request_key: &'a str) -> BoxFuture<'a, Lookup> {
        Box::pin(async move {
            let answered = self.get(&format!("/v1/requests/{}", segment(request_key))).await;
            match self.read::<PaymentResult>(answered) {
                Ok(Some(result)) if result.request_key == request_key => Lookup::Found(result),
                Ok(None) => Lookup::Absent,
                Ok(Some(_)) | Err(_) => Lookup::Unavailable,
            }
        })
    }
}

impl SandboxLedger for RemoteSandbox {
    fn payment<'a>(
        &'a self,
        payment_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<SandboxPayment>, LedgerError>> {
        Box::pin(async move { self.read(self.get(&format!("/v1/payments/{}", segment(payment_id))).await) })
    }

    fn authenticate<'a>(
        &'a self,
        payment_id: &'a str,
        succeed: bool,
    ) -> BoxFuture<'a, Result<Option<ActedPayment>, LedgerError>> {
        Box::pin(async move {
            let path = format!("/v1/payments/{}/authenticate", segment(payment_id));
            let acted: Option<Acted> = self.read(self.post(&path, &Authenticate { succeed }).await)?;
            Ok(acted.map(|it| (it.tenant, it.order_id, it.result)))
        })
    }
}
