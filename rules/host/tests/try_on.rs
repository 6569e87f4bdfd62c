//! A version on recent inputs: what is counted, beside what, and where it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use support::{World, dir, price_call};
use tillstream_rule_host::{RECENT_INPUTS_MAX, RecentInput, RecentInputs};
use tillstream_rule_modules::{harms_guests, off};
use tillstream_schemas::rules::RuleFallback::Skip;
use tillstream_schemas::rules::{RuleFailures, RuleInputs, RuleTried};
use tillstream_stage::rule::Hook;

/// So many orders of guests.
fn orders(count: usize) -> Vec<RecentInputs> {
    let input = |at: usize| RecentInput { order_id: format!("ord_{at}").into(), call: price_call() };
    let inputs = (0..count).map(input).collect();
    vec![RecentInputs { hook: Hook::Price, source: RuleInputs::Log, inputs }]
}

async fn tried(world: &World, version: i64, recent: Vec<RecentInputs>) -> RuleTried {
    world.station.try_on(("demo", "r"), (version, "{}"), recent).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_compared_with_the_active_one_and_nothing_comes_of_what_it_says() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    for module in [off(5), off(7), harms_guests("", "unreachable")] {
        world.taken("demo", "r", &module).await;
    }
    let alone = tried(&world, 1, orders(3)).await;
    assert_eq!((alone.against, alone.hooks[0].changed), (None, 3), "beside no rule at all");
    world.activate("demo", "r", 1, Skip).await;

    let same = tried(&world, 1, orders(3)).await;
    assert_eq!((same.against, same.hooks[0].calls, same.hooks[0].changed), (Some(1), 3, 0));
    let other = tried(&world, 2, orders(3)).await;
    let hook = &other.hooks[0];
    assert_eq!((hook.inputs, hook.calls, hook.changed, hook.failed()), (RuleInputs::Log, 3, 3, 0));
    assert!(hook.fuel_p50 > 0 && hook.fuel_p50 <= hook.fuel_max, "{hook:?}");
    let fails = tried(&world, 3, orders(3)).await;
    assert_eq!(fails.hooks[0].failures, [RuleFailures { outcome: "trap".into(), calls: 3 }]);
    assert_eq!(fails.hooks[0].changed, 0);

    let nothing = tried(&world, 2, vec![RecentInputs { inputs: Vec::new(), ..orders(1).remove(0) }]).await;
    assert_eq!((nothing.hooks[0].calls, nothing.hooks[0].fuel_max), (0, 0));
    let missing = world.station.try_on(("demo", "r"), (9, "{}"), orders(1)).await.unwrap();
    assert!(missing.unwrap_err().contains("no version 9"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_uses_all_its_fuel_is_not_asked_everything() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    world.taken("demo", "r", &harms_guests("", "(loop $again (br $again)) unreachable")).await;
    let hook = tried(&world, 1, orders(RECENT_INPUTS_MAX)).await.hooks.remove(0);
    assert_eq!(hook.failures, [RuleFailures { outcome: "fuel".into(), calls: hook.calls }]);
    assert!(hook.calls > 0 && hook.calls < RECENT_INPUTS_MAX as i64, "{hook:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_were_kept_are_inputs_for_every_rule_of_their_tenant() {
    let dir = dir();
    let world = World::start(dir.path()).await;
    for rule in ["a", "b"] {
        world.taken("demo", rule, &off(5)).await;
        world.activate("demo", rule, 1, Skip).await;
    }
    world.price_of("demo", "ord_1");
    for rule in ["a", "b"] {
        world.sampled("demo", rule, 1).await;
    }
    let inputs = world.samples.inputs("demo", Hook::Price, 9);
    let orders: Vec<_> = inputs.iter().map(|it| it.order_id.as_str()).collect();
    assert_eq!(orders, ["ord_1"], "an order once, though two rules were asked about it");
    assert_eq!(inputs[0].call.hook(), Hook::Price);
    assert!(world.samples.inputs("demo", Hook::Risk, 9).is_empty());
    assert!(world.samples.inputs("other", Hook::Price, 9).is_empty());
    assert!(world.samples.inputs("demo", Hook::Price, 0).is_empty());
    world.stop().await;
}
