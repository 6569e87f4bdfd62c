//! The history of a rule, and what is in force after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use support::World;
use tillstream_registry_log::{Appended, Fold};
use tillstream_rule_lifecycle::{MODULES_BYTES_MAX, Modules, RULES_MAX, RuleRefusal};
use tillstream_schemas::rules::*;
use tillstream_stage::rule::{Hook, Hooks};

impl World {
    fn upload(&mut self, digest: &str) -> Result<(), RuleRefusal> {
        let hooks = vec!["price".into(), "dance".into()];
        self.take(
            "demo",
            "volume",
            RulePayload::Uploaded(RuleVersionUploaded {
                digest: digest.into(),
                size_bytes: 9,
                hooks,
                settings_schema: None,
                signature: None,
            }),
        )
    }

    fn activate(&mut self, version: i64, expected_revision: Option<i64>) -> Result<(), RuleRefusal> {
        self.take(
            "demo",
            "volume",
            RulePayload::Activated(RuleActivated {
                version,
                order: 10,
                settings: format!("{{\"v\":{version}}}").into(),
                fallback: RuleFallback::Skip,
                expected_revision,
                forced: false,
            }),
        )
    }

    fn roll_back(&mut self) -> Result<(), RuleRefusal> {
        self.take("demo", "volume", RulePayload::RolledBack(RuleRolledBack { expected_revision: None }))
    }

    fn trip(&mut self, revision: i64) -> Result<(), RuleRefusal> {
        let outcome = "trap".into();
        self.take(
            "demo",
            "volume",
            RulePayload::Tripped(RuleTripped { revision, calls: 20, failures: 20, outcome }),
        )
    }

    fn active(&self) -> Option<(i64, String)> {
        let (activation, version) = self.rules.get("demo", "volume")?.in_force()?;
        Some((version.number, activation.settings.to_string()))
    }
}

#[test]
fn a_version_is_a_module_and_a_module_one_version() {
    let mut world = World::default();
    world.upload("a").unwrap();
    world.upload("b").unwrap();
    world.upload("a").unwrap();
    let rule = world.rules.get("demo", "volume").unwrap();
    assert_eq!(
        rule.versions.iter().map(|it| (it.number, it.digest.as_str())).collect::<Vec<_>>(),
        [(1, "a"), (2, "b")]
    );
    assert_eq!(
        rule.versions[0].hooks,
        Hooks::NONE.with(Hook::Price),
        "a hook of a later world is passed over"
    );
    assert_eq!(world.active(), None, "nothing answers before it is activated");
}

#[test]
fn rolling_back_goes_the_way_of_the_activations_to_none() {
    let mut world = World::default();
    world.upload("a").unwrap();
    world.upload("b").unwrap();
    for version in [1, 2, 2] {
        world.activate(version, None).unwrap();
    }
    let mut seen = vec![];
    while let Ok(()) = world.roll_back() {
        seen.push(world.active().map(|it| it.0));
    }
    assert_eq!(seen, [Some(2), Some(1), None]);
    assert_eq!(world.roll_back(), Err(RuleRefusal::NothingBefore));
}

#[test]
fn who_decided_from_an_old_reading_changes_nothing() {
    let mut world = World::default();
    world.upload("a").unwrap();
    let revision = world.rules.get("demo", "volume").unwrap().revision;
    world.activate(1, Some(revision)).unwrap();
    let before = world.rules.clone();
    assert_eq!(
        world.activate(1, Some(revision)),
        Err(RuleRefusal::Revision { expected: revision, current: revision + 1 })
    );
    assert_eq!(world.activate(7, None), Err(RuleRefusal::UnknownVersion(7)));
    assert_eq!(world.rules, before);
}

#[test]
fn the_breaker_takes_out_the_activation_that_failed_and_no_later_one() {
    let mut world = World::default();
    world.upload("a").unwrap();
    world.activate(1, None).unwrap();
    let failed = world.rules.get("demo", "volume").unwrap().active.as_ref().unwrap().revision;
    world.trip(failed).unwrap();
    world.trip(failed).unwrap();
    assert!(world.rules.get("demo", "volume").unwrap().tripped.is_some());
    world.activate(1, None).unwrap();
    assert!(world.rules.get("demo", "volume").unwrap().tripped.is_none(), "an activation asks it again");
    assert!(matches!(world.trip(failed), Err(RuleRefusal::Revision { .. })));
    assert!(world.rules.get("demo", "volume").unwrap().tripped.is_none());
}

#[test]
fn a_retired_rule_answers_no_more_and_can_come_back() {
    let mut world = World::default();
    world.upload("a").unwrap();
    world.activate(1, None).unwrap();
    world.take("demo", "volume", RulePayload::Retired(RuleRetired {})).unwrap();
    assert_eq!(world.active(), None);
    world.roll_back().unwrap();
    assert_eq!(world.active().map(|it| it.0), Some(1));
}

#[test]
fn a_tenant_sees_its_own_rules_and_no_more_than_it_may_have() {
    let mut world = World::default();
    let uploaded = || {
        RulePayload::Uploaded(RuleVersionUploaded {
            digest: "a".into(),
            size_bytes: 1,
            hooks: vec![],
            settings_schema: None,
            signature: None,
        })
    };
    for index in 0..RULES_MAX {
        world.take("demo", &format!("rule-{index}"), uploaded()).unwrap();
    }
    assert_eq!(world.take("demo", "one-more", uploaded()), Err(RuleRefusal::TooMany(RULES_MAX)));
    world.take("other", "volume", uploaded()).unwrap();
    assert_eq!(world.rules.of("demo").count(), RULES_MAX);
    assert_eq!(world.rules.of("other").count(), 1);
    assert_eq!(world.rules.get("other", "rule-0"), None);
}

#[test]
fn modules_are_their_tenants_and_bounded() {
    let mut modules = Modules::default();
    let at = Appended { partition: 0, offset: 0, at_ms: 0 };
    let module = |tenant: &str, digest: &str, size: usize| RuleModule {
        id: format!("mod_{digest}").into(),
        tenant: tenant.into(),
        digest: digest.into(),
        bytes: vec![0; size],
    };
    modules.apply(&module("demo", "a", 10), at).unwrap();
    modules.apply(&module("demo", "a", 10), at).unwrap();
    assert_eq!(modules.get("demo", "a").unwrap().len(), 10);
    assert!(modules.get("other", "a").is_none());
    let refusal = modules.apply(&module("demo", "b", MODULES_BYTES_MAX), at).unwrap_err();
    assert_eq!(refusal.found, MODULES_BYTES_MAX + 10);
    modules.apply(&module("other", "b", MODULES_BYTES_MAX), at).unwrap();
}
