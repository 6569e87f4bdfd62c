//! From an upload to an answer, and what happens on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::fs;
use support::{World, dir};
use tillstream_rule_host::{HostSettings, Uploaded};
use tillstream_rule_modules::{harms_guests, off, plain, price_rule};
use tillstream_schemas::rules::RuleFallback::{Refuse, Review, Skip};
use tillstream_schemas::rules::{RulePayload, RuleRetired};
use tillstream_stage::rule::{Hook, Hooks, RuleAnswer, RuleHost, RuleOutcome};

fn discount(outcome: &RuleOutcome) -> Option<i64> {
    match &outcome.verdict.as_ref()?.answer {
        RuleAnswer::Adjust(lines) => Some(lines[0].discount_minor),
        other => panic!("{other:?}"),
    }
}

fn outcomes(outcome: &RuleOutcome) -> Vec<&'static str> {
    outcome.runs.iter().map(|it| it.outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_answers_from_its_activation_to_its_rollback_and_only_its_tenant() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    assert_eq!(world.taken("demo", "volume", &off(5)).await, 1);
    assert_eq!(world.taken("demo", "volume", &off(7)).await, 2);
    assert_eq!(world.taken("demo", "volume", &off(5)).await, 1, "the same module is the same version");
    assert_eq!(world.price("demo"), RuleOutcome::default());
    world.activate("demo", "volume", 1, Skip).await;
    assert_eq!(discount(&world.price("demo")), Some(5));
    let rule = world.price("demo").verdict.unwrap().rule;
    assert_eq!((rule.name.as_str(), rule.version.as_str(), rule.digest.len()), ("volume", "1", 64));
    assert_eq!(world.host.hooks("demo"), Hooks::NONE.with(Hook::Price));
    assert_eq!((world.price("other"), world.host.hooks("other")), (RuleOutcome::default(), Hooks::NONE));
    world.activate("demo", "volume", 2, Skip).await;
    assert_eq!(discount(&world.price("demo")), Some(7));
    world.roll_back("demo", "volume").await;
    assert_eq!(discount(&world.price("demo")), Some(5));
    world.change("demo", "volume", RulePayload::Retired(RuleRetired {})).await.unwrap();
    assert_eq!(world.price("demo"), RuleOutcome::default());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_rules_are_asked_in_their_order() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    for (name, minor) in [("b", 7), ("a", 5)] {
        let version = world.taken("demo", name, &off(minor)).await;
        world.activate("demo", name, version, Skip).await;
    }
    let outcome = world.price("demo");
    assert_eq!((discount(&outcome), outcomes(&outcome)), (Some(12), vec!["answered", "answered"]));
    let rule = outcome.verdict.unwrap().rule;
    assert_eq!((rule.name.as_str(), rule.also[0].name.as_str()), ("a", "b"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_active_is_in_force_again_after_a_restart_also_when_the_cache_was_touched() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    let version = world.taken("demo", "volume", &off(5)).await;
    world.activate("demo", "volume", version, Skip).await;
    world.stop().await;
    let cached = || {
        let files = fs::read_dir(dir.path().join("rules")).unwrap().map(|it| it.unwrap().path());
        files.filter(|it| it.extension().is_some_and(|it| it == "cwasm")).collect::<Vec<_>>()
    };
    let [file] = &cached()[..] else { panic!("{:?}", cached()) };
    let good = fs::read(file).unwrap();
    for touched in [None, Some(vec![0; 10]), Some(good.iter().map(|it| it ^ 1).collect())] {
        if let Some(bytes) = touched {
            fs::write(file, bytes).unwrap();
        }
        let world = World::start(dir.path()).await;
        assert_eq!(discount(&world.price("demo")), Some(5));
        world.stop().await;
        assert_eq!(fs::read(file).unwrap().len(), good.len(), "compiled anew and kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_gives_no_answer_falls_back_as_its_tenant_chose() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    let version = world.taken("demo", "fragile", &harms_guests("", "unreachable")).await;
    world.activate("demo", "fragile", version, Skip).await;
    let skipped = world.price("demo");
    assert_eq!((skipped.verdict.as_ref(), outcomes(&skipped)), (None, vec!["trap"]));
    world.activate("demo", "fragile", version, Refuse).await;
    let refused = world.price("demo").verdict.unwrap();
    assert!(
        matches!(&refused.answer, RuleAnswer::Refuse { code, .. } if code == "rule_failed"),
        "{refused:?}"
    );
    assert_eq!(refused.rule.name, "fragile");
    world.activate("demo", "fragile", version, Review).await;
    let held = world.price("demo").verdict.unwrap();
    assert_eq!((&held.answer, held.review.is_some()), (&RuleAnswer::Pass, true));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_takes_a_failing_rule_out_until_it_is_activated_again() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    let version = world.taken("demo", "fragile", &harms_guests("", "unreachable")).await;
    world.activate("demo", "fragile", version, Refuse).await;
    for _ in 0..30 {
        world.price("demo");
    }
    world.until(|rules| rules.get("demo", "fragile").unwrap().tripped.is_some()).await;
    let outcome = world.price("demo");
    assert_eq!(outcomes(&outcome), ["tripped"]);
    assert!(
        matches!(outcome.verdict.unwrap().answer, RuleAnswer::Refuse { .. }),
        "its fallback holds meanwhile"
    );
    let trip = world.station.rules().read(|it| it.get("demo", "fragile").unwrap().tripped.clone()).unwrap();
    assert_eq!((trip.failures, trip.outcome.as_str()), (20, "trap"));
    world.activate("demo", "fragile", version, Skip).await;
    assert_eq!(outcomes(&world.price("demo")), ["trap"], "an activation asks it again");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_used_up_its_share_falls_back_and_the_others_do_not() {
    let dir = dir();
    let world = World::with(dir.path(), HostSettings { fuel_per_second: 1 }).await;
    for tenant in ["demo", "other"] {
        let version = world.taken(tenant, "volume", &off(5)).await;
        world.activate(tenant, "volume", version, Skip).await;
    }
    assert_eq!(outcomes(&world.price("demo")), ["answered"]);
    assert_eq!(outcomes(&world.price("demo")), ["throttled"]);
    assert_eq!(outcomes(&world.price("other")), ["answered"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_rule_is_told_why_and_leaves_nothing_behind() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    let cases = [
        (b"text".to_vec(), "not_wasm"),
        (plain("(module)"), "not_component"),
        (plain("(component)"), "no_hook"),
        (plain(r#"(component (import "wasi:io/streams@0.2.0" (instance)))"#), "imports"),
        (price_rule("", "(loop $again (br $again)) unreachable"), "dry_run"),
        (price_rule("", "unreachable"), "dry_run"),
        (off(-1), "dry_run"),
    ];
    for (module, expected) in cases {
        match world.upload("demo", "bad", &module).await {
            Uploaded::Refused { reason, message } => {
                assert_eq!(reason, expected, "{message}");
                assert!(!message.is_empty());
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert!(world.station.rules().read(|rules| rules.get("demo", "bad").is_none()));
    assert_eq!(world.taken("demo", "good", &off(1)).await, 1, "the station goes on");
    world.stop().await;
}
