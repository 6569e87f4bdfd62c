//! `orders.order.commands.v1`: everything that may change an order, in one input topic.

use crate::{Text, TextMap};
use serde::{Deserialize, Serialize};

/// One command to the order task. Key: `tenant/order_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderCommand {
    /// Deterministic command id: the same client key (or the same cause) gives the same id.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The order (or credit) the command is for.
    pub order_id: Text,
    /// When ingest accepted it (or when its cause was committed), ms since the epoch.
    pub accepted_at_ms: i64,
    /// W3C trace context of the request that caused it.
    #[serde(default)]
    pub traceparent: Option<Text>,
    /// Fingerprint of the client's body (24 hex chars); empty for internal answers.
    #[serde(default)]
    pub fingerprint: Text,
    /// What is asked.
    pub payload: OrderCommandPayload,
}

/// The kinds of command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OrderCommandPayload {
    /// A merchant places an order.
    #[serde(rename = "tillstream.PlaceOrder")]
    PlaceOrder(Box<PlaceOrder>),
    /// A merchant cancels an order.
    #[serde(rename = "tillstream.CancelOrder")]
    CancelOrder(CancelOrder),
    /// A merchant captures an authorized payment.
    #[serde(rename = "tillstream.CapturePayment")]
    CapturePayment(CapturePayment),
    /// A merchant refunds part or all of what was captured.
    #[serde(rename = "tillstream.RefundOrder")]
    RefundOrder(RefundOrder),
    /// Goods come back.
    #[serde(rename = "tillstream.ReturnOrder")]
    ReturnOrder(ReturnOrder),
    /// A return or credit that names no order.
    #[serde(rename = "tillstream.IssueCredit")]
    IssueCredit(IssueCredit),
    /// A merchant ships some or all of the goods.
    #[serde(rename = "tillstream.CreateShipment")]
    CreateShipment(CreateShipment),
    /// A shipment arrived.
    #[serde(rename = "tillstream.DeliverShipment")]
    DeliverShipment(DeliverShipment),
    /// The item task's answer to a `ReserveStock`.
    #[serde(rename = "tillstream.StockAnswer")]
    StockAnswer(StockAnswer),
    /// The effects executor's answer, or a provider's webhook.
    #[serde(rename = "tillstream.PaymentResult")]
    PaymentResult(PaymentResult),
}

/// An order as the merchant sent it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlaceOrder {
    /// The merchant's customer id.
    #[serde(default)]
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// Event time, ms since the epoch.
    pub placed_at_ms: i64,
    /// 1 to 1,000 lines.
    pub lines: Vec<OrderLine>,
    /// Order discounts, applied in order after line discounts.
    #[serde(default)]
    pub discounts: Vec<Discount>,
    /// A shipping charge: a fee line that holds no stock.
    #[serde(default)]
    pub shipping: Option<ShippingCharge>,
    /// How it is paid.
    pub payment: PaymentInstruction,
    /// Up to 50 pairs.
    #[serde(default)]
    pub metadata: TextMap,
    /// Where it goes.
    #[serde(default)]
    pub ship_to: Option<Address>,
    /// Free text.
    #[serde(default)]
    pub note: Option<Text>,
}

/// One line as the merchant sent it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderLine {
    /// The SKU.
    pub sku: Text,
    /// Units, ≥ 1.
    pub quantity: i64,
    /// The order's own price in minor units; absent: the catalog's.
    #[serde(default)]
    pub unit_price_minor: Option<i64>,
    /// Discount on this line, minor units, ≥ 0.
    #[serde(default)]
    pub discount_minor: i64,
}

/// A discount on the whole order: exactly one of amount and rate is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discount {
    /// The merchant's code for it.
    pub code: Text,
    /// Minor units off.
    #[serde(default)]
    pub amount_minor: Option<i64>,
    /// Basis points off (1,000 = 10 %).
    #[serde(default)]
    pub rate_bp: Option<i32>,
}

/// A shipping charge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShippingCharge {
    /// Minor units.
    pub amount_minor: i64,
    /// Tax class; absent: untaxed.
    #[serde(default)]
    pub tax_class: Option<Text>,
}

/// How an order is paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentInstruction {
    /// The provider's payment method, such as `pm_card_visa`.
    pub method: Text,
    /// When the money is taken.
    pub capture: CaptureMode,
}

/// When an authorized payment is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMode {
    /// At once.
    Automatic,
    /// When the merchant says so.
    Manual,
}

/// A postal address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Address {
    /// Recipient.
    #[serde(default)]
    pub name: Option<Text>,
    /// First line.
    #[serde(default)]
    pub line1: Option<Text>,
    /// Second line.
    #[serde(default)]
    pub line2: Option<Text>,
    /// City.
    #[serde(default)]
    pub city: Option<Text>,
    /// State or region.
    #[serde(default)]
    pub region: Option<Text>,
    /// Postal code.
    #[serde(default)]
    pub postal_code: Option<Text>,
    /// ISO 3166 alpha-2.
    #[serde(default)]
    pub country: Option<Text>,
}

/// Cancel the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// Why, in the merchant's words.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// Capture what was authorized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CapturePayment {
    /// Minor units; absent: all that is authorized.
    #[serde(default)]
    pub amount_minor: Option<i64>,
}

/// Give money back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefundOrder {
    /// The refund's id.
    pub refund_id: Text,
    /// Minor units; absent: all that is left.
    #[serde(default)]
    pub amount_minor: Option<i64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<Text>,
    /// Event time of the refund; absent: when it is processed.
    #[serde(default)]
    pub refunded_at_ms: Option<i64>,
}

/// One line of goods that come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReturnLine {
    /// The SKU.
    pub sku: Text,
    /// Units, ≥ 1.
    pub quantity: i64,
    /// What is paid back for the line, minor units; absent: its share of what was paid.
    #[serde(default)]
    pub amount_minor: Option<i64>,
    /// Whether the goods are stock again. Fees hold no stock whatever this says.
    #[serde(default = "yes")]
    pub restock: bool,
}

fn yes() -> bool {
    true
}

/// Goods of this order come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReturnOrder {
    /// The return's id.
    pub return_id: Text,
    /// What comes back.
    pub lines: Vec<ReturnLine>,
    /// Event time.
    pub returned_at_ms: i64,
    /// Why.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// A return or credit that names no order; the command's `order_id` is the credit's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IssueCredit {
    /// The merchant's customer id.
    #[serde(default)]
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// What comes back; `amount_minor` is set on every line.
    pub lines: Vec<ReturnLine>,
    /// Event time.
    pub returned_at_ms: i64,
    /// Why.
    #[serde(default)]
    pub reason: Option<Text>,
    /// Up to 50 pairs.
    #[serde(default)]
    pub metadata: TextMap,
}

/// One line of a shipment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShipmentLine {
    /// The SKU.
    pub sku: Text,
    /// Units, ≥ 1.
    pub quantity: i64,
}

/// Ship goods; no lines means everything not yet shipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateShipment {
    /// The shipment's id.
    pub shipment_id: Text,
    /// What is in it.
    #[serde(default)]
    pub lines: Vec<ShipmentLine>,
    /// Who carries it.
    #[serde(default)]
    pub carrier: Option<Text>,
    /// The carrier's tracking number.
    #[serde(default)]
    pub tracking: Option<Text>,
}

/// A shipment arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliverShipment {
    /// Which.
    pub shipment_id: Text,
    /// When; absent: when it is processed.
    #[serde(default)]
    pub delivered_at_ms: Option<i64>,
}

/// The item task's answer for one SKU of one order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StockAnswer {
    /// The SKU.
    pub sku: Text,
    /// Units asked for.
    pub quantity: i64,
    /// `None` when the hold stands, else why it was refused.
    #[serde(default)]
    pub refused: Option<Text>,
    /// Units that were available when it was refused.
    #[serde(default)]
    pub available: i64,
    /// Where the goods are held.
    #[serde(default)]
    pub allocations: Vec<Allocation>,
}

/// Units taken from one location.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// The location.
    pub location: Text,
    /// Units.
    pub quantity: i64,
}

/// What the provider said about one request (or by webhook).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentResult {
    /// The payment.
    pub payment_id: Text,
    /// The idempotency key of the request it answers; empty for a webhook nobody asked for.
    pub request_key: Text,
    /// What was asked.
    pub operation: PaymentOperation,
    /// What came of it.
    pub outcome: PaymentOutcome,
    /// Minor units the outcome is about.
    pub amount_minor: i64,
    /// The provider's own id.
    #[serde(default)]
    pub provider_ref: Option<Text>,
    /// The provider's code for a decline or error.
    #[serde(default)]
    pub code: Option<Text>,
    /// A sentence for people; or where to authenticate.
    #[serde(default)]
    pub message: Option<Text>,
}

/// What can be asked of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentOperation {
    /// Authorize, and capture at once when the order says `automatic`.
    Authorize,
    /// Capture what was authorized.
    Capture,
    /// Give up an authorization.
    Cancel,
    /// Give captured money back.
    Refund,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentOutcome {
    /// Authorized, not captured.
    Authorized,
    /// Captured.
    Captured,
    /// The authorization is gone.
    Cancelled,
    /// Refunded.
    Refunded,
    /// The customer must act.
    RequiresAction,
    /// The provider said no, and will say no again.
    Declined,
    /// The provider could not be asked, or said "later": nothing happened; retry.
    Unavailable,
    /// No answer: it may have happened. Ask again with the same key only.
    Unknown,
}
