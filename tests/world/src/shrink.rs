//! From a history that fails to a short one that fails.

use crate::history::run;
use crate::plan::{Action, Plan, Step};

/// Leaves out what is not needed for the plan to fail: faults and operators first, then commands, in ever smaller pieces,
/// until nothing can go or `runs_max` histories have run. Tells the plan and how it fails.
pub fn shrink(plan: &Plan, violation: String, runs_max: usize) -> (Plan, String) {
    let mut found = Found { plan: plan.clone(), violation, runs_left: runs_max };
    found.reduce(|it| !matches!(it.action, Action::Client(_)));
    found.reduce(|it| matches!(it.action, Action::Client(_)));
    found.reduce(|_| true);
    (found.plan, found.violation)
}

struct Found {
    plan: Plan,
    violation: String,
    runs_left: usize,
}

impl Found {
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
                match run(&plan, false).violation {
                    Some(violation) => (self.plan, self.violation) = (plan, violation),
                    None => from += piece,
                }
            }
            piece /= 2;
        }
    }
}
