//! What the executor asks of a payment provider, whichever it is.

use futures::future::BoxFuture;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{PaymentOutcome, PaymentResult};

/// What came back from a provider.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderReply {
    /// The provider answered: done, declined, or the customer must act.
    Answered(PaymentResult),
    /// The provider could not be asked, or said "later": nothing happened.
    Unavailable {
        /// Stable code.
        code: Text,
        /// A sentence.
        message: Text,
    },
    /// No answer: it may have happened. Only the same key may be used again.
    Unknown {
        /// Stable code.
        code: Text,
        /// A sentence.
        message: Text,
    },
}

impl ProviderReply {
    /// Nothing happened.
    pub fn unavailable(code: &'static str, message: &'static str) -> Self {
        Self::Unavailable { code: Text::const_new(code), message: Text::const_new(message) }
    }

    /// It may have happened.
    pub fn unknown(code: &'static str, message: &'static str) -> Self {
        Self::Unknown { code: Text::const_new(code), message: Text::const_new(message) }
    }

    /// The reply to a request that may have been made before: that nothing happened is said of this time alone.
    #[must_use]
    pub fn of_a_repeat(self) -> Self {
        match self {
            Self::Unavailable { code, message } => Self::Unknown { code, message },
            other => other,
        }
    }

    /// Whether the provider was not heard: what a circuit breaker counts.
    pub fn is_transport_failure(&self) -> bool {
        !matches!(self, Self::Answered(_))
    }

    /// The result that goes back to the order.
    pub fn into_result(self, request: &PaymentRequest) -> PaymentResult {
        let (outcome, code, message) = match self {
            Self::Answered(result) => return result,
            Self::Unavailable { code, message } => (PaymentOutcome::Unavailable, code, message),
            Self::Unknown { code, message } => (PaymentOutcome::Unknown, code, message),
        };
        PaymentResult {
            payment_id: request.payment_id.clone(),
            request_key: request.request_key.clone(),
            operation: request.operation,
            outcome,
            amount_minor: request.amount_minor,
            provider_ref: None,
            code: Some(code),
            message: Some(message),
        }
    }
}

/// What a provider knows of a request key.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The request was taken; this was its answer.
    Found(PaymentResult),
    /// The provider never took a request with this key.
    Absent,
    /// The provider could not be asked.
    Unavailable,
}

/// A payment provider.
///
/// Every implementation passes the suite in `conformance.rs`: the same key gives the same answer and moves money once;
/// the same key with other parameters is declined with `idempotency_error`.
pub trait PaymentProvider: Send + Sync {
    /// Its name, for labels.
    fn name(&self) -> &'static str;

    /// Performs one request. `request.request_key` is the idempotency key.
    fn execute<'a>(
        &'a self,
        tenant: &'a str,
        order_id: &'a str,
        request: &'a PaymentRequest,
    ) -> BoxFuture<'a, ProviderReply>;

    /// What became of a request key, found by other means than the idempotency key's own memory (which ends after a day).
    fn lookup<'a>(&'a self, request_key: &'a str) -> BoxFuture<'a, Lookup>;
}
