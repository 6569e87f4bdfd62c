//! The circuit breaker: a pure state machine. Times are ms of any clock that does not go back.

/// When the breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Consecutive transport failures that open it; ≥ 1.
    pub failures_max: u32,
    /// They count only when they fall within this time, ms.
    pub window_ms: i64,
    /// How long it stays open before a probe, ms. Also how long a probe may take before another one is sent.
    pub open_ms: i64,
}

impl Default for BreakerSettings {
    /// 50 failures in a row within 10 s open it for 1 s: well under the time over which payment retries, so that an order
    /// survives a short outage.
    fn default() -> Self {
        Self { failures_max: 50, window_ms: 10_000, open_ms: 1_000 }
    }
}

/// Where the breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed {
        /// Failures in a row.
        failures: u32,
        /// When the first of them happened.
        first_at_ms: i64,
    },
    /// Nothing passes.
    Open {
        /// Until then.
        until_ms: i64,
    },
    /// One probe is under way.
    HalfOpen {
        /// When it was sent.
        probe_at_ms: i64,
    },
}

/// Leave to make one call; hand it back with the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Leave {
    epoch: u64,
}

/// A circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: BreakerState,
    /// Grows with every change of state, so that the outcome of a call from an earlier state is not counted.
    epoch: u64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: BreakerState::Closed { failures: 0, first_at_ms: 0 }, epoch: 0 }
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// May a call be made now? `None`: no, answer at once.
    pub fn admit(&mut self, now_ms: i64) -> Option<Leave> {
        match self.state {
            BreakerState::Closed { .. } => {}
            BreakerState::Open { until_ms } if now_ms >= until_ms => {
                self.go_to(BreakerState::HalfOpen { probe_at_ms: now_ms });
            }
            // A probe that was never reported (its caller was dropped) must not keep the breaker half open for ever.
            BreakerState::HalfOpen { probe_at_ms } if now_ms - probe_at_ms >= self.settings.open_ms => {
                self.go_to(BreakerState::HalfOpen { probe_at_ms: now_ms });
            }
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => return None,
        }
        Some(Leave { epoch: self.epoch })
    }

    /// A call has ended. Outcomes of calls that began in an earlier state are ignored.
    pub fn report(&mut self, leave: Leave, failed: bool, now_ms: i64) {
        if leave.epoch != self.epoch {
            return;
        }
        match (self.state, failed) {
            (BreakerState::Closed { .. }, false) => {
                self.state = BreakerState::Closed { failures: 0, first_at_ms: now_ms };
            }
            (BreakerState::Closed { failures, first_at_ms }, true) => {
                let in_window = failures > 0 && now_ms - first_at_ms <= self.settings.window_ms;
                let (failures, first_at_ms) =
                    if in_window { (failures + 1, first_at_ms) } else { (1, now_ms) };
                if failures >= self.settings.failures_max {
                    self.go_to(BreakerState::Open { until_ms: now_ms + self.settings.open_ms });
                } else {
                    self.state = BreakerState::Closed { failures, first_at_ms };
                }
            }
            (BreakerState::HalfOpen { .. }, false) => {
                self.go_to(BreakerState::Closed { failures: 0, first_at_ms: now_ms });
            }
            (BreakerState::HalfOpen { .. }, true) => {
                self.go_to(BreakerState::Open { until_ms: now_ms + self.settings.open_ms });
            }
            (BreakerState::Open { .. }, _) => {}
        }
    }

    fn go_to(&mut self, state: BreakerState) {
        self.state = state;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings { failures_max: 3, window_ms: 1_000, open_ms: 500 };

    /// `(at, failed)` calls made one after the other; `None` in the expectation: refused.
    fn run(calls: &[(i64, bool)]) -> Vec<bool> {
        let mut breaker = Breaker::new(SETTINGS);
        calls
            .iter()
            .map(|(now_ms, failed)| match breaker.admit(*now_ms) {
                Some(leave) => {
                    breaker.report(leave, *failed, *now_ms);
                    true
                }
                None => false,
            })
            .collect()
    }

    #[test]
    fn opens_and_closes_as_the_table_says() {
        const OK: bool = false;
        const FAIL: bool = true;
        type Case<'a> = (&'a str, &'a [(i64, bool)], &'a [bool]);
        let cases: [Case<'_>; 6] = [
            ("two failures do not open it", &[(0, FAIL), (1, FAIL), (2, OK)], &[true, true, true]),
            ("three do", &[(0, FAIL), (1, FAIL), (2, FAIL), (3, OK)], &[true, true, true, false]),
            (
                "a success in between starts the count again",
                &[(0, FAIL), (1, FAIL), (2, OK), (3, FAIL), (4, FAIL), (5, OK)],
                &[true; 6],
            ),
            (
                "failures far apart do not add up",
                &[(0, FAIL), (600, FAIL), (1_200, FAIL), (1_300, OK)],
                &[true; 4],
            ),
            (
                "a good probe closes it",
                &[(0, FAIL), (1, FAIL), (2, FAIL), (501, OK), (502, OK), (503, FAIL), (504, OK)],
                &[true, true, true, false, true, true, true],
            ),
            (
                "a bad probe opens it again",
                &[(0, FAIL), (1, FAIL), (2, FAIL), (502, FAIL), (503, OK), (1_001, OK), (1_002, OK)],
                &[true, true, true, true, false, false, true],
            ),
        ];
        for (name, calls, expected) in cases {
            assert_eq!(run(calls), expected, "{name}");
        }
    }

    #[test]
    fn only_one_probe_goes_out_until_it_is_overdue() {
        let mut breaker = Breaker::new(SETTINGS);
        for now_ms in 0..3 {
            let leave = breaker.admit(now_ms).unwrap();
            breaker.report(leave, true, now_ms);
        }
        let first = breaker.admit(600).unwrap();
        assert_eq!(breaker.admit(700), None);
        let second = breaker.admit(1_100).unwrap();
        breaker.report(first, false, 1_101);
        assert_eq!(
            breaker.state(),
            BreakerState::HalfOpen { probe_at_ms: 1_100 },
            "the overdue probe counts no more"
        );
        breaker.report(second, false, 1_102);
        assert!(matches!(breaker.state(), BreakerState::Closed { .. }));
    }

    #[test]
    fn late_outcomes_of_calls_made_while_closed_do_not_judge_the_probe() {
        let mut breaker = Breaker::new(SETTINGS);
        let late = breaker.admit(0).unwrap();
        for now_ms in 0..3 {
            let leave = breaker.admit(now_ms).unwrap();
            breaker.report(leave, true, now_ms);
        }
        let probe = breaker.admit(600).unwrap();
        breaker.report(late, false, 601);
        assert!(matches!(breaker.state(), BreakerState::HalfOpen { .. }));
        breaker.report(probe, true, 602);
        assert_eq!(breaker.state(), BreakerState::Open { until_ms: 1_102 });
    }

    proptest! {
        /// While every call fails, at most `failures_max` calls and one probe per `open_ms` reach the provider; and it
        /// always recovers once the provider does.
        #[test]
        fn shields_a_dead_provider_and_recovers(steps in prop::collection::vec(0i64..200, 1..300)) {
            let mut breaker = Breaker::new(SETTINGS);
            let mut now_ms = 0;
            let mut calls = 0;
            for step in steps {
                now_ms += step;
                if let Some(leave) = breaker.admit(now_ms) {
                    calls += 1;
                    breaker.report(leave, true, now_ms);
                }
            }
            // Gaps are under 200 ms, so three failures always fall within the window.
            prop_assert!(calls <= 3 + now_ms / SETTINGS.open_ms);
            now_ms += SETTINGS.open_ms;
            let leave = breaker.admit(now_ms);
            prop_assert!(leave.is_some());
            if let Some(leave) = leave {
                breaker.report(leave, false, now_ms);
            }
            prop_assert!(matches!(breaker.state(), BreakerState::Closed { .. }), "it recovers");
        }
    }
}
