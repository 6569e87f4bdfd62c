//! Engines, and orders to ask modules about.
#![allow(dead_code, reason = "every test takes its part")]

use tillstream_rule_engine::{Module, Pool, RuleEngine};
use tillstream_stage::rule::{PriceInput, RuleCall, RuleLine, RuleOrder};

/// Slots enough for a test, without the address space of a server.
pub fn engine() -> RuleEngine {
    RuleEngine::new(Pool::Slots(4)).unwrap()
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
