//! Row keys of the four analytics tables, for the task and for queries.

use tillstream_schemas::analytics::Granularity;
use tillstream_stage::time::ascending;
use tillstream_stage::{Key, RowKey, Table};

fn joined(parts: &[&str]) -> Key {
    let length = parts.iter().map(|it| it.len() + 1).sum();
    let mut key = Key::with_capacity(length);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            key.push('/');
        }
        key.push_str(part);
    }
    key
}

fn letter(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Minute => "m",
        Granularity::Hour => "h",
        Granularity::Day => "d",
    }
}

/// The prefix of every window (and of every top-products) row that starts at `start_ms`:
/// `tenant/<granularity letter>/<start, 16 hex digits>/`. Rows from `a` until before `b` are the keys from
/// `window_prefix(.., a)` until before `window_prefix(.., b)`.
pub fn window_prefix(tenant: &str, granularity: Granularity, start_ms: i64) -> Key {
    joined(&[tenant, letter(granularity), &ascending(start_ms), ""])
}

/// A window's row: `tenant/<granularity letter>/<start, 16 hex digits>/<currency>/<country>`.
pub fn window(
    tenant: &str,
    granularity: Granularity,
    start_ms: i64,
    currency: &str,
    country: &str,
) -> RowKey {
    let key = joined(&[tenant, letter(granularity), &ascending(start_ms), currency, country]);
    RowKey::new(Table::Window, key)
}

/// A window's top products: `tenant/<granularity letter>/<start, 16 hex digits>/<currency>`.
pub fn top_products(tenant: &str, granularity: Granularity, start_ms: i64, currency: &str) -> RowKey {
    let key = joined(&[tenant, letter(granularity), &ascending(start_ms), currency]);
    RowKey::new(Table::TopProducts, key)
}

/// The prefix of every correction of the minute that starts at `minute_start_ms`:
/// `tenant/<minute start, 16 hex digits>/`.
pub fn correction_prefix(tenant: &str, minute_start_ms: i64) -> Key {
    joined(&[tenant, &ascending(minute_start_ms), ""])
}

/// A minute's corrections: `tenant/<minute start, 16 hex digits>/<currency>/<country>`.
pub fn correction(tenant: &str, minute_start_ms: i64, currency: &str, country: &str) -> RowKey {
    RowKey::new(Table::Correction, joined(&[tenant, &ascending(minute_start_ms), currency, country]))
}

/// A tenant's watermark: `tenant`.
pub fn watermark(tenant: &str) -> RowKey {
    RowKey::new(Table::Watermark, Key::from(tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_documented() {
        assert_eq!(
            window("demo", Granularity::Hour, 3_600_000, "GBP", "GB").key,
            "demo/h/000000000036ee80/GBP/GB"
        );
        assert_eq!(window("demo", Granularity::Day, 0, "GBP", "").key, "demo/d/0000000000000000/GBP/");
        assert_eq!(
            top_products("demo", Granularity::Minute, 60_000, "EUR").key,
            "demo/m/000000000000ea60/EUR"
        );
        assert_eq!(correction("demo", 60_000, "EUR", "DE").key, "demo/000000000000ea60/EUR/DE");
        assert_eq!(watermark("demo").key, "demo");
    }

    #[test]
    fn a_prefix_bounds_its_windows() {
        let from = window_prefix("demo", Granularity::Minute, 60_000);
        let to = window_prefix("demo", Granularity::Minute, 120_000);
        let inside = window("demo", Granularity::Minute, 60_000, "GBP", "GB").key;
        let after = window("demo", Granularity::Minute, 120_000, "AAA", "").key;
        assert!(from <= inside && inside < to && to <= after);
        assert!(correction_prefix("demo", 60_000) <= correction("demo", 60_000, "GBP", "").key);
    }
}
