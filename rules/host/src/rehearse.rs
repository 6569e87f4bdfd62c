//! A version that may not be active, asked in its place among the tenant's rules: for trying, never for an order that
//! is under way. It takes no share of the tenant's fuel, and its failures count for no breaker.

use crate::compare::Said;
use crate::compose::ask_in_turn;
use crate::host::fall_back;
use crate::table::InForce;
use std::sync::Arc;
use tillstream_runtime::Clock;
use tillstream_stage::rule::{RuleAnswer, RuleCall, RuleRun, Verdict};

/// Rules to ask, one of them in question.
pub struct Rehearsal {
    /// By their place: the order of the rule, then its name.
    rules: Vec<(i32, InForce)>,
    /// Which one is in question.
    candidate: Option<usize>,
    clock: Arc<dyn Clock>,
}

impl Rehearsal {
    /// The others, and the one in question at its place among them, if there is one.
    pub(crate) fn new(
        mut rules: Vec<(i32, InForce)>,
        candidate: Option<(i32, InForce)>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let place = |it: &(i32, InForce)| (it.0, it.1.rule.name.clone());
        rules.sort_by_key(place);
        let at = candidate.map(|candidate| {
            let at = rules.partition_point(|it| place(it) < place(&candidate));
            rules.insert(at, candidate);
            at
        });
        Self { rules, candidate: at, clock }
    }

    /// What they say together, and what became of the call of the one in question: `None` when a rule before it
    /// refused.
    pub fn ask(&self, order_id: &str, call: &RuleCall) -> (Option<Verdict>, Option<RuleRun>) {
        let mut run = None;
        let of_hook = self.rules.iter().enumerate().filter(|(_, (_, it))| it.hooks.contains(call.hook()));
        let verdict = ask_in_turn(call, of_hook, |(at, (_, it)), call| {
            let (said, its_run) = self.ask_one(it, order_id, call);
            if self.candidate == Some(at) {
                run = Some(its_run);
            }
            Some((&it.rule, said))
        });
        (verdict, run)
    }

    fn ask_one(&self, it: &InForce, order_id: &str, call: &RuleCall) -> (Said, RuleRun) {
        let begun_ns = self.clock.monotonic_ns();
        let Some(module) = &it.module else {
            let run = RuleRun { outcome: "unavailable", fuel: 0, ns: 0 };
            return (fall_back(it, run.outcome, call.hook()), run);
        };
        let run = module.run(order_id, call, &it.settings, u64::MAX);
        let ns = self.clock.monotonic_ns().saturating_sub(begun_ns);
        let (outcome, said) = match run.result {
            Ok((RuleAnswer::Pass, None)) => ("passed", (RuleAnswer::Pass, None)),
            Ok(said) => ("answered", said),
            Err(fault) => (fault.outcome(), fall_back(it, fault.outcome(), call.hook())),
        };
        (said, RuleRun { outcome, fuel: run.fuel, ns })
    }
}
