//! `GET /v1/orders/{id}/events` and `GET /v1/orders/events`: history as JSON, live as server-sent events or over a
//! WebSocket.

use super::ID_EXAMPLES;
use super::query::find;
use crate::Ingest;
use crate::auth::Caller;
use crate::commands::MISS_WAIT;
use crate::openapi::{Answer, Call, Page};
use crate::orders::examples;
use crate::orders::view::{self, Event};
use crate::params::{self, Params, Query, Segments, Wanted as Kind, query, rows, words};
use crate::problem::{Code, Problem};
use crate::streams::{self, OrderSource, Start, TenantSource, Wanted};
use axum::Json;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_schemas::order_event::OrderEventPayload;
use tillstream_schemas::order_state::OrderState;
use tillstream_stage::ids;

const FROM: [(&str, bool); 2] = [("beginning", false), ("end", true)];
const FROM_WORDS: [&str; 2] = words(&FROM);

const OF_ORDER: &[Query] = &[query(
    "cursor",
    Kind::Text,
    "Only what came after the message with this `id` (over a WebSocket: `place`)",
)];

const OF_TENANT: &[Query] = &[
    query("type", Kind::Text, "Only these event types, separated by commas"),
    query(
        "from",
        Kind::Choice(&FROM_WORDS),
        "Where to begin without a cursor: a page at the beginning, a stream at the end",
    ),
    params::cursor('e'),
    rows(100, 1_000),
];

const STREAMED: &str = "With `Accept: text/event-stream`, or opened as a WebSocket, what is there comes first, then what \
    happens, without a gap or a repeat. A stream is resumed by `Last-Event-ID` (which wins) or `cursor`, on any server. \
    A browser's WebSocket offers the subprotocols `tillstream.events.v1` and `tillstream.key.<api key>`.";

/// `GET /v1/orders/{id}/events`
pub(crate) fn of_order_call() -> Call {
    const SUMMARY: &str = "Read an order's history, oldest first; or follow it";
    Call::get("/v1/orders/{id}/events", "listOrderEvents", "orders", SUMMARY)
        .about(STREAMED)
        .id_segment("id", "ord_", "The order's id", ID_EXAMPLES.order)
        .query(OF_ORDER)
        .answer(
            Answer::json::<Page<Event<'_>>>(200, "The history")
                .example(json!({ "data": [examples::event()], "next_cursor": null })),
        )
        .answer(Answer::other(200, "The stream", "text/event-stream"))
        .problem(Code::NotFound)
        .problem(Code::TooManyStreams)
        .reads()
}

/// `GET /v1/orders/events`
pub(crate) fn of_tenant_call() -> Call {
    Call::get("/v1/orders/events", "listEvents", "orders", "Read the events of all orders; or follow them")
        .about(STREAMED)
        .query(OF_TENANT)
        .answer(
            Answer::json::<Page<Event<'_>>>(200, "A page; its `next_cursor` goes on from there, also later")
                .example(json!({ "data": [examples::event()], "next_cursor": "e00000000" })),
        )
        .answer(Answer::other(200, "The stream", "text/event-stream"))
        .problem(Code::TooManyStreams)
        .reads()
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Where the client left off: the header of a reconnecting `EventSource` is newer than the address it was made with.
fn resume(headers: &HeaderMap, params: &Params) -> Option<String> {
    let header = headers.get("last-event-id").and_then(|it| it.to_str().ok()).filter(|it| !it.is_empty());
    header.map(str::to_owned).or_else(|| params.text("cursor"))
}

/// One order's events, oldest first.
pub(crate) async fn of_order(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(order_id): Segments<String>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, OF_ORDER)?;
    let wanted = Wanted::of(&headers, upgrade)?;
    let after = match resume(&headers, &params) {
        None => 0,
        Some(place) => place.parse().ok().filter(|it| (0..=i64::MAX / 2).contains(it)).unwrap_or_else(|| {
            params.refuse(
                "cursor",
                "is not a place in an order's events",
                "send the id of the last event you got",
            );
            0
        }),
    };
    params.finish()?;
    // Before the row is read: what happens in between must not be missed.
    let feed = ingest.order_events.subscribe(&ids::key(&caller.tenant, &order_id));
    let row = find(&ingest, &caller, &order_id).await?;
    if let Wanted::Page = wanted {
        let shown = row.iter().flat_map(|row| {
            let timeline = row.view.timeline.iter().filter(|it| it.version > after);
            timeline.map(|it| view::event(&order_id, it, row.view.rules_of(it)))
        });
        let data: Vec<Value> = shown.collect();
        return Ok(Json(Page::whole(data)).into_response());
    }
    check_place(&ingest, &caller, &order_id, after).await?;
    let source = OrderSource::new(&ingest, &caller.tenant, &order_id, after, feed);
    streams::open(&ingest, &caller.tenant, wanted, source)
}

/// Refuses a place that the order has not reached: a stream from there would be silent for ever. On a cluster a row
/// follows its events, so it has a moment to get there.
async fn check_place(ingest: &Ingest, caller: &Caller, order_id: &str, after: i64) -> Result<(), Problem> {
    if after == 0 {
        return Ok(());
    }
    let reached = |row: &OrderState| row.view.version >= after;
    let row = ingest.await_order(&caller.tenant, order_id, MISS_WAIT, None, reached).await?;
    if row.is_some_and(|it| reached(&it)) {
        return Ok(());
    }
    let message = format!("the order has no event {after}");
    Err(Problem::parameter("cursor", message, "send the id of the last event you got, unchanged"))
}

/// All of a tenant's events.
pub(crate) async fn of_tenant(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, OF_TENANT)?;
    let wanted = Wanted::of(&headers, upgrade)?;
    let kinds = kinds(&mut params);
    let from_end = params.choice("from", &FROM);
    let limit = params.rows();
    let place = resume(&headers, &params);
    params.finish()?;
    let is_page = matches!(wanted, Wanted::Page);
    let start = match place {
        Some(place) => Start::After(place),
        // A page is asked for what was, a stream for what will be.
        None if from_end.unwrap_or(!is_page) => Start::End,
        None => Start::Beginning,
    };
    let source = TenantSource::new(&ingest, &caller.tenant, kinds, start).await?;
    if is_page {
        let (messages, next) = source.page(limit).await?;
        let data: Vec<Value> = messages.into_iter().map(|it| it.data).collect();
        return Ok(Json(Page { data, next_cursor: Some(next) }).into_response());
    }
    streams::open(&ingest, &caller.tenant, wanted, source)
}

/// The event types that are wanted, separated by commas.
fn kinds(params: &mut Params) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    for name in params.text("type").iter().flat_map(|it| it.split(',')) {
        match OrderEventPayload::KINDS.iter().find(|it| **it == name.trim()) {
            Some(kind) => kinds.push(*kind),
            None => {
                let message = format!("{} is not an event type", crate::shape::quoted(name));
                let fix = format!(
                    "send some of these, separated by commas: {}",
                    OrderEventPayload::KINDS.join(", ")
                );
                params.refuse("type", message, fix);
            }
        }
    }
    kinds
}
