//! `GET /v1/orders…`: one order, its history, the list.

use super::view::{self, Event, Order};
use super::{ID_EXAMPLES, examples, is_id};
use crate::Ingest;
use crate::auth::Caller;
use crate::commands::MISS_WAIT;
use crate::cursor;
use crate::openapi::{Answer, Call, Page};
use crate::params::{self, Params, Query, Segments, Wanted, query, rows, words};
use crate::problem::{Code, Problem};
use axum::Json;
use axum::extract::State;
use http::Uri;
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_schemas::codec;
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_stage::{Key, RowKey, Table, ids};

/// The most rows one call looks at: a filter that nothing matches must not read a whole tenant.
const SCANNED_ROWS_MAX: usize = 5_000;
/// Index rows read at a time.
const STEP_ROWS: usize = 200;

const STATUSES: [(&str, OrderStatus); 7] = [
    ("pending", OrderStatus::Pending),
    ("confirmed", OrderStatus::Confirmed),
    ("processing", OrderStatus::Processing),
    ("shipped", OrderStatus::Shipped),
    ("delivered", OrderStatus::Delivered),
    ("cancelled", OrderStatus::Cancelled),
    ("failed", OrderStatus::Failed),
];

const STATUS_WORDS: [&str; 7] = words(&STATUSES);

const LIST: &[Query] = &[
    query("status", Wanted::Choice(&STATUS_WORDS), "Only orders with this status"),
    query("customer", Wanted::Text, "Only orders of this customer"),
    params::cursor('o'),
    rows(20, 100),
];

/// Finds an order's row; what is not there yet has a second to appear. `None`: durable, but not readable yet.
pub(super) async fn find(
    ingest: &Ingest,
    caller: &Caller,
    order_id: &str,
) -> Result<Option<OrderState>, Problem> {
    let missing = || Problem::not_found("order", order_id);
    if !is_id("ord_", order_id) {
        return Err(missing());
    }
    let row = match ingest.row(Table::Order, ids::key(&caller.tenant, order_id)).await? {
        Some(row) => Some(row),
        None => ingest.await_order(&caller.tenant, order_id, MISS_WAIT, None, |_| true).await?,
    };
    match row {
        Some(row) if row.credit.is_some() => Err(missing()),
        Some(row) => Ok(Some(row)),
        None if ingest.in_flight.is_durable(&caller.tenant, order_id) => Ok(None),
        None => Err(missing()),
    }
}

/// `GET /v1/orders/{id}`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/orders/{id}", "getOrder", "orders", "Read an order")
        .about("One that is not there yet has a second to appear.")
        .id_segment("id", "ord_", "The order's id", ID_EXAMPLES.order)
        .answer(Answer::json::<Order<'_>>(200, "The order").example(examples::read()))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/orders/{id}/events`
pub(crate) fn events_call() -> Call {
    Call::get("/v1/orders/{id}/events", "listOrderEvents", "orders", "Read an order's history, oldest first")
        .id_segment("id", "ord_", "The order's id", ID_EXAMPLES.order)
        .answer(
            Answer::json::<Page<Event<'_>>>(200, "The history")
                .example(json!({ "data": [examples::event()], "next_cursor": null })),
        )
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/orders`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/orders", "listOrders", "orders", "List orders, newest first")
        .about("A page may hold fewer rows than `limit` and still have a `next_cursor`: filters look at so many rows a call.")
        .query(LIST)
        .answer(
            Answer::json::<Page<Order<'_>>>(200, "A page")
                .example(json!({ "data": [examples::read()], "next_cursor": null })),
        )
        .reads()
}

/// Reads one order.
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(order_id): Segments<String>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let row = find(&ingest, &caller, &order_id).await?;
    Ok(Json(row.map_or_else(|| view::accepted(&order_id), |it| view::order(&it))))
}

/// Reads an order's history, oldest first.
pub(crate) async fn events(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(order_id): Segments<String>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let row = find(&ingest, &caller, &order_id).await?;
    let events: Vec<Value> = row.iter().flat_map(|it| &it.view.timeline).map(view::event).collect();
    Ok(Json(json!(Page::whole(events))))
}

/// Lists orders, newest first.
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::read(&uri, LIST)?;
    let status = params.choice("status", &STATUSES);
    let customer = params.text("customer");
    let limit = params.rows();
    let cursor = params.text("cursor");
    params.finish()?;
    let prefix = ids::key(&caller.tenant, "");
    let mut after = match cursor {
        Some(cursor) => Some(ids::key(&caller.tenant, &cursor::decode('o', &cursor)?)),
        None => None,
    };
    let wanted = |row: &OrderState| {
        row.credit.is_none()
            && status.is_none_or(|it| row.view.status == it)
            && customer.as_ref().is_none_or(|it| {
                row.order.as_ref().and_then(|order| order.customer.as_ref()).is_some_and(|found| found == it)
            })
    };

    let mut data = Vec::with_capacity(limit);
    let mut scanned = 0;
    loop {
        let step = if status.is_none() && customer.is_none() { limit + 1 } else { STEP_ROWS };
        let page = ingest.state.scan(Table::OrderIndex, &prefix, after.as_deref(), step).await?;
        let keys: Vec<RowKey> = page.rows.iter().map(|(key, _)| order_key(&caller.tenant, key)).collect();
        let rows = ingest.state.get_many(&keys).await?;
        for ((key, _), bytes) in page.rows.into_iter().zip(rows) {
            if data.len() == limit {
                return Ok(answer(data, after.as_ref(), &prefix));
            }
            scanned += 1;
            after = Some(key);
            if let Some(bytes) = bytes {
                let row: OrderState = codec::decode(&bytes)?;
                if wanted(&row) {
                    data.push(view::order(&row));
                }
            }
        }
        if !page.more {
            return Ok(answer(data, None, &prefix));
        }
        if scanned >= SCANNED_ROWS_MAX {
            return Ok(answer(data, after.as_ref(), &prefix));
        }
    }
}

fn order_key(tenant: &str, index_key: &str) -> RowKey {
    let order_id = index_key.rsplit('/').next().unwrap_or_default();
    RowKey::new(Table::Order, ids::key(tenant, order_id))
}

fn answer(data: Vec<Value>, after: Option<&Key>, prefix: &str) -> Json<Value> {
    let next_cursor = after.and_then(|it| it.strip_prefix(prefix)).map(|it| cursor::encode('o', it));
    Json(json!(Page { data, next_cursor }))
}
