//! Takes a rule out that fails too often. Counts calls, not time: the same calls give the same answer.

use tillstream_stage::rule::RULE_OUTCOMES;

/// Calls that are looked at together.
const WINDOW_CALLS: u32 = 100;
/// Failures at which a rule is taken out before its window is full: it has not worked at all.
const FIRST_FAILURES: u32 = 20;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub calls: u32,
    pub failures: u32,
    /// How most of them failed.
    pub outcome: &'static str,
}

/// The calls of one activation in one process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Breaker {
    calls: u32,
    failures: [u32; RULE_OUTCOMES.len()],
    tripped: bool,
}

impl Breaker {
    /// Takes a call's outcome in; answers once, when more than half of a window failed or its first calls all did.
    pub(crate) fn note(&mut self, outcome: &'static str, failed: bool) -> Option<Finding> {
        if self.tripped {
            return None;
        }
        self.calls += 1;
        if failed && let Some(index) = RULE_OUTCOMES.iter().position(|it| *it == outcome) {
            self.failures[index] += 1;
        }
        let failures: u32 = self.failures.iter().sum();
        let all_failed = failures == self.calls && failures >= FIRST_FAILURES;
        let most_failed = self.calls >= WINDOW_CALLS && failures * 2 > self.calls;
        if all_failed || most_failed {
            self.tripped = true;
            let worst = (0..RULE_OUTCOMES.len()).max_by_key(|it| self.failures[*it]).unwrap_or(0);
            return Some(Finding { calls: self.calls, failures, outcome: RULE_OUTCOMES[worst] });
        }
        if self.calls >= WINDOW_CALLS {
            *self = Self::default();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(calls: impl IntoIterator<Item = bool>) -> Vec<Finding> {
        let mut breaker = Breaker::default();
        calls
            .into_iter()
            .filter_map(|failed| breaker.note(if failed { "trap" } else { "answered" }, failed))
            .collect()
    }

    #[test]
    fn a_rule_that_never_works_is_taken_out_soon_and_once() {
        assert_eq!(run([true; 500]), [Finding { calls: 20, failures: 20, outcome: "trap" }]);
    }

    #[test]
    fn a_rule_that_fails_for_most_orders_is_taken_out_with_its_window() {
        let found = run((0..300).map(|it| it % 5 != 0));
        assert_eq!(found, [Finding { calls: 100, failures: 80, outcome: "trap" }]);
    }

    #[test]
    fn a_rule_that_fails_for_some_orders_stays() {
        assert_eq!(run((0..10_000).map(|it| it % 2 == 0)), []);
        assert_eq!(run([true; 19].into_iter().chain([false; 100])), []);
    }
}
