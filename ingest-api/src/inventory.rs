//! `/v1/inventory`: stock levels and adjustments.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::{Accepted, MISS_WAIT};
use crate::idempotency::{self, fingerprint, key_of, wait_of};
use crate::in_flight::Landed;
use crate::observe::Trace;
use crate::params::Segments;
use crate::problem::{Code, FieldError, Problem};
use crate::products::check_sku;
use crate::shape::{self, Field, Kind, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
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
    needed("delta", Kind::Integer { min: -DELTA_MAX, max: DELTA_MAX }),
    needed("reason", Kind::Text { min: 1, max: 255 }),
    optional("location", Kind::Text { min: 1, max: 64 }),
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

fn level(row: &StockState) -> Value {
    let on_hand: i64 = row.locations.iter().map(|it| it.on_hand).sum();
    let reserved: i64 = row.locations.iter().map(|it| it.reserved).sum();
    let locations: Vec<Value> = row
        .locations
        .iter()
        .map(|it| {
            json!({
                "location": it.location,
                "available": it.on_hand - it.reserved,
                "on_hand": it.on_hand,
                "reserved": it.reserved,
            })
        })
        .collect();
    json!({
        "sku": row.sku,
        "available": on_hand - reserved,
        "on_hand": on_hand,
        "reserved": reserved,
        "locations": locations,
        "low_stock_threshold": row.low_stock_threshold,
        "low": row.low,
        "received": row.received,
        "sold": row.sold,
        "version": row.version,
    })
}

/// `GET /v1/inventory/{sku}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(sku): Segments<String>,
) -> Result<Json<Value>, Problem> {
    check_sku(&sku)?;
    let row: Option<StockState> = ingest.row(Table::Stock, ids::key(&caller.tenant, &sku)).await?;
    row.map(|it| Json(level(&it))).ok_or_else(|| Problem::not_found("stock of", &sku))
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
    let input: AdjustmentInput = shape::read(&body::json(&headers, body).await?, ADJUSTMENT)?;
    if input.delta == 0 {
        let error =
            FieldError::new("delta", "is zero", "send how many units came (positive) or went (negative)");
        return Err(Problem::invalid_fields(vec![error]));
    }
    let route = format!("POST /v1/inventory/{sku}/adjustments");
    let id = client_id("adj_", &[&caller.tenant, &route, key]);
    let mut command = ItemCommand {
        id: id.clone(),
        tenant: caller.tenant.clone(),
        sku: sku.as_str().into(),
        accepted_at_ms: 0,
        traceparent: None,
        payload: ItemCommandPayload::AdjustStock(AdjustStock {
            delta: input.delta,
            reason: input.reason,
            location: input.location.unwrap_or_else(|| LOCATION.into()),
            fingerprint: Text::default(),
        }),
    };
    let mut bytes = Vec::with_capacity(256);
    let fingerprint = fingerprint(&command, &mut bytes)?;
    if let ItemCommandPayload::AdjustStock(adjustment) = &mut command.payload {
        adjustment.fingerprint = fingerprint.clone();
    }
    command.accepted_at_ms = ingest.clock.now_ms();
    command.traceparent = Some(trace.0);
    bytes.clear();
    codec::encode_into(&command, &mut bytes)?;
    let stock_key = ids::key(&caller.tenant, &sku);
    let row_key = ids::key(&stock_key, &id);
    let record = ingest.record(Topic::ItemCommands, &stock_key, bytes);
    let judge = async || {
        let row: Option<AdjustmentState> = ingest.row(Table::Adjustment, row_key.clone()).await?;
        Ok(row.map(|it| it.fingerprint))
    };
    let accepted = ingest.append_claimed(&caller.tenant, &id, &fingerprint, record, judge).await?;
    let adjustment = Adjustment { id, fingerprint, stock_key, row_key };
    let wait = wait_of(&headers);
    let answer = match (accepted, wait) {
        (Accepted::Now(landed), Some(wait)) => adjustment.outcome(&ingest, landed, wait).await?,
        _ => (StatusCode::ACCEPTED, adjustment.body("accepted", None)),
    };
    Ok(answer.into_response())
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
    ) -> Result<(StatusCode, Json<Value>), Problem> {
        if ingest.await_landed(landed, wait.max(MISS_WAIT)).await.is_err() {
            return Ok((StatusCode::ACCEPTED, self.body("accepted", None)));
        }
        match ingest.row::<AdjustmentState>(Table::Adjustment, self.row_key.clone()).await? {
            Some(row) if row.fingerprint == self.fingerprint => {
                let stock: Option<StockState> = ingest.row(Table::Stock, self.stock_key.clone()).await?;
                Ok((StatusCode::OK, self.body("applied", stock.as_ref())))
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

    fn body(&self, status: &str, stock: Option<&StockState>) -> Json<Value> {
        let mut body = json!({ "id": self.id, "status": status, "links": { "inventory": self.path() } });
        if let Some(stock) = stock {
            body["inventory"] = level(stock);
        }
        Json(body)
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
