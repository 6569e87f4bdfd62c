//! The simulated world itself: its seeds decide everything, it shrinks what fails, and what it once found stays found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use tillstream_world::{Plan, Size, run, shrink};

/// `seed commands faults  what it was`, one a line.
const REGRESSIONS: &str = include_str!("regressions.txt");

fn small() -> Size {
    Size { commands: 40, faults_min: 2, operators: true }
}

#[test]
fn a_few_seeds_hold() {
    for seed in 0..6 {
        let outcome = run(&Plan::of(seed, small()), false);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.records > 100, "seed {seed}: {} records", outcome.records);
    }
}

#[test]
fn the_seed_decides_everything() {
    for seed in [11, 12] {
        let plan = Plan::of(seed, small());
        let (once, twice) = (run(&plan, true), run(&plan, true));
        assert_eq!(once.hash, twice.hash, "seed {seed}");
        assert_eq!(once.trace, twice.trace, "seed {seed}");
        assert_ne!(once.hash, run(&Plan::of(seed + 100, small()), false).hash);
    }
}

#[test]
fn histories_that_once_failed_hold() {
    for line in REGRESSIONS.lines().filter(|it| !it.starts_with('#') && !it.is_empty()) {
        let numbers: Vec<u64> = line.split_whitespace().take(3).map(|it| it.parse().unwrap()).collect();
        let size = Size { commands: numbers[1] as usize, faults_min: numbers[2] as usize, operators: true };
        assert_eq!(run(&Plan::of(numbers[0], size), false).violation, None, "{line}");
    }
}

#[test]
fn a_plan_without_some_of_its_steps_holds_too() {
    let mut plan = Plan::of(3, small());
    plan.steps.retain(|it| it.number % 2 == 0);
    assert_eq!(run(&plan, false).violation, None);
}

#[test]
fn a_history_that_fails_is_made_shorter_and_still_fails() {
    let plan = Plan::of(5, Size { commands: 30, faults_min: 1, operators: true });
    let paid = |plan: &Plan| {
        let outcome = run(plan, true);
        let found = outcome.trace.iter().any(|it| it.contains("payment.captured"));
        found.then(|| "something was paid".to_owned())
    };
    let violation = paid(&plan).expect("something is paid in this history");
    let (short, _) = shrink(&plan, violation, 60, paid);
    assert!(short.steps.len() < plan.steps.len() / 2, "{:?}", short.steps);
    assert!(paid(&short).is_some());
}
