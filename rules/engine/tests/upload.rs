//! What is taken for a rule, and what its author is told when it is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use support::engine;
use tillstream_rule_engine::{ArtifactError, ArtifactKey, Pool, Refusal, RuleEngine, digest};
use tillstream_rule_modules::{component, plain, poses_as_an_engine, price_rule, price_text};
use tillstream_stage::rule::{Hook, Hooks};

fn refusal(bytes: &[u8]) -> Refusal {
    engine().compile(bytes).unwrap_err()
}

#[test]
fn what_is_no_component_is_told_apart() {
    assert_eq!(refusal(b""), Refusal::NotWasm);
    assert_eq!(refusal(b"#!/bin/sh"), Refusal::NotWasm);
    assert_eq!(refusal(&plain("(module)")), Refusal::NotComponent);
    assert!(matches!(refusal(&[0; 300 << 10]), Refusal::TooLarge { .. }));
    let mut torn = price_rule("", "(i32.const 16)");
    torn.truncate(torn.len() / 2);
    assert!(matches!(refusal(&torn), Refusal::Invalid(_)));
}

#[test]
fn imports_are_refused_by_name() {
    let text = r#"(component
        (import "wasi:clocks/wall-clock@0.2.0" (instance))
        (import "my:own/thing" (instance)))"#;
    let Refusal::Imports(names) = refusal(&plain(text)) else { panic!("imports") };
    assert_eq!(names, ["wasi:clocks/wall-clock@0.2.0", "my:own/thing"]);
    let message = Refusal::Imports(names).to_string();
    assert!(
        message.contains("wasi:clocks/wall-clock@0.2.0") && message.contains("tillstream:rules/log@1.0.0")
    );
}

#[test]
fn what_an_engine_of_ours_may_call_is_refused_to_a_module_of_a_tenant() {
    let Refusal::Imports(names) = refusal(&poses_as_an_engine()) else { panic!("imports") };
    assert_eq!(names, ["tillstream:javascript/host@1.0.0"]);
}

#[test]
fn a_module_without_a_hook_or_with_one_of_another_shape_is_refused() {
    assert_eq!(refusal(&plain("(component)")), Refusal::NoHook);
    let other = r#"(component
        (core module $m (func (export "decide") (result i32) (i32.const 1)))
        (core instance $i (instantiate $m))
        (func $decide (result u32) (canon lift (core func $i "decide")))
        (instance $price (export "decide" (func $decide)))
        (export "tillstream:rules/price@1.0.0" (instance $price)))"#;
    assert!(matches!(refusal(&plain(other)), Refusal::Hook { hook: "price", .. }));
}

#[test]
fn a_module_that_cannot_be_started_is_refused() {
    let start = |body: &str| {
        let text = price_text("", "(i32.const 16)");
        let text = text.trim_end_matches(')').to_owned() + &format!(") (func $start {body}) (start $start))");
        refusal(&component("price-rule", &text.replace("(i32.const 16) (func", "(i32.const 16)) (func")))
    };
    assert!(matches!(start("(loop $again (br $again))"), Refusal::Start(_)));
    assert!(matches!(start("unreachable"), Refusal::Start(_)));
}

#[test]
fn a_module_larger_than_a_sandbox_is_refused() {
    let text = price_text("", "(i32.const 16)")
        .replace("(memory (export \"memory\") 8)", "(memory (export \"memory\") 300)");
    assert!(matches!(refusal(&component("price-rule", &text)), Refusal::Start(_) | Refusal::Invalid(_)));
}

#[test]
fn a_module_says_its_hooks() {
    let engine = engine();
    let key = ArtifactKey::new([1; 32]);
    let code = engine.compile(&price_rule("", "(i32.const 16)")).unwrap();
    let module = key.open(&engine, "d", &key.seal(&engine, "d", &code)).unwrap();
    assert_eq!(module.hooks(), Hooks::NONE.with(Hook::Price));
}

#[test]
fn compiled_code_is_opened_only_under_the_seal_of_its_module_engine_and_key() {
    let engine = engine();
    let key = ArtifactKey::new([1; 32]);
    let code = engine.compile(&price_rule("", "(i32.const 16)")).unwrap();
    let sealed = key.seal(&engine, "d", &code);
    assert!(key.open(&engine, "d", &sealed).is_ok());
    let opened =
        |key: &ArtifactKey, digest: &str, sealed: &[u8]| key.open(&engine, digest, sealed).map(|_| ());
    assert!(matches!(opened(&key, "other", &sealed), Err(ArtifactError::Seal)));
    assert!(matches!(opened(&ArtifactKey::new([2; 32]), "d", &sealed), Err(ArtifactError::Seal)));
    assert!(matches!(opened(&key, "d", &sealed[..20]), Err(ArtifactError::Seal)));
    for at in [0, 31, 32, sealed.len() / 2, sealed.len() - 1] {
        let mut touched = sealed.clone();
        touched[at] ^= 1;
        assert!(matches!(opened(&key, "d", &touched), Err(ArtifactError::Seal)), "byte {at}");
    }
}

#[test]
fn code_compiled_without_slots_runs_in_slots() {
    let compiler = RuleEngine::new(Pool::OnDemand).unwrap();
    assert_eq!(compiler.version(), engine().version());
}

#[test]
fn a_digest_is_of_the_content() {
    assert_eq!(digest(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}
