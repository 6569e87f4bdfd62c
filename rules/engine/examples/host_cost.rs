//! What a call of a rule costs the host: a fresh sandbox per call, beside the same rule as a native function.
//!
//! `cargo run --release -p tillstream-rule-engine --example host_cost -- MODULE [CALLS]`; `make bench-rules` does it.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and reads the clock"
)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tillstream_rule_engine::{ArtifactKey, Module, Pool, RuleEngine, Source, digest};
use tillstream_stage::rule::{LineAdjustment, PriceInput, RuleAnswer, RuleCall, RuleLine, RuleOrder};

const CALLS: usize = 200_000;
const WARM_UP: usize = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("name a module")?;
    let calls = arguments.next().map_or(Ok(CALLS), |it| it.parse())?;
    let bytes = std::fs::read(&path)?;
    let engine = RuleEngine::new(Pool::Slots(16))?;
    let begun = Instant::now();
    let code = engine.compile(&bytes)?;
    let compiled = begun.elapsed();
    let (key, digest) = (ArtifactKey::new([0; 32]), digest(&bytes));
    let sealed = key.seal(&engine, &digest, &code);
    let begun = Instant::now();
    let module = key.open(&engine, &digest, &sealed)?;
    let module = match Source::read(&bytes)? {
        Some(source) => module.with_source(&source)?,
        None => module,
    };
    println!("{path}: {} bytes, compiled in {compiled:.1?}, loaded in {:.1?}", bytes.len(), begun.elapsed());

    let call = three_lines();
    let RuleCall::Price(input) = &call else { return Err("a price call".into()) };
    let native = native_rule(input);
    let run = module.run("ord_bench", &call, "{}", u64::MAX);
    let (answer, _) = run.result.clone()?;
    if answer != native {
        return Err(format!("the module says {answer:?}, the native function {native:?}").into());
    }
    println!("fuel {} units, memory {} bytes", run.fuel, run.memory_bytes);
    report("native function", time(calls, || drop(black_box(native_rule(black_box(input))))));
    report("fresh sandbox", time(calls, || one(&module, &call)));
    Ok(())
}

fn one(module: &Module, call: &RuleCall) {
    drop(black_box(module.run("ord_bench", black_box(call), "{}", u64::MAX)));
}

/// The example `volume-discount`, without a sandbox.
fn native_rule(input: &PriceInput) -> RuleAnswer {
    let adjustment = |it: &RuleLine| {
        let left = it.unit_price_minor * it.quantity - it.discount_minor;
        let discount_minor = if it.quantity >= 10 { left / 10 } else { 0 };
        LineAdjustment { discount_minor, tax_rate_bp: None }
    };
    RuleAnswer::Adjust(input.lines.iter().map(adjustment).collect())
}

fn three_lines() -> RuleCall {
    let line = |index: i64| RuleLine {
        sku: format!("7105{index}").into(),
        quantity: 6 * (index + 1),
        unit_price_minor: 350,
        discount_minor: 0,
        tax_rate_bp: 2_000,
        category: Some("lanterns".into()),
    };
    let order = RuleOrder {
        placed_at_ms: 1_291_191_960_000,
        currency: "GBP".into(),
        customer: Some("c-17850".into()),
        country: "GB".into(),
        metadata: [("source".into(), "bench".into())].into(),
        ..RuleOrder::default()
    };
    RuleCall::Price(PriceInput { order, lines: (0..3).map(line).collect() })
}

fn time(calls: usize, mut run: impl FnMut()) -> Vec<Duration> {
    for _ in 0..WARM_UP.min(calls) {
        run();
    }
    let mut took: Vec<Duration> = (0..calls)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    took
}

fn report(name: &str, took: Vec<Duration>) {
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{name:<16} p50 {:>9.2?}  p90 {:>9.2?}  p99 {:>9.2?}  p99.9 {:>9.2?}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999)
    );
}
