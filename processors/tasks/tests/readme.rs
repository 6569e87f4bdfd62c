//! Holds the table in `processors/README.md` against the constants, and the constants against the chain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use tillstream_schemas::order_event::OrderEventPayload;
use tillstream_tasks::table::STAGES;
use world::Delivery;
use world::scenario::Scenario;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_readme_says_what_the_constants_say() {
    let text = std::fs::read_to_string(root().join("processors/README.md")).unwrap();
    let (_, rest) = text.split_once("<!-- stages:begin -->").unwrap();
    let (table, _) = rest.split_once("<!-- stages:end -->").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|it| it.starts_with('|'))
        .skip(2)
        .map(|it| it.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), STAGES.len());
    for (cells, row) in rows.iter().zip(STAGES) {
        let name = row.stage.as_str();
        assert_eq!(cells[..3], [row.task.as_str(), &format!("`{}`", row.task.input().short_name()), name]);
        assert_eq!(names(cells[3]), row.takes, "{name} takes");
        assert_eq!(names(cells.get(4).copied().unwrap_or_default()), row.emits, "{name} emits");
    }
}

/// In debug builds the chain refuses to emit what the table does not allow; here: the table allows nothing that
/// never happens.
#[test]
fn every_kind_of_event_in_the_table_happens_in_a_scenario() {
    let allowed: BTreeSet<&str> =
        STAGES.iter().flat_map(|it| it.emits).filter(|it| it.contains('.')).copied().collect();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("tests/scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "json") {
            let scenario: Scenario = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let world = scenario.run(Delivery { batch: 100, twice: false });
            seen.extend(world.history.iter().map(|it| it.kind).filter(|it| !it.is_empty()));
        }
    }
    let by_the_chain: BTreeSet<&str> = ["command.conflicted", "command.refused"].into();
    let unknown: Vec<_> = seen.difference(&allowed).filter(|it| !by_the_chain.contains(*it)).collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
    let never: Vec<_> = allowed.difference(&seen).collect();
    assert!(never.is_empty(), "in the table, but never seen: {never:?}");
    let kinds: BTreeSet<&str> = OrderEventPayload::KINDS.iter().copied().collect();
    assert!(kinds.is_subset(&seen), "never seen: {:?}", kinds.difference(&seen));
}
