//! Rule modules from text, for tests: they need no compiler for the sandbox's target, and can mean harm.
#![allow(clippy::expect_used, reason = "a test's module that cannot be made fails the test")]

mod wastes;

pub use wastes::{WAITS, WASTES, WHOLE_BUDGET, Waste};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../../rules/wit/rules.wit");
const ENGINE_WIT: &str = include_str!("../../../rules/javascript/engine/wit/engine.wit");

/// A component from a core module in text, for one of the worlds of `rules/wit`.
pub fn component(world: &str, text: &str) -> Vec<u8> {
    of_world(&[WIT], world, text)
}

/// A price rule that asks for what only an engine of the host may call, and calls it.
pub fn poses_as_an_engine() -> Vec<u8> {
    let import = r#"(import "tillstream:javascript/host@1.0.0" "threw" (func $threw (param i32 i32)))"#;
    let text = price_text(import, "(call $threw (i32.const 0) (i32.const 0)) (i32.const 16)");
    let posing = "world posing { import host; export tillstream:rules/price@1.0.0; }";
    of_world(&[WIT, &format!("{ENGINE_WIT}{posing}")], "posing", &text)
}

/// A component for a world of the last of these packages.
fn of_world(packages: &[&str], world: &str, text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).expect("a module in text");
    let mut resolve = Resolve::default();
    let packages = packages.iter().map(|it| resolve.push_str("world.wit", it).expect("a package"));
    let package = packages.last().expect("one package at least");
    let world = resolve.select_world(&[package], Some(world)).expect("a world of the package");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a world to embed");
    encode(&module)
}

/// What stands in text, as it is: a component, or a core module.
pub fn plain(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("text that can be read")
}

/// A component from a core module that carries its world with it.
pub fn encode(module: &[u8]) -> Vec<u8> {
    let encoder = ComponentEncoder::default().module(module).expect("a module with its world");
    encoder.validate(true).encode().expect("a component")
}

/// A price rule whose `decide` has this body; the body leaves the answer's address. What it declares comes before.
pub fn price_rule(declarations: &str, body: &str) -> Vec<u8> {
    component("price-rule", &price_text(declarations, body))
}

/// The core module of [`price_rule`].
pub fn price_text(declarations: &str, body: &str) -> String {
    format!(
        r#"(module
  {declarations}
  (memory (export "memory") 8)
  (global $next (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get 2))))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func $decide (export "tillstream:rules/price@1.0.0#decide") (param i32) (result i32)
    {body}))"#
    )
}

/// Takes so many minor units off the first line.
pub fn off(minor: i64) -> Vec<u8> {
    let body = format!(
        "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 64))
         (i32.store (i32.const 24) (i32.const 1)) (i32.store (i32.const 64) (i32.const 0))
         (i64.store (i32.const 72) (i64.const {minor})) (i32.const 16)"
    );
    price_rule("", &body)
}

/// Has nothing to say about an order with a customer, as the orders that an upload is tried on have one; does `harm` to
/// every order without. Whether there is a customer is the byte at 24 of the request.
pub fn harms_guests(declarations: &str, harm: &str) -> Vec<u8> {
    let body = format!(
        "(if (i32.eqz (i32.load8_u (i32.add (local.get 0) (i32.const 24)))) (then {harm})) (i32.const 16)"
    );
    price_rule(declarations, &body)
}

/// A way to do harm, and the outcome by which it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Harm {
    /// What it does, for people.
    pub name: &'static str,
    /// What the module declares for it.
    pub declarations: &'static str,
    /// The instructions.
    pub body: &'static str,
    /// The `outcome` of `tillstream_rule_calls_total`.
    pub outcome: &'static str,
}

/// One harm of every kind.
pub const HARMS: [Harm; 8] = [
    Harm { name: "it traps", declarations: "", body: "unreachable", outcome: "trap" },
    Harm { name: "it never returns", declarations: "", body: "(loop $l (br $l))", outcome: "fuel" },
    Harm {
        name: "it takes all memory",
        declarations: "",
        body: "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
        outcome: "memory",
    },
    Harm {
        name: "it calls itself for ever",
        declarations: "",
        body: "(drop (call $decide (local.get 0)))",
        outcome: "stack",
    },
    Harm {
        name: "it floods the log",
        declarations: r#"(import "tillstream:rules/log@1.0.0" "line" (func $line (param i32 i32)))"#,
        body: "(loop $l (call $line (i32.const 0) (i32.const 60000)) (br $l))",
        outcome: "fuel",
    },
    Harm {
        name: "it logs a line as long as its memory",
        declarations: r#"(import "tillstream:rules/log@1.0.0" "line" (func $line (param i32 i32)))"#,
        body: "(call $line (i32.const 0) (i32.const 500000))",
        outcome: "output",
    },
    Harm {
        name: "it answers with a list that ends outside its memory",
        declarations: "",
        body: "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 64))
               (i32.store (i32.const 24) (i32.const 2000000000))",
        outcome: "trap",
    },
    Harm {
        name: "it takes off less than nothing",
        declarations: "",
        body: "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 64))
               (i32.store (i32.const 24) (i32.const 1)) (i32.store (i32.const 64) (i32.const 0))
               (i64.store (i32.const 72) (i64.const -5))",
        outcome: "invalid",
    },
];
