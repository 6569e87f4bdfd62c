//! CSV in, rows out: every line is a row or is named with what is wrong with it.

use std::path::Path;
use tillstream_stage::money::AMOUNT_MINOR_MAX;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One line of the file that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its line in the file, from 1 (the header is line 1).
    pub line: u64,
    /// The invoice; a leading `C` marks a return.
    pub invoice: String,
    /// The SKU.
    pub sku: String,
    /// Free text, may be empty.
    pub description: String,
    /// Units, either sign.
    pub quantity: i64,
    /// The date, as written (RFC 3339) and in ms since the epoch.
    pub at: String,
    /// The date in ms since the epoch.
    pub at_ms: i64,
    /// Price of one, minor units.
    pub unit_price_minor: i64,
    /// The customer, if named.
    pub customer: Option<String>,
    /// ISO 3166 alpha-2.
    pub country: String,
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its line in the file.
    pub line: u64,
    /// The invoice, if that much could be read: the rest of it is held back.
    pub invoice: Option<String>,
    /// What is wrong, naming the column.
    pub problem: String,
}

/// A whole file.
#[derive(Debug, Default)]
pub struct File {
    /// Lines that could be read, in file order.
    pub rows: Vec<Row>,
    /// Lines that could not.
    pub bad: Vec<BadRow>,
}

const COLUMNS: [&str; 8] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];

/// Why a file cannot be imported at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("TS0701: {path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's words.
        error: String,
    },
    /// The header lacks columns.
    #[error("TS0702: {path} has no column {missing}; it needs {}", COLUMNS.join(", "))]
    Columns {
        /// The file.
        path: String,
        /// The first missing column.
        missing: &'static str,
    },
}

/// Reads a file. `minor_digits` is the currency's.
pub fn read(path: &Path, minor_digits: u8) -> Result<File, FileError> {
    let unreadable = |error: &dyn std::fmt::Display| FileError::Unreadable {
        path: path.display().to_string(),
        error: error.to_string(),
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    parse(file, minor_digits).map_err(|error| match error {
        ParseError::Csv(error) => unreadable(&error),
        ParseError::Missing(missing) => FileError::Columns { path: path.display().to_string(), missing },
    })
}

/// Why a text cannot be read as a file of rows.
#[derive(Debug)]
pub(super) enum ParseError {
    /// It cannot be read on.
    Csv(csv::Error),
    /// The header lacks this column.
    Missing(&'static str),
}

/// Reads rows. `minor_digits` is the currency's.
pub(super) fn parse(input: impl std::io::Read, minor_digits: u8) -> Result<File, ParseError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let headers = reader.byte_headers().map_err(ParseError::Csv)?.clone();
    let mut index = [0; COLUMNS.len()];
    for (slot, name) in index.iter_mut().zip(COLUMNS) {
        // A byte-order mark may stand before the first name.
        *slot = headers
            .iter()
            .position(|it| it.strip_prefix(b"\xef\xbb\xbf").unwrap_or(it).trim_ascii() == name.as_bytes())
            .ok_or(ParseError::Missing(name))?;
    }
    let mut file = File::default();
    let mut record = csv::ByteRecord::new();
    loop {
        let more = reader.read_byte_record(&mut record);
        let line = record.position().map_or(0, csv::Position::line);
        match more {
            Ok(false) => return Ok(file),
            Ok(true) => match row(line, &record, &index, headers.len(), minor_digits) {
                Ok(row) => file.rows.push(row),
                Err(bad) => file.bad.push(bad),
            },
            Err(error) if error.is_io_error() => return Err(ParseError::Csv(error)),
            Err(error) => file.bad.push(BadRow { line, invoice: None, problem: error.to_string() }),
        }
    }
}

fn row(
    line: u64,
    record: &csv::ByteRecord,
    index: &[usize; COLUMNS.len()],
    columns: usize,
    minor_digits: u8,
) -> Result<Row, BadRow> {
    let text =
        |column: usize| record.get(index[column]).and_then(|it| std::str::from_utf8(it).ok()).map(str::trim);
    let invoice = text(0).filter(|it| !it.is_empty());
    let bad = |problem: String| BadRow { line, invoice: invoice.map(str::to_owned), problem };
    if record.len() != columns {
        return Err(bad(format!("{} fields, the header has {columns}", record.len())));
    }
    let field = |column: usize| text(column).ok_or_else(|| bad(format!("{} is not UTF-8", COLUMNS[column])));
    let needed = |column: usize| {
        field(column)?;
        text(column).filter(|it| !it.is_empty()).ok_or_else(|| bad(format!("{} is empty", COLUMNS[column])))
    };
    let at = needed(4)?;
    let at_ms = OffsetDateTime::parse(at, &Rfc3339)
        .map(|it| (it.unix_timestamp_nanos() / 1_000_000) as i64)
        .map_err(|_| {
            bad(format!("InvoiceDate '{at}' is not an RFC 3339 time, such as 2010-12-01T08:26:00Z"))
        })?;
    let quantity = needed(3)?;
    let price = needed(5)?;
    let country = needed(7)?;
    Ok(Row {
        line,
        invoice: needed(0)?.to_owned(),
        sku: needed(1)?.to_owned(),
        description: field(2)?.to_owned(),
        quantity: units(quantity).ok_or_else(|| {
            bad(format!("Quantity '{quantity}' is not a whole number of at most {QUANTITY_MAX}"))
        })?,
        at: at.to_owned(),
        at_ms,
        unit_price_minor: minor_units(price, minor_digits).ok_or_else(|| {
            bad(format!("UnitPrice '{price}' is not an amount ≥ 0 with at most {minor_digits} decimals"))
        })?,
        customer: Some(field(6)?).filter(|it| !it.is_empty()).map(str::to_owned),
        country: country_code(country)
            .ok_or_else(|| bad(format!("Country '{country}' has no known ISO 3166 code")))?
            .to_owned(),
    })
}

/// The most units of a row, either sign: what one stock adjustment may move.
const QUANTITY_MAX: i64 = 1_000_000_000;

fn units(text: &str) -> Option<i64> {
    text.parse().ok().filter(|it| (-QUANTITY_MAX..=QUANTITY_MAX).contains(it))
}

/// `2.55` → 255 with two digits; exact, no floating point. `None`: not such an amount.
fn minor_units(text: &str, minor_digits: u8) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = usize::from(minor_digits);
    let fraction = if fraction.len() > digits { fraction.trim_end_matches('0') } else { fraction };
    let numeric = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !numeric(whole) || !numeric(fraction) || fraction.len() > digits {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse().ok().filter(|it| *it <= AMOUNT_MINOR_MAX)
}

/// ISO 3166 alpha-2 of a country's English name (or of the code itself).
fn country_code(name: &str) -> Option<&'static str> {
    const CODES: [(&str, &str); 46] = [
        ("Australia", "AU"),
        ("Austria", "AT"),
        ("Bahrain", "BH"),
        ("Belgium", "BE"),
        ("Brazil", "BR"),
        ("Canada", "CA"),
        ("Channel Islands", "JE"),
        ("China", "CN"),
        ("Cyprus", "CY"),
        ("Czech Republic", "CZ"),
        ("Denmark", "DK"),
        ("EIRE", "IE"),
        ("Finland", "FI"),
        ("France", "FR"),
        ("Germany", "DE"),
        ("Greece", "GR"),
        ("Hong Kong", "HK"),
        ("Hungary", "HU"),
        ("Iceland", "IS"),
        ("India", "IN"),
        ("Ireland", "IE"),
        ("Israel", "IL"),
        ("Italy", "IT"),
        ("Japan", "JP"),
        ("Korea", "KR"),
        ("Lebanon", "LB"),
        ("Lithuania", "LT"),
        ("Malta", "MT"),
        ("Mexico", "MX"),
        ("Netherlands", "NL"),
        ("New Zealand", "NZ"),
        ("Norway", "NO"),
        ("Poland", "PL"),
        ("Portugal", "PT"),
        ("RSA", "ZA"),
        ("Saudi Arabia", "SA"),
        ("Singapore", "SG"),
        ("South Africa", "ZA"),
        ("Spain", "ES"),
        ("Sweden", "SE"),
        ("Switzerland", "CH"),
        ("Thailand", "TH"),
        ("United Arab Emirates", "AE"),
        ("United Kingdom", "GB"),
        ("United States", "US"),
        ("USA", "US"),
    ];
    CODES.iter().find(|(known, code)| *known == name || *code == name).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn check(lines: &str) -> File {
        match parse(format!("{HEADER}{lines}").as_bytes(), 2) {
            Ok(file) => file,
            Err(ParseError::Missing(name)) => panic!("column {name} is missing"),
            Err(ParseError::Csv(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_good_row_keeps_every_field() {
        let file = check("536365,85123A,\"WHITE, HANGING\",6,2010-12-01T08:26:00Z,2.5,17850,EIRE\n");
        assert!(file.bad.is_empty(), "{:?}", file.bad);
        let row = &file.rows[0];
        assert_eq!((row.line, row.quantity, row.unit_price_minor, row.country.as_str()), (2, 6, 250, "IE"));
        assert_eq!(row.at_ms, 1_291_191_960_000);
        assert_eq!(row.customer.as_deref(), Some("17850"));
    }

    #[test]
    fn a_malformed_row_is_named_by_line_and_column() {
        let cases = [
            ("1,a,d,x,2010-12-01T08:26:00Z,2.55,,France\n", "Quantity"),
            ("1,a,d,1,01/12/2010 08:26,2.55,,France\n", "InvoiceDate"),
            ("1,a,d,1,2010-12-01T08:26:00Z,2.555,,France\n", "UnitPrice"),
            ("1,a,d,1,2010-12-01T08:26:00Z,-2.55,,France\n", "UnitPrice"),
            ("1,a,d,1,2010-12-01T08:26:00Z,NaN,,France\n", "UnitPrice"),
            ("1,,d,1,2010-12-01T08:26:00Z,2.55,,France\n", "StockCode"),
            ("1,a,d,1,2010-12-01T08:26:00Z,2.55,,Atlantis\n", "Country"),
            ("1,a,d,1,2010-12-01T08:26:00Z,2.55\n", "fields"),
        ];
        for (text, column) in cases {
            let file = check(&format!("0,a,d,1,2010-12-01T08:26:00Z,1,,France\n{text}"));
            assert_eq!((file.rows.len(), file.bad.len()), (1, 1), "{text}");
            assert_eq!(file.bad[0].line, 3);
            assert_eq!(file.bad[0].invoice.as_deref(), Some("1"));
            assert!(file.bad[0].problem.contains(column), "{text}: {}", file.bad[0].problem);
        }
    }

    #[test]
    fn a_file_without_a_column_is_refused_with_its_name() {
        let result = parse("InvoiceNo,StockCode\n1,2\n".as_bytes(), 2);
        assert!(matches!(result, Err(ParseError::Missing("Description"))));
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(minor_units("0", 2), Some(0));
        assert_eq!(minor_units("13541.33", 2), Some(1_354_133));
        assert_eq!(minor_units("1.10", 0), None);
        assert_eq!(minor_units("1.000", 0), Some(1));
        assert_eq!(minor_units("", 2), None);
        assert_eq!(minor_units("1e3", 2), None);
        assert_eq!(minor_units("92233720368547758.07", 2), None);
        assert_eq!((units("-1000000000"), units("-9223372036854775808")), (Some(-QUANTITY_MAX), None));
    }
}
