//! What became of every row: one NDJSON line per row of the file, and a summary for people.

use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A line of an order that was confirmed.
    Ordered,
    /// A line of an order that failed or was refused.
    OrderFailed,
    /// A stock adjustment.
    Adjusted,
    /// Matched to an earlier order and refunded.
    Returned,
    /// Matched to no order and credited.
    Credited,
    /// Not posted, because of another row or because it says nothing.
    HeldBack,
    /// Could not be read.
    Malformed,
    /// Posted and refused.
    Refused,
}

impl Fate {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ordered => "became order lines",
            Self::OrderFailed => "stand in orders that failed",
            Self::Adjusted => "adjusted stock",
            Self::Returned => "were returned to an earlier order",
            Self::Credited => "matched no order and were credited",
            Self::HeldBack => "were held back",
            Self::Malformed => "are malformed",
            Self::Refused => "were refused",
        }
    }
}

/// One row's line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its line in the file.
    pub line: u64,
    /// Its invoice.
    pub invoice: String,
    /// Its SKU.
    pub sku: String,
    /// What became of it.
    pub fate: Fate,
    /// The order, credit, return or adjustment it became.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why, where it did not become what it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The whole report.
#[derive(Debug, Default)]
pub struct Report {
    /// One entry per row of the file.
    pub entries: Vec<Entry>,
    /// Refunded by returns and credits, minor units.
    pub refunded_minor: i64,
    /// Gross of confirmed orders, minor units.
    pub gross_minor: i64,
    /// Confirmed orders.
    pub orders: u64,
    /// Fee lines (no stock) in confirmed orders.
    pub fee_lines: u64,
}

impl Report {
    /// Rows per fate.
    pub fn counts(&self) -> BTreeMap<Fate, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            *counts.entry(entry.fate).or_default() += 1;
        }
        counts
    }

    /// Whether every row became what it should.
    pub fn clean(&self) -> bool {
        !self
            .entries
            .iter()
            .any(|it| matches!(it.fate, Fate::Malformed | Fate::HeldBack | Fate::Refused | Fate::OrderFailed))
    }

    /// Writes one NDJSON line per row, in file order.
    pub fn write(&mut self, path: &Path) -> io::Result<()> {
        self.entries.sort_by_key(|it| it.line);
        let mut file = io::BufWriter::new(std::fs::File::create(path)?);
        for entry in &self.entries {
            serde_json::to_writer(&mut file, entry)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }
}
