//! Modules from text, and orders to ask them about.
#![allow(dead_code, reason = "every test takes its part")]

use tillstream_rule_engine::{Module, Pool, RuleEngine};
use tillstream_stage::rule::{PriceInput, RuleCall, RuleLine, RuleOrder};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Slots enough for a test, without the address space of a server.
pub fn engine() -> RuleEngine {
    RuleEngine::new(Pool::Slots(4)).unwrap()
}

/// A component from a core module in text, for one of the worlds of `rules/wit`.
pub fn component(world: &str, text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    encode(&module)
}

/// A component from a core module that carries its world with it.
pub fn encode(module: &[u8]) -> Vec<u8> {
    ComponentEncoder::default().module(module).unwrap().validate(true).encode().unwrap()
}

/// A price rule whose `decide` has this body; the body leaves the answer's address. What it declares comes before.
pub fn price_rule(declarations: &str, body: &str) -> Vec<u8> {
    component("price-rule", &price_text(declarations, body))
}

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

pub fn load(engine: &RuleEngine, bytes: &[u8]) -> Module {
    let key = tillstream_rule_engine::ArtifactKey::new([7; 32]);
    let code = engine.compile(bytes).unwrap();
    key.open(engine, "digest", &key.seal(engine, "digest", &code)).unwrap()
}

/// An order of so many lines, with a customer and metadata.
pub fn price_call(lines: usize) -> RuleCall {
    let line = |index: usize| RuleLine {
        sku: format!("7105{index}").into(),
        quantity: 12,
        unit_price_minor: 339,
        discount_minor: 0,
        tax_rate_bp: 2_000,
        category: Some("lanterns".into()),
    };
    let order = RuleOrder {
        placed_at_ms: 1_291_192_000_000,
        currency: "GBP".into(),
        customer: Some("c-17850".into()),
        country: "GB".into(),
        metadata: [("source".into(), "import".into()), ("customer.tier".into(), "gold".into())].into(),
        ..RuleOrder::default()
    };
    RuleCall::Price(PriceInput { order, lines: (0..lines).map(line).collect() })
}
