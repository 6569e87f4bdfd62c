//! `/v1/inventory`: stock levels and adjustments.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::{Accepted, MISS_WAIT};
use crate::idempotency::{self, fingerprint, key_of, wait_of};
use crate::in_flight::Landed;
use crate::observe::Trace;
use crate::openapi::{Answer, Call};
use crate::params::Segments;
use crate::problem::{Code, FieldError, Problem};
use crate::products::check_sku;
use crate::shape::{self, Field, Kind, SKU, needed, optional};
use crate::written::Written;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_schemas::item::{AdjustStock, AdjustmentState, ItemCommand, ItemCommandPayload, StockState};
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::{self, client_id};
use tillstream_stage::{Key, Table};

/// The most units one adjustment moves.
const DELTA_MAX: i64 = 1_000_000_000;
/// Where goods are when nobody says.
const LOCATION: &str = "main";

const ADJUSTMENT: &[Field] = &[
    needed("delta", Kind::Integer { min: -DELTA_MAX, max: DELTA_MAX })
        .about("How many units came (positive) or went (negative); not zero"),
    needed("reason", Kind::Text { min: 1, max: 255 }),
    optional("location", Kind::Text { min: 1, max: 64 }).about("Left out: main"),
];

#[derive(Deserialize)]
struct AdjustmentInput {
    delta: i64,
    reason: Text,
    location: Option<Text>,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<AdjustmentInput>(bytes, ADJUSTMENT).map(drop)
}

/// The stock of one SKU.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Inventory")]
struct Level<'a> {
    /// The SKU.
    sku: &'a str,
    /// On hand and not reserved, over all locations.
    available: i64,
    /// On hand, over all locations.
    on_hand: i64,
    /// Reserved for orders, over all locations.
    reserved: i64,
    /// The same per location.
    locations: Vec<LevelAt<'a>>,
    /// An event says when fewer are available.
    low_stock_threshold: Option<i64>,
    /// Whether fewer are available than that.
    low: bool,
    /// Units that ever came.
    received: i64,
    /// Units that were ever sold.
    sold: i64,
    /// Grows by one with every change.
    version: i64,
}

/// The stock of one SKU at one location.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InventoryAt")]
struct LevelAt<'a> {
    /// The location.
    location: &'a str,
    /// On hand and not reserved.
    available: i64,
    /// On hand.
    on_hand: i64,
    /// Reserved for orders.
    reserved: i64,
}

impl<'a> Level<'a> {
    fn of(row: &'a StockState) -> Self {
        let on_hand: i64 = row.locations.iter().map(|it| it.on_hand).sum();
        let reserved: i64 = row.locations.iter().map(|it| it.reserved).sum();
        let locations = row.locations.iter().map(|it| LevelAt {
            location: &it.location,
            available: it.on_hand - it.reserved,
            on_hand: it.on_hand,
            reserved: it.reserved,
        });
        Self {
            sku: &row.sku,
            available: on_hand - reserved,
            on_hand,
            reserved,
            locations: locations.collect(),
            low_stock_threshold: row.low_stock_threshold,
            low: row.low,
            received: row.received,
            sold: row.sold,
            version: row.version,
        }
    }
}

/// A level as the contract shows it.
fn level_example() -> Value {
    json!({
        "sku": "71053", "available": 94, "on_hand": 100, "reserved": 6,
        "locations": [{ "location": "main", "available": 94, "on_hand": 100, "reserved": 6 }],
        "low_stock_threshold": 10, "low": false, "received": 100, "sold": 0, "version": 2,
    })
}

/// `GET /v1/inventory/{sku}`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/inventory/{sku}", "getInventory", "inventory", "Read a stock level")
        .segment("sku", SKU, "The SKU, percent-encoded", "71053")
        .answer(Answer::json::<Level<'_>>(200, "The level").example(level_example()))
        .problem(Code::NotFound)
        .reads()
}

/// `POST /v1/inventory/{sku}/adjustments`
pub(crate) fn adjust_call() -> Call {
    let links = AdjustmentLinks { inventory: "/v1/inventory/71053".to_owned() };
    let id = "adj_7tzc3pvk1wmq9gxr5hby";
    let accepted = AdjustmentAnswer { id, status: AdjustmentStatus::Accepted, links, inventory: None };
    Call::post("/v1/inventory/{sku}/adjustments", "adjustInventory", "inventory", "Adjust stock")
        .about("It may come before its product.")
        .segment("sku", SKU, "The SKU, percent-encoded", "71053")
        .idempotent()
        .waits()
        .body(
            "AdjustmentInput",
            ADJUSTMENT,
            json!({ "delta": 100, "reason": "received", "location": "main" }),
        )
        .answer(Answer::json::<AdjustmentAnswer<'_>>(202, "Accepted and durable").example(json!(accepted)))
        .answer(Answer::json::<AdjustmentAnswer<'_>>(200, "Applied (with `Prefer: wait`)"))
        .problem(Code::CommandRefused)
        .writes()
}

/// `GET /v1/inventory/{sku}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(sku): Segments<String>,
) -> Result<Response, Problem> {
    check_sku(&sku)?;
    let row: Option<StockState> = ingest.row(Table::Stock, ids::key(&caller.tenant, &sku)).await?;
    row.map(|it| Json(Level::of(&it)).into_response()).ok_or_else(|| Problem::not_found("stock of", &sku))
}

/// The command of an adjustment.
///
/// # Errors
/// Everything that is wrong with the body, at once.
pub(crate) fn write(
    tenant: &Text,
    sku: &str,
    idempotency_key: &str,
    body: &[u8],
    trace: &Trace,
    now_ms: i64,
) -> Result<Written, Problem> {
    let input: AdjustmentInput = shape::read(body, ADJUSTMENT)?;
    if input.delta == 0 {
        let error =
            FieldError::new("delta", "is zero", "send how many units came (positive) or went (negative)");
        return Err(Problem::invalid_fields(vec![error]));
    }
    let route = format!("POST /v1/inventory/{sku}/adjustments");
    let id = client_id("adj_", &[tenant, &route, idempotency_key]);
    let mut command = ItemCommand {
        id: id.clone(),
        tenant: tenant.clone(),
        sku: sku.into(),
        accepted_at_ms: 0,
        traceparent: None,
        payload: ItemCommandPayload::AdjustStock(AdjustStock {
            delta: input.delta,
            reason: input.reason,
            location: input.location.unwrap_or_else(|| LOCATION.into()),
            fingerprint: Text::default(),
        }),
    };
    let mut value = Vec::with_capacity(256);
    let fingerprint = fingerprint(&command, &mut value)?;
    if let ItemCommandPayload::AdjustStock(adjustment) = &mut command.payload {
        adjustment.fingerprint = fingerprint.clone();
    }
    command.accepted_at_ms = now_ms;
    command.traceparent = Some(trace.0.clone());
    value.clear();
    codec::encode_into(&command, &mut value)?;
    Ok(Written { id, fingerprint, key: ids::key(tenant, sku), value })
}

/// `POST /v1/inventory/{sku}/adjustments`
pub(crate) async fn adjust(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    trace: Trace,
    Segments(sku): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_sku(&sku)?;
    let key = key_of(&headers)?;
    let bytes = body::json(&headers, body).await?;
    let written = write(&caller.tenant, &sku, key, &bytes, &trace, ingest.clock.now_ms())?;
    let Written { id, fingerprint, key: stock_key, value } = written;
    let row_key = ids::key(&stock_key, &id);
    let record = ingest.record(Topic::ItemCommands, &stock_key, value);
    ingest.check_new_work(record.to)?;
    let judge = async || {
        let row: Option<AdjustmentState> = ingest.row(Table::Adjustment, row_key.clone()).await?;
        Ok(row.map(|it| it.fingerprint))
    };
    let accepted = ingest.append_claimed(&caller.tenant, &id, &fingerprint, record, judge).await?;
    let adjustment = Adjustment { id, fingerprint, stock_key, row_key };
    let wait = wait_of(&headers);
    let answer = match (accepted, wait) {
        (Accepted::Now(landed), Some(wait)) => adjustment.outcome(&ingest, landed, wait).await?,
        _ => (StatusCode::ACCEPTED, adjustment.body(AdjustmentStatus::Accepted, None)),
    };
    Ok(answer.into_response())
}

/// An adjustment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Adjustment")]
struct AdjustmentAnswer<'a> {
    /// Its id.
    id: &'a str,
    /// Whether it was applied in the time that was waited.
    status: AdjustmentStatus,
    /// Where the level is.
    links: AdjustmentLinks,
    /// The level after it, where it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    inventory: Option<Level<'a>>,
}

#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AdjustmentStatus {
    Accepted,
    Applied,
}

/// Where the level of an adjustment is.
#[derive(Serialize, JsonSchema)]
struct AdjustmentLinks {
    /// The level.
    inventory: String,
}

struct Adjustment {
    id: Text,
    fingerprint: Text,
    stock_key: Key,
    row_key: Key,
}

impl Adjustment {
    /// What the item task made of it.
    async fn outcome(
        &self,
        ingest: &Ingest,
        landed: Landed,
        wait: std::time::Duration,
    ) -> Result<(StatusCode, Response), Problem> {
        if ingest.await_landed(landed, wait.max(MISS_WAIT)).await.is_err() {
            return Ok((StatusCode::ACCEPTED, self.body(AdjustmentStatus::Accepted, None)));
        }
        match ingest.row::<AdjustmentState>(Table::Adjustment, self.row_key.clone()).await? {
            Some(row) if row.fingerprint == self.fingerprint => {
                let stock: Option<StockState> = ingest.row(Table::Stock, self.stock_key.clone()).await?;
                Ok((StatusCode::OK, self.body(AdjustmentStatus::Applied, stock.as_ref())))
            }
            Some(_) => Err(idempotency::conflict()),
            // A refused adjustment leaves no row: it may be tried again with the same key.
            None => {
                let detail =
                    "the adjustment was refused: on hand would fall below what is reserved, or overflow";
                Err(Problem::new(Code::CommandRefused, detail))
            }
        }
    }

    fn body(&self, status: AdjustmentStatus, stock: Option<&StockState>) -> Response {
        let links = AdjustmentLinks { inventory: self.path() };
        Json(AdjustmentAnswer { id: &self.id, status, links, inventory: stock.map(Level::of) })
            .into_response()
    }

    /// The level's path, with everything but unreserved characters percent-encoded.
    fn path(&self) -> String {
        let sku = self.stock_key.split_once('/').map_or("", |(_, sku)| sku);
        let mut path = String::from("/v1/inventory/");
        for byte in sku.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
        path
    }
}
