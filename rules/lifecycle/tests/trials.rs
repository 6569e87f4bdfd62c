//! Versions on trial: their share of the orders, what is counted of them, and where they stop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use proptest::prelude::*;
use support::World;
use tillstream_rule_lifecycle::{Canary, HaltReason, Rule, RuleRefusal, TrialKind};
use tillstream_schemas::rules::*;

impl World {
    /// A rule of three versions, the first of them active.
    fn new() -> Self {
        let mut world = Self::default();
        for digest in ["a", "b", "c"] {
            let it = RuleVersionUploaded {
                digest: digest.into(),
                size_bytes: 9,
                hooks: vec!["price".into()],
                settings_schema: None,
                signature: None,
            };
            world.change(RulePayload::Uploaded(it)).unwrap();
        }
        world.activate(1).unwrap();
        world
    }

    fn change(&mut self, payload: RulePayload) -> Result<(), RuleRefusal> {
        self.take("demo", "volume", payload)
    }

    fn activate(&mut self, version: i64) -> Result<(), RuleRefusal> {
        let (settings, fallback) = ("{}".into(), RuleFallback::Skip);
        let (expected_revision, forced) = (None, false);
        let it = RuleActivated { version, order: 10, settings, fallback, expected_revision, forced };
        self.change(RulePayload::Activated(it))
    }

    fn shadow(&mut self, version: i64) -> Result<(), RuleRefusal> {
        let it = RuleShadowed { version, settings: "{}".into(), expected_revision: None };
        self.change(RulePayload::Shadowed(it))
    }

    fn canary(&mut self, version: i64, percent: i32) -> Result<(), RuleRefusal> {
        self.change(RulePayload::Canaried(RuleCanaried {
            version,
            percent,
            order: 10,
            settings: "{}".into(),
            fallback: RuleFallback::Skip,
            failures_max: 3,
            difference_max_minor: Some(1_000),
            expected_revision: None,
            forced: false,
        }))
    }

    fn configure(&mut self, settings: &str) -> Result<(), RuleRefusal> {
        let it = RuleConfigured { settings: settings.into(), expected_revision: None, forced: false };
        self.change(RulePayload::Configured(it))
    }

    fn measure(&mut self, currency: &str, failures: i64, difference_minor: i64) -> Result<(), RuleRefusal> {
        let revision = self.rule().trial.as_ref().unwrap().revision;
        self.measure_of(revision, currency, failures, difference_minor)
    }

    fn measure_of(
        &mut self,
        revision: i64,
        currency: &str,
        failures: i64,
        difference_minor: i64,
    ) -> Result<(), RuleRefusal> {
        self.change(RulePayload::Measured(RuleMeasured {
            revision,
            currency: currency.into(),
            calls: 10,
            failures,
            different: 1,
            difference_minor,
            net_minor: -difference_minor,
        }))
    }

    fn roll_back(&mut self) -> Result<(), RuleRefusal> {
        self.change(RulePayload::RolledBack(RuleRolledBack { expected_revision: None }))
    }

    fn rule(&self) -> &Rule {
        self.rules.get("demo", "volume").unwrap()
    }

    /// The version in force, and the one on trial.
    fn stands(&self) -> (Option<i64>, Option<i64>) {
        let rule = self.rule();
        (rule.in_force().map(|it| it.1.number), rule.on_trial().map(|it| it.1.number))
    }

    fn halted(&self) -> Option<HaltReason> {
        Some(self.rule().trial.as_ref()?.halted.as_ref()?.reason)
    }
}

#[test]
fn a_trial_leaves_what_is_in_force_until_it_is_activated() {
    let mut world = World::new();
    assert_eq!(world.shadow(9), Err(RuleRefusal::UnknownVersion(9)));
    world.shadow(2).unwrap();
    assert_eq!(world.stands(), (Some(1), Some(2)));
    world.canary(2, 5).unwrap();
    world.canary(2, 50).unwrap();
    assert_eq!(world.stands(), (Some(1), Some(2)));
    world.activate(2).unwrap();
    assert_eq!((world.stands(), world.rule().trial.is_none()), ((Some(2), None), true));
    world.roll_back().unwrap();
    assert_eq!(world.stands(), (Some(1), None), "what was active before the activation, without a trial");
}

#[test]
fn a_rollback_ends_the_trial_first_also_one_that_stopped_by_itself() {
    let mut world = World::new();
    world.activate(3).unwrap();
    world.canary(2, 5).unwrap();
    world.roll_back().unwrap();
    assert_eq!(world.stands(), (Some(3), None));
    world.canary(2, 5).unwrap();
    world.measure("GBP", 3, 0).unwrap();
    assert_eq!((world.stands(), world.halted()), ((Some(3), None), Some(HaltReason::Failures)));
    world.roll_back().unwrap();
    assert_eq!(world.stands(), (Some(3), None), "the good version is not hit by a rollback of the bad one");
    world.roll_back().unwrap();
    assert_eq!(world.stands(), (Some(1), None));
}

#[test]
fn a_canary_stops_at_the_sum_of_what_all_workers_counted() {
    let mut world = World::new();
    world.canary(2, 5).unwrap();
    world.measure("GBP", 1, 600).unwrap();
    world.measure("EUR", 1, 600).unwrap();
    assert_eq!(world.halted(), None, "600 and 600 of two currencies are no 1,200 of anything");
    let revision = world.rule().revision;
    world.measure("GBP", 0, 399).unwrap();
    assert_eq!(
        (world.halted(), world.rule().revision),
        (None, revision),
        "what is counted decides nothing yet"
    );
    world.measure("GBP", 0, 1).unwrap();
    assert_eq!((world.halted(), world.rule().revision), (Some(HaltReason::Difference), revision + 1));
    world.measure("GBP", 0, 1).unwrap();
    assert_eq!(world.rule().revision, revision + 1, "it stops once");
    world.canary(2, 5).unwrap();
    assert_eq!(world.halted(), None, "a new step counts anew");
    world.measure("GBP", 2, 0).unwrap();
    world.measure("EUR", 1, 0).unwrap();
    assert_eq!(world.halted(), Some(HaltReason::Failures), "a failure is a failure in any currency");
    let counted = world.rule().trial.as_ref().unwrap().counted();
    assert_eq!((counted.calls, counted.failures, counted.different), (20, 3, 2));
}

#[test]
fn a_shadow_never_stops_and_what_was_counted_of_another_trial_is_not_counted_of_this_one() {
    let mut world = World::new();
    assert_eq!(world.measure_of(1, "GBP", 1, 1), Err(RuleRefusal::NoTrial));
    world.shadow(2).unwrap();
    let shadow = world.rule().trial.as_ref().unwrap().revision;
    world.measure("GBP", 1_000_000, i64::MAX).unwrap();
    world.measure("GBP", 1_000_000, i64::MAX).unwrap();
    assert_eq!(world.stands(), (Some(1), Some(2)));
    world.canary(2, 5).unwrap();
    assert!(matches!(world.measure_of(shadow, "GBP", 9, 0), Err(RuleRefusal::Revision { .. })));
    assert_eq!(world.halted(), None);
}

#[test]
fn other_settings_are_another_activation_of_the_same_version_and_leave_the_trial() {
    let mut world = World::new();
    world.canary(2, 5).unwrap();
    world.configure(r#"{"a":1}"#).unwrap();
    let active = world.rule().active.clone().unwrap();
    assert_eq!((active.version, active.order, active.settings.as_str()), (1, 10, r#"{"a":1}"#));
    assert_eq!(world.stands(), (Some(1), Some(2)));
    world.roll_back().unwrap();
    world.roll_back().unwrap();
    assert_eq!(world.rule().active.clone().unwrap().settings, "{}");
    world.change(RulePayload::Retired(RuleRetired {})).unwrap();
    assert_eq!(world.configure("{}"), Err(RuleRefusal::NotActive));
}

#[test]
fn a_retired_rule_has_no_trial() {
    let mut world = World::new();
    world.canary(2, 5).unwrap();
    world.change(RulePayload::Retired(RuleRetired {})).unwrap();
    assert_eq!(world.stands(), (None, None));
    world.roll_back().unwrap();
    assert_eq!(world.stands(), (Some(1), None));
}

fn answers(percent: u8, rule: &str, order_id: &str) -> bool {
    let canary = Canary { percent, failures_max: 1, difference_max_minor: None };
    TrialKind::Canary(canary).answers(rule, order_id)
}

proptest! {
    #[test]
    fn the_share_of_a_canary_is_what_was_asked_for(percent in 0_u8..=100, seed: u64, rule in "[a-z]{1,9}") {
        const ORDERS: u64 = 20_000;
        let ids = (0..ORDERS).map(|it| format!("ord_{:020x}", it.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed));
        let met = ids.filter(|it| answers(percent, &rule, it)).count() as f64 / ORDERS as f64;
        let share = f64::from(percent) / 100.0;
        // Five standard deviations of a fair draw.
        let off = 5.0 * (share * (1.0 - share) / ORDERS as f64).sqrt();
        prop_assert!((met - share).abs() <= off + 1e-9, "{met} of {share}");
    }

    #[test]
    fn a_larger_share_only_adds_orders(rule in "[a-z]{1,9}", order_id in "ord_[0-9a-z]{20}") {
        let first = (0..=100).find(|it| answers(*it, &rule, &order_id));
        let first = first.expect("100 % is every order");
        prop_assert!(first > 0, "0 % is none");
        for percent in 0..=100 {
            prop_assert_eq!(answers(percent, &rule, &order_id), percent >= first);
        }
    }

    #[test]
    fn two_rules_part_the_orders_in_their_own_ways(seed: u64) {
        const ORDERS: u64 = 20_000;
        let ids = (0..ORDERS).map(|it| format!("ord_{:020x}", it.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed));
        let both = ids.filter(|it| answers(10, "one", it) && answers(10, "two", it)).count();
        prop_assert!((100..=300).contains(&both), "{both} of {ORDERS}, 200 if they know nothing of each other");
    }
}
