//! What a call may do, and what happens to one that does more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use support::{engine, load, price_call};
use tillstream_rule_engine::{Fault, Limits, Run};
use tillstream_rule_modules::{component, price_rule};
use tillstream_stage::rule::{LineAdjustment, RuleAnswer};

/// An answer at address 16 that takes `discount`, a piece of text, off line `line`.
fn adjust(line: u32, discount: &str) -> String {
    format!(
        "(i32.store8 (i32.const 16) (i32.const 1))
         (i32.store (i32.const 20) (i32.const 64))
         (i32.store (i32.const 24) (i32.const 1))
         (i32.store (i32.const 64) (i32.const {line}))
         (i64.store (i32.const 72) {discount})
         (i32.const 16)"
    )
}

fn run(bytes: &[u8]) -> Run {
    load(&engine(), bytes).run("ord_1", &price_call(3), "{}", u64::MAX)
}

fn fault(declarations: &str, body: &str) -> Fault {
    run(&price_rule(declarations, body)).result.unwrap_err()
}

#[test]
fn an_answer_comes_back_with_what_it_cost() {
    let run = run(&price_rule("", &adjust(1, "(i64.const 5)")));
    let off = LineAdjustment { discount_minor: 5, tax_rate_bp: None };
    let none = LineAdjustment::default();
    assert_eq!(run.result.unwrap().0, RuleAnswer::Adjust(vec![none, off, none]));
    assert!(run.fuel > 10 && run.fuel < 5_000, "{}", run.fuel);
    assert_eq!(run.memory_bytes, 8 << 16);
}

#[test]
fn what_one_call_writes_is_not_there_in_the_next() {
    // Counts its calls in a global, in memory, and in memory it has grown.
    let body = format!(
        "(global.set $calls (i64.add (global.get $calls) (i64.const 1)))
         (i64.store (i32.const 1024) (i64.add (i64.load (i32.const 1024)) (i64.const 1)))
         (drop (memory.grow (i32.const 1)))
         {}",
        adjust(
            0,
            "(i64.add (i64.mul (i64.extend_i32_u (memory.size)) (i64.const 10000))
               (i64.add (i64.mul (global.get $calls) (i64.const 100)) (i64.load (i32.const 1024))))"
        )
    );
    let module = load(&engine(), &price_rule("(global $calls (mut i64) (i64.const 0))", &body));
    for call in 0..200 {
        let run = module.run("ord_1", &price_call(3), "{}", u64::MAX);
        let RuleAnswer::Adjust(lines) = run.result.unwrap().0 else { panic!("adjust") };
        assert_eq!(lines[0].discount_minor, 90_101, "call {call}");
    }
}

#[test]
fn the_same_call_gives_the_same_answer_fuel_and_log() {
    let declarations = r#"(import "tillstream:rules/log@1.0.0" "line" (func $line (param i32 i32)))"#;
    let body = "(f32.store (i32.const 4) (f32.div (f32.const 0) (f32.const 0)))
                (call $line (i32.const 0) (i32.const 0)) (i32.const 1000)";
    let bytes = price_rule(declarations, body);
    let first = run(&bytes);
    assert!(first.result.is_ok(), "{first:?}");
    for _ in 0..3 {
        assert_eq!(run(&bytes), first);
    }
}

#[test]
fn a_call_that_never_returns_ends_with_its_fuel() {
    assert_eq!(fault("", "(loop $again (br $again)) unreachable"), Fault::Fuel(11_000_000));
    // Moving much with few instructions costs by the byte.
    let fill =
        "(loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 500000)) (br $again)) unreachable";
    assert_eq!(fault("", fill), Fault::Fuel(11_000_000));
    let copy =
        "(loop $again (memory.copy (i32.const 0) (i32.const 9) (i32.const 500000)) (br $again)) unreachable";
    assert_eq!(fault("", copy), Fault::Fuel(11_000_000));
}

#[test]
fn a_call_that_wants_all_memory_ends_when_it_is_denied() {
    let bomb = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    assert_eq!(fault("", bomb), Fault::Memory(16 << 20));
    let polite =
        "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (i32.const 16)";
    assert!(run(&price_rule("", polite)).result.is_ok(), "a module may live with a refusal");
}

#[test]
fn a_call_that_calls_itself_ends_with_its_stack() {
    assert_eq!(fault("", "(call $decide (local.get 0))"), Fault::Stack);
}

#[test]
fn a_trap_ends_the_call_and_nothing_else() {
    for body in [
        "unreachable",
        "(i32.load (i32.const -4))",
        "(i32.div_s (i32.const 1) (i32.const 0))",
        "(i32.const -8)",
        "(i32.const 3)",
    ] {
        assert!(matches!(fault("", body), Fault::Trap(_)), "{body}");
    }
}

#[test]
fn an_answer_that_does_not_fit_is_no_answer() {
    for body in [
        adjust(3, "(i64.const 5)"),
        adjust(0, "(i64.const -1)"),
        adjust(0, "(i64.const 9223372036854775807)"),
    ] {
        assert!(matches!(fault("", &body), Fault::Invalid(_)), "{body}");
    }
    // A refusal whose code is empty, and one that is no UTF-8.
    let refuse = |length: u32| {
        format!(
            "(i32.store8 (i32.const 16) (i32.const 2))
             (i32.store (i32.const 20) (i32.const 64)) (i32.store (i32.const 24) (i32.const {length}))
             (i32.store8 (i32.const 64) (i32.const 255)) (i32.const 16)"
        )
    };
    assert!(matches!(fault("", &refuse(0)), Fault::Invalid(_)));
    assert!(matches!(fault("", &refuse(1)), Fault::Trap(_)));
    // An answer of a kind that there is not.
    assert!(matches!(fault("", "(i32.store8 (i32.const 16) (i32.const 9)) (i32.const 16)"), Fault::Trap(_)));
}

#[test]
fn an_answer_too_large_is_refused_before_it_is_read() {
    let huge = |count: u32| {
        format!(
            "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 64))
             (i32.store (i32.const 24) (i32.const {count})) (i32.const 16)"
        )
    };
    assert!(matches!(fault("", &huge(12_000)), Fault::Output(_)));
    assert!(matches!(fault("", &huge(u32::MAX)), Fault::Trap(_) | Fault::Output(_)));
}

#[test]
fn the_log_keeps_a_kilobyte_and_costs_fuel() {
    let declarations = r#"(import "tillstream:rules/log@1.0.0" "line" (func $line (param i32 i32)))"#;
    let flood = |times: u32, length: u32| {
        let body = format!(
            "(local $n i32)
             (memory.fill (i32.const 4096) (i32.const 65) (i32.const {length}))
             (loop $again
               (call $line (i32.const 4096) (i32.const {length}))
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $again (i32.lt_u (local.get $n) (i32.const {times}))))
             (i32.const 16)"
        );
        run(&price_rule(declarations, &body))
    };
    let small = flood(3, 10);
    assert_eq!(small.log, "AAAAAAAAAA\n".repeat(3));
    let cut = flood(50, 100);
    assert!(cut.result.is_ok());
    assert_eq!(cut.log.len(), 1 << 10);
    assert!(cut.fuel > 50 * 600, "{}", cut.fuel);
    assert!(flood(10, 50_000).result.is_ok());
    assert_eq!(flood(1_000_000, 50_000).result.unwrap_err(), Fault::Fuel(11_000_000));
    assert!(matches!(flood(1, 400_000).result.unwrap_err(), Fault::Output(_)));
}

#[test]
fn a_large_order_has_larger_limits_and_a_larger_input_is_not_handed_over() {
    let module = load(&engine(), &price_rule("", "(i32.const 16)"));
    let run = module.run("ord_1", &price_call(1_000), "{}", u64::MAX);
    assert!(run.result.is_ok(), "{run:?}");
    assert!(run.input_bytes > Limits::of(0).input_bytes / 2);
    let settings = "x".repeat(70_000);
    let run = module.run("ord_1", &price_call(3), &settings, u64::MAX);
    assert!(matches!(run.result, Err(Fault::Input { .. })));
    assert_eq!(run.fuel, 0);
}

#[test]
fn a_lower_bound_on_fuel_holds() {
    let module = load(&engine(), &price_rule("", "(loop $again (br $again)) unreachable"));
    assert_eq!(module.run("ord_1", &price_call(3), "{}", 5_000).result, Err(Fault::Fuel(5_000)));
}

#[test]
fn a_hook_that_a_module_lacks_is_a_fault_of_the_call() {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8))
        (func (export "tillstream:rules/risk@1.0.0#decide") (param i32) (result i32) (i32.const 16)))"#;
    let module = load(&engine(), &component("risk-rule", text));
    assert!(module.run("ord_1", &price_call(3), "{}", u64::MAX).result.is_err());
}
