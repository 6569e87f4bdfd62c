//! Commands to an order that exists: cancel, capture, refund, return, ship, deliver. The order task decides about
//! them; here they are only made, judged against what was sent before, and written.

use super::command_answer::{CommandAnswer, CommandLinks, CommandStatus, command};
use super::place::locate;
use super::view;
use super::written::{Act, Address, CANCEL, CAPTURE, DELIVER, REFUND, RETURN, SHIPMENT};
use super::{ID_EXAMPLES, is_id, query};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::Accepted;
use crate::idempotency::{key_of, wait_of};
use crate::in_flight::Landed;
use crate::observe::Trace;
use crate::openapi::Call as Contract;
use crate::params::Segments;
use crate::ports::OrderEvents;
use crate::problem::{Code, Problem};
use crate::written::Written;
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tillstream_runtime::timeout;
use tillstream_schemas::order_event::OrderEventPayload;
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::Table;
use tillstream_stage::ids;

/// How long the event of a judged command may take to come through the hub.
const EVENT_WAIT: Duration = Duration::from_millis(100);

/// A command's id, as the contract's examples have it.
const COMMAND_EXAMPLE: &str = "cmd_5fqz2kxw8bnt0rvh3cyd";

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
    Command::read(call, id, Act::Cancel).await?.send().await
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
    Command::read(call, id, Act::Capture).await?.send().await
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
    Command::read(call, id, Act::Refund).await?.send().await
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
    Command::read(call, id, Act::Return).await?.send().await
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
    Command::read(call, id, Act::Ship).await?.send().await
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
    Command::read(call, id, Act::Deliver { shipment_id: shipment_id.into() }).await?.send().await
}

/// A command on its way to its order.
struct Command {
    ingest: Arc<Ingest>,
    trace: Trace,
    wait: Option<Duration>,
    act: Act,
    address: Address,
    bytes: bytes::Bytes,
    now_ms: i64,
}

impl Command {
    async fn read(call: Call, order_id: String, act: Act) -> Result<Self, Problem> {
        if !is_id("ord_", &order_id) {
            return Err(Problem::not_found("order", &order_id));
        }
        let key = key_of(&call.headers)?.to_owned();
        let bytes = body::json(&call.headers, call.body).await?;
        Ok(Self {
            address: Address::new(call.caller.tenant, &order_id, &act, &key),
            act,
            wait: wait_of(&call.headers),
            now_ms: call.ingest.clock.now_ms(),
            ingest: call.ingest,
            trace: call.trace,
            bytes,
        })
    }

    async fn send(self) -> Result<Response, Problem> {
        let asked = self.act.read(&self.bytes, &self.address, self.now_ms)?;
        let Written { id, fingerprint, key, value } = self.address.write(asked, &self.trace, self.now_ms)?;
        let record = self.ingest.record(Topic::OrderCommands, &key, value);
        let feed = self.wait.map(|_| self.ingest.order_events.subscribe(&key));
        let judge = async || self.mark().await;
        let accepted =
            self.ingest.append_claimed(&self.address.tenant, &id, &fingerprint, record, judge).await?;
        match (self.wait, feed, accepted) {
            (Some(wait), Some(feed), Accepted::Now(landed)) => self.outcome(landed, wait, feed).await,
            _ => Ok(self.answer(StatusCode::ACCEPTED, None)),
        }
    }

    /// The fingerprint this command was judged with before, if it was.
    async fn mark(&self) -> Result<Option<Text>, Problem> {
        let caller = Caller::tenant_alone(self.address.tenant.clone());
        let row = query::find(&self.ingest, &caller, &self.address.order_id).await?;
        Ok(row
            .and_then(|it| it.marks.into_iter().find(|mark| mark.id == self.address.id))
            .map(|it| it.fingerprint))
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
            if event.command_id != self.address.id {
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
        let row = self
            .ingest
            .row::<OrderState>(Table::Order, ids::key(&self.address.tenant, &self.address.order_id))
            .await?;
        Ok(self.answer(StatusCode::OK, row.as_ref()))
    }

    fn answer(&self, status: StatusCode, row: Option<&OrderState>) -> Response {
        let body = CommandAnswer {
            id: &self.address.resource_id,
            order_id: &self.address.order_id,
            status: if row.is_some() { CommandStatus::Done } else { CommandStatus::Accepted },
            links: CommandLinks::of(&self.address.order_id),
            order: row.map(view::order),
        };
        let mut response = (status, Json(body)).into_response();
        locate(&mut response, &format!("/v1/orders/{}", self.address.order_id), self.wait);
        response
    }
}
