//! Where the fuel of a call goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use support::{load, price_call};
use tillstream_rule_engine::{Pool, RuleEngine};
use tillstream_rule_modules::price_rule;

/// Two loops, of which one has three times as many rounds.
const LOOPS: &str = "(func $turn (param $rounds i32)
    (loop $again
      (local.set $rounds (i32.sub (local.get $rounds) (i32.const 1)))
      (br_if $again (local.get $rounds))))
  (func $short (call $turn (i32.const 1000)))
  (func $long (call $turn (i32.const 3000)))";

#[test]
fn a_function_that_works_three_times_as_much_has_three_times_the_fuel() {
    let engine = RuleEngine::new(Pool::Traced).unwrap();
    let module = load(&engine, &price_rule(LOOPS, "(call $short) (call $long) (i32.const 16)"));
    let (run, stacks) = module.profile("ord_1", &price_call(3), "{}");
    assert!(run.result.is_ok());
    assert_eq!(stacks.iter().map(|it| it.fuel).sum::<u64>(), run.fuel);
    let within = |name: &str| -> u64 {
        let of = stacks.iter().filter(|it| it.frames.iter().any(|it| it == name));
        of.map(|it| it.fuel).sum()
    };
    let (short, long) = (within("short"), within("long"));
    assert!(long > 2 * short && long < 4 * short, "{short} and {long} of {}: {stacks:#?}", run.fuel);
    let frames: Vec<_> =
        stacks.iter().find(|it| it.frames.contains(&"long".to_owned())).unwrap().frames.clone();
    let at = |name: &str| frames.iter().position(|it| it == name);
    assert!(at("decide") < at("long") && at("long") < at("turn"), "outermost first: {frames:?}");
}

#[test]
fn a_call_that_runs_out_has_a_profile_too() {
    let engine = RuleEngine::new(Pool::Traced).unwrap();
    let module = load(&engine, &price_rule("", "(loop $again (br $again)) unreachable"));
    let (run, stacks) = module.profile("ord_1", &price_call(3), "{}");
    assert!(run.result.is_err());
    assert_eq!((stacks.len(), stacks[0].fuel), (1, run.fuel), "{stacks:?}");
}
