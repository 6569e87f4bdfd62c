//! `effects.payment.requests.v1`: effects as data, performed after the commit.

use crate::Text;
use crate::order_command::{CaptureMode, PaymentOperation};
use serde::{Deserialize, Serialize};

/// One request to the effects executor. Key: `tenant/order_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectRequest {
    /// Deterministic id.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The order.
    pub order_id: Text,
    /// When the request was committed.
    pub requested_at_ms: i64,
    /// W3C trace context.
    #[serde(default)]
    pub traceparent: Option<Text>,
    /// What to do.
    pub payload: EffectPayload,
}

/// The kinds of effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EffectPayload {
    /// Ask a payment provider.
    #[serde(rename = "tillstream.PaymentRequest")]
    Payment(PaymentRequest),
}

/// A request to a payment provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentRequest {
    /// The payment.
    pub payment_id: Text,
    /// The idempotency key: the same for every attempt of one operation.
    pub request_key: Text,
    /// 1 for the first attempt.
    pub attempt: i32,
    /// What to ask.
    pub operation: PaymentOperation,
    /// Minor units.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: Text,
    /// The payment method.
    pub method: Text,
    /// For `Authorize`: capture at once?
    pub capture: CaptureMode,
    /// For `Refund`: its id.
    #[serde(default)]
    pub refund_id: Option<Text>,
    /// When the operation was first asked for: past 23 h an idempotency key cannot be trusted.
    pub first_asked_at_ms: i64,
}
