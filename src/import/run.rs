//! Posts a plan, waits until the pipeline has done it, and reports.

use super::plan::{self, Invoice, Plan, ReturnPart, Sold};
use super::report::{Entry, Fate, Report};
use super::rows::{self, FileError, Row};
use crate::client::{Client, ClientError, problem_text, segment};
use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tillstream_stage::money::currency_digits;
use tokio::time::Instant;

/// Calls under way at once.
const CONCURRENCY: usize = 32;
/// Orders per bulk request.
const BULK_ORDERS: usize = 200;

/// What to import, and where to.
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// The pipeline.
    pub client: Client,
    /// Units received per stocked SKU before anything is sold; 0: none.
    pub stock_per_sku: i64,
    /// ISO 4217: the file names no currency.
    pub currency: String,
    /// Where the report goes.
    pub report: PathBuf,
    /// How long the pipeline may take to settle an order.
    pub settle_timeout: Duration,
}

/// Why an import stopped.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The pipeline.
    #[error("{0}; run the same command again to go on from here")]
    Client(#[from] ClientError),
    /// The currency.
    #[error("TS0703: currency '{0}' is not an ISO 4217 code")]
    Currency(String),
    /// The pipeline takes too long.
    #[error("TS0704: {what} after {seconds} s; run the same command again to go on from here")]
    Slow {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The report cannot be written.
    #[error("TS0705: the report {path} cannot be written: {error}")]
    Report {
        /// Where.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
}

/// An order's end, as far as the import follows it.
struct Settled {
    confirmed: bool,
    total_minor: i64,
    detail: Option<String>,
}

/// Runs the import; the report is written even when rows failed.
pub async fn run(settings: &Settings) -> Result<Report, ImportError> {
    let digits = currency_digits(&settings.currency)
        .ok_or_else(|| ImportError::Currency(settings.currency.clone()))?;
    let mut plan = plan::plan(rows::read(&settings.file, digits)?);
    let mut report = Report::default();
    report_unposted(&mut report, &mut plan);

    products(settings, &plan).await?;
    stock(settings, &plan).await?;
    let ids = orders(settings, &plan, &mut report).await?;
    adjustments(settings, &plan, &mut report).await?;
    let mut sold = settle(settings, &plan, &ids, &mut report).await?;
    sold.sort_by_key(|it| it.at_ms);
    let parts = plan::match_returns(&plan.returns, &mut sold);
    returns(settings, &parts, &mut report).await?;
    drained(settings).await?;

    report
        .write(&settings.report)
        .map_err(|error| ImportError::Report { path: settings.report.display().to_string(), error })?;
    Ok(report)
}

fn bar(label: &'static str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<12} {bar:40} {pos}/{len} {per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64).with_style(style).with_message(label)
}

fn entry(row: &Row, fate: Fate, id: Option<String>, detail: Option<String>) -> Entry {
    Entry { line: row.line, invoice: row.invoice.clone(), sku: row.sku.clone(), fate, id, detail }
}

fn report_unposted(report: &mut Report, plan: &mut Plan) {
    for bad in std::mem::take(&mut plan.bad) {
        report.entries.push(Entry {
            line: bad.line,
            invoice: bad.invoice.unwrap_or_default(),
            sku: String::new(),
            fate: Fate::Malformed,
            id: None,
            detail: Some(bad.problem),
        });
    }
    for held in std::mem::take(&mut plan.held) {
        report.entries.push(Entry {
            line: held.line,
            invoice: held.invoice,
            sku: held.sku,
            fate: Fate::HeldBack,
            id: None,
            detail: Some(held.reason),
        });
    }
}

async fn products(settings: &Settings, plan: &Plan) -> Result<(), ImportError> {
    let bar = bar("products", plan.products.len());
    stream::iter(&plan.products)
        .map(|(sku, name)| {
            let bar = &bar;
            async move {
                let name = if name.is_empty() { sku } else { name };
                let body = json!({"name": name, "active": true, "stocked": !plan::is_fee(sku), "prices": {}});
                settings.client.put(&format!("/v1/products/{}", segment(sku)), &body).await?;
                bar.inc(1);
                Ok::<_, ClientError>(())
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    bar.finish();
    Ok(())
}

async fn stock(settings: &Settings, plan: &Plan) -> Result<(), ImportError> {
    if settings.stock_per_sku == 0 {
        return Ok(());
    }
    let skus = plan::stocked(plan);
    let bar = bar("stock", skus.len());
    stream::iter(skus)
        .map(|sku| {
            let bar = &bar;
            async move {
                let path = format!("/v1/inventory/{}/adjustments", segment(sku));
                let body = json!({"delta": settings.stock_per_sku, "reason": "received", "location": "main"});
                settings.client.post(&path, Some("import-stock"), &body).await?;
                bar.inc(1);
                Ok::<_, ClientError>(())
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    bar.finish();
    Ok(())
}

fn order_json(invoice: &Invoice, currency: &str) -> Value {
    let lines: Vec<Value> = invoice
        .rows
        .iter()
        .map(|row| json!({"sku": row.sku, "quantity": row.quantity, "unit_price": row.unit_price_minor}))
        .collect();
    let mut order = json!({
        "idempotency_key": format!("import-{}", invoice.number),
        "currency": currency,
        "country": invoice.country(),
        "placed_at": invoice.at(),
        "lines": lines,
        "payment": {"method": "pm_card_visa", "capture": "automatic"},
        "metadata": {"source": "import", "invoice": invoice.number},
    });
    if let Some(customer) = invoice.customer() {
        order["customer"] = json!(format!("c-{customer}"));
    }
    order
}

/// Posts every order; invoice number → order id. Refused ones are reported at once.
async fn orders(
    settings: &Settings,
    plan: &Plan,
    report: &mut Report,
) -> Result<BTreeMap<String, String>, ImportError> {
    let bar = bar("orders", plan.orders.len());
    let mut ids = BTreeMap::new();
    for chunk in plan.orders.chunks(BULK_ORDERS) {
        let mut body = String::new();
        for invoice in chunk {
            body.push_str(&order_json(invoice, &settings.currency).to_string());
            body.push('\n');
        }
        let answers = settings.client.post_ndjson("/v1/orders/bulk", body).await?;
        if answers.len() != chunk.len() {
            let detail = format!("{} result lines for {} orders", answers.len(), chunk.len());
            return Err(ClientError::Unreadable { path: "/v1/orders/bulk".into(), detail }.into());
        }
        for answer in answers {
            let line = answer["line"].as_u64().unwrap_or(0) as usize;
            let Some(invoice) = line.checked_sub(1).and_then(|it| chunk.get(it)) else {
                let detail = format!("a result for line {line} of {}", chunk.len());
                return Err(ClientError::Unreadable { path: "/v1/orders/bulk".into(), detail }.into());
            };
            match answer["id"].as_str() {
                Some(id) => {
                    ids.insert(invoice.number.clone(), id.to_owned());
                }
                None => {
                    let detail = problem_text(&answer["problem"]).unwrap_or_else(|| answer.to_string());
                    let failed = |row| entry(row, Fate::OrderFailed, None, Some(detail.clone()));
                    report.entries.extend(invoice.rows.iter().map(failed));
                }
            }
            bar.inc(1);
        }
    }
    bar.finish();
    Ok(ids)
}

async fn adjustments(settings: &Settings, plan: &Plan, report: &mut Report) -> Result<(), ImportError> {
    let bar = bar("adjustments", plan.adjustments.len());
    for row in &plan.adjustments {
        let path = format!("/v1/inventory/{}/adjustments", segment(&row.sku));
        let key = format!("import-{}-{}", row.invoice, row.line);
        let note: String = row.description.chars().take(60).collect();
        let reason = if note.is_empty() { "written off".to_owned() } else { note };
        let body = json!({"delta": row.quantity, "reason": reason, "location": "main"});
        report.entries.push(match settings.client.post(&path, Some(&key), &body).await {
            Ok(answer) => entry(row, Fate::Adjusted, answer["id"].as_str().map(str::to_owned), None),
            Err(error @ ClientError::Refused { .. }) => {
                entry(row, Fate::Refused, None, Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        });
        bar.inc(1);
    }
    bar.finish();
    Ok(())
}

/// Waits until every order has left `pending`, and says what can be returned.
async fn settle(
    settings: &Settings,
    plan: &Plan,
    ids: &BTreeMap<String, String>,
    report: &mut Report,
) -> Result<Vec<Sold>, ImportError> {
    let bar = bar("settling", ids.len());
    let posted: Vec<(&Invoice, &String)> =
        plan.orders.iter().filter_map(|it| ids.get(&it.number).map(|id| (it, id))).collect();
    let settled: Vec<(&Invoice, &String, Settled)> = stream::iter(posted)
        .map(|(invoice, id)| {
            let bar = &bar;
            async move {
                let settled = settle_one(settings, id).await?;
                bar.inc(1);
                Ok::<_, ImportError>((invoice, id, settled))
            }
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    bar.finish();
    let mut sold = Vec::new();
    for (invoice, id, order) in settled {
        let fate = if order.confirmed { Fate::Ordered } else { Fate::OrderFailed };
        report
            .entries
            .extend(invoice.rows.iter().map(|row| entry(row, fate, Some(id.clone()), order.detail.clone())));
        if !order.confirmed {
            continue;
        }
        let mut units = BTreeMap::new();
        for row in &invoice.rows {
            *units.entry(row.sku.clone()).or_default() += row.quantity;
            report.gross_minor += row.quantity * row.unit_price_minor;
            report.fee_lines += u64::from(plan::is_fee(&row.sku));
        }
        report.orders += 1;
        if let Some(customer) = invoice.customer() {
            sold.push(Sold {
                order_id: id.clone(),
                at_ms: invoice.at_ms(),
                customer: customer.to_owned(),
                units,
                refundable_minor: order.total_minor,
            });
        }
    }
    Ok(sold)
}

async fn settle_one(settings: &Settings, id: &str) -> Result<Settled, ImportError> {
    let deadline = Instant::now() + settings.settle_timeout;
    let mut pause = Duration::from_millis(5);
    loop {
        let order = settings.client.get(&format!("/v1/orders/{id}")).await?;
        let status = order["status"].as_str().unwrap_or_default();
        if status != "pending" {
            return Ok(Settled {
                confirmed: !matches!(status, "failed" | "cancelled"),
                total_minor: order["total"].as_i64().unwrap_or(0),
                detail: order["reason"]["message"].as_str().map(str::to_owned),
            });
        }
        if Instant::now() >= deadline {
            let what = format!("order {id} is still pending");
            return Err(ImportError::Slow { what, seconds: settings.settle_timeout.as_secs() });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

async fn returns(settings: &Settings, parts: &[ReturnPart], report: &mut Report) -> Result<(), ImportError> {
    let bar = bar("returns", parts.len());
    for part in parts {
        let Some(first) = part.rows.first() else { continue };
        let lines: Vec<Value> = part
            .rows
            .iter()
            .map(|row| {
                json!({"sku": row.sku, "quantity": row.quantity,
                       "amount": row.quantity * row.unit_price_minor, "restock": !plan::is_fee(&row.sku)})
            })
            .collect();
        let mut body =
            json!({"lines": lines, "returned_at": first.at, "reason": format!("invoice {}", part.invoice)});
        let (path, key, fate) = match &part.order_id {
            Some(id) => {
                (format!("/v1/orders/{id}/returns"), format!("import-{}-{id}", part.invoice), Fate::Returned)
            }
            None => {
                body["currency"] = json!(settings.currency);
                body["country"] = json!(first.country);
                if let Some(customer) = &first.customer {
                    body["customer"] = json!(format!("c-{customer}"));
                }
                ("/v1/returns".to_owned(), format!("import-{}", part.invoice), Fate::Credited)
            }
        };
        match settings.client.post(&path, Some(&key), &body).await {
            Ok(answer) => {
                let id = answer["id"].as_str().map(str::to_owned);
                report.entries.extend(part.rows.iter().map(|row| entry(row, fate, id.clone(), None)));
                report.refunded_minor +=
                    part.rows.iter().map(|it| it.quantity * it.unit_price_minor).sum::<i64>();
            }
            Err(error @ ClientError::Refused { .. }) => {
                let refused = |row| entry(row, Fate::Refused, None, Some(error.to_string()));
                report.entries.extend(part.rows.iter().map(refused));
            }
            Err(error) => return Err(error.into()),
        }
        bar.inc(1);
    }
    bar.finish();
    Ok(())
}

/// Waits until no task lags: then refunds and analytics are in.
async fn drained(settings: &Settings) -> Result<(), ImportError> {
    let deadline = Instant::now() + settings.settle_timeout;
    let mut quiet = 0;
    while quiet < 3 {
        let metrics = settings.client.get_text("/metrics").await?;
        let lag: f64 = metrics
            .lines()
            .filter(|line| line.starts_with("tillstream_stage_lag_records{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        // One quiet look may fall between two stages; an answer is never further off than this.
        quiet = if lag == 0.0 { quiet + 1 } else { 0 };
        if Instant::now() >= deadline {
            let what = format!("{lag} records are still to be processed");
            return Err(ImportError::Slow { what, seconds: settings.settle_timeout.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
