//! The tables are what a replay of the changelogs comes to, byte for byte but for the schema ids.

use super::Findings;
use crate::tables::Tables;
use crate::topics::Raw;
use std::collections::BTreeMap;
use tillstream_schemas::Topic;

/// Which tables and timers each changelog stands for.
const KINDS: [(Topic, &str, &[&str]); 3] = [
    (Topic::OrderChangelog, "order", &["order", "order_index"]),
    (Topic::ItemChangelog, "item", &["product", "stock", "hold", "adjustment"]),
    (Topic::AnalyticsChangelog, "analytics", &["window", "top_products", "correction", "watermark"]),
];

/// A value without its schema id, which is the registry's in one place and this build's in the other.
fn body(value: &[u8]) -> &[u8] {
    value.get(5..).unwrap_or(value)
}

/// Compares all of them.
pub async fn check(tables: &Tables, changes: Vec<Raw>, findings: &mut Findings) {
    for (topic, kind, names) in KINDS {
        let ours = changes.iter().filter(|it| it.topic == topic && it.key != "incarnation");
        let last: BTreeMap<&str, &Raw> = ours.map(|it| (it.key.as_str(), it)).collect();
        let mut there: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        for table in names {
            let rows = tables.rows(table).await.into_iter();
            there.extend(rows.map(|(key, value)| (format!("{table}/{key}"), Some(value))));
        }
        there.extend(tables.timers(kind).await.into_iter().map(|key| (key, None)));
        for (key, record) in &last {
            let found = there.remove(*key);
            let same = match (&record.value, &found) {
                (None, None) => true,
                (Some(_), Some(None)) => key.starts_with("timer/"),
                (Some(expected), Some(Some(found))) => body(expected) == body(found),
                _ => false,
            };
            findings.expect(same, || {
                let place = format!("{}/{}@{}", record.topic, record.partition, record.offset);
                let said = |value: &Option<Vec<u8>>| value.as_ref().map(Vec::len);
                format!(
                    "{key}: {:?} bytes at {place}, {:?} in the table",
                    said(&record.value),
                    found.as_ref().map(said)
                )
            });
        }
        let extra = there.keys().map(|key| format!("{key} is in the table, and not in {topic}"));
        findings.problems.extend(extra);
    }
}
