//! Every file of `tests/scenarios`, run three ways: calmly, one record at a time, and with every message twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use tillstream_schemas::Topic;
use tillstream_schemas::analytics::{Granularity, Sums};
use tillstream_stage::Table;
use world::scenario::{Expect, ExpectOrder, ExpectRevenue, Scenario};
use world::{Delivery, World};

const WAYS: [Delivery; 3] = [
    Delivery { batch: 100, twice: false },
    Delivery { batch: 1, twice: false },
    Delivery { batch: 100, twice: true },
];

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let entries = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path());
    let mut files: Vec<_> = entries.filter(|it| it.extension().is_some_and(|it| it == "json")).collect();
    files.sort();
    files
}

fn check_order(world: &World, id: &str, expect: &ExpectOrder) {
    let order = world.order(id).unwrap_or_else(|| panic!("{id} has no row"));
    let payment = order.payment.clone().unwrap_or_default();
    assert_eq!(order.view.status, expect.status, "{id}: status");
    if let Some(status) = expect.payment {
        assert_eq!(payment.status, status, "{id}: payment");
    }
    assert_eq!(order.view.reason_code, expect.reason, "{id}: reason");
    if let Some(stage) = &expect.stage {
        assert_eq!(order.view.stage, *stage, "{id}: stage");
    }
    if let Some(total) = expect.total {
        assert_eq!(order.order.as_ref().unwrap().total_minor, total, "{id}: total");
    }
    if let Some(captured) = expect.captured {
        assert_eq!(payment.captured_minor, captured, "{id}: captured");
    }
    if let Some(refunded) = expect.refunded {
        assert_eq!(payment.refunded_minor, refunded, "{id}: refunded");
    }
    if let Some(kinds) = &expect.events {
        let events = world.events(id);
        let found: Vec<_> = events.iter().map(|it| it.payload.kind()).collect();
        assert_eq!(found, *kinds, "{id}: events");
    }
}

fn check(world: &World, expect: &Expect) {
    for (id, order) in &expect.orders {
        check_order(world, id, order);
    }
    for id in &expect.absent {
        assert!(!world.knows(id), "{id} has a row");
    }
    for (sku, expected) in &expect.stock {
        let level = tillstream_stock::level(&world.stock(sku).unwrap_or_default());
        assert_eq!(
            (level.on_hand, level.reserved),
            (expected.on_hand, expected.reserved),
            "{sku}: on hand, reserved"
        );
    }
    assert_eq!(world.refusals(), expect.refused, "refused commands");
    if let Some(kinds) = &expect.item_events {
        let mut seen = BTreeSet::new();
        let events = world.history.iter().filter(|it| {
            // How often a level is published depends on the batches; the level itself is checked above.
            it.topic == Topic::ItemEvents && it.kind != "inventory.level_changed" && seen.insert(&it.id)
        });
        assert_eq!(events.map(|it| it.kind).collect::<Vec<_>>(), *kinds, "events of items");
    }
    if let Some(revenue) = &expect.revenue {
        let mut total = Sums::default();
        for window in world.windows(Granularity::Day) {
            tillstream_analytics::sums::add(&mut total, &window.sums);
        }
        assert_eq!(ExpectRevenue::from(&total), *revenue, "revenue");
    }
    if let Some(least) = expect.corrections {
        let keys = world.analytics.iter().flat_map(|it| it.rows.keys());
        let found = keys.filter(|it| it.table == Table::Correction).count();
        assert!(found >= least, "{found} corrections");
    }
}

#[test]
fn every_scenario_ends_as_its_file_says() {
    let files = files();
    assert!(files.len() >= 30, "only {} scenarios were found", files.len());
    let mut failed = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let scenario: Scenario = serde_json::from_str(&text).unwrap_or_else(|it| panic!("{file:?}: {it}"));
        for delivery in WAYS {
            let run = catch_unwind(AssertUnwindSafe(|| {
                let world = scenario.run(delivery);
                check(&world, &scenario.expect);
                world.audit();
            }));
            if run.is_err() {
                failed.push(format!("{} ({delivery:?}): {}", file.display(), scenario.about));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn the_same_scenario_writes_the_same_records() {
    for file in files() {
        let scenario: Scenario = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for delivery in WAYS {
            let (first, second) = (scenario.run(delivery), scenario.run(delivery));
            assert_eq!(first.history, second.history, "{}", file.display());
        }
    }
}
