//! How often a key, and a tenant with all its keys, may call.
//!
//! The generic cell rate algorithm: what is kept of a caller is the time at which it would be idle again. A caller may use
//! a minute's calls at once, and then comes back at its rate. Each process counts for itself.

use crate::problem::{Code, Problem};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tillstream_schemas::Text;

const MINUTE_NS: u64 = 60_000_000_000;
/// Past so many callers those that are idle are forgotten.
const CALLERS_MAX: usize = 10_000;

/// When callers with a limit are idle again, by name; callers without a limit are not kept.
#[derive(Default)]
pub(crate) struct Rates {
    idle_at_ns: Mutex<FxHashMap<Text, u64>>,
}

impl Rates {
    /// Lets a caller in that may call so often per minute; `rule` says so in words.
    ///
    /// # Errors
    /// [`Code::RateLimited`] with the rule, and with the seconds until it may call again.
    pub fn let_in(
        &self,
        caller: &str,
        requests_per_minute: i64,
        now_ns: u64,
        rule: impl FnOnce() -> String,
    ) -> Result<(), Problem> {
        let counted = self.count(caller, requests_per_minute, now_ns);
        counted.map_err(|seconds| Problem::new(Code::RateLimited, rule()).retry_after(seconds))
    }

    /// Counts a call of a caller that may make so many per minute.
    ///
    /// # Errors
    /// The seconds until it may call again; then the call is not counted.
    fn count(&self, caller: &str, requests_per_minute: i64, now_ns: u64) -> Result<(), u32> {
        let rate = u64::try_from(requests_per_minute).unwrap_or(0).max(1);
        let mut idle = self.idle_at_ns.lock();
        if idle.len() >= CALLERS_MAX && !idle.contains_key(caller) {
            idle.retain(|_, it| *it > now_ns);
        }
        let idle_at_ns = idle.get(caller).copied().unwrap_or(0);
        let next = after_one_more(idle_at_ns, rate, now_ns)?;
        match idle.get_mut(caller) {
            Some(it) => *it = next,
            None => {
                idle.insert(caller.into(), next);
            }
        }
        Ok(())
    }
}

/// When a caller is idle again after one more call, or the seconds until it may make it.
fn after_one_more(idle_at_ns: u64, rate: u64, now_ns: u64) -> Result<u64, u32> {
    let cost_ns = MINUTE_NS / rate;
    let next = idle_at_ns.max(now_ns) + cost_ns;
    let over_ns = next.saturating_sub(now_ns + MINUTE_NS);
    if over_ns > 0 {
        return Err(u32::try_from(over_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_minutes_calls_may_come_at_once_and_then_one_by_one() {
        let rates = Rates::default();
        for _ in 0..60 {
            assert_eq!(rates.count("a", 60, 0), Ok(()));
        }
        assert_eq!(rates.count("a", 60, 0), Err(1));
        assert_eq!(rates.count("b", 60, 0), Ok(()), "callers do not share");
        assert_eq!(rates.count("a", 60, SECOND_NS), Ok(()));
        assert_eq!(rates.count("a", 60, SECOND_NS), Err(1));
        assert_eq!(rates.count("c", 1, 0), Ok(()));
        assert_eq!(rates.count("c", 1, SECOND_NS), Err(59));
    }

    #[test]
    fn idle_callers_are_forgotten_and_busy_ones_are_not() {
        let rates = Rates::default();
        for caller in 0..CALLERS_MAX {
            rates.count(&format!("idle {caller}"), 60, 0).unwrap();
        }
        rates.count("busy", 1, SECOND_NS * 30).unwrap();
        assert!(rates.idle_at_ns.lock().len() == 1, "all others were idle after a second");
        assert!(rates.count("busy", 1, SECOND_NS * 31).is_err());
    }

    proptest! {
        #[test]
        fn whatever_the_pattern_no_window_sees_more_than_two_minutes_worth(
            rate in 1i64..500, gaps in proptest::collection::vec(0u64..3_000_000_000, 1..400),
        ) {
            let rates = Rates::default();
            let (mut now_ns, mut taken) = (0, Vec::new());
            for gap in gaps {
                now_ns += gap;
                match rates.count("a", rate, now_ns) {
                    Ok(()) => taken.push(now_ns),
                    Err(seconds) => {
                        // Whoever comes when it is told to is let in.
                        let at = now_ns + u64::from(seconds) * SECOND_NS;
                        let idle = rates.idle_at_ns.lock()["a"];
                        prop_assert!(after_one_more(idle, rate as u64, at).is_ok());
                    }
                }
            }
            for (at, first) in taken.iter().enumerate() {
                let within = taken[at..].iter().take_while(|it| *it - first < MINUTE_NS).count();
                prop_assert!(within as i64 <= 2 * rate, "{within} calls in a minute at {rate} a minute");
            }
        }
    }
}
