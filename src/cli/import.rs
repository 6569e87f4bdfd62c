//! `import`.

use super::Target;
use clap::Args;
use std::path::PathBuf;

/// Options of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The file: columns InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country.
    #[arg(value_name = "FILE.csv")]
    pub file: PathBuf,
    /// The pipeline.
    #[command(flatten)]
    pub target: Target,
    /// Units received per stocked SKU before anything is sold.
    #[arg(long, env = "TILLSTREAM_STOCK_PER_SKU", default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    pub stock_per_sku: i64,
    /// ISO 4217 code of the file's amounts.
    #[arg(long, env = "TILLSTREAM_IMPORT_CURRENCY", default_value = "GBP")]
    pub currency: String,
    /// Where the report goes: one NDJSON line per row. Default: the file's name with `.report.ndjson`, here.
    #[arg(long, env = "TILLSTREAM_IMPORT_REPORT", value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// How long the pipeline may take to settle an order.
    #[arg(long, env = "TILLSTREAM_IMPORT_SETTLE_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub settle_seconds: u64,
}
