//! The order task's row: one per order, every stage's part in its own section.

use crate::order_command::{
    Address, Allocation, CaptureMode, PaymentInstruction, PaymentOperation, ReturnLine, ShipmentLine,
};
use crate::order_event::{RuleRef, RuleStep};
use crate::{Text, TextMap};
use serde::{Deserialize, Serialize};

/// The row of one order (or credit). Key: `tenant/order_id`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OrderState {
    /// The tenant.
    pub tenant: Text,
    /// The order's id.
    pub order_id: Text,
    /// When ingest accepted it.
    pub accepted_at_ms: i64,
    /// Fingerprint of the body that made it.
    pub fingerprint: Text,
    /// Commands already judged, besides the one that made the order.
    #[serde(default)]
    pub marks: Vec<CommandMark>,
    /// Pricing's section: the priced order. Every other stage reads it as a fact.
    #[serde(default)]
    pub order: Option<PricedOrder>,
    /// Reservation's section.
    #[serde(default)]
    pub reservation: Option<ReservationState>,
    /// Payment's section.
    #[serde(default)]
    pub payment: Option<PaymentState>,
    /// Fulfillment's section.
    #[serde(default)]
    pub fulfillment: Option<FulfillmentState>,
    /// The order view's section.
    pub view: OrderView,
    /// Timers that are set.
    #[serde(default)]
    pub timers: Vec<SetTimer>,
    /// Set when this row is a credit, not an order.
    #[serde(default)]
    pub credit: Option<CreditState>,
}

/// A client command that was judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandMark {
    /// Its id.
    pub id: Text,
    /// The fingerprint of its body.
    pub fingerprint: Text,
}

/// A timer that is set for this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTimer {
    /// The number of its `TimerName`.
    pub name: i32,
    /// When it is due, ms since the epoch.
    pub due_ms: i64,
}

/// What pricing keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PricedOrder {
    /// The merchant's customer id.
    #[serde(default)]
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2; empty when not given.
    pub country: Text,
    /// Event time.
    pub placed_at_ms: i64,
    /// How it is paid.
    pub payment: PaymentInstruction,
    /// The priced lines; empty when pricing rejected the order.
    pub lines: Vec<PricedLine>,
    /// Σ quantity × price.
    pub gross_minor: i64,
    /// Σ discounts.
    pub discount_minor: i64,
    /// Σ tax.
    pub tax_minor: i64,
    /// gross − discount + tax.
    pub total_minor: i64,
    /// The merchant's metadata.
    #[serde(default)]
    pub metadata: TextMap,
    /// Where it goes.
    #[serde(default)]
    pub ship_to: Option<Address>,
    /// Free text.
    #[serde(default)]
    pub note: Option<Text>,
    /// The rule that shaped the price.
    #[serde(default)]
    pub rule: Option<RuleRef>,
    /// Why somebody looks at the order before its money is taken.
    #[serde(default)]
    pub review: Option<Text>,
    /// Extra analytics dimensions: name to value.
    #[serde(default)]
    pub dimensions: TextMap,
}

impl Default for PaymentInstruction {
    fn default() -> Self {
        Self { method: Text::default(), capture: CaptureMode::Automatic }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// Goods that hold stock.
    Goods,
    /// A fee or service: no stock.
    Fee,
    /// The shipping charge: no stock, no units.
    Shipping,
}

/// A line with its price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PricedLine {
    /// The SKU (`SHIPPING` for the shipping charge).
    pub sku: Text,
    /// What it is.
    pub kind: LineKind,
    /// Units.
    pub quantity: i64,
    /// Price of one, minor units.
    pub unit_price_minor: i64,
    /// quantity × price.
    pub gross_minor: i64,
    /// Line discount plus its share of the order's discounts.
    pub discount_minor: i64,
    /// Basis points.
    pub tax_rate_bp: i32,
    /// Tax on gross − discount.
    pub tax_minor: i64,
    /// The product version the price came from; absent: the order's own price.
    #[serde(default)]
    pub product_version: Option<i64>,
    /// The product's category.
    #[serde(default)]
    pub category: Option<Text>,
}

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationPhase {
    /// Waiting for stock's answers.
    #[default]
    Waiting,
    /// Every SKU is held.
    Held,
    /// The holds became sales.
    Committed,
    /// Everything was given back.
    Released,
}

/// What reservation keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReservationState {
    /// Where it stands.
    pub phase: ReservationPhase,
    /// When the holds end unless paid.
    pub expires_at_ms: i64,
    /// One per distinct stocked SKU.
    pub holds: Vec<HoldLine>,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
    /// Why somebody looks at the order before its money is taken.
    #[serde(default)]
    pub review: Option<Text>,
}

/// One SKU of a reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldLine {
    /// The SKU.
    pub sku: Text,
    /// Units over all lines of the order.
    pub quantity: i64,
    /// Where it stands.
    pub status: HoldStatus,
    /// Where the goods are held.
    #[serde(default)]
    pub allocations: Vec<Allocation>,
}

/// Where one hold stands, as the order sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldStatus {
    /// Asked, not answered.
    Asked,
    /// Held.
    Held,
    /// Refused.
    Refused,
    /// Sold.
    Committed,
    /// Given back.
    Released,
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Nothing asked yet.
    #[default]
    None,
    /// The total is zero: nothing to pay.
    NotNeeded,
    /// Asked; no answer yet.
    Authorizing,
    /// The customer must act.
    RequiresAction,
    /// Authorized, not captured.
    Authorized,
    /// Capture asked.
    Capturing,
    /// Captured.
    Captured,
    /// Failed for good.
    Failed,
    /// Giving the authorization up.
    Cancelling,
    /// Given up.
    Cancelled,
    /// Some of it is refunded.
    PartiallyRefunded,
    /// All of it is refunded.
    Refunded,
}

/// What payment keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PaymentState {
    /// The payment's id.
    pub payment_id: Text,
    /// Where it stands.
    pub status: PaymentStatus,
    /// The order's total.
    pub amount_minor: i64,
    /// Authorized and not yet captured or given up.
    pub authorized_minor: i64,
    /// Captured so far.
    pub captured_minor: i64,
    /// Refunded so far.
    pub refunded_minor: i64,
    /// The order is dead: whatever the provider still answers is given back.
    pub unwinding: bool,
    /// Provider calls made for the operation in flight.
    pub attempt: i32,
    /// The request in flight or waiting for its retry.
    #[serde(default)]
    pub pending: Option<PendingOperation>,
    /// The provider's id.
    #[serde(default)]
    pub provider_ref: Option<Text>,
    /// What the customer must do.
    #[serde(default)]
    pub action: Option<Text>,
    /// Why it failed.
    #[serde(default)]
    pub failure_code: Option<Text>,
    /// Refunds, in the order they were asked for.
    #[serde(default)]
    pub refunds: Vec<Refund>,
    /// The double-entry ledger of this order.
    #[serde(default)]
    pub ledger: Vec<LedgerLine>,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
    /// Why somebody looks at the order before its money is taken.
    #[serde(default)]
    pub review: Option<Text>,
}

/// A request that has no final answer yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingOperation {
    /// What was asked.
    pub operation: PaymentOperation,
    /// Its idempotency key.
    pub request_key: Text,
    /// Minor units.
    pub amount_minor: i64,
    /// When it was first asked, ms since the epoch.
    #[serde(default)]
    pub first_asked_at_ms: i64,
    /// Whether an attempt ended without an answer: it may have happened, so it is never given up.
    #[serde(default)]
    pub uncertain: bool,
    /// Answers so far that were not final: the backoff grows with them.
    #[serde(default)]
    pub waits: i32,
    /// When it is asked again, ms since the epoch; absent while the provider has it.
    #[serde(default)]
    pub retry_due_ms: Option<i64>,
}

/// Where a refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    /// Waiting for its turn (one request in flight per payment).
    Queued,
    /// Asked.
    Pending,
    /// Done.
    Succeeded,
    /// Failed for good.
    Failed,
}

/// One refund.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refund {
    /// Its id.
    pub refund_id: Text,
    /// Minor units.
    pub amount_minor: i64,
    /// Where it stands.
    pub status: RefundStatus,
    /// Event time.
    pub refunded_at_ms: i64,
    /// Why.
    #[serde(default)]
    pub reason: Option<Text>,
    /// The return it belongs to.
    #[serde(default)]
    pub return_id: Option<Text>,
}

/// One line of the ledger. All lines of one `posting` sum to zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// Which posting it belongs to (0, 1, 2 …).
    pub posting: i32,
    /// The account, such as `provider_clearing`.
    pub account: Text,
    /// Debit positive, credit negative, minor units.
    pub amount_minor: i64,
    /// When.
    pub at_ms: i64,
}

/// Where a shipment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShipmentStatus {
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
}

/// One shipment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shipment {
    /// Its id.
    pub shipment_id: Text,
    /// Where it stands.
    pub status: ShipmentStatus,
    /// What is in it.
    pub lines: Vec<ShipmentLine>,
    /// Who carries it.
    #[serde(default)]
    pub carrier: Option<Text>,
    /// The tracking number.
    #[serde(default)]
    pub tracking: Option<Text>,
    /// When it left.
    pub shipped_at_ms: i64,
    /// When it arrived.
    #[serde(default)]
    pub delivered_at_ms: Option<i64>,
    /// Where the goods leave from.
    #[serde(default)]
    pub location: Option<Text>,
    /// When the shipment is promised to arrive, ms since the epoch.
    #[serde(default)]
    pub promised_at_ms: Option<i64>,
    /// The rule that shaped it.
    #[serde(default)]
    pub rule: Option<RuleRef>,
}

/// What fulfillment keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FulfillmentState {
    /// Whether goods may leave: paid (or authorized, manual) and not cancelled.
    pub open: bool,
    /// Shipments, in order.
    #[serde(default)]
    pub shipments: Vec<Shipment>,
    /// What came back, over all returns.
    #[serde(default)]
    pub returned: Vec<ReturnLine>,
    /// Whether `OrderCompleted` was said.
    pub completed: bool,
    /// Whether the order ended (cancelled, rejected, or its payment failed): nothing opens it again.
    #[serde(default)]
    pub closed: bool,
}

/// A credit's own section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreditState {
    /// The merchant's customer id.
    #[serde(default)]
    pub customer: Option<Text>,
    /// ISO 4217.
    pub currency: Text,
    /// ISO 3166 alpha-2.
    pub country: Text,
    /// What came back.
    pub lines: Vec<ReturnLine>,
    /// Σ amounts.
    pub amount_minor: i64,
    /// Event time.
    pub returned_at_ms: i64,
    /// Why.
    #[serde(default)]
    pub reason: Option<Text>,
}

/// An order's status, as the API spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Not paid yet.
    #[default]
    Pending,
    /// Paid, or authorized with manual capture.
    Confirmed,
    /// The first shipment was created, not all shipped.
    Processing,
    /// All goods left.
    Shipped,
    /// All shipments arrived.
    Delivered,
    /// Cancelled.
    Cancelled,
    /// It could not be.
    Failed,
}

impl OrderStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Confirmed,
        Self::Processing,
        Self::Shipped,
        Self::Delivered,
        Self::Cancelled,
        Self::Failed,
    ];

    /// Reads a status as the API spells it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }

    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Processing => "processing",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// What a query reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OrderView {
    /// The status.
    pub status: OrderStatus,
    /// What the order waits for: `pricing`, `reservation`, `payment`, `customer_action`, `capture`, `fulfillment`, `delivery`, `done`.
    pub stage: Text,
    /// Grows by one with every event.
    pub version: i64,
    /// When it last changed.
    pub updated_at_ms: i64,
    /// Stable code, when it failed or was cancelled.
    #[serde(default)]
    pub reason_code: Option<Text>,
    /// A sentence, when it failed or was cancelled.
    #[serde(default)]
    pub reason: Option<Text>,
    /// What happened, oldest first.
    #[serde(default)]
    pub timeline: Vec<TimelineEntry>,
    /// The versions of rules that shaped its events, in the order they came. The timeline names them by their place.
    #[serde(default)]
    pub rules: Vec<RuleStep>,
}

impl OrderView {
    /// The rules that shaped an event of the timeline.
    pub fn rules_of<'a>(&'a self, entry: &'a TimelineEntry) -> impl Iterator<Item = &'a RuleStep> {
        entry.rules.iter().filter_map(|it| self.rules.get(usize::try_from(*it).ok()?))
    }
}

/// One event in an order's timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// The event's id.
    pub event_id: Text,
    /// The event's kind, such as `payment.captured`.
    pub kind: Text,
    /// When.
    pub at_ms: i64,
    /// The order's version after it.
    pub version: i64,
    /// The status after it.
    pub status: OrderStatus,
    /// Minor units, where the event is about money.
    #[serde(default)]
    pub amount_minor: Option<i64>,
    /// The code or id the event is about.
    #[serde(default)]
    pub detail: Option<Text>,
    /// The rules that shaped the event: their places in [`OrderView::rules`].
    #[serde(default)]
    pub rules: Vec<i32>,
}
