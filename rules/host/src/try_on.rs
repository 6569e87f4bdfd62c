//! A version asked what its tenant's rules were asked of late, beside the active version; nothing comes of what they say.

use crate::compare::{Said, compare};
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_rule_engine::{Module, Run};
use tillstream_schemas::Text;
use tillstream_schemas::rules::{RuleFailures, RuleInputs, RuleTriedHook};
use tillstream_stage::rule::{Hook, Hooks, RuleAnswer, RuleCall};

/// Inputs of a hook, at most.
pub const RECENT_INPUTS_MAX: usize = 64;
/// Units of fuel that all calls of one dry run may use together: some seconds of a module that uses all it may.
const FUEL_MAX: u64 = 400_000_000;

/// What a rule was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentInput {
    /// The order.
    pub order_id: Text,
    /// The question.
    pub call: RuleCall,
}

/// What was asked at a hook of late, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentInputs {
    /// The hook.
    pub hook: Hook,
    /// Where they are from.
    pub source: RuleInputs,
    /// The inputs.
    pub inputs: Vec<RecentInput>,
}

/// A module and what it is told beside the order.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub module: Arc<Module>,
    pub hooks: Hooks,
    pub settings: Text,
}

/// What the version made of the inputs of each hook.
pub(crate) fn try_on(
    tried: &Candidate,
    standing: Option<&Candidate>,
    recent: &[RecentInputs],
) -> Vec<RuleTriedHook> {
    let mut fuel_left = FUEL_MAX;
    recent.iter().map(|it| hook(tried, standing, it, &mut fuel_left)).collect()
}

fn hook(
    tried: &Candidate,
    standing: Option<&Candidate>,
    recent: &RecentInputs,
    fuel_left: &mut u64,
) -> RuleTriedHook {
    let standing = standing.filter(|it| it.hooks.contains(recent.hook));
    let (mut fuels, mut failures) = (Vec::new(), BTreeMap::<&'static str, i64>::new());
    let mut changed = 0;
    for RecentInput { order_id, call } in &recent.inputs {
        if *fuel_left == 0 {
            break;
        }
        let run = run(tried, order_id, call, fuel_left);
        fuels.push(run.fuel);
        match run.result {
            Err(fault) => *failures.entry(fault.outcome()).or_default() += 1,
            Ok(said) => {
                // Where the active version gives no answer there is nothing to differ from.
                let other: Option<Said> = match standing {
                    None => Some((RuleAnswer::Pass, None)),
                    Some(it) => run_of(it, order_id, call, fuel_left),
                };
                changed += i64::from(other.is_some_and(|it| compare(call, &it, &said).differs));
            }
        }
    }
    fuels.sort_unstable();
    let fuel = |at: usize| fuels.get(at).map_or(0, |it| i64::try_from(*it).unwrap_or(i64::MAX));
    let failure = |(outcome, calls)| RuleFailures { outcome: Text::const_new(outcome), calls };
    RuleTriedHook {
        hook: Text::const_new(recent.hook.as_str()),
        inputs: recent.source,
        calls: i64::try_from(fuels.len()).unwrap_or(i64::MAX),
        failures: failures.into_iter().map(failure).collect(),
        fuel_p50: fuel(fuels.len().saturating_sub(1) / 2),
        fuel_max: fuel(fuels.len().saturating_sub(1)),
        changed,
    }
}

fn run(it: &Candidate, order_id: &str, call: &RuleCall, fuel_left: &mut u64) -> Run {
    let run = it.module.run(order_id, call, &it.settings, u64::MAX);
    *fuel_left = fuel_left.saturating_sub(run.fuel);
    run
}

fn run_of(it: &Candidate, order_id: &str, call: &RuleCall, fuel_left: &mut u64) -> Option<Said> {
    run(it, order_id, call, fuel_left).result.ok()
}
