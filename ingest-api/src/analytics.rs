//! `/v1/analytics`: what the analytics task has counted, in event time.

use crate::Ingest;
use crate::auth::Caller;
use crate::cursor;
use crate::moment::{Moment, TIME_MS_MAX};
use crate::openapi::{Answer, Call, OneOf, Page, one_of};
use crate::params::{self, Params, Query, Wanted, query, rows, words};
use crate::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_schemas::analytics::{
    CorrectionState, Granularity, Sums, TopProductsState, WatermarkState, WindowState,
};
use tillstream_schemas::codec::{self, Wire};
use tillstream_stage::time::ascending;
use tillstream_stage::{Key, Table, ids};

/// The most windows in one answer.
const ROWS_MAX: usize = 100_000;
/// Rows read at a time.
const STEP_ROWS: usize = 1_000;
/// The most corrections in one answer.
const CORRECTIONS_MAX: usize = 1_000;
const GRANULARITIES: [(&str, Granularity); 3] =
    [("minute", Granularity::Minute), ("hour", Granularity::Hour), ("day", Granularity::Day)];

const BY: [&str; 3] = words(&GRANULARITIES);
const GROUPS: [(&str, bool); 1] = [("country", true)];
const GROUP: [&str; 1] = words(&GROUPS);
const SORTS: [(&str, bool); 2] = [("gross", false), ("units", true)];
const SORT: [&str; 2] = words(&SORTS);

const FROM: Query = query("from", Wanted::Time, "Windows that start at or after: RFC 3339 or a date");
const TO: Query =
    query("to", Wanted::Time, "Windows that start before: RFC 3339 or a date, not before `from`");
const WIDTH: Query = query("by", Wanted::Choice(&BY), "Width of a window; left out: day");
const CURRENCY: Query = query("currency", Wanted::Text, "Only this currency");

const REVENUE: &[Query] = &[
    FROM,
    TO,
    WIDTH,
    query("group", Wanted::Choice(&GROUP), "A row per country too"),
    CURRENCY,
    params::cursor('r'),
    rows(ROWS_MAX, ROWS_MAX),
];
const PRODUCTS: &[Query] = &[
    FROM,
    TO,
    WIDTH,
    CURRENCY,
    query("sort", Wanted::Choice(&SORT), "By what they sold; left out: gross"),
    rows(20, 1_000),
];
const FUNNEL: &[Query] = &[FROM, TO, WIDTH];

one_of! { Granularity { Minute, Hour, Day } }

/// Revenue per window, in event time. The rows include late data.
#[derive(Serialize, JsonSchema)]
struct Revenue {
    #[serde(flatten)]
    page: Page<RevenueRow>,
    /// Width of the windows.
    #[schemars(with = "OneOf<Granularity>")]
    by: Granularity,
    /// No order before this time is expected any more; null: nothing was counted yet.
    watermark: Option<Moment>,
    /// What came late, by minute: it is in the rows already.
    corrections: Vec<Correction>,
}

/// A window; amounts are minor units.
#[derive(Serialize, JsonSchema)]
struct RevenueRow {
    /// When it starts.
    window_start: Moment,
    /// ISO 4217.
    #[schemars(with = "String")]
    currency: Text,
    /// ISO 3166-1 alpha-2, with `group=country`; null: orders without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    country: Option<Option<Text>>,
    /// Orders paid.
    orders: i64,
    /// Units sold.
    units: i64,
    /// Quantity × price, fees included, before discount and tax.
    gross: i64,
    /// Discounts.
    discount: i64,
    /// Tax.
    tax: i64,
    /// Refunded in this window.
    refunded: i64,
    /// How many refunds.
    refunds: i64,
    /// `gross` − `discount` − `refunded`.
    net: i64,
}

/// What came late to one minute; amounts are minor units.
#[derive(Serialize, JsonSchema)]
struct Correction {
    /// When the minute starts.
    window_start: Moment,
    /// ISO 4217.
    #[schemars(with = "String")]
    currency: Text,
    /// ISO 3166-1 alpha-2; null: orders without one.
    #[schemars(with = "Option<String>")]
    country: Option<Text>,
    /// How often the minute was corrected.
    count: i64,
    /// Orders paid.
    orders: i64,
    /// Units sold.
    units: i64,
    /// Quantity × price, fees included, before discount and tax.
    gross: i64,
    /// Discounts.
    discount: i64,
    /// Tax.
    tax: i64,
    /// Refunded.
    refunded: i64,
    /// When the first late order was counted.
    first_at: Moment,
    /// When the last one was.
    last_at: Moment,
    /// The watermark then.
    watermark: Moment,
}

/// How far orders came, per window.
#[derive(Serialize, JsonSchema)]
struct Funnel {
    #[serde(flatten)]
    page: Page<FunnelRow>,
    /// There are more windows than one answer holds: ask for a shorter time.
    truncated: bool,
    /// No order before this time is expected any more; null: nothing was counted yet.
    watermark: Option<Moment>,
}

/// A window: how many orders came that far.
#[derive(Serialize, JsonSchema)]
struct FunnelRow {
    /// When it starts.
    window_start: Moment,
    /// Taken by the API.
    placed: i64,
    /// Priced.
    priced: i64,
    /// Stock held for all of them.
    reserved: i64,
    /// Paid.
    paid: i64,
    /// All delivered.
    completed: i64,
    /// Failed.
    failed: i64,
    /// Cancelled.
    cancelled: i64,
    /// Refused orders per reason code.
    #[schemars(with = "BTreeMap<String, i64>")]
    refusals: BTreeMap<Text, i64>,
}

/// What sold best over the whole range.
#[derive(Serialize, JsonSchema)]
struct TopProducts {
    #[serde(flatten)]
    page: Page<TopProduct>,
    /// How many units a count may be short by; 0: exact.
    undercount_units_max: i64,
}

/// What one product sold.
#[derive(Serialize, JsonSchema)]
struct TopProduct {
    /// The SKU.
    #[schemars(with = "String")]
    sku: Text,
    /// ISO 4217.
    #[schemars(with = "String")]
    currency: Text,
    /// Units.
    units: i64,
    /// Quantity × price, minor units.
    gross: i64,
}

/// What of the time is asked for: windows that start at or after `from` and before `to`.
#[derive(Clone, Copy)]
struct Range {
    from_ms: i64,
    to_ms: i64,
    by: Granularity,
}

fn range(params: &mut Params) -> Range {
    let from_ms = params.time("from").unwrap_or(0);
    let to_ms = params.time("to").unwrap_or(TIME_MS_MAX);
    if from_ms > to_ms {
        params.refuse("to", "is before from", "send a to that is at or after from");
    }
    Range { from_ms, to_ms, by: params.choice("by", &GRANULARITIES).unwrap_or(Granularity::Day) }
}

/// Reads rows whose keys go on with 16 hex digits of their start behind `prefix`, until a row starts at or past
/// `to_ms`, or `take` says stop.
async fn scan<T: Wire>(
    ingest: &Ingest,
    table: Table,
    prefix: &str,
    after: Key,
    to_ms: i64,
    mut take: impl FnMut(&str, T) -> bool,
) -> Result<(), Problem> {
    let end = ascending(to_ms);
    let mut after = after;
    loop {
        let page = ingest.state.scan(table, prefix, Some(&after), STEP_ROWS).await?;
        let Some((last, _)) = page.rows.last() else { return Ok(()) };
        let next = last.clone();
        for (key, bytes) in page.rows {
            let rest = key.strip_prefix(prefix).unwrap_or_default();
            if rest.get(..16).is_none_or(|start| start >= end.as_str()) || !take(rest, codec::decode(&bytes)?)
            {
                return Ok(());
            }
        }
        if !page.more {
            return Ok(());
        }
        after = next;
    }
}

fn window_prefix(tenant: &str, by: Granularity) -> Key {
    let mut prefix = ids::key(tenant, "");
    prefix.push(by.letter());
    prefix.push('/');
    prefix
}

fn from_key(prefix: &str, from_ms: i64) -> Key {
    let mut key = Key::from(prefix);
    key.push_str(&ascending(from_ms));
    key
}

fn add(sums: &mut Sums, more: &Sums) {
    sums.orders += more.orders;
    sums.units += more.units;
    sums.gross += more.gross;
    sums.discount += more.discount;
    sums.tax += more.tax;
    sums.refunded += more.refunded;
    sums.refunds += more.refunds;
    sums.placed += more.placed;
    sums.priced += more.priced;
    sums.reserved += more.reserved;
    sums.paid += more.paid;
    sums.completed += more.completed;
    sums.failed += more.failed;
    sums.cancelled += more.cancelled;
}

/// `GET /v1/analytics/revenue`
pub(crate) fn revenue_call() -> Call {
    Call::get("/v1/analytics/revenue", "getRevenue", "analytics", "Revenue per window, in event time")
        .about(
            "Revenue is counted at capture, in the window of `placed_at`; refunds in the window in which they happen. The \
             rows include late data, the corrections only explain it.",
        )
        .query(REVENUE)
        .answer(Answer::json::<Revenue>(200, "The windows").example(json!({
            "data": [{
                "window_start": "2010-12-01T00:00:00Z", "currency": "GBP", "country": "GB", "orders": 121, "units": 24_215,
                "gross": 4_630_400, "discount": 0, "tax": 926_080, "refunded": 1_020, "refunds": 2, "net": 4_629_380,
            }],
            "next_cursor": null, "by": "day", "watermark": "2010-12-01T20:00:00Z", "corrections": [],
        })))
        .reads()
}

/// `GET /v1/analytics/revenue`
pub(crate) async fn revenue(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, REVENUE)?;
    let range = range(&mut params);
    let by_country = params.choice("group", &GROUPS).unwrap_or(false);
    let currency = params.text("currency");
    let limit = params.rows();
    let cursor = params.text("cursor");
    params.finish()?;
    let prefix = window_prefix(&caller.tenant, range.by);
    let mut after = from_key(&prefix, range.from_ms);
    if let Some(cursor) = cursor {
        // Group mode and width must be those of the page before: a place in one is no place in another.
        let place = cursor::decode('r', &cursor)?;
        after = Key::from(&*prefix) + &place;
    }

    let mut rows: Vec<(WindowState, Key)> = Vec::new();
    let mut more = false;
    scan(&ingest, Table::Window, &prefix, after, range.to_ms, |place, row: WindowState| {
        if currency.as_ref().is_some_and(|it| row.currency != *it) || !is_revenue(&row.sums) {
            return true;
        }
        let continues = |last: &WindowState| {
            !by_country && last.window_start_ms == row.window_start_ms && last.currency == row.currency
        };
        if let Some((last, key)) = rows.last_mut().filter(|(last, _)| continues(last)) {
            add(&mut last.sums, &row.sums);
            *key = place.into();
        } else if rows.len() == limit {
            more = true;
            return false;
        } else {
            rows.push((row, place.into()));
        }
        true
    })
    .await?;
    let next_cursor = if more { rows.last().map(|(_, place)| cursor::encode('r', place)) } else { None };
    let data = rows.into_iter().map(|(row, _)| revenue_row(row, by_country)).collect();
    let corrections = corrections(&ingest, &caller.tenant, range).await?;
    let watermark = watermark(&ingest, &caller.tenant).await?;
    Ok(Json(Revenue { page: Page { data, next_cursor }, by: range.by, watermark, corrections })
        .into_response())
}

/// Whether a window has anything to say about money: refused orders alone make no row.
fn is_revenue(sums: &Sums) -> bool {
    (sums.orders, sums.units, sums.gross, sums.refunded, sums.refunds) != (0, 0, 0, 0, 0)
}

fn revenue_row(row: WindowState, by_country: bool) -> RevenueRow {
    let sums = row.sums;
    RevenueRow {
        window_start: Moment(row.window_start_ms),
        currency: row.currency,
        country: by_country.then(|| some(row.country)),
        orders: sums.orders,
        units: sums.units,
        gross: sums.gross,
        discount: sums.discount,
        tax: sums.tax,
        refunded: sums.refunded,
        refunds: sums.refunds,
        net: sums.gross - sums.discount - sums.refunded,
    }
}

fn some(text: Text) -> Option<Text> {
    (!text.is_empty()).then_some(text)
}

async fn watermark(ingest: &Ingest, tenant: &str) -> Result<Option<Moment>, Problem> {
    let row: Option<WatermarkState> = ingest.row(Table::Watermark, Key::from(tenant)).await?;
    Ok(row.map(|it| Moment(it.watermark_ms)))
}

async fn corrections(ingest: &Ingest, tenant: &str, range: Range) -> Result<Vec<Correction>, Problem> {
    let prefix = ids::key(tenant, "");
    // A day's window is corrected by minutes within it.
    let from = from_key(&prefix, range.by.start_of(range.from_ms));
    let mut rows = Vec::new();
    scan(ingest, Table::Correction, &prefix, from, range.to_ms, |_, row: CorrectionState| {
        rows.push(Correction {
            window_start: Moment(row.minute_start_ms),
            currency: row.currency,
            country: some(row.country),
            count: row.count,
            orders: row.sums.orders,
            units: row.sums.units,
            gross: row.sums.gross,
            discount: row.sums.discount,
            tax: row.sums.tax,
            refunded: row.sums.refunded,
            first_at: Moment(row.first_at_ms),
            last_at: Moment(row.last_at_ms),
            watermark: Moment(row.watermark_ms),
        });
        rows.len() < CORRECTIONS_MAX
    })
    .await?;
    Ok(rows)
}

/// `GET /v1/analytics/funnel`
pub(crate) fn funnel_call() -> Call {
    let summary = "How far orders came, and why they were refused";
    Call::get("/v1/analytics/funnel", "getFunnel", "analytics", summary)
        .query(FUNNEL)
        .answer(Answer::json::<Funnel>(200, "The windows").example(json!({
            "data": [{
                "window_start": "2010-12-01T00:00:00Z", "placed": 130, "priced": 128, "reserved": 124, "paid": 121,
                "completed": 98, "failed": 9, "cancelled": 4, "refusals": { "out_of_stock": 4, "unknown_product": 2 },
            }],
            "next_cursor": null, "truncated": false, "watermark": "2010-12-01T20:00:00Z",
        })))
        .reads()
}

/// `GET /v1/analytics/funnel`: how far orders came, and why they were refused.
pub(crate) async fn funnel(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, FUNNEL)?;
    let range = range(&mut params);
    params.finish()?;
    let prefix = window_prefix(&caller.tenant, range.by);
    let mut windows: BTreeMap<i64, (Sums, BTreeMap<Text, i64>)> = BTreeMap::new();
    let mut truncated = false;
    scan(
        &ingest,
        Table::Window,
        &prefix,
        from_key(&prefix, range.from_ms),
        range.to_ms,
        |_, row: WindowState| {
            if windows.len() == ROWS_MAX && !windows.contains_key(&row.window_start_ms) {
                truncated = true;
                return false;
            }
            let (sums, refusals) = windows.entry(row.window_start_ms).or_default();
            add(sums, &row.sums);
            for (code, count) in row.refusals {
                *refusals.entry(code).or_default() += count;
            }
            true
        },
    )
    .await?;
    let data = windows
        .into_iter()
        .map(|(start_ms, (sums, refusals))| FunnelRow {
            window_start: Moment(start_ms),
            placed: sums.placed,
            priced: sums.priced,
            reserved: sums.reserved,
            paid: sums.paid,
            completed: sums.completed,
            failed: sums.failed,
            cancelled: sums.cancelled,
            refusals,
        })
        .collect();
    let watermark = watermark(&ingest, &caller.tenant).await?;
    Ok(Json(Funnel { page: Page::whole(data), truncated, watermark }).into_response())
}

/// `GET /v1/analytics/products`
pub(crate) fn products_call() -> Call {
    Call::get("/v1/analytics/products", "listTopProducts", "analytics", "What sold best over a time")
        .query(PRODUCTS)
        .answer(Answer::json::<TopProducts>(200, "The products, best first").example(json!({
            "data": [{ "sku": "85123A", "currency": "GBP", "units": 454, "gross": 115_770 }],
            "next_cursor": null, "undercount_units_max": 0,
        })))
        .reads()
}

/// `GET /v1/analytics/products`: what sold best over the whole range.
pub(crate) async fn products(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, PRODUCTS)?;
    let range = range(&mut params);
    let currency = params.text("currency");
    let by_units = params.choice("sort", &SORTS).unwrap_or(false);
    let limit = params.rows();
    params.finish()?;
    let prefix = window_prefix(&caller.tenant, range.by);
    let mut sold: BTreeMap<(Text, Text), (i64, i64)> = BTreeMap::new();
    let mut undercount_units_max = 0;
    let from = from_key(&prefix, range.from_ms);
    scan(&ingest, Table::TopProducts, &prefix, from, range.to_ms, |place, row: TopProductsState| {
        let found: Text = place.rsplit('/').next().unwrap_or_default().into();
        if currency.as_ref().is_some_and(|it| found != *it) {
            return true;
        }
        undercount_units_max += row.undercount_units_max;
        for product in row.products {
            let (units, gross) = sold.entry((found.clone(), product.sku)).or_default();
            *units += product.units;
            *gross += product.gross;
        }
        true
    })
    .await?;
    let mut ranked: Vec<_> = sold.into_iter().collect();
    ranked.sort_by_key(|(_, (units, gross))| std::cmp::Reverse(if by_units { *units } else { *gross }));
    ranked.truncate(limit);
    let data = ranked
        .into_iter()
        .map(|((currency, sku), (units, gross))| TopProduct { sku, currency, units, gross })
        .collect();
    Ok(Json(TopProducts { page: Page::whole(data), undercount_units_max }).into_response())
}
