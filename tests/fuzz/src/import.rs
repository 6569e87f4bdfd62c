//! The CSV of `tillstream import`. The binary has no library, so its two pure modules are compiled in here.

#[allow(dead_code, unreachable_pub, reason = "the binary uses the rest")]
#[path = "../../../src/import/rows.rs"]
mod rows;

#[allow(dead_code, unreachable_pub, reason = "the binary uses the rest")]
#[path = "../../../src/import/plan.rs"]
mod plan;

use plan::{Sold, match_returns, plan};
use rows::{File, ParseError, Row};
use std::collections::BTreeMap;

const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";
const WORDS: [&str; 10] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
    "fields",
    "UTF-8",
];

/// Records of the file, by the CSV library alone.
fn records(text: &[u8]) -> usize {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    reader.byte_records().count()
}

fn written(rows: &[Row], digits: u8) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER.split(',')).unwrap();
    for row in rows {
        let unit = 10_i64.pow(u32::from(digits));
        let width = usize::from(digits);
        let price = match digits {
            0 => row.unit_price_minor.to_string(),
            _ => format!("{}.{:0width$}", row.unit_price_minor / unit, row.unit_price_minor % unit),
        };
        let quantity = row.quantity.to_string();
        let customer = row.customer.as_deref().unwrap_or_default();
        let fields =
            [&row.invoice, &row.sku, &row.description, &quantity, &row.at, &price, customer, &row.country];
        writer.write_record(fields.map(|it| it as &str)).unwrap();
    }
    writer.into_inner().unwrap()
}

fn unnumbered(rows: &[Row]) -> Vec<Row> {
    rows.iter().map(|it| Row { line: 0, ..it.clone() }).collect()
}

fn check_rows(file: &File, text: &[u8], digits: u8) {
    assert_eq!(file.rows.len() + file.bad.len(), records(text), "every record is a row or is named");
    let lines = text.iter().filter(|it| matches!(it, b'\n' | b'\r')).count() as u64 + 1;
    for bad in &file.bad {
        assert!(WORDS.iter().any(|it| bad.problem.contains(it)), "{bad:?}");
        assert!((1..=lines).contains(&bad.line), "{bad:?} of {lines} lines");
    }
    assert!(file.rows.iter().all(|it| it.unit_price_minor >= 0 && it.country.len() == 2));
    let again = rows::parse(written(&file.rows, digits).as_slice(), digits).unwrap();
    assert!(again.bad.is_empty(), "what was read and written again is malformed: {:?}", again.bad);
    assert_eq!(unnumbered(&again.rows), unnumbered(&file.rows), "read, written and read again");
}

/// Every row ends in exactly one place, and nothing is returned that was not sold.
fn check_plan(file: File) {
    let rows = file.rows.len();
    let plan = plan(file);
    let in_orders: usize = plan.orders.iter().map(|it| it.rows.len()).sum();
    let in_returns: usize = plan.returns.iter().map(|it| it.rows.len()).sum();
    assert_eq!(
        in_orders + in_returns + plan.adjustments.len() + plan.held.len(),
        rows,
        "rows are lost or doubled"
    );
    let all = plan.orders.iter().chain(&plan.returns).flat_map(|it| &it.rows);
    assert!(all.clone().all(|it| it.quantity > 0 || it.quantity == i64::MIN));
    let mut sold: Vec<Sold> = plan.orders.iter().map(sold_by).collect();
    let parts = match_returns(&plan.returns, &mut sold);
    assert_eq!(
        parts.iter().map(|it| it.rows.len()).sum::<usize>(),
        in_returns,
        "returned rows are lost or doubled"
    );
    assert!(sold.iter().all(|it| it.refundable_minor >= 0 && it.units.values().all(|left| *left >= 0)));
}

fn sold_by(invoice: &plan::Invoice) -> Sold {
    let mut units = BTreeMap::new();
    let mut refundable_minor = 0_i64;
    for row in &invoice.rows {
        let left: &mut i64 = units.entry(row.sku.clone()).or_default();
        *left = left.saturating_add(row.quantity);
        refundable_minor = refundable_minor.saturating_add(row.quantity.saturating_mul(row.unit_price_minor));
    }
    let customer = invoice.customer().unwrap_or_default().to_owned();
    Sold { order_id: invoice.number.clone(), at_ms: invoice.at_ms(), customer, units, refundable_minor }
}

/// Digits of the currency, then the file; one that begins with a newline gets the right header.
pub fn csv(input: &[u8]) {
    let Some((digits, text)) = input.split_first() else { return };
    let digits = digits % 4;
    let text = match text.split_first() {
        Some((b'\n', lines)) => [HEADER.as_bytes(), b"\n", lines].concat(),
        _ => text.to_vec(),
    };
    match rows::parse(text.as_slice(), digits) {
        Ok(file) => {
            check_rows(&file, &text, digits);
            check_plan(file);
        }
        Err(ParseError::Missing(column)) => assert!(HEADER.contains(column)),
        Err(ParseError::Csv(error)) => panic!("bytes in memory cannot be read: {error}"),
    }
}
