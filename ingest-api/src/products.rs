//! `/v1/products`: the catalog.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::Append;
use crate::cursor;
use crate::moment::to_rfc3339;
use crate::observe::Trace;
use crate::params::{Params, Segments};
use crate::problem::Problem;
use crate::shape::{self, Field, Kind, METADATA, is_text, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_schemas::item::{ItemCommand, ItemCommandPayload, ProductState, RemoveProduct, UpsertProduct};
use tillstream_schemas::{Text, TextMap, Topic, codec};
use tillstream_stage::ids::{self, client_id};
use tillstream_stage::{Key, Table};

/// How long a change may take to be in force.
const IN_FORCE_WAIT: Duration = Duration::from_secs(10);
/// The most rows one list call looks at.
const SCANNED_ROWS_MAX: usize = 10_000;
const STEP_ROWS: usize = 500;

const PRODUCT: &[Field] = &[
    needed("name", Kind::Text { min: 1, max: 255 }),
    optional("description", Kind::Prose { max: 5_000 }),
    optional("category", Kind::Text { min: 1, max: 100 }),
    optional("tax_class", Kind::Text { min: 1, max: 64 }),
    optional("active", Kind::Flag),
    optional("stocked", Kind::Flag),
    optional("prices", Kind::Prices),
    optional("image_urls", Kind::List { of: &Kind::Text { min: 1, max: 2_000 }, min: 0, max: 20 }),
    optional("low_stock_threshold", Kind::Integer { min: 0, max: 1_000_000_000 }),
    optional("metadata", METADATA),
];

#[derive(Deserialize)]
struct ProductInput {
    name: Text,
    description: Option<Text>,
    category: Option<Text>,
    tax_class: Option<Text>,
    active: Option<bool>,
    stocked: Option<bool>,
    prices: Option<BTreeMap<Text, i64>>,
    image_urls: Option<Vec<Text>>,
    low_stock_threshold: Option<i64>,
    metadata: Option<TextMap>,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<ProductInput>(bytes, PRODUCT).map(drop)
}

/// Refuses what cannot be a SKU.
pub(crate) fn check_sku(sku: &str) -> Result<(), Problem> {
    if is_text(sku, 1, 64) {
        return Ok(());
    }
    let fix = "send 1 to 64 characters, percent-encoded, without control characters";
    Err(Problem::parameter("sku", "cannot be a SKU", fix))
}

fn product(row: &ProductState) -> Value {
    json!({
        "sku": row.sku,
        "version": row.version,
        "updated_at": to_rfc3339(row.updated_at_ms),
        "name": row.name,
        "description": row.description,
        "category": row.category,
        "tax_class": row.tax_class,
        "active": row.active,
        "stocked": row.stocked,
        "prices": row.prices,
        "image_urls": row.image_urls,
        "low_stock_threshold": row.low_stock_threshold,
        "metadata": row.metadata,
    })
}

/// Writes a command and answers the row once pricing uses it. Both kinds of change may be repeated freely.
async fn change(
    ingest: &Arc<Ingest>,
    tenant: &Text,
    sku: &str,
    trace: Trace,
    payload: ItemCommandPayload,
) -> Result<Option<ProductState>, Problem> {
    let key = ids::key(tenant, sku);
    let now_ms = ingest.clock.now_ms();
    // Every call is a command of its own; its trace is as random as an id must be, and time tells repeats apart.
    let id = client_id("cmd_", &[&key, &trace.0, &now_ms.to_string()]);
    let command = ItemCommand {
        id,
        tenant: tenant.clone(),
        sku: sku.into(),
        accepted_at_ms: now_ms,
        traceparent: Some(trace.0),
        payload,
    };
    let record = ingest.record(Topic::ItemCommands, &key, codec::encode(&command)?);
    ingest.check_intake(record.to)?;
    let landed = ingest.append_one(Append { claim: None, record }).await?;
    ingest.await_landed(landed, IN_FORCE_WAIT).await?;
    let row: Option<ProductState> = ingest.row(Table::Product, key).await?;
    if let Some(row) = &row {
        let waiting = ingest.products.wait_version(tenant, sku, row.version);
        if tokio::time::timeout(IN_FORCE_WAIT, waiting).await.is_err() {
            let detail = "the product is stored, but pricing does not use it yet; repeat the call";
            return Err(Problem::new(crate::problem::Code::NotInForceYet, detail).retry_after(1));
        }
    }
    Ok(row)
}

/// `PUT /v1/products/{sku}`
pub(crate) async fn put(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    trace: Trace,
    Segments(sku): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_sku(&sku)?;
    let input: ProductInput = shape::read(&body::json(&headers, body).await?, PRODUCT)?;
    let payload = UpsertProduct {
        name: input.name,
        description: input.description,
        category: input.category,
        tax_class: input.tax_class,
        active: input.active.unwrap_or(true),
        stocked: input.stocked.unwrap_or(true),
        prices: input.prices.unwrap_or_default(),
        image_urls: input.image_urls.unwrap_or_default(),
        low_stock_threshold: input.low_stock_threshold,
        metadata: input.metadata.unwrap_or_default(),
    };
    let payload = ItemCommandPayload::UpsertProduct(Box::new(payload));
    match change(&ingest, &caller.tenant, &sku, trace, payload).await? {
        Some(row) if !row.removed => Ok(Json(product(&row)).into_response()),
        // Removed by another call right after this one.
        _ => Err(Problem::not_found("product", &sku)),
    }
}

/// `DELETE /v1/products/{sku}`
pub(crate) async fn remove(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    trace: Trace,
    Segments(sku): Segments<String>,
) -> Result<Response, Problem> {
    check_sku(&sku)?;
    let known: Option<ProductState> = ingest.row(Table::Product, ids::key(&caller.tenant, &sku)).await?;
    if known.is_none_or(|it| it.removed) {
        return Err(Problem::not_found("product", &sku));
    }
    let payload = ItemCommandPayload::RemoveProduct(RemoveProduct {});
    change(&ingest, &caller.tenant, &sku, trace, payload).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/products/{sku}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(sku): Segments<String>,
) -> Result<Json<Value>, Problem> {
    check_sku(&sku)?;
    let row: Option<ProductState> = ingest.row(Table::Product, ids::key(&caller.tenant, &sku)).await?;
    match row {
        Some(row) if !row.removed => Ok(Json(product(&row))),
        _ => Err(Problem::not_found("product", &sku)),
    }
}

/// `GET /v1/products`, in SKU order.
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::of(&uri, &["q", "category", "cursor", "limit"])?;
    let q = params.text("q").map(|it| it.to_lowercase());
    let category = params.text("category");
    let limit = params.limit(20, 100);
    let cursor = params.text("cursor");
    params.finish()?;
    let prefix = ids::key(&caller.tenant, "");
    let mut after: Option<Key> = match cursor {
        Some(cursor) => Some(ids::key(&caller.tenant, &cursor::decode('p', &cursor)?)),
        None => None,
    };
    let wanted = |row: &ProductState| {
        let found = |text: &str| q.as_ref().is_none_or(|q| text.to_lowercase().contains(q));
        let description = row.description.as_deref().unwrap_or_default();
        !row.removed
            && category.as_ref().is_none_or(|it| row.category.as_ref().is_some_and(|found| found == it))
            && (found(&row.sku) || found(&row.name) || found(description))
    };
    let mut data = Vec::new();
    let mut scanned = 0;
    loop {
        let page = ingest.state.scan(Table::Product, &prefix, after.as_deref(), STEP_ROWS).await?;
        for (key, bytes) in page.rows {
            if data.len() == limit || scanned == SCANNED_ROWS_MAX {
                return Ok(answer(data, after.as_ref(), &prefix));
            }
            scanned += 1;
            let row: ProductState = codec::decode(&bytes)?;
            if wanted(&row) {
                data.push(product(&row));
            }
            after = Some(key);
        }
        if !page.more {
            return Ok(answer(data, None, &prefix));
        }
    }
}

fn answer(data: Vec<Value>, after: Option<&Key>, prefix: &str) -> Json<Value> {
    let next = after.and_then(|it| it.strip_prefix(prefix)).map(|it| cursor::encode('p', it));
    Json(json!({ "data": data, "next_cursor": next }))
}
