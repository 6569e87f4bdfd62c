//! What the calls that act on an order write: the command, made of its body and nothing else.

use crate::idempotency::fingerprint;
use crate::moment::from_rfc3339;
use crate::observe::Trace;
use crate::problem::Problem;
use crate::shape::{self, Field, Kind, QUANTITY, SKU, needed, optional};
use crate::written::Written;
use serde::Deserialize;
use std::borrow::Cow;
use tillstream_schemas::Text;
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::order_command::{
    CancelOrder, CapturePayment, CreateShipment, DeliverShipment, OrderCommand,
    OrderCommandPayload as Payload, RefundOrder, ReturnLine, ReturnOrder, ShipmentLine,
};
use tillstream_stage::ids::{self, client_id};

const REASON: Field = optional("reason", Kind::Text { min: 1, max: 500 });
pub(super) const CANCEL: &[Field] = &[REASON];
pub(super) const CAPTURE: &[Field] =
    &[optional("amount", Kind::Amount { min: 1 }).about("Minor units; left out: all that is authorized")];
pub(super) const REFUND: &[Field] = &[
    optional("amount", Kind::Amount { min: 1 }).about("Minor units; left out: all that is left"),
    REASON,
    optional("refunded_at", Kind::Time).about("Event time (RFC 3339, 1970 to 9999); left out: now"),
];
const RETURN_LINE: Kind = Kind::Object(&[
    needed("sku", SKU),
    needed("quantity", QUANTITY),
    optional("amount", Kind::Amount { min: 0 })
        .about("Paid back for the line, minor units; left out: its share of what was paid"),
    optional("restock", Kind::Flag).about("Whether the goods are stock again; left out: true"),
]);
pub(super) const RETURN: &[Field] = &[
    needed("lines", Kind::List { of: &RETURN_LINE, min: 1, max: 1_000 }),
    optional("returned_at", Kind::Time),
    REASON,
];
const SHIPMENT_LINE: Kind = Kind::Object(&[needed("sku", SKU), needed("quantity", QUANTITY)]);
pub(super) const SHIPMENT: &[Field] = &[
    optional("lines", Kind::List { of: &SHIPMENT_LINE, min: 0, max: 1_000 })
        .about("None: everything that is left"),
    optional("carrier", Kind::Text { min: 1, max: 100 }),
    optional("tracking", Kind::Text { min: 1, max: 255 }),
];
pub(super) const DELIVER: &[Field] = &[optional("delivered_at", Kind::Time)];

#[derive(Deserialize)]
struct CancelInput {
    reason: Option<Text>,
}

#[derive(Deserialize)]
struct CaptureInput {
    amount: Option<i64>,
}

#[derive(Deserialize)]
struct RefundInput {
    amount: Option<i64>,
    reason: Option<Text>,
    refunded_at: Option<Text>,
}

#[derive(Deserialize)]
pub(super) struct ReturnLineInput {
    pub sku: Text,
    pub quantity: i64,
    pub amount: Option<i64>,
    pub restock: Option<bool>,
}

impl From<ReturnLineInput> for ReturnLine {
    fn from(it: ReturnLineInput) -> Self {
        Self {
            sku: it.sku,
            quantity: it.quantity,
            amount_minor: it.amount,
            restock: it.restock.unwrap_or(true),
        }
    }
}

#[derive(Deserialize)]
struct ReturnInput {
    lines: Vec<ReturnLineInput>,
    returned_at: Option<Text>,
    reason: Option<Text>,
}

#[derive(Deserialize)]
struct ShipmentInput {
    lines: Option<Vec<ShipmentLine>>,
    carrier: Option<Text>,
    tracking: Option<Text>,
}

#[derive(Deserialize)]
struct DeliverInput {
    delivered_at: Option<Text>,
}

/// Reads a body and forgets it.
pub(crate) fn check_cancel(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<CancelInput>(bytes, CANCEL).map(drop)
}

/// Reads a body and forgets it.
pub(crate) fn check_capture(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<CaptureInput>(bytes, CAPTURE).map(drop)
}

/// Reads a body and forgets it.
pub(crate) fn check_refund(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<RefundInput>(bytes, REFUND).map(drop)
}

/// Reads a body and forgets it.
pub(crate) fn check_return(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<ReturnInput>(bytes, RETURN).map(drop)
}

/// Reads a body and forgets it.
pub(crate) fn check_shipment(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<ShipmentInput>(bytes, SHIPMENT).map(drop)
}

/// Reads a body and forgets it.
pub(crate) fn check_deliver(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<DeliverInput>(bytes, DELIVER).map(drop)
}

/// Which command a call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// `cancel`
    Cancel,
    /// `capture`
    Capture,
    /// `refunds`
    Refund,
    /// `returns`
    Return,
    /// `shipments`
    Ship,
    /// `shipments/{shipment}/deliver`
    Deliver {
        /// The shipment.
        shipment_id: Text,
    },
}

/// What a body asks for.
pub(crate) struct Asked {
    /// What the fingerprint is of.
    judged: Payload,
    /// What goes into the log, where it differs.
    sent: Option<Payload>,
}

impl From<Payload> for Asked {
    fn from(judged: Payload) -> Self {
        Self { judged, sent: None }
    }
}

impl Act {
    /// The end of its path.
    fn route(&self) -> Cow<'static, str> {
        match self {
            Self::Cancel => "cancel".into(),
            Self::Capture => "capture".into(),
            Self::Refund => "refunds".into(),
            Self::Return => "returns".into(),
            Self::Ship => "shipments".into(),
            Self::Deliver { shipment_id } => format!("shipments/{shipment_id}/deliver").into(),
        }
    }

    /// How the id begins that the client gets.
    fn prefix(&self) -> &'static str {
        match self {
            Self::Cancel | Self::Capture | Self::Deliver { .. } => "cmd_",
            Self::Refund => "rfd_",
            Self::Return => "ret_",
            Self::Ship => "shp_",
        }
    }

    /// Reads the body of a command to `address`.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub(crate) fn read(&self, bytes: &[u8], address: &Address, now_ms: i64) -> Result<Asked, Problem> {
        Ok(match self {
            Self::Cancel => {
                let CancelInput { reason } = shape::read(bytes, CANCEL)?;
                Payload::CancelOrder(CancelOrder { reason }).into()
            }
            Self::Capture => {
                let CaptureInput { amount } = shape::read(bytes, CAPTURE)?;
                Payload::CapturePayment(CapturePayment { amount_minor: amount }).into()
            }
            Self::Refund => {
                let input: RefundInput = shape::read(bytes, REFUND)?;
                let refund = RefundOrder {
                    refund_id: address.resource_id.clone(),
                    amount_minor: input.amount,
                    reason: input.reason,
                    refunded_at_ms: input.refunded_at.and_then(|it| from_rfc3339(&it)),
                };
                Payload::RefundOrder(refund).into()
            }
            Self::Return => give_back(shape::read(bytes, RETURN)?, address, now_ms),
            Self::Ship => {
                let input: ShipmentInput = shape::read(bytes, SHIPMENT)?;
                let shipment = CreateShipment {
                    shipment_id: address.resource_id.clone(),
                    lines: input.lines.unwrap_or_default(),
                    carrier: input.carrier,
                    tracking: input.tracking,
                };
                Payload::CreateShipment(shipment).into()
            }
            Self::Deliver { shipment_id } => {
                let input: DeliverInput = shape::read(bytes, DELIVER)?;
                let delivered = DeliverShipment {
                    shipment_id: shipment_id.clone(),
                    delivered_at_ms: input.delivered_at.and_then(|it| from_rfc3339(&it)),
                };
                Payload::DeliverShipment(delivered).into()
            }
        })
    }
}

fn give_back(input: ReturnInput, address: &Address, now_ms: i64) -> Asked {
    let given = input.returned_at.and_then(|it| from_rfc3339(&it));
    // A repeat of the call is the same body, though its default time is another.
    let judged = ReturnOrder {
        return_id: address.resource_id.clone(),
        lines: input.lines.into_iter().map(ReturnLine::from).collect(),
        returned_at_ms: given.unwrap_or_default(),
        reason: input.reason,
    };
    let sent = ReturnOrder { returned_at_ms: given.unwrap_or(now_ms), ..judged.clone() };
    Asked { judged: Payload::ReturnOrder(judged), sent: Some(Payload::ReturnOrder(sent)) }
}

/// Whose command, by its call.
pub(crate) struct Address {
    pub tenant: Text,
    pub order_id: Text,
    /// Judged by the order task: the same call with the same Idempotency-Key has the same id.
    pub id: Text,
    /// What the client gets: the refund's, return's or shipment's id, else the command's.
    pub resource_id: Text,
}

impl Address {
    /// The command of a call with this Idempotency-Key.
    pub(crate) fn new(tenant: Text, order_id: &str, act: &Act, idempotency_key: &str) -> Self {
        let route = format!("POST /v1/orders/{order_id}/{}", act.route());
        let parts = [tenant.as_str(), &route, idempotency_key];
        let (id, resource_id) = (client_id("cmd_", &parts), client_id(act.prefix(), &parts));
        Self { order_id: order_id.into(), id, resource_id, tenant }
    }

    /// The command.
    ///
    /// # Errors
    /// The codec's.
    pub(crate) fn write(&self, asked: Asked, trace: &Trace, now_ms: i64) -> Result<Written, CodecError> {
        let mut command = OrderCommand {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
            order_id: self.order_id.clone(),
            accepted_at_ms: 0,
            traceparent: None,
            fingerprint: Text::default(),
            payload: asked.judged,
        };
        let mut value = Vec::with_capacity(256);
        let fingerprint = fingerprint(&command, &mut value)?;
        if let Some(sent) = asked.sent {
            command.payload = sent;
        }
        command.accepted_at_ms = now_ms;
        command.traceparent = Some(trace.0.clone());
        command.fingerprint = fingerprint.clone();
        value.clear();
        codec::encode_into(&command, &mut value)?;
        let key = ids::key(&self.tenant, &self.order_id);
        Ok(Written { id: self.id.clone(), fingerprint, key, value })
    }
}
