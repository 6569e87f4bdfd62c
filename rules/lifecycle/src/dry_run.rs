//! What a version made of its tenant's recent inputs, and whether that speaks against it.

use tillstream_schemas::rules::RuleTried;

/// The last dry run of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// When it was said, ms since the epoch.
    pub at_ms: i64,
    /// What came of it.
    pub tried: RuleTried,
}

impl DryRun {
    /// Calls, and how many of them gave no answer.
    pub fn counted(&self) -> (i64, i64) {
        self.tried.hooks.iter().fold((0, 0), |sum, it| (sum.0 + it.calls, sum.1 + it.failed()))
    }

    /// Whether more than half of the inputs of any one hook got no answer: an order meets each hook by itself, so many good
    /// answers of one do not make up for another.
    pub fn fails_on_most(&self) -> bool {
        self.tried.hooks.iter().any(|it| it.failed() * 2 > it.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_schemas::rules::{RuleFailures, RuleInputs, RuleTriedHook};

    fn run(hooks: &[(i64, &[i64])]) -> DryRun {
        let hook = |(calls, failures): &(i64, &[i64])| RuleTriedHook {
            hook: "price".into(),
            inputs: RuleInputs::Samples,
            calls: *calls,
            failures: failures.iter().map(|it| RuleFailures { outcome: "trap".into(), calls: *it }).collect(),
            fuel_p50: 1,
            fuel_max: 1,
            changed: 0,
        };
        let hooks = hooks.iter().map(hook).collect();
        DryRun { at_ms: 1, tried: RuleTried { version: 1, settings: "{}".into(), against: None, hooks } }
    }

    #[test]
    fn more_than_half_of_one_hooks_inputs_is_most() {
        for (hooks, most) in [
            (&[][..], false),
            (&[(0, &[][..])][..], false),
            (&[(10, &[5][..])][..], false),
            (&[(10, &[3, 3][..])][..], true),
            (&[(100, &[][..]), (1, &[1][..])][..], true),
        ] {
            assert_eq!(run(hooks).fails_on_most(), most, "{hooks:?}");
        }
        assert_eq!(run(&[(10, &[3, 3]), (5, &[1])]).counted(), (15, 7));
    }
}
