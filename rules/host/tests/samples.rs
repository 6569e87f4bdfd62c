//! Samples of calls: kept, seen by their tenant alone, and good enough to run again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::sync::Arc;
use support::{World, dir, price_call};
use tillstream_rule_modules::{harms_guests, off};
use tillstream_schemas::rule_sample::{RuleSample, RuleSampleKind as Kind};
use tillstream_schemas::rules::RuleFallback::Skip;
use tillstream_stage::rule::{RuleCall, RuleHost};

fn kinds(samples: &[Arc<RuleSample>]) -> Vec<(Kind, &str)> {
    let mut kinds: Vec<_> = samples.iter().map(|it| (it.kind, it.version.as_str())).collect();
    kinds.sort_unstable();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_failures_and_differences_are_kept_also_over_a_restart() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    for module in [off(5), off(7), harms_guests("", "unreachable")] {
        world.taken("demo", "volume", &module).await;
    }
    world.activate("demo", "volume", 1, Skip).await;
    world.price_of("demo", "ord_a");
    let samples = world.sampled("demo", "volume", 1).await;
    let sample = &samples[0];
    assert_eq!(
        (sample.kind, sample.order_id.as_str(), sample.outcome.as_str()),
        (Kind::Call, "ord_a", "answered")
    );
    assert_eq!(serde_json::from_str::<RuleCall>(&sample.input).unwrap(), price_call());
    assert!(sample.answer.as_ref().unwrap().contains(r#""discount_minor":5"#), "{sample:?}");
    assert!(sample.fuel > 0 && sample.memory_bytes > 0 && sample.digest.len() == 64);

    world.shadow("demo", "volume", 2).await;
    world.price_of("demo", "ord_b");
    world.canary("demo", "volume", 3, 100, (10, None)).await;
    world.price_of("demo", "ord_c");
    let both = [
        (Kind::Call, "1"),
        (Kind::Call, "1"),
        (Kind::Call, "1"),
        (Kind::Failure, "3"),
        (Kind::Difference, "2"),
    ];
    let samples = world.sampled("demo", "volume", both.len()).await;
    assert_eq!(kinds(&samples), both, "every trial begins with a gate that is open");
    let difference = samples.iter().find(|it| it.kind == Kind::Difference).unwrap();
    assert_eq!((difference.order_id.as_str(), difference.other_version.as_deref()), ("ord_b", Some("1")));
    assert!(difference.other_answer.as_ref().unwrap().contains(r#""discount_minor":5"#));
    assert_eq!(world.samples.of("other", "volume"), Vec::<Arc<RuleSample>>::new());
    world.stop().await;

    let world = World::start(dir.path()).await;
    assert_eq!(kinds(&world.sampled("demo", "volume", both.len()).await), both);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_rule_has_few_samples_and_no_person_in_them() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    world.taken("demo", "volume", &off(5)).await;
    world.activate("demo", "volume", 1, Skip).await;
    let mut call = price_call();
    if let RuleCall::Price(it) = &mut call {
        it.order.customer = Some("c-17850".into());
    }
    let begun = tokio::time::Instant::now();
    for index in 0..500 {
        world.host.call("demo", &format!("ord_{index}"), &call);
    }
    let most = 1 + begun.elapsed().as_secs() as usize;
    let samples = world.sampled("demo", "volume", 1).await;
    assert!(samples.len() <= most, "{} in {:?}", samples.len(), begun.elapsed());
    assert!(!format!("{samples:?}").contains("17850"));
    assert_eq!(samples[0].masked, ["order.customer"]);
    world.stop().await;
}
