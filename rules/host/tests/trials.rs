//! Versions on trial beside the one in force.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use support::{World, dir};
use tillstream_rule_host::{HostSettings, Uploaded, with_settings_schema};
use tillstream_rule_lifecycle::{HaltReason, Tally};
use tillstream_rule_modules::{harms_guests, off};
use tillstream_schemas::rules::RuleFallback::{Refuse, Skip};
use tillstream_schemas::rules::{RulePayload, RuleRetired};
use tillstream_stage::rule::{RuleAnswer, RuleOutcome};

/// What an order hears: the version that shaped it, and what that took off.
fn heard(outcome: &RuleOutcome) -> Option<(String, i64)> {
    let verdict = outcome.verdict.as_ref()?;
    match &verdict.answer {
        RuleAnswer::Adjust(lines) => Some((verdict.rule.version.to_string(), lines[0].discount_minor)),
        other => panic!("{other:?}"),
    }
}

fn says(version: i64, off: i64) -> Option<(String, i64)> {
    Some((version.to_string(), off))
}

/// So many orders; how many heard each version.
fn orders(world: &World, count: usize) -> (usize, usize) {
    let heard: Vec<_> = (0..count).map(|it| heard(&world.price_of("demo", &format!("ord_{it}")))).collect();
    let of = |version: &str| heard.iter().flatten().filter(|it| it.0 == version).count();
    (of("1"), of("2"))
}

async fn world(dir: &std::path::Path, second: &[u8]) -> World {
    let world = World::start(dir).await;
    assert_eq!(world.taken("demo", "volume", &off(5)).await, 1);
    assert_eq!(world.taken("demo", "volume", second).await, 2);
    world.activate("demo", "volume", 1, Skip).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_is_asked_beside_the_active_version_and_never_applied() {
    let dir = dir();
    let world = world(dir.path(), &off(7)).await;
    world.shadow("demo", "volume", 2).await;
    assert_eq!(orders(&world, 40), (40, 0));
    let counted = world.counted("demo", "volume", 40).await;
    let all = Tally { calls: 40, failures: 0, different: 40, difference_minor: 80, net_minor: -80 };
    assert_eq!(counted, all);
    assert_eq!(world.price("demo").runs.len(), 1, "the shadow is no call that answered an order");
    world.shadow("demo", "volume", 1).await;
    assert_eq!(orders(&world, 3), (3, 0));
    assert_eq!(world.counted("demo", "volume", 3).await.different, 0, "another trial counts anew");
    world.roll_back("demo", "volume").await;
    assert_eq!(heard(&world.price("demo")), says(1, 5));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_fails_or_has_no_version_beside_it_changes_nothing() {
    let dir = dir();
    let world = world(dir.path(), &harms_guests("", "unreachable")).await;
    world.shadow("demo", "volume", 2).await;
    assert_eq!(orders(&world, 30), (30, 0));
    let counted = world.counted("demo", "volume", 30).await;
    assert_eq!((counted.failures, counted.different, world.trial("demo", "volume").0.halted), (30, 0, None));
    world.taken("demo", "new", &off(9)).await;
    world.shadow("demo", "new", 1).await;
    world.change("demo", "volume", RulePayload::Retired(RuleRetired {})).await.unwrap();
    assert_eq!(world.price("demo").verdict, None);
    assert_eq!(world.counted("demo", "new", 1).await.net_minor, -9, "it is compared with no rule at all");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_leaves_the_share_of_fuel_to_the_orders() {
    let dir = dir();
    let world = World::with(dir.path(), HostSettings { fuel_per_second: 1 }).await;
    world.taken("demo", "volume", &off(5)).await;
    world.taken("demo", "volume", &off(7)).await;
    world.activate("demo", "volume", 1, Skip).await;
    world.shadow("demo", "volume", 2).await;
    assert_eq!(heard(&world.price("demo")), says(1, 5));
    assert_eq!(world.trial("demo", "volume").1, Tally::default());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_answers_for_its_share_and_always_for_the_same_orders() {
    let dir = dir();
    let world = world(dir.path(), &off(7)).await;
    world.canary("demo", "volume", 2, 20, (10, None)).await;
    let (first, second) = orders(&world, 500);
    assert!((60..=140).contains(&second) && first + second == 500, "{second} of 500");
    assert_eq!(world.counted("demo", "volume", second as i64).await.net_minor, -2 * second as i64);
    assert_eq!(orders(&world, 500), (first, second), "the same orders again");
    world.canary("demo", "volume", 2, 100, (10, None)).await;
    assert_eq!(orders(&world, 50), (0, 50));
    world.roll_back("demo", "volume").await;
    assert_eq!(orders(&world, 50), (50, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_leaves_its_orders_to_the_active_version_and_stops_by_itself() {
    let dir = dir();
    let world = world(dir.path(), &harms_guests("", "unreachable")).await;
    world.canary("demo", "volume", 2, 100, (4, None)).await;
    assert_eq!(orders(&world, 20), (20, 0), "every order heard the active version");
    world.until(|it| it.get("demo", "volume").unwrap().trial.as_ref().unwrap().halted.is_some()).await;
    let (trial, counted) = world.trial("demo", "volume");
    assert_eq!(
        (trial.halted.unwrap().reason, counted.failures),
        (HaltReason::Failures, 4),
        "the fifth was never asked"
    );
    assert_eq!(orders(&world, 5), (5, 0));
    assert_eq!(world.trial("demo", "volume").1.failures, 4);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_moves_too_much_money_stops_by_itself() {
    let dir = dir();
    let world = world(dir.path(), &off(105)).await;
    world.canary("demo", "volume", 2, 100, (10, Some(1_000))).await;
    assert_eq!(orders(&world, 30), (20, 10), "at 100 each, the tenth order reaches the bound");
    world.until(|it| it.get("demo", "volume").unwrap().trial.as_ref().unwrap().halted.is_some()).await;
    let (trial, counted) = world.trial("demo", "volume");
    assert_eq!((trial.halted.unwrap().reason, counted.difference_minor), (HaltReason::Difference, 1_000));
    world.roll_back("demo", "volume").await;
    assert_eq!(
        heard(&world.price("demo")),
        says(1, 5),
        "rolling the stopped trial back leaves the active version"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_of_a_rule_that_is_not_active_falls_back_by_its_own_policy() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    let version = world.taken("demo", "fragile", &harms_guests("", "unreachable")).await;
    world.canary("demo", "fragile", version, 100, (2, None)).await;
    let refused = world.price("demo").verdict.unwrap();
    assert!(
        matches!(&refused.answer, RuleAnswer::Refuse { code, .. } if code == "rule_failed"),
        "{refused:?}"
    );
    world.price("demo");
    assert_eq!(world.price("demo").verdict, None, "it stopped at two failures");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_goes_on_after_a_restart_and_keeps_what_was_told() {
    let dir = dir();
    let first = world(dir.path(), &off(7)).await;
    first.canary("demo", "volume", 2, 100, (10, None)).await;
    assert_eq!(orders(&first, 4), (0, 4));
    first.until(|it| it.get("demo", "volume").unwrap().trial.as_ref().unwrap().counted().calls == 4).await;
    first.stop().await;
    let again = World::start(dir.path()).await;
    assert_eq!(orders(&again, 1), (0, 1));
    again.counted("demo", "volume", 5).await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_brings_the_schema_of_its_settings_or_is_refused_for_it() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    let schema = r#"{"properties":{"from":{"type":"integer"}}}"#;
    let version = world.taken("demo", "volume", &with_settings_schema(&off(5), schema)).await;
    world.activate("demo", "volume", version, Refuse).await;
    assert_eq!(heard(&world.price("demo")), says(1, 5), "the engine passes the section over");
    let kept = world
        .station
        .rules()
        .read(|it| it.get("demo", "volume").unwrap().versions[0].settings_schema.clone());
    assert_eq!(kept.as_deref(), Some(schema));
    for bad in ["no json", r#"{"type":"number or so"}"#, r##"{"$ref":"#"}"##] {
        match world.upload("demo", "bad", &with_settings_schema(&off(5), bad)).await {
            Uploaded::Refused { reason, message } => assert_eq!(reason, "settings_schema", "{message}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    world.stop().await;
}
