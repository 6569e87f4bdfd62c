//! `GET /v1/orders…`: one order, its history, the list.

use super::view::{self, Order};
use super::{ID_EXAMPLES, examples, is_id};
use crate::Ingest;
use crate::auth::Caller;
use crate::commands::MISS_WAIT;
use crate::cursor;
use crate::moment::to_rfc3339;
use crate::openapi::{Answer, Call, Page};
use crate::params::{self, Params, Query, Segments, Wanted, query, rows, words};
use crate::problem::{Code, Problem};
use axum::Json;
use axum::extract::State;
use http::Uri;
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_order_view::{Past, as_of};
use tillstream_schemas::codec;
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_stage::time::descending;
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
    query("country", Wanted::Text, "Only orders to this country, ISO 3166 alpha-2"),
    query("currency", Wanted::Text, "Only orders in this currency, ISO 4217"),
    query("placed_from", Wanted::Time, "Only orders placed at or after"),
    query("placed_to", Wanted::Time, "Only orders placed before"),
    query("accepted_from", Wanted::Time, "Only orders accepted at or after"),
    query("accepted_to", Wanted::Time, "Only orders accepted before"),
    params::cursor('o'),
    rows(20, 100),
];

const GET: &[Query] = &[query("as_of", Wanted::Time, "The order as it was at this past time")];

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
        .about("One that is not there yet has a second to appear. With `as_of`, the order as it was, replayed from its events.")
        .query(GET)
        .id_segment("id", "ord_", "The order's id", ID_EXAMPLES.order)
        .answer(Answer::json::<Order<'_>>(200, "The order").example(examples::read()))
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

/// Reads one order, as it is or as it was.
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(order_id): Segments<String>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::read(&uri, GET)?;
    let as_of_ms = params.time("as_of");
    if as_of_ms.is_some_and(|it| it > ingest.clock.now_ms()) {
        params.refuse(
            "as_of",
            "lies in the future",
            "send a past time, or leave it out for the order as it is",
        );
    }
    params.finish()?;
    let row = find(&ingest, &caller, &order_id).await?;
    match (row, as_of_ms) {
        (None, _) => Ok(Json(view::accepted(&order_id))),
        (Some(row), None) => Ok(Json(view::order(&row))),
        (Some(row), Some(as_of_ms)) => past(&row, as_of_ms),
    }
}

/// The order at a past time.
fn past(row: &OrderState, as_of_ms: i64) -> Result<Json<Value>, Problem> {
    let at = to_rfc3339(as_of_ms);
    match as_of(row, as_of_ms) {
        Past::NotYet => {
            let accepted = to_rfc3339(row.accepted_at_ms);
            let detail = format!("order {:?} was accepted at {accepted}, after as_of={at}", row.order_id);
            Err(Problem::new(Code::NotFound, detail))
        }
        Past::Forgotten => {
            let message =
                "lies in the middle of a very long history, of which the first and the last events are kept";
            Err(Problem::parameter("as_of", message, "send an earlier or a later time"))
        }
        Past::Known { row, returns_known } => Ok(Json(view::order_then(&row, as_of_ms, returns_known))),
    }
}

/// What a list is narrowed to. Times are ms since the epoch; `from` is included, `to` is not.
#[derive(Default, PartialEq)]
struct Filter {
    status: Option<OrderStatus>,
    customer: Option<String>,
    country: Option<String>,
    currency: Option<String>,
    placed_from_ms: Option<i64>,
    placed_to_ms: Option<i64>,
    accepted_from_ms: Option<i64>,
    accepted_to_ms: Option<i64>,
}

impl Filter {
    fn of(params: &mut Params) -> Self {
        Self {
            status: params.choice("status", &STATUSES),
            customer: params.text("customer"),
            country: params.text("country").map(|it| it.to_ascii_uppercase()),
            currency: params.text("currency").map(|it| it.to_ascii_uppercase()),
            placed_from_ms: params.time("placed_from"),
            placed_to_ms: params.time("placed_to"),
            accepted_from_ms: params.time("accepted_from"),
            accepted_to_ms: params.time("accepted_to"),
        }
    }

    fn takes(&self, row: &OrderState) -> bool {
        let Some(order) = row.order.as_ref().filter(|_| row.credit.is_none()) else {
            return row.credit.is_none() && *self == Self::default();
        };
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|it| it == found);
        let within = |from: Option<i64>, to: Option<i64>, at: i64| {
            from.is_none_or(|it| at >= it) && to.is_none_or(|it| at < it)
        };
        self.status.is_none_or(|it| row.view.status == it)
            && is(&self.customer, order.customer.as_deref().unwrap_or_default())
            && is(&self.country, &order.country)
            && is(&self.currency, &order.currency)
            && within(self.placed_from_ms, self.placed_to_ms, order.placed_at_ms)
            && within(self.accepted_from_ms, self.accepted_to_ms, row.accepted_at_ms)
    }

    /// Where the index begins to be of interest: it is by time of acceptance, newest first.
    fn index_start(&self, tenant: &str) -> Option<Key> {
        let last_ms = self.accepted_to_ms?.checked_sub(1).filter(|it| *it >= 0)?;
        Some(ids::key(tenant, &descending(last_ms)))
    }

    /// Whether neither this order nor an older one can be taken.
    fn is_past(&self, row: &OrderState) -> bool {
        self.accepted_from_ms.is_some_and(|from| row.accepted_at_ms < from)
    }
}

/// Lists orders, newest first.
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::read(&uri, LIST)?;
    let filter = Filter::of(&mut params);
    let limit = params.rows();
    let cursor = params.text("cursor");
    params.finish()?;
    let prefix = ids::key(&caller.tenant, "");
    let cursor = match cursor {
        Some(cursor) => Some(ids::key(&caller.tenant, &cursor::decode('o', &cursor)?)),
        None => None,
    };
    let mut after = cursor.max(filter.index_start(&caller.tenant));

    let mut data = Vec::with_capacity(limit);
    let mut scanned = 0;
    loop {
        let step = if filter == Filter::default() { limit + 1 } else { STEP_ROWS };
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
                if filter.is_past(&row) {
                    return Ok(answer(data, None, &prefix));
                }
                if filter.takes(&row) {
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
