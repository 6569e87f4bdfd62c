//! `orders.order.events.v1`: the public history of orders.

use crate::order_command::{Allocation, CaptureMode, PaymentOperation, ReturnLine, ShipmentLine};
use crate::order_state::PricedLine;
use crate::{Text, TextMap};
use serde::{Deserialize, Serialize};

/// One fact about one order. Key: `tenant/order_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderEvent {
    /// Deterministic event id, derived from the input's.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The order (or credit).
    pub order_id: Text,
    /// The order's version after this event.
    pub version: i64,
    /// When it was decided, ms since the epoch.
    pub at_ms: i64,
    /// The command that caused it.
    pub command_id: Text,
    /// W3C trace context.
    #[serde(default)]
    pub traceparent: Option<Text>,
    /// The order's status after this event, as the API spells it.
    pub status: Text,
    /// What happened.
    pub payload: OrderEventPayload,
}

/// The tenant rule that shaped an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleRef {
    /// Its name.
    pub name: Text,
    /// Its version.
    pub version: Text,
    /// The digest of its module.
    pub digest: Text,
    /// Further rules that shaped it, in the order they were asked.
    #[serde(default)]
    pub also: Vec<RuleStep>,
}

impl RuleRef {
    /// Every rule that it names, in the order they were asked.
    pub fn steps(&self) -> impl Iterator<Item = RuleStep> {
        let first =
            RuleStep { name: self.name.clone(), version: self.version.clone(), digest: self.digest.clone() };
        std::iter::once(first).chain(self.also.iter().cloned())
    }
}

/// One more rule that shaped an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleStep {
    /// Its name.
    pub name: Text,
    /// Its version.
    pub version: Text,
    /// The digest of its module.
    pub digest: Text,
}

macro_rules! payload {
    ($($(#[$doc:meta])* $name:ident = $full:literal / $kind:literal,)*) => {
        /// The kinds of event.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum OrderEventPayload {
            $($(#[$doc])* #[serde(rename = $full)] $name($name),)*
        }

        impl OrderEventPayload {
            /// The CloudEvents type, such as `order.priced`.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name(_) => $kind,)* }
            }
            /// Every kind there is.
            pub const KINDS: &'static [&'static str] = &[$($kind,)*];
        }

        $(impl From<$name> for OrderEventPayload { fn from(it: $name) -> Self { Self::$name(it) } })*
    };
}

payload! {
    /// The order has its prices.
    OrderPriced = "tillstream.OrderPriced" / "order.priced",
    /// The order cannot be: bad product, no stock, expired hold.
    OrderRejected = "tillstream.OrderRejected" / "order.rejected",
    /// Every line is held.
    OrderReserved = "tillstream.OrderReserved" / "order.reserved",
    /// Money is authorized.
    PaymentAuthorized = "tillstream.PaymentAuthorized" / "payment.authorized",
    /// The customer must act.
    PaymentActionRequired = "tillstream.PaymentActionRequired" / "payment.action_required",
    /// Money is captured.
    PaymentCaptured = "tillstream.PaymentCaptured" / "payment.captured",
    /// The payment failed for good.
    PaymentFailed = "tillstream.PaymentFailed" / "payment.failed",
    /// The authorization was given up.
    PaymentCancelled = "tillstream.PaymentCancelled" / "payment.cancelled",
    /// A refund was asked of the provider.
    RefundRequested = "tillstream.RefundRequested" / "payment.refund_requested",
    /// Money went back.
    PaymentRefunded = "tillstream.PaymentRefunded" / "payment.refunded",
    /// A refund failed for good.
    RefundFailed = "tillstream.RefundFailed" / "payment.refund_failed",
    /// The order is cancelled.
    OrderCancelled = "tillstream.OrderCancelled" / "order.cancelled",
    /// A shipment left.
    ShipmentShipped = "tillstream.ShipmentShipped" / "shipment.shipped",
    /// A shipment arrived.
    ShipmentDelivered = "tillstream.ShipmentDelivered" / "shipment.delivered",
    /// Every shipment of the whole order arrived.
    OrderCompleted = "tillstream.OrderCompleted" / "order.completed",
    /// Goods came back.
    OrderReturned = "tillstream.OrderReturned" / "order.returned",
    /// A credit without an order.
    CreditIssued = "tillstream.CreditIssued" / "credit.issued",
    /// A command id came again with another body; nothing changed.
    CommandConflicted = "tillstream.CommandConflicted" / "command.conflicted",
    /// A command cannot be taken in this state; nothing changed.
    CommandRefused = "tillstream.CommandRefused" / "command.refused",
}

/// See [`OrderEventPayload::OrderPriced`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderPriced {
    /// The merchant's customer id.
    #[serde(default)]
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// Event time.
    pub placed_at_ms: i64,
    /// The priced lines.
    pub lines: Vec<PricedLine>,
    /// Σ quantity × price, minor units.
    pub gross_minor: i64,
    /// Σ discounts.
    pub discount_minor: i64,
    /// Σ tax.
    pub tax_minor: i64,
    /// gross − discount + tax.
    pub total_minor: i64,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
    /// Why somebody looks at the order before its money is taken.
    #[serde(default)]
    pub review: Option<Text>,
    /// Extra analytics dimensions: name to value.
    #[serde(default)]
    pub dimensions: TextMap,
}

/// See [`OrderEventPayload::OrderRejected`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderRejected {
    /// Stable code, such as `out_of_stock`.
    pub code: Text,
    /// A sentence.
    pub message: Text,
    /// The SKUs it is about.
    #[serde(default)]
    pub skus: Vec<Text>,
    /// Event time of the order.
    pub placed_at_ms: i64,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
}

/// See [`OrderEventPayload::OrderReserved`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderReserved {
    /// Where the goods are held, per SKU.
    #[serde(default)]
    pub holds: Vec<HeldLine>,
    /// When the holds end unless paid.
    pub expires_at_ms: i64,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
    /// Why somebody looks at the order before its money is taken.
    #[serde(default)]
    pub review: Option<Text>,
}

/// One held SKU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldLine {
    /// The SKU.
    pub sku: Text,
    /// Units.
    pub quantity: i64,
    /// Where.
    #[serde(default)]
    pub allocations: Vec<Allocation>,
}

/// See [`OrderEventPayload::PaymentAuthorized`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentAuthorized {
    /// The payment.
    pub payment_id: Text,
    /// Minor units.
    pub amount_minor: i64,
    /// The capture mode: with `manual` and no review, the order is confirmed now.
    pub capture: CaptureMode,
    /// The provider's id.
    #[serde(default)]
    pub provider_ref: Option<Text>,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
    /// Why somebody looks at the order before its money is taken.
    #[serde(default)]
    pub review: Option<Text>,
}

impl PaymentAuthorized {
    /// Whether the order is confirmed by this promise of money. One that somebody is to look at waits for the capture.
    pub fn confirms(&self) -> bool {
        self.capture == CaptureMode::Manual && self.review.is_none()
    }
}

/// See [`OrderEventPayload::PaymentActionRequired`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentActionRequired {
    /// The payment.
    pub payment_id: Text,
    /// What to do, or where.
    pub action: Text,
}

/// See [`OrderEventPayload::PaymentCaptured`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentCaptured {
    /// The payment; empty when the total was zero.
    pub payment_id: Text,
    /// Minor units captured now.
    pub amount_minor: i64,
    /// The provider's id.
    #[serde(default)]
    pub provider_ref: Option<Text>,
    /// Whether this confirms the order (first capture, not an unwinding one).
    pub confirms: bool,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
}

/// See [`OrderEventPayload::PaymentFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentFailed {
    /// The payment.
    pub payment_id: Text,
    /// What failed.
    pub operation: PaymentOperation,
    /// Stable code, such as `card_declined`.
    pub code: Text,
    /// A sentence.
    pub message: Text,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
}

/// See [`OrderEventPayload::PaymentCancelled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentCancelled {
    /// The payment.
    pub payment_id: Text,
    /// Minor units no longer authorized.
    pub amount_minor: i64,
}

/// See [`OrderEventPayload::RefundRequested`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefundRequested {
    /// The refund.
    pub refund_id: Text,
    /// Minor units.
    pub amount_minor: i64,
    /// Why.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// See [`OrderEventPayload::PaymentRefunded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// The refund.
    pub refund_id: Text,
    /// Minor units.
    pub amount_minor: i64,
    /// Event time: the window it stands in.
    pub refunded_at_ms: i64,
    /// The return it belongs to.
    #[serde(default)]
    pub return_id: Option<Text>,
}

/// See [`OrderEventPayload::RefundFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefundFailed {
    /// The refund.
    pub refund_id: Text,
    /// Stable code.
    pub code: Text,
    /// A sentence.
    pub message: Text,
}

/// See [`OrderEventPayload::OrderCancelled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// Stable code: `requested`, `hold_expired`, …
    pub code: Text,
    /// A sentence.
    pub message: Text,
}

/// See [`OrderEventPayload::ShipmentShipped`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShipmentShipped {
    /// The shipment.
    pub shipment_id: Text,
    /// What is in it.
    pub lines: Vec<ShipmentLine>,
    /// Who carries it.
    #[serde(default)]
    pub carrier: Option<Text>,
    /// The tracking number.
    #[serde(default)]
    pub tracking: Option<Text>,
    /// Whether nothing is left to ship.
    pub all_shipped: bool,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
    /// Where the goods leave from.
    #[serde(default)]
    pub location: Option<Text>,
    /// When the shipment is promised to arrive, ms since the epoch.
    #[serde(default)]
    pub promised_at_ms: Option<i64>,
}

/// See [`OrderEventPayload::ShipmentDelivered`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShipmentDelivered {
    /// The shipment.
    pub shipment_id: Text,
    /// When.
    pub delivered_at_ms: i64,
}

/// See [`OrderEventPayload::OrderCompleted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderCompleted {
    /// Shipments it took.
    pub shipments: i32,
}

/// See [`OrderEventPayload::OrderReturned`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderReturned {
    /// The return.
    pub return_id: Text,
    /// What came back, with every line's amount.
    pub lines: Vec<ReturnLine>,
    /// Σ amounts: a refund of this follows.
    pub amount_minor: i64,
    /// Event time.
    pub returned_at_ms: i64,
}

/// See [`OrderEventPayload::CreditIssued`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreditIssued {
    /// The merchant's customer id.
    #[serde(default)]
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// What came back.
    pub lines: Vec<ReturnLine>,
    /// Σ amounts, counted as refunded.
    pub amount_minor: i64,
    /// Event time.
    pub returned_at_ms: i64,
}

/// See [`OrderEventPayload::CommandConflicted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandConflicted {
    /// The command's id.
    pub command_id: Text,
}

/// See [`OrderEventPayload::CommandRefused`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandRefused {
    /// The command's id.
    pub command_id: Text,
    /// Its kind, such as `cancel`.
    pub command: Text,
    /// Stable code, such as `already_shipped`.
    pub code: Text,
    /// A sentence.
    pub message: Text,
    /// The rule that refused it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
}
