//! `/v1/analytics`: what the analytics task has counted, in event time.

use crate::Ingest;
use crate::auth::Caller;
use crate::cursor;
use crate::moment::{TIME_MS_MAX, to_rfc3339};
use crate::params::Params;
use crate::problem::Problem;
use axum::Json;
use axum::extract::State;
use http::Uri;
use serde_json::{Value, json};
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
pub(crate) async fn revenue(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::of(&uri, &["from", "to", "by", "group", "currency", "cursor", "limit"])?;
    let range = range(&mut params);
    let by_country = params.choice("group", &[("country", true)]).unwrap_or(false);
    let currency = params.text("currency");
    let limit = params.limit(ROWS_MAX, ROWS_MAX);
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
    let next = if more { rows.last().map(|(_, place)| cursor::encode('r', place)) } else { None };
    let data: Vec<Value> = rows.iter().map(|(row, _)| revenue_row(row, by_country)).collect();
    let corrections = corrections(&ingest, &caller.tenant, range).await?;
    Ok(Json(json!({
        "data": data,
        "next_cursor": next,
        "by": range.by.as_str(),
        "watermark": watermark(&ingest, &caller.tenant).await?,
        "corrections": corrections,
    })))
}

/// Whether a window has anything to say about money: refused orders alone make no row.
fn is_revenue(sums: &Sums) -> bool {
    (sums.orders, sums.units, sums.gross, sums.refunded, sums.refunds) != (0, 0, 0, 0, 0)
}

fn revenue_row(row: &WindowState, by_country: bool) -> Value {
    let sums = &row.sums;
    let mut json = json!({
        "window_start": to_rfc3339(row.window_start_ms),
        "currency": row.currency,
        "orders": sums.orders,
        "units": sums.units,
        "gross": sums.gross,
        "discount": sums.discount,
        "tax": sums.tax,
        "refunded": sums.refunded,
        "refunds": sums.refunds,
        "net": sums.gross - sums.discount - sums.refunded,
    });
    if by_country {
        json["country"] = if row.country.is_empty() { Value::Null } else { json!(row.country) };
    }
    json
}

async fn watermark(ingest: &Ingest, tenant: &str) -> Result<Option<String>, Problem> {
    let row: Option<WatermarkState> = ingest.row(Table::Watermark, Key::from(tenant)).await?;
    Ok(row.map(|it| to_rfc3339(it.watermark_ms)))
}

async fn corrections(ingest: &Ingest, tenant: &str, range: Range) -> Result<Vec<Value>, Problem> {
    let prefix = ids::key(tenant, "");
    // A day's window is corrected by minutes within it.
    let from = from_key(&prefix, range.by.start_of(range.from_ms));
    let mut rows = Vec::new();
    scan(ingest, Table::Correction, &prefix, from, range.to_ms, |_, row: CorrectionState| {
        rows.push(json!({
            "window_start": to_rfc3339(row.minute_start_ms),
            "currency": row.currency,
            "country": if row.country.is_empty() { Value::Null } else { json!(row.country) },
            "count": row.count,
            "orders": row.sums.orders,
            "units": row.sums.units,
            "gross": row.sums.gross,
            "discount": row.sums.discount,
            "tax": row.sums.tax,
            "refunded": row.sums.refunded,
            "first_at": to_rfc3339(row.first_at_ms),
            "last_at": to_rfc3339(row.last_at_ms),
            "watermark": to_rfc3339(row.watermark_ms),
        }));
        rows.len() < CORRECTIONS_MAX
    })
    .await?;
    Ok(rows)
}

/// `GET /v1/analytics/funnel`: how far orders came, and why they were refused.
pub(crate) async fn funnel(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::of(&uri, &["from", "to", "by"])?;
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
    let data: Vec<Value> = windows
        .into_iter()
        .map(|(start_ms, (sums, refusals))| {
            json!({
                "window_start": to_rfc3339(start_ms),
                "placed": sums.placed,
                "priced": sums.priced,
                "reserved": sums.reserved,
                "paid": sums.paid,
                "completed": sums.completed,
                "failed": sums.failed,
                "cancelled": sums.cancelled,
                "refusals": refusals,
            })
        })
        .collect();
    let watermark = watermark(&ingest, &caller.tenant).await?;
    Ok(Json(json!({ "data": data, "next_cursor": null, "truncated": truncated, "watermark": watermark })))
}

/// `GET /v1/analytics/products`: what sold best over the whole range.
pub(crate) async fn products(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let mut params = Params::of(&uri, &["from", "to", "by", "currency", "sort", "limit"])?;
    let range = range(&mut params);
    let currency = params.text("currency");
    let by_units = params.choice("sort", &[("units", true), ("gross", false)]).unwrap_or(false);
    let limit = params.limit(20, 1_000);
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
    let data: Vec<Value> = ranked
        .into_iter()
        .map(|((currency, sku), (units, gross))| {
            json!({ "sku": sku, "currency": currency, "units": units, "gross": gross })
        })
        .collect();
    Ok(Json(json!({ "data": data, "next_cursor": null, "undercount_units_max": undercount_units_max })))
}
