//! `tillstream import`: real order history in, with a report of what became of every row.
//!
//! Every call carries an idempotency key made from the file's own numbers, so an import that was cut short is
//! simply run again: what was done answers as it did, and the rest follows.

mod plan;
mod report;
mod rows;
mod run;

use crate::output::line;
use tillstream_stage::money::currency_digits;

pub use run::{Settings, run};

/// Says what became of the file, for people.
pub fn summarize(report: &report::Report, settings: &Settings) {
    let digits = currency_digits(&settings.currency).unwrap_or(2);
    let unit = 10_i64.pow(u32::from(digits));
    let money = |minor: i64| {
        let width = usize::from(digits);
        let fraction = if width == 0 { String::new() } else { format!(".{:0width$}", minor % unit) };
        format!("{}{fraction} {}", minor / unit, settings.currency)
    };
    line(format_args!("{:>8} orders confirmed, {} gross", report.orders, money(report.gross_minor)));
    line(format_args!("{:>8} fee lines among them, which hold no stock", report.fee_lines));
    line(format_args!("{:>8} refunded by returns and credits", money(report.refunded_minor)));
    for (fate, rows) in report.counts() {
        line(format_args!("{rows:>8} rows {}", fate.words()));
    }
    for entry in report.entries.iter().filter(|it| it.detail.is_some()).take(20) {
        let detail = entry.detail.as_deref().unwrap_or_default();
        line(format_args!("  line {} ({}): {detail}", entry.line, entry.fate.words()));
    }
    line(format_args!("Every row's fate: {}", settings.report.display()));
}
