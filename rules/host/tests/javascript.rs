//! Rules in JavaScript on the way every rule takes: one engine for all tenants, versions, trials, breaker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use support::{World, dir};
use tillstream_rule_host::{Uploaded, with_engine};
use tillstream_rule_modules::{off, poses_as_an_engine};
use tillstream_schemas::rules::RuleFallback::{Refuse, Skip};
use tillstream_stage::rule::{RuleAnswer, RuleOutcome};

/// Takes so many minor units off the first line.
fn script(minor: i64) -> Vec<u8> {
    let source = format!("export const price = () => ({{ adjust: [{{ line: 0, discount: {minor} }}] }});\n");
    with_engine(&source, None).into_bytes()
}

fn discount(outcome: &RuleOutcome) -> Option<i64> {
    match &outcome.verdict.as_ref()?.answer {
        RuleAnswer::Adjust(lines) => Some(lines[0].discount_minor),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_all_tenants_share_one_engine_that_is_compiled_once() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    for (tenant, minor) in [("demo", 5), ("other", 7)] {
        let version = world.taken(tenant, "volume", &script(minor)).await;
        world.activate(tenant, "volume", version, Skip).await;
    }
    assert_eq!(world.taken("demo", "volume", &script(5)).await, 1, "the same source is the same version");
    assert_eq!(world.taken("demo", "volume", &script(6)).await, 2);
    let said = |world: &World| ["demo", "other"].map(|it| discount(&world.price(it)));
    assert_eq!(said(&world), [Some(5), Some(7)]);
    let compiled = || {
        let files = std::fs::read_dir(dir.path().join("rules")).unwrap().map(|it| it.unwrap());
        files
            .filter(|it| it.path().extension().is_some_and(|it| it == "cwasm"))
            .map(|it| it.metadata().unwrap().modified().unwrap())
            .collect::<Vec<_>>()
    };
    let before = compiled();
    assert_eq!(before.len(), 1, "the engine, and nothing of the sources");
    world.stop().await;
    let world = World::start(dir.path()).await;
    assert_eq!(said(&world), [Some(5), Some(7)]);
    assert_eq!(compiled(), before, "a restart compiles nothing");

    // Versions of both kinds, tried beside each other and rolled back.
    let version = world.taken("demo", "volume", &off(9)).await;
    world.shadow("demo", "volume", version).await;
    assert_eq!(discount(&world.price("demo")), Some(5));
    let tally = world.counted("demo", "volume", 1).await;
    assert_eq!((tally.different, tally.difference_minor), (1, 4));
    world.activate("demo", "volume", version, Skip).await;
    assert_eq!(discount(&world.price("demo")), Some(9));
    world.roll_back("demo", "volume").await;
    assert_eq!(discount(&world.price("demo")), Some(5));

    // A source on trial: beside a source, then in its place for some of the orders.
    world.shadow("demo", "volume", 2).await;
    assert_eq!(discount(&world.price("demo")), Some(5));
    assert_eq!(world.counted("demo", "volume", 1).await.difference_minor, 1);
    world.canary("demo", "volume", 2, 50, (10, None)).await;
    let heard = |order: i32| discount(&world.price_of("demo", &format!("ord_{order}"))).unwrap();
    let (first, again): (Vec<i64>, Vec<i64>) = ((0..40).map(heard).collect(), (0..40).map(heard).collect());
    let second = first.iter().filter(|it| **it == 6).count();
    assert!((8..=32).contains(&second) && first.iter().all(|it| [5, 6].contains(it)), "{first:?}");
    assert_eq!(again, first);
    assert_eq!(world.counted("demo", "volume", 2 * second as i64).await.net_minor, -2 * second as i64);
    world.roll_back("demo", "volume").await;
    assert_eq!(discount(&world.price("demo")), Some(5));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_refused_at_its_upload_or_taken_out() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    for (source, reason) in [
        ("// tillstream:rule javascript-0\n", "engine"),
        ("// tillstream:rule javascript-1\nexport function price( {", "source"),
        ("// tillstream:rule javascript-1\nfor (;;) {}", "source"),
        ("// tillstream:rule javascript-1\nexport const brew = () => 'pass';", "no_hook"),
        ("// tillstream:rule javascript-1\nexport const price = () => 1;", "dry_run"),
        (
            "// tillstream:rule javascript-1\n// tillstream:settings-schema {\nexport const price = () => 'pass';",
            "settings_schema",
        ),
    ] {
        let found = world.upload("demo", "wrong", source.as_bytes()).await;
        assert!(
            matches!(&found, Uploaded::Refused { reason: it, .. } if it == reason),
            "{source}: {found:?}"
        );
    }
    let found = world.upload("demo", "posing", &poses_as_an_engine()).await;
    assert!(
        matches!(&found, Uploaded::Refused { reason, message } if reason == "imports"
        && message.contains("tillstream:javascript/host")),
        "{found:?}"
    );
    // The sample orders have a category.
    let fragile = "// tillstream:rule javascript-1\nexport const price = ({ lines }) => lines[0].category.length > 0 && 'pass';";
    let version = world.taken("demo", "fragile", fragile.as_bytes()).await;
    world.activate("demo", "fragile", version, Refuse).await;
    for _ in 0..30 {
        world.price("demo");
    }
    world.until(|rules| rules.get("demo", "fragile").unwrap().tripped.is_some()).await;
    let trip = world.station.rules().read(|it| it.get("demo", "fragile").unwrap().tripped.clone()).unwrap();
    assert_eq!((trip.failures, trip.outcome.as_str()), (20, "trap"));
    world.stop().await;
}
