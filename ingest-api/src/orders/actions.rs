//! Commands to an order that exists: cancel, capture, refund, return, ship, deliver. The order task decides about
//! them; here they are only made, judged against what was sent before, and written.

use super::command_answer::{CommandAnswer, CommandLinks, CommandStatus, command};
use super::place::locate;
use super::view;
use super::{ID_EXAMPLES, is_id, query};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::Accepted;
use crate::idempotency::{fingerprint, key_of, wait_of};
use crate::in_flight::Landed;
use crate::moment::from_rfc3339;
use crate::observe::Trace;
use crate::openapi::Call as Contract;
use crate::params::Segments;
use crate::ports::OrderEvents;
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, QUANTITY, SKU, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tillstream_runtime::timeout;
use tillstream_schemas::codec;
use tillstream_schemas::order_command::{
    CancelOrder, CapturePayment, CreateShipment, DeliverShipment, OrderCommand, OrderCommandPayload,
    RefundOrder, ReturnLine, ReturnOrder, ShipmentLine,
};
use tillstream_schemas::order_event::OrderEventPayload;
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::Table;
use tillstream_stage::ids::{self, client_id};

/// How long the event of a judged command may take to come through the hub.
const EVENT_WAIT: Duration = Duration::from_millis(100);

/// A command's id, as the contract's examples have it.
const COMMAND_EXAMPLE: &str = "cmd_5fqz2kxw8bnt0rvh3cyd";

const REASON: Field = optional("reason", Kind::Text { min: 1, max: 500 });
const CANCEL: &[Field] = &[REASON];
const CAPTURE: &[Field] =
    &[optional("amount", Kind::Amount { min: 1 }).about("Minor units; left out: all that is authorized")];
const REFUND: &[Field] = &[
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
const RETURN: &[Field] = &[
    needed("lines", Kind::List { of: &RETURN_LINE, min: 1, max: 1_000 }),
    optional("returned_at", Kind::Time),
    REASON,
];
const SHIPMENT_LINE: Kind = Kind::Object(&[needed("sku", SKU), needed("quantity", QUANTITY)]);
const SHIPMENT: &[Field] = &[
    optional("lines", Kind::List { of: &SHIPMENT_LINE, min: 0, max: 1_000 })
        .about("None: everything that is left"),
    optional("carrier", Kind::Text { min: 1, max: 100 }),
    optional("tracking", Kind::Text { min: 1, max: 255 }),
];
const DELIVER: &[Field] = &[optional("delivered_at", Kind::Time)];

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

/// The parts of a call that every command needs.
pub(crate) struct Call {
    ingest: Arc<Ingest>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: Body,
}

impl axum::extract::FromRequest<Arc<Ingest>> for Call {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, ingest: &Arc<Ingest>) -> Result<Self, Problem> {
        use axum::extract::FromRequestParts;
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, ingest).await?;
        let Ok(trace) = Trace::from_request_parts(&mut parts, ingest).await;
        Ok(Self { ingest: ingest.clone(), caller, trace, headers: parts.headers, body })
    }
}

/// `POST /v1/orders/{id}/cancel`
pub(crate) fn cancel_call() -> Contract {
    let call = Contract::post("/v1/orders/{id}/cancel", "cancelOrder", "orders", "Cancel an order")
        .about("Everything held is released and everything captured refunded. An order that has left is refused.")
        .body("CancelInput", CANCEL, json!({ "reason": "changed their mind" }));
    command(call, COMMAND_EXAMPLE)
}

/// `POST /v1/orders/{id}/cancel`
pub(crate) async fn cancel(Segments(id): Segments<String>, call: Call) -> Result<Response, Problem> {
    let command = Command::read(call, id, "cancel", "cmd_", CANCEL).await?;
    let input: CancelInput = command.input()?;
    command.send(OrderCommandPayload::CancelOrder(CancelOrder { reason: input.reason })).await
}

/// `POST /v1/orders/{id}/capture`
pub(crate) fn capture_call() -> Contract {
    let call =
        Contract::post("/v1/orders/{id}/capture", "captureOrder", "orders", "Capture an authorized payment")
            .about("For orders placed with `capture: manual`.")
            .body("CaptureInput", CAPTURE, json!({ "amount": 1_652 }));
    command(call, COMMAND_EXAMPLE)
}

/// `POST /v1/orders/{id}/capture`
pub(crate) async fn capture(Segments(id): Segments<String>, call: Call) -> Result<Response, Problem> {
    let command = Command::read(call, id, "capture", "cmd_", CAPTURE).await?;
    let input: CaptureInput = command.input()?;
    command.send(OrderCommandPayload::CapturePayment(CapturePayment { amount_minor: input.amount })).await
}

/// `POST /v1/orders/{id}/refunds`
pub(crate) fn refund_call() -> Contract {
    let path = "/v1/orders/{id}/refunds";
    let call = Contract::post(path, "refundOrder", "orders", "Refund part or all of what was captured").body(
        "RefundInput",
        REFUND,
        json!({ "amount": 339, "reason": "late" }),
    );
    command(call, ID_EXAMPLES.refund)
}

/// `POST /v1/orders/{id}/refunds`
pub(crate) async fn refund(Segments(id): Segments<String>, call: Call) -> Result<Response, Problem> {
    let command = Command::read(call, id, "refunds", "rfd_", REFUND).await?;
    let input: RefundInput = command.input()?;
    let payload = RefundOrder {
        refund_id: command.resource_id.clone(),
        amount_minor: input.amount,
        reason: input.reason,
        refunded_at_ms: input.refunded_at.and_then(|it| from_rfc3339(&it)),
    };
    command.send(OrderCommandPayload::RefundOrder(payload)).await
}

/// `POST /v1/orders/{id}/returns`
pub(crate) fn give_back_call() -> Contract {
    let example = json!({ "lines": [{ "sku": "85123A", "quantity": 1 }], "reason": "damaged" });
    let call =
        Contract::post("/v1/orders/{id}/returns", "returnOrder", "orders", "Take goods of an order back")
            .body("ReturnInput", RETURN, example);
    command(call, "ret_2wmx6vqc9hjt4znk8byr")
}

/// `POST /v1/orders/{id}/returns`
pub(crate) async fn give_back(Segments(id): Segments<String>, call: Call) -> Result<Response, Problem> {
    let command = Command::read(call, id, "returns", "ret_", RETURN).await?;
    let input: ReturnInput = command.input()?;
    let given = input.returned_at.and_then(|it| from_rfc3339(&it));
    // A repeat of the call is the same body, though its default time is another.
    let judged = ReturnOrder {
        return_id: command.resource_id.clone(),
        lines: input.lines.into_iter().map(ReturnLine::from).collect(),
        returned_at_ms: given.unwrap_or_default(),
        reason: input.reason,
    };
    let sent = ReturnOrder { returned_at_ms: given.unwrap_or(command.now_ms), ..judged.clone() };
    command
        .send_as(OrderCommandPayload::ReturnOrder(judged), Some(OrderCommandPayload::ReturnOrder(sent)))
        .await
}

/// `POST /v1/orders/{id}/shipments`
pub(crate) fn ship_call() -> Contract {
    let example = json!({ "lines": [{ "sku": "85123A", "quantity": 6 }], "carrier": "post", "tracking": "RR123456785GB" });
    let call =
        Contract::post("/v1/orders/{id}/shipments", "shipOrder", "orders", "Ship some or all of the goods")
            .body("ShipmentInput", SHIPMENT, example);
    command(call, ID_EXAMPLES.shipment)
}

/// `POST /v1/orders/{id}/shipments`
pub(crate) async fn ship(Segments(id): Segments<String>, call: Call) -> Result<Response, Problem> {
    let command = Command::read(call, id, "shipments", "shp_", SHIPMENT).await?;
    let input: ShipmentInput = command.input()?;
    let lines = input.lines.unwrap_or_default();
    let payload = CreateShipment {
        shipment_id: command.resource_id.clone(),
        lines,
        carrier: input.carrier,
        tracking: input.tracking,
    };
    command.send(OrderCommandPayload::CreateShipment(payload)).await
}

/// `POST /v1/orders/{id}/shipments/{shipment}/deliver`
pub(crate) fn deliver_call() -> Contract {
    let path = "/v1/orders/{id}/shipments/{shipment}/deliver";
    let call = Contract::post(path, "deliverShipment", "orders", "Say that a shipment arrived").body(
        "DeliverInput",
        DELIVER,
        json!({ "delivered_at": "2010-12-03T09:00:00Z" }),
    );
    command(call, COMMAND_EXAMPLE).id_segment("shipment", "shp_", "The shipment's id", ID_EXAMPLES.shipment)
}

/// `POST /v1/orders/{id}/shipments/{shipment}/deliver`
pub(crate) async fn deliver(
    Segments((id, shipment_id)): Segments<(String, String)>,
    call: Call,
) -> Result<Response, Problem> {
    if !is_id("shp_", &shipment_id) {
        return Err(Problem::not_found("shipment", &shipment_id));
    }
    let route = format!("shipments/{shipment_id}/deliver");
    let command = Command::read(call, id, &route, "cmd_", DELIVER).await?;
    let input: DeliverInput = command.input()?;
    let payload = DeliverShipment {
        shipment_id: shipment_id.into(),
        delivered_at_ms: input.delivered_at.and_then(|it| from_rfc3339(&it)),
    };
    command.send(OrderCommandPayload::DeliverShipment(payload)).await
}

/// A command on its way to its order.
struct Command {
    ingest: Arc<Ingest>,
    tenant: Text,
    trace: Trace,
    wait: Option<Duration>,
    order_id: String,
    /// Judged by the order task: the same call with the same Idempotency-Key has the same id.
    id: Text,
    /// What the client gets: the refund's, return's or shipment's id, else the command's.
    resource_id: Text,
    bytes: bytes::Bytes,
    fields: &'static [Field],
    now_ms: i64,
}

impl Command {
    async fn read(
        call: Call,
        order_id: String,
        route: &str,
        prefix: &str,
        fields: &'static [Field],
    ) -> Result<Self, Problem> {
        if !is_id("ord_", &order_id) {
            return Err(Problem::not_found("order", &order_id));
        }
        let key = key_of(&call.headers)?.to_owned();
        let bytes = body::json(&call.headers, call.body).await?;
        let route = format!("POST /v1/orders/{order_id}/{route}");
        let parts = [call.caller.tenant.as_str(), &route, &key];
        Ok(Self {
            id: client_id("cmd_", &parts),
            resource_id: client_id(prefix, &parts),
            wait: wait_of(&call.headers),
            now_ms: call.ingest.clock.now_ms(),
            ingest: call.ingest,
            tenant: call.caller.tenant,
            trace: call.trace,
            order_id,
            bytes,
            fields,
        })
    }

    fn input<T: serde::de::DeserializeOwned>(&self) -> Result<T, Problem> {
        shape::read(&self.bytes, self.fields)
    }

    async fn send(self, payload: OrderCommandPayload) -> Result<Response, Problem> {
        self.send_as(payload, None).await
    }

    /// Sends a command; `sent` is what goes into the log where it differs from what is judged.
    async fn send_as(
        self,
        judged: OrderCommandPayload,
        sent: Option<OrderCommandPayload>,
    ) -> Result<Response, Problem> {
        let mut command = OrderCommand {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
            order_id: self.order_id.as_str().into(),
            accepted_at_ms: 0,
            traceparent: None,
            fingerprint: Text::default(),
            payload: judged,
        };
        let mut bytes = Vec::with_capacity(256);
        let fingerprint = fingerprint(&command, &mut bytes)?;
        if let Some(sent) = sent {
            command.payload = sent;
        }
        command.accepted_at_ms = self.now_ms;
        command.traceparent = Some(self.trace.0.clone());
        command.fingerprint = fingerprint.clone();
        bytes.clear();
        codec::encode_into(&command, &mut bytes)?;
        let key = ids::key(&self.tenant, &self.order_id);
        let record = self.ingest.record(Topic::OrderCommands, &key, bytes);

        let feed = self.wait.map(|_| self.ingest.order_events.subscribe(&key));
        let judge = async || self.mark().await;
        let accepted =
            self.ingest.append_claimed(&self.tenant, &self.id, &fingerprint, record, judge).await?;
        match (self.wait, feed, accepted) {
            (Some(wait), Some(feed), Accepted::Now(landed)) => self.outcome(landed, wait, feed).await,
            _ => Ok(self.answer(StatusCode::ACCEPTED, None)),
        }
    }

    /// The fingerprint this command was judged with before, if it was.
    async fn mark(&self) -> Result<Option<Text>, Problem> {
        let caller = Caller::tenant_alone(self.tenant.clone());
        let row = query::find(&self.ingest, &caller, &self.order_id).await?;
        Ok(row.and_then(|it| it.marks.into_iter().find(|mark| mark.id == self.id)).map(|it| it.fingerprint))
    }

    /// What the order task made of the command: the order, or why it was refused.
    async fn outcome(
        &self,
        landed: Landed,
        wait: Duration,
        mut feed: Box<dyn OrderEvents>,
    ) -> Result<Response, Problem> {
        if self.ingest.await_landed(landed, wait).await.is_err() {
            return Ok(self.answer(StatusCode::ACCEPTED, None));
        }
        let clock = &*self.ingest.clock;
        let deadline = clock.deadline(EVENT_WAIT);
        // A command need not cause an event at once (a capture asks the provider first): then the time runs out.
        while let Some(Some(event)) = timeout(clock, deadline, feed.next()).await {
            if event.command_id != self.id {
                continue;
            }
            match &event.payload {
                OrderEventPayload::CommandRefused(it) => {
                    let detail = format!("{}: {}", it.code, it.message);
                    return Err(Problem::new(Code::CommandRefused, detail));
                }
                OrderEventPayload::CommandConflicted(_) => return Err(crate::idempotency::conflict()),
                _ => break,
            }
        }
        let row = self.ingest.row::<OrderState>(Table::Order, ids::key(&self.tenant, &self.order_id)).await?;
        Ok(self.answer(StatusCode::OK, row.as_ref()))
    }

    fn answer(&self, status: StatusCode, row: Option<&OrderState>) -> Response {
        let body = CommandAnswer {
            id: &self.resource_id,
            order_id: &self.order_id,
            status: if row.is_some() { CommandStatus::Done } else { CommandStatus::Accepted },
            links: CommandLinks::of(&self.order_id),
            order: row.map(view::order),
        };
        let mut response = (status, Json(body)).into_response();
        locate(&mut response, &format!("/v1/orders/{}", self.order_id), self.wait);
        response
    }
}
