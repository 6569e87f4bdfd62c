//! Orders to try a module on before anybody's order meets it.

use tillstream_rule_engine::{Fault, Module, Run};
use tillstream_schemas::TextMap;
use tillstream_stage::rule::{
    AllocateInput, GoodsLine, Hook, MeasureInput, MeasureLine, PriceInput, RiskInput, RuleCall, RuleLine,
    RuleOrder, ShipInput, ShipLine,
};

/// Lines of the samples: one, a few, and as many as the limits stay fixed for.
const LINES: [usize; 3] = [1, 3, 200];

/// A sample and what a module made of it.
#[derive(Clone, Debug)]
pub struct SampleRun {
    /// The hook.
    pub hook: Hook,
    /// Lines of the sample.
    pub lines: usize,
    /// What became of it.
    pub run: Run,
}

/// Runs a module on every sample of its hooks.
///
/// # Errors
/// The first sample that gave no answer, with its fault. A module is not taken then: an answer that does not fit a plain
/// order fits none.
pub fn dry_run(module: &Module, settings: &str) -> Result<Vec<SampleRun>, (Hook, usize, Fault)> {
    let mut runs = Vec::new();
    for hook in module.hooks().iter() {
        for (lines, call) in sample_calls(hook) {
            let run = module.run("ord_sample", &call, settings, u64::MAX);
            if let Err(fault) = &run.result {
                return Err((hook, lines, fault.clone()));
            }
            runs.push(SampleRun { hook, lines, run });
        }
    }
    Ok(runs)
}

/// The samples of a hook, with their lines.
pub fn sample_calls(hook: Hook) -> Vec<(usize, RuleCall)> {
    LINES.into_iter().map(|lines| (lines, sample(hook, lines))).collect()
}

fn sample(hook: Hook, lines: usize) -> RuleCall {
    let order = order();
    let count = |lines: usize| u32::try_from(lines).unwrap_or(u32::MAX);
    match hook {
        Hook::Price => RuleCall::Price(PriceInput { order, lines: (0..lines).map(price_line).collect() }),
        Hook::Allocate => RuleCall::Allocate(AllocateInput { order, lines: (0..lines).map(goods).collect() }),
        Hook::Risk => RuleCall::Risk(RiskInput {
            order,
            total_minor: 339 * 12,
            units: 12,
            lines: count(lines),
            method: "pm_card_visa".into(),
        }),
        Hook::Ship => {
            let line = |index| ShipLine { goods: goods(index), held: vec![("main".into(), 12)] };
            RuleCall::Ship(ShipInput { order, lines: (0..lines).map(line).collect(), carrier: None })
        }
        Hook::Measure => RuleCall::Measure(MeasureInput {
            order,
            total_minor: 339 * 12,
            lines: (0..lines).map(measure_line).collect(),
        }),
    }
}

fn order() -> RuleOrder {
    let metadata: TextMap =
        [("customer.tier".into(), "gold".into()), ("source".into(), "sample".into())].into();
    RuleOrder {
        // 2010-12-01T08:26:00Z
        placed_at_ms: 1_291_191_960_000,
        currency: "GBP".into(),
        customer: Some("c-sample".into()),
        country: "GB".into(),
        region: None,
        city: Some("London".into()),
        postal_code: Some("E1 6AN".into()),
        metadata,
    }
}

fn sku(index: usize) -> tillstream_schemas::Text {
    format!("SAMPLE-{index}").into()
}

fn goods(index: usize) -> GoodsLine {
    GoodsLine { sku: sku(index), quantity: 12, category: Some("samples".into()) }
}

fn price_line(index: usize) -> RuleLine {
    RuleLine {
        sku: sku(index),
        quantity: 12,
        unit_price_minor: 339,
        discount_minor: 0,
        tax_rate_bp: 2_000,
        category: Some("samples".into()),
    }
}

fn measure_line(index: usize) -> MeasureLine {
    MeasureLine {
        sku: sku(index),
        quantity: 12,
        gross_minor: 339 * 12,
        discount_minor: 0,
        category: Some("samples".into()),
    }
}
