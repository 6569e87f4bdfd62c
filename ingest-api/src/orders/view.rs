//! An order as the API shows it.

use crate::moment::Moment;
use crate::openapi::{OneOf, one_of};
use crate::orders::address::ShownAddress;
use crate::orders::shaped::{self, EventRule, ShapedBy};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tillstream_schemas::order_command::{Allocation, CaptureMode};
use tillstream_schemas::order_event::RuleStep;
use tillstream_schemas::order_state::{
    HoldLine, HoldStatus, LineKind, OrderState, OrderStatus, PaymentState, PaymentStatus, PricedLine,
    PricedOrder, RefundStatus, ShipmentStatus, TimelineEntry,
};
use tillstream_schemas::{Text, TextMap};

one_of! {
    OrderStatus { Pending, Confirmed, Processing, Shipped, Delivered, Cancelled, Failed }
    LineKind { Goods, Fee, Shipping }
    HoldStatus { Asked, Held, Refused, Committed, Released }
    PaymentStatus {
        None, NotNeeded, Authorizing, RequiresAction, Authorized, Capturing, Captured, Failed, Cancelling, Cancelled,
        PartiallyRefunded, Refunded,
    }
    CaptureMode { Automatic, Manual }
    RefundStatus { Queued, Pending, Succeeded, Failed }
    ShipmentStatus { Shipped, Delivered }
}

/// Where an order's resources are.
#[derive(Serialize, JsonSchema)]
pub(super) struct OrderLinks {
    /// The order.
    #[serde(rename = "self")]
    this: String,
    /// Its history.
    events: String,
}

/// Where an order's resources are.
pub(super) fn links(order_id: &str) -> OrderLinks {
    OrderLinks { this: format!("/v1/orders/{order_id}"), events: format!("/v1/orders/{order_id}/events") }
}

/// An order that is durable. More of it comes as it goes through the stages.
#[derive(Serialize, JsonSchema)]
pub(super) struct OrderAccepted<'a> {
    /// The order's id.
    id: &'a str,
    /// Where it stands.
    #[schemars(with = "OneOf<OrderStatus>")]
    status: OrderStatus,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    /// Where its resources are.
    links: OrderLinks,
}

/// An order. What no stage has decided yet is left out.
#[derive(Serialize, JsonSchema)]
pub(super) struct Order<'a> {
    /// The order's id.
    id: &'a str,
    /// Where it stands.
    #[schemars(with = "OneOf<OrderStatus>")]
    status: OrderStatus,
    /// What it waits for: `pricing`, `reservation`, `payment`, `customer_action`, `review`, `capture`, `fulfillment`, `delivery`, `done`.
    stage: &'a str,
    /// Grows by one with every event.
    version: i64,
    /// Where its resources are.
    links: OrderLinks,
    #[serde(flatten)]
    stages: Option<Stages<'a>>,
    #[serde(flatten)]
    priced: Option<Priced<'a>>,
    /// With `as_of`: the past time that is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Moment>,
    /// With `as_of`: the fields that cannot be told for that time, and are empty.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    untold: &'a [&'a str],
}

#[derive(Serialize, JsonSchema)]
struct Stages<'a> {
    /// When the API took it.
    accepted_at: Moment,
    /// When it last changed.
    updated_at: Moment,
    /// Why it failed or was cancelled.
    reason: Option<Reason<'a>>,
    /// Where its payment stands.
    payment: Option<Payment<'a>>,
    /// Its shipments, in order.
    shipments: Vec<Shipment<'a>>,
    /// Its refunds, in the order they were asked for.
    refunds: Vec<Refund<'a>>,
    /// What came back, over all returns.
    returns: Vec<Returned<'a>>,
    /// The tenant's rules that shaped it, in the order they were asked.
    rules: Vec<ShapedBy<'a>>,
}

#[derive(Serialize, JsonSchema)]
struct Priced<'a> {
    /// The merchant's customer id.
    customer: Option<&'a str>,
    /// ISO 4217.
    currency: &'a str,
    /// ISO 3166-1 alpha-2.
    country: Option<&'a str>,
    /// The event time that analytics use.
    placed_at: Moment,
    /// The priced lines; empty when pricing refused the order.
    lines: Vec<Line<'a>>,
    /// Quantity × price over all lines, minor units.
    gross: i64,
    /// All discounts, minor units.
    discount: i64,
    /// `gross` − `discount`, minor units.
    subtotal: i64,
    /// All tax, minor units.
    tax: i64,
    /// `subtotal` + `tax`, minor units.
    total: i64,
    /// The merchant's metadata.
    #[schemars(with = "BTreeMap<String, String>")]
    metadata: &'a TextMap,
    /// Where it goes.
    ship_to: Option<ShownAddress<'a>>,
    /// Free text.
    note: Option<&'a str>,
}

/// Why an order failed or was cancelled.
#[derive(Serialize, JsonSchema)]
struct Reason<'a> {
    /// A stable code.
    code: &'a str,
    /// A sentence.
    message: Option<&'a str>,
}

/// A line with its price.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OrderLine")]
struct Line<'a> {
    /// The SKU; `SHIPPING` for the shipping charge.
    sku: &'a str,
    /// Goods hold stock; fees and shipping do not.
    #[schemars(with = "OneOf<LineKind>")]
    kind: LineKind,
    /// Units.
    quantity: i64,
    /// Price of one, minor units.
    unit_price: i64,
    /// Quantity × price, minor units.
    gross: i64,
    /// The line's discount and its share of the order's, minor units.
    discount: i64,
    /// Tax on `gross` − `discount`, minor units.
    tax: i64,
    /// Basis points (2,000 is 20 %).
    tax_rate_bp: i32,
    /// `gross` − `discount` + `tax`, minor units.
    total: i64,
    /// The product's category.
    category: Option<&'a str>,
    /// The product version the price came from; null: the order named the price.
    product_version: Option<i64>,
    /// The stock held for this SKU.
    hold: Option<Hold<'a>>,
}

/// The stock held for one SKU of an order.
#[derive(Serialize, JsonSchema)]
struct Hold<'a> {
    /// Where it stands.
    #[schemars(with = "OneOf<HoldStatus>")]
    status: HoldStatus,
    /// Units over all lines of the order.
    quantity: i64,
    /// Where the goods are held.
    locations: Vec<HeldAt<'a>>,
}

/// Goods held at one location.
#[derive(Serialize, JsonSchema)]
struct HeldAt<'a> {
    /// The location.
    location: &'a str,
    /// Units.
    quantity: i64,
}

/// A payment, all amounts in minor units.
#[derive(Serialize, JsonSchema)]
struct Payment<'a> {
    /// Its id; null while none is needed.
    id: Option<&'a str>,
    /// Where it stands.
    #[schemars(with = "OneOf<PaymentStatus>")]
    status: PaymentStatus,
    /// The payment method.
    method: Option<&'a str>,
    /// When the money is taken.
    #[schemars(with = "OneOf<CaptureMode>")]
    capture: CaptureMode,
    /// What is asked for.
    amount: i64,
    /// Authorized, and not captured or given up since.
    authorized: i64,
    /// Captured.
    captured: i64,
    /// Refunded.
    refunded: i64,
    /// What the customer must do.
    action: Option<&'a str>,
    /// Why somebody looks at the order: while its `stage` is `review`, a capture approves it and a cancel declines it.
    review: Option<&'a str>,
    /// Why it failed.
    failure_code: Option<&'a str>,
    /// The provider's id.
    provider_ref: Option<&'a str>,
    /// The double-entry ledger: the lines of one posting sum to zero.
    ledger: Vec<LedgerLine<'a>>,
}

/// A line of an order's ledger.
#[derive(Serialize, JsonSchema)]
struct LedgerLine<'a> {
    /// Which posting it belongs to.
    posting: i32,
    /// The account.
    account: &'a str,
    /// Debit positive, credit negative, minor units.
    amount: i64,
    /// When.
    at: Moment,
}

/// A refund.
#[derive(Serialize, JsonSchema)]
struct Refund<'a> {
    /// Its id.
    id: &'a str,
    /// Where it stands.
    #[schemars(with = "OneOf<RefundStatus>")]
    status: RefundStatus,
    /// Minor units.
    amount: i64,
    /// When, in event time.
    refunded_at: Moment,
    /// Why.
    reason: Option<&'a str>,
    /// The id of the return it belongs to.
    #[serde(rename = "return")]
    return_id: Option<&'a str>,
}

/// Goods that came back.
#[derive(Serialize, JsonSchema)]
struct Returned<'a> {
    /// The SKU.
    sku: &'a str,
    /// Units.
    quantity: i64,
    /// Paid back for them, minor units; null: their share of what was paid.
    amount: Option<i64>,
}

/// A shipment.
#[derive(Serialize, JsonSchema)]
struct Shipment<'a> {
    /// Its id.
    id: &'a str,
    /// Where it stands.
    #[schemars(with = "OneOf<ShipmentStatus>")]
    status: ShipmentStatus,
    /// What is in it.
    lines: Vec<Shipped<'a>>,
    /// Who carries it.
    carrier: Option<&'a str>,
    /// The tracking number.
    tracking: Option<&'a str>,
    /// When it left.
    shipped_at: Moment,
    /// When it arrived.
    delivered_at: Option<Moment>,
    /// Where it left from, where a rule says so.
    location: Option<&'a str>,
    /// When it is promised to arrive, where a rule says so.
    promised_at: Option<Moment>,
}

/// Goods in a shipment.
#[derive(Serialize, JsonSchema)]
struct Shipped<'a> {
    /// The SKU.
    sku: &'a str,
    /// Units.
    quantity: i64,
}

/// One event of an order's history.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OrderEvent")]
pub(crate) struct Event<'a> {
    /// Its id.
    id: &'a str,
    /// What happened, such as `payment.captured`.
    r#type: &'a str,
    /// The order's id.
    order_id: &'a str,
    /// When.
    at: Moment,
    /// The order's version after it.
    version: i64,
    /// The order's status after it.
    #[schemars(with = "OneOf<OrderStatus>")]
    status: OrderStatus,
    /// Minor units, where it is about money.
    amount: Option<i64>,
    /// The code or id it is about.
    detail: Option<&'a str>,
    /// The tenant's rules that shaped it, in the order they were asked.
    rules: Vec<EventRule<'a>>,
}

/// What is answered before an order is settled.
pub(super) fn taken(id: &str, status: OrderStatus, stage: Option<&str>) -> Value {
    value(&OrderAccepted { id, status, stage, links: links(id) })
}

/// An order whose row cannot be read yet, though it is durable.
pub(super) fn accepted(order_id: &str) -> Value {
    value(&Order {
        id: order_id,
        status: OrderStatus::Pending,
        stage: "pricing",
        version: 0,
        links: links(order_id),
        stages: None,
        priced: None,
        as_of: None,
        untold: &[],
    })
}

/// An order.
pub(super) fn order(row: &OrderState) -> Value {
    value(&shown(row))
}

/// An order as it was; what had come back by then cannot always be told.
pub(super) fn order_then(row: &OrderState, as_of_ms: i64, returns_known: bool) -> Value {
    let mut order = shown(row);
    order.as_of = Some(Moment(as_of_ms));
    if !returns_known {
        order.untold = &["returns"];
        if let Some(stages) = &mut order.stages {
            stages.returns.clear();
        }
    }
    value(&order)
}

fn shown(row: &OrderState) -> Order<'_> {
    let holds: &[HoldLine] = row.reservation.as_ref().map_or(&[], |it| &it.holds);
    Order {
        id: &row.order_id,
        status: row.view.status,
        stage: &row.view.stage,
        version: row.view.version,
        links: links(&row.order_id),
        stages: Some(stages(row)),
        priced: row.order.as_ref().map(|it| priced(it, holds)),
        as_of: None,
        untold: &[],
    }
}

/// One event of an order's history, and the rules that shaped it.
pub(crate) fn event<'a>(
    order_id: &str,
    entry: &TimelineEntry,
    rules: impl Iterator<Item = &'a RuleStep>,
) -> Value {
    value(&Event {
        id: &entry.event_id,
        r#type: &entry.kind,
        order_id,
        at: Moment(entry.at_ms),
        version: entry.version,
        status: entry.status,
        amount: entry.amount_minor,
        detail: entry.detail.as_deref(),
        rules: rules.map(EventRule::from).collect(),
    })
}

/// These structs have nothing that JSON cannot hold: text keys, whole numbers.
pub(super) fn value(it: &impl Serialize) -> Value {
    serde_json::to_value(it).unwrap_or_default()
}

/// What is empty when it was not given.
pub(super) fn some(text: &Text) -> Option<&str> {
    (!text.is_empty()).then_some(text.as_str())
}

fn stages(row: &OrderState) -> Stages<'_> {
    Stages {
        accepted_at: Moment(row.accepted_at_ms),
        updated_at: Moment(row.view.updated_at_ms),
        reason: row
            .view
            .reason_code
            .as_ref()
            .map(|code| Reason { code, message: row.view.reason.as_deref() }),
        payment: row.payment.as_ref().map(|it| payment(it, row)),
        shipments: row.fulfillment.iter().flat_map(|it| &it.shipments).map(shipment).collect(),
        refunds: row.payment.iter().flat_map(|it| &it.refunds).map(refund).collect(),
        returns: row
            .fulfillment
            .iter()
            .flat_map(|it| &it.returned)
            .map(|it| Returned { sku: &it.sku, quantity: it.quantity, amount: it.amount_minor })
            .collect(),
        rules: shaped::of(row),
    }
}

fn priced<'a>(order: &'a PricedOrder, holds: &'a [HoldLine]) -> Priced<'a> {
    Priced {
        customer: order.customer.as_deref(),
        currency: &order.currency,
        country: some(&order.country),
        placed_at: Moment(order.placed_at_ms),
        lines: order.lines.iter().map(|it| line(it, holds)).collect(),
        gross: order.gross_minor,
        discount: order.discount_minor,
        subtotal: order.gross_minor - order.discount_minor,
        tax: order.tax_minor,
        total: order.total_minor,
        metadata: &order.metadata,
        ship_to: order.ship_to.as_ref().map(ShownAddress::from),
        note: order.note.as_deref(),
    }
}

fn line<'a>(line: &'a PricedLine, holds: &'a [HoldLine]) -> Line<'a> {
    let hold = holds.iter().find(|it| it.sku == line.sku);
    Line {
        sku: &line.sku,
        kind: line.kind,
        quantity: line.quantity,
        unit_price: line.unit_price_minor,
        gross: line.gross_minor,
        discount: line.discount_minor,
        tax: line.tax_minor,
        tax_rate_bp: line.tax_rate_bp,
        total: line.gross_minor - line.discount_minor + line.tax_minor,
        category: line.category.as_deref(),
        product_version: line.product_version,
        hold: hold.map(|it| Hold {
            status: it.status,
            quantity: it.quantity,
            locations: it.allocations.iter().map(held_at).collect(),
        }),
    }
}

fn held_at(it: &Allocation) -> HeldAt<'_> {
    HeldAt { location: &it.location, quantity: it.quantity }
}

fn payment<'a>(payment: &'a PaymentState, row: &'a OrderState) -> Payment<'a> {
    let instruction = row.order.as_ref().map(|it| &it.payment);
    Payment {
        id: some(&payment.payment_id),
        status: payment.status,
        method: instruction.map(|it| it.method.as_str()),
        capture: instruction.map_or(CaptureMode::Automatic, |it| it.capture),
        amount: payment.amount_minor,
        authorized: payment.authorized_minor,
        captured: payment.captured_minor,
        refunded: payment.refunded_minor,
        action: payment.action.as_deref(),
        review: payment.review.as_deref(),
        failure_code: payment.failure_code.as_deref(),
        provider_ref: payment.provider_ref.as_deref(),
        ledger: payment
            .ledger
            .iter()
            .map(|it| LedgerLine {
                posting: it.posting,
                account: &it.account,
                amount: it.amount_minor,
                at: Moment(it.at_ms),
            })
            .collect(),
    }
}

fn refund(refund: &tillstream_schemas::order_state::Refund) -> Refund<'_> {
    Refund {
        id: &refund.refund_id,
        status: refund.status,
        amount: refund.amount_minor,
        refunded_at: Moment(refund.refunded_at_ms),
        reason: refund.reason.as_deref(),
        return_id: refund.return_id.as_deref(),
    }
}

fn shipment(shipment: &tillstream_schemas::order_state::Shipment) -> Shipment<'_> {
    Shipment {
        id: &shipment.shipment_id,
        status: shipment.status,
        lines: shipment.lines.iter().map(|it| Shipped { sku: &it.sku, quantity: it.quantity }).collect(),
        carrier: shipment.carrier.as_deref(),
        tracking: shipment.tracking.as_deref(),
        shipped_at: Moment(shipment.shipped_at_ms),
        delivered_at: shipment.delivered_at_ms.map(Moment),
        location: shipment.location.as_deref(),
        promised_at: shipment.promised_at_ms.map(Moment),
    }
}
