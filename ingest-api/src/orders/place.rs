//! `POST /v1/orders`.

use super::input::{self, Parsed};
use super::view::{self, Order, OrderAccepted};
use super::{ID_EXAMPLES, examples, is_settled};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::Accepted;
use crate::idempotency::{fingerprint, key_of, wait_of};
use crate::observe::Trace;
use crate::openapi::{Answer, Call};
use crate::problem::Problem;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload};
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::{self, client_id};
use tillstream_stage::{Key, RowKey, Table};

/// The route in the hash of an order's id; a bulk line with the same key is the same order.
const ROUTE: &str = "POST /v1/orders";

/// An order that is ready to be judged and appended.
pub(crate) struct Placement {
    pub order_id: Text,
    pub key: Key,
    pub fingerprint: Text,
    /// The record's value.
    pub value: Vec<u8>,
}

impl Placement {
    /// Makes the command of an order.
    ///
    /// # Errors
    /// The codec's.
    pub(crate) fn new(
        tenant: &Text,
        idempotency_key: &str,
        parsed: Parsed,
        trace: &Trace,
        now_ms: i64,
    ) -> Result<Self, CodecError> {
        let order_id = client_id("ord_", &[tenant, ROUTE, idempotency_key]);
        let Parsed { mut order, placed_at_given, .. } = parsed;
        let placed_at_ms = order.placed_at_ms;
        if !placed_at_given {
            // A repeat of the call is the same body, though its default time is another.
            order.placed_at_ms = 0;
        }
        let mut command = OrderCommand {
            id: order_id.clone(),
            tenant: tenant.clone(),
            order_id: order_id.clone(),
            accepted_at_ms: 0,
            traceparent: None,
            fingerprint: Text::default(),
            payload: OrderCommandPayload::PlaceOrder(Box::new(order)),
        };
        let mut bytes = Vec::with_capacity(512);
        let fingerprint = fingerprint(&command, &mut bytes)?;
        if let OrderCommandPayload::PlaceOrder(order) = &mut command.payload {
            order.placed_at_ms = placed_at_ms;
        }
        command.accepted_at_ms = now_ms;
        command.traceparent = Some(trace.0.clone());
        command.fingerprint = fingerprint.clone();
        bytes.clear();
        codec::encode_into(&command, &mut bytes)?;
        Ok(Self { key: ids::key(tenant, &order_id), order_id, fingerprint, value: bytes })
    }
}

/// `POST /v1/orders`
pub(crate) fn place_call() -> Call {
    let accepted = json!({
        "id": ID_EXAMPLES.order, "status": "pending", "links": view::links(ID_EXAMPLES.order),
    });
    Call::post("/v1/orders", "placeOrder", "orders", "Place an order")
        .about(
            "Answers 202 as soon as the order is durable. With `Prefer: wait=SECONDS` it answers 200 once the status \
             leaves `pending` or the payment needs action. The same Idempotency-Key with the same body is the same order.",
        )
        .idempotent()
        .waits()
        .body("OrderInput", input::FIELDS, examples::sent())
        .answer(
            Answer::json::<OrderAccepted<'_>>(202, "Accepted and durable")
                .example(accepted)
                .header("Location", "The order")
                .header("Preference-Applied", "`wait=…`, where it was heard")
                .link("getOrder", &[("id", "$response.body#/id")])
                .link("listOrderEvents", &[("id", "$response.body#/id")])
                .link("cancelOrder", &[("id", "$response.body#/id")]),
        )
        .answer(
            Answer::json::<Order<'_>>(200, "Settled (with `Prefer: wait`)")
                .example(examples::read())
                .header("Location", "The order")
                .header("Preference-Applied", "`wait=…`"),
        )
        .writes()
}

/// Places one order.
pub(crate) async fn place(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let idempotency_key = key_of(&headers)?;
    let bytes = body::json(&headers, body).await?;
    let now_ms = ingest.clock.now_ms();
    let parsed = input::parse(&bytes, now_ms)?;
    let placement = Placement::new(&caller.tenant, idempotency_key, parsed, &trace, now_ms)?;
    let Placement { order_id, key, fingerprint, value } = placement;
    let record = ingest.record(Topic::OrderCommands, &key, value);
    ingest.check_new_work(record.to)?;
    let wait = wait_of(&headers);
    // Before the command is written: else the answer could come before anybody listens.
    let feed = wait.map(|_| ingest.order_events.subscribe(&key));

    let mut known: Option<OrderState> = None;
    let judge = async || {
        let row = ingest.readable(&[RowKey::new(Table::Order, key)]).await?.pop().flatten();
        known = row.map(|it| codec::decode(&it)).transpose()?;
        Ok(known.as_ref().map(|it| it.fingerprint.clone()))
    };
    let accepted = ingest.append_claimed(&caller.tenant, &order_id, &fingerprint, record, judge).await?;
    if let (Some(wait), Some(feed)) = (wait, feed) {
        known = ingest.await_order(&caller.tenant, &order_id, wait, Some(feed), is_settled).await?;
    } else if matches!(accepted, Accepted::Before) && known.is_none() {
        let row = ingest.readable(&[RowKey::new(Table::Order, ids::key(&caller.tenant, &order_id))]).await?;
        known = row.into_iter().next().flatten().map(|it| codec::decode(&it)).transpose()?;
    }
    Ok(answer(&order_id, known.as_ref(), wait))
}

fn answer(order_id: &str, row: Option<&OrderState>, wait: Option<Duration>) -> Response {
    let settled = wait.is_some() && row.is_some_and(is_settled);
    let body: Value = match row {
        Some(row) if settled => view::order(row),
        Some(row) => view::taken(order_id, row.view.status, Some(&row.view.stage)),
        None => view::taken(order_id, OrderStatus::Pending, None),
    };
    let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Json(body)).into_response();
    locate(&mut response, &format!("/v1/orders/{order_id}"), wait);
    response
}

/// Says where the resource is, and that `Prefer: wait` was heard.
pub(crate) fn locate(response: &mut Response, path: &str, wait: Option<Duration>) {
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    if let Some(wait) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    }
}
