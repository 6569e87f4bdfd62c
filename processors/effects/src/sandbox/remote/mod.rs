//! The sandbox as another company: one process serves its ledger over HTTP/1.1, and workers ask it.
//!
//! The format is internal to this version of Tillstream; amounts are minor units, bodies are JSON.
//!
//! | call | body | answers |
//! |---|---|---|
//! | `POST /v1/payments/execute` | [`Execute`]: `tenant`, `order_id`, `request` | 200 the result; 503, 504 [`Refusal`] |
//! | `GET /v1/requests/{request_key}` | | 200 the result; 404 `absent`; 503 |
//! | `GET /v1/payments/{payment_id}` | | 200 the payment; 404 `absent`; 503 |
//! | `POST /v1/payments/{payment_id}/authenticate` | [`Authenticate`]: `succeed` | 200 [`Acted`]; 404 `absent`; 504 |
//! | `GET /v1/payments?after=ID&limit=N` | | 200 NDJSON, one payment with its charges and refunds per line, in id order |
//! | `GET /healthz` | | 200; 503 once the ledger has stopped |
//!
//! A `request` and a `result` are the fields of `PaymentRequest` and `PaymentResult` in snake case. A page of the list
//! goes on with `after` = its last line's id; a page with fewer lines than its limit (1,000 where none is given, 10,000
//! at most) is the last one. The list is one tenant's and the next's: the sandbox is no tenant's, and listens where only
//! the deployment reaches it.
//!
//! What the caller may believe: only a [`Refusal`] that says so means that nothing happened. Any other answer, and none,
//! leaves it open whether money moved; then only the same key may be used again, and it moves money once.

mod client;
mod pool;
mod server;

pub use client::{RemoteSandbox, RemoteSettings};
pub use server::serve_sandbox;

use super::{ActedPayment, SandboxPayment};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::PaymentResult;

/// What a request is executed with.
#[derive(Debug, Serialize, Deserialize)]
struct Execute<'a> {
    tenant: Cow<'a, str>,
    order_id: Cow<'a, str>,
    request: Cow<'a, PaymentRequest>,
}

/// What the customer does.
#[derive(Debug, Serialize, Deserialize)]
struct Authenticate {
    succeed: bool,
}

/// A payment that was acted on.
#[derive(Debug, Serialize, Deserialize)]
struct Acted {
    tenant: Text,
    order_id: Text,
    result: PaymentResult,
}

impl From<ActedPayment> for Acted {
    fn from((tenant, order_id, result): ActedPayment) -> Self {
        Self { tenant, order_id, result }
    }
}

/// One line of the list.
#[derive(Debug, Serialize)]
struct Listed {
    id: Text,
    #[serde(flatten)]
    payment: SandboxPayment,
}

/// An answer that is no result.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
enum Refusal {
    /// 503: nothing happened.
    Unavailable {
        /// Stable code.
        code: Text,
        /// A sentence.
        message: Text,
    },
    /// 504: it may have happened.
    Unknown {
        /// Stable code.
        code: Text,
        /// A sentence.
        message: Text,
    },
    /// 404: the sandbox has no such request or payment, or none that waits.
    Absent,
}

#[cfg(test)]
mod tests;
