//! `/v1/products`: the catalog.

use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::Append;
use crate::cursor;
use crate::moment::Moment;
use crate::observe::Trace;
use crate::openapi::{Answer, Call, Page};
use crate::params::{self, Params, Query, Segments, Wanted, query, rows, words};
use crate::problem::{Code, Problem};
use crate::shape::{self, Field, Kind, METADATA, SKU, is_text, needed, optional};
use crate::written::Written;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_schemas::codec::CodecError;
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
    optional("tax_class", Kind::Text { min: 1, max: 64 }).about("Left out: untaxed"),
    optional("active", Kind::Flag).about("Whether it may be ordered; left out: true"),
    optional("stocked", Kind::Flag).about("False: a fee or a service, which holds no stock; left out: true"),
    optional("prices", Kind::Prices).about("ISO 4217 code to minor units"),
    optional("image_urls", Kind::List { of: &Kind::Text { min: 1, max: 2_000 }, min: 0, max: 20 }),
    optional("low_stock_threshold", Kind::Integer { min: 0, max: 1_000_000_000 })
        .about("An event says when fewer are available"),
    optional("metadata", METADATA),
];

const ACTIVE: [(&str, bool); 2] = [("true", true), ("false", false)];
const ACTIVE_WORDS: [&str; 2] = words(&ACTIVE);

const LIST: &[Query] = &[
    query("q", Wanted::Text, "Only those with this text in SKU, name or description, in any case"),
    query("category", Wanted::Text, "Only this category"),
    query("active", Wanted::Choice(&ACTIVE_WORDS), "Only those that are, or are not, active"),
    params::cursor('p'),
    rows(20, 100),
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

/// A product.
#[derive(Serialize, JsonSchema)]
struct Product<'a> {
    /// Its SKU.
    sku: &'a str,
    /// Grows by one with every change.
    version: i64,
    /// When it last changed.
    updated_at: Moment,
    /// Name.
    name: &'a str,
    /// Description.
    description: Option<&'a str>,
    /// Category.
    category: Option<&'a str>,
    /// Tax class; null: untaxed.
    tax_class: Option<&'a str>,
    /// Whether it may be ordered.
    active: bool,
    /// Whether it holds stock.
    stocked: bool,
    /// ISO 4217 code to minor units.
    #[schemars(with = "BTreeMap<String, i64>")]
    prices: &'a BTreeMap<Text, i64>,
    /// Images.
    #[schemars(with = "Vec<String>")]
    image_urls: &'a [Text],
    /// An event says when fewer are available.
    low_stock_threshold: Option<i64>,
    /// The merchant's metadata.
    #[schemars(with = "BTreeMap<String, String>")]
    metadata: &'a TextMap,
}

impl<'a> Product<'a> {
    fn of(row: &'a ProductState) -> Self {
        Self {
            sku: &row.sku,
            version: row.version,
            updated_at: Moment(row.updated_at_ms),
            name: &row.name,
            description: row.description.as_deref(),
            category: row.category.as_deref(),
            tax_class: row.tax_class.as_deref(),
            active: row.active,
            stocked: row.stocked,
            prices: &row.prices,
            image_urls: &row.image_urls,
            low_stock_threshold: row.low_stock_threshold,
            metadata: &row.metadata,
        }
    }
}

/// A product as the contract shows it, sent.
fn sent_example() -> Value {
    json!({
        "name": "White metal lantern", "category": "lanterns", "tax_class": "standard", "prices": { "GBP": 339 },
        "low_stock_threshold": 10,
    })
}

/// A product as the contract shows it, read.
fn read_example() -> Value {
    json!({
        "sku": "71053", "version": 3, "updated_at": "2010-12-01T08:00:00Z", "name": "White metal lantern",
        "description": null, "category": "lanterns", "tax_class": "standard", "active": true, "stocked": true,
        "prices": { "GBP": 339 }, "image_urls": [], "low_stock_threshold": 10, "metadata": {},
    })
}

fn sku_segment(call: Call) -> Call {
    call.segment("sku", SKU, "The SKU, percent-encoded", "71053")
}

/// The product that a body describes.
///
/// # Errors
/// Everything that is wrong with the body, at once.
pub(crate) fn read(body: &[u8]) -> Result<ItemCommandPayload, Problem> {
    let input: ProductInput = shape::read(body, PRODUCT)?;
    let product = UpsertProduct {
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
    Ok(ItemCommandPayload::UpsertProduct(Box::new(product)))
}

/// The command of a change. Nobody judges it by a fingerprint.
///
/// # Errors
/// The codec's.
pub(crate) fn write(
    tenant: &Text,
    sku: &str,
    payload: ItemCommandPayload,
    trace: Trace,
    now_ms: i64,
) -> Result<Written, CodecError> {
    let key = ids::key(tenant, sku);
    // Every call is a command of its own; its trace is as random as an id must be, and time tells repeats apart.
    let id = client_id("cmd_", &[&key, &trace.0, &now_ms.to_string()]);
    let command = ItemCommand {
        id: id.clone(),
        tenant: tenant.clone(),
        sku: sku.into(),
        accepted_at_ms: now_ms,
        traceparent: Some(trace.0),
        payload,
    };
    Ok(Written { id, fingerprint: Text::default(), key, value: codec::encode(&command)? })
}

/// Writes a command and answers the row once pricing uses it. Both kinds of change may be repeated freely.
async fn change(
    ingest: &Arc<Ingest>,
    tenant: &Text,
    sku: &str,
    trace: Trace,
    payload: ItemCommandPayload,
) -> Result<Option<ProductState>, Problem> {
    let Written { key, value, .. } = write(tenant, sku, payload, trace, ingest.clock.now_ms())?;
    let record = ingest.record(Topic::ItemCommands, &key, value);
    ingest.check_new_work(record.to)?;
    let landed = ingest.append_one(Append { claim: None, record }).await?;
    ingest.await_landed(landed, IN_FORCE_WAIT).await?;
    let row: Option<ProductState> = ingest.row(Table::Product, key).await?;
    if let Some(row) = &row {
        let waiting = ingest.products.wait_version(tenant, sku, row.version);
        if tokio::time::timeout(IN_FORCE_WAIT, waiting).await.is_err() {
            let detail = "the product is stored, but pricing does not use it yet; repeat the call";
            return Err(Problem::new(Code::NotInForceYet, detail).retry_after(1));
        }
    }
    Ok(row)
}

/// `PUT /v1/products/{sku}`
pub(crate) fn put_call() -> Call {
    sku_segment(Call::put("/v1/products/{sku}", "putProduct", "products", "Create or replace a product"))
        .about("Answers once it is in force: an order that comes after is priced by it.")
        .body("ProductInput", PRODUCT, sent_example())
        .answer(Answer::json::<Product<'_>>(200, "The product").example(read_example()))
        .problem(Code::NotFound)
        .problem(Code::NotInForceYet)
        .writes()
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
    let payload = read(&body::json(&headers, body).await?)?;
    match change(&ingest, &caller.tenant, &sku, trace, payload).await? {
        Some(row) if !row.removed => Ok(Json(Product::of(&row)).into_response()),
        // Removed by another call right after this one.
        _ => Err(Problem::not_found("product", &sku)),
    }
}

/// `DELETE /v1/products/{sku}`
pub(crate) fn remove_call() -> Call {
    sku_segment(Call::delete("/v1/products/{sku}", "deleteProduct", "products", "Remove a product"))
        .about("Answers once it is in force.")
        .answer(Answer::empty(204, "Removed"))
        .problem(Code::NotFound)
        .problem(Code::NotInForceYet)
        .writes()
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
pub(crate) fn get_call() -> Call {
    sku_segment(Call::get("/v1/products/{sku}", "getProduct", "products", "Read a product"))
        .answer(Answer::json::<Product<'_>>(200, "The product").example(read_example()))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/products/{sku}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(sku): Segments<String>,
) -> Result<Response, Problem> {
    check_sku(&sku)?;
    let row: Option<ProductState> = ingest.row(Table::Product, ids::key(&caller.tenant, &sku)).await?;
    match row {
        Some(row) if !row.removed => Ok(Json(Product::of(&row)).into_response()),
        _ => Err(Problem::not_found("product", &sku)),
    }
}

/// `GET /v1/products`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/products", "listProducts", "products", "List products, in SKU order")
        .about("A page may hold fewer rows than `limit` and still have a `next_cursor`: filters look at so many rows a call.")
        .query(LIST)
        .answer(
            Answer::json::<Page<Product<'_>>>(200, "A page")
                .example(json!({ "data": [read_example()], "next_cursor": null })),
        )
        .reads()
}

/// `GET /v1/products`, in SKU order.
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::read(&uri, LIST)?;
    let q = params.text("q").map(|it| it.to_lowercase());
    let category = params.text("category");
    let active = params.choice("active", &ACTIVE);
    let limit = params.rows();
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
            && active.is_none_or(|it| it == row.active)
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
                data.push(json!(Product::of(&row)));
            }
            after = Some(key);
        }
        if !page.more {
            return Ok(answer(data, None, &prefix));
        }
    }
}

fn answer(data: Vec<Value>, after: Option<&Key>, prefix: &str) -> Json<Value> {
    let next_cursor = after.and_then(|it| it.strip_prefix(prefix)).map(|it| cursor::encode('p', it));
    Json(json!(Page { data, next_cursor }))
}
