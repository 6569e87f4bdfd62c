//! From a history that fails to a short one that fails.

use crate::plan::{Action, Plan, Step};

/// Leaves out what is not needed for the plan to fail: faults and operators first, then commands, in ever smaller pieces,
/// until nothing can go or `runs_max` histories have run. `fails` runs one and tells how it fails, if it does. Tells the
/// plan and how it fails.
pub fn shrink(
    plan: &Plan,
    violation: String,
    runs_max: usize,
    fails: impl Fn(&Plan) -> Option<String>,
) -> (Plan, String) {
    let mut found = Found { plan: plan.clone(), violation, runs_left: runs_max, fails };
    found.reduce(|it| !matches!(it.action, Action::Client(_)));
    found.reduce(|it| matches!(it.action, Action::Client(_)));
    found.reduce(|_| true);
    (found.plan, found.violation)
}

struct Found<F> {
    plan: Plan,
    violation: String,
    runs_left: usize,
    fails: F,
}

impl<F: Fn(&Plan) -> Option<String>> Found<F> {
    /// Removes pieces of the steps that `may_go`.
    fn reduce(&mut self, may_go: impl Fn(&Step) -> bool) {
        let count = self.plan.steps.iter().filter(|it| may_go(it)).count();
        let mut piece = count.div_ceil(2);
        while piece > 0 {
            let mut from = 0;
            loop {
                let candidates: Vec<u32> =
                    self.plan.steps.iter().filter(|it| may_go(it)).map(|it| it.number).collect();
                let Some(gone) = candidates.get(from..(from + piece).min(candidates.len())) else { break };
                if gone.is_empty() {
                    break;
                }
                if self.runs_left == 0 {
                    return;
                }
                self.runs_left -= 1;
                let mut plan = self.plan.clone();
                plan.steps.retain(|it| !gone.contains(&it.number));
                match (self.fails)(&plan) {
                    Some(violation) => (self.plan, self.violation) = (plan, violation),
                    None => from += piece,
                }
            }
            piece /= 2;
        }
    }
}
