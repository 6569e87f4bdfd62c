//! A tenant's share of fuel per second, so that one tenant's rules cannot starve a partition.

/// What a call may take beside its fuel before its time counts: to make a sandbox and drop it, some 7 µs.
const UNCOUNTED_NS: u64 = 20_000;

/// A bucket that fills at a rate up to one second's worth, and is emptied by what calls used.
///
/// A call may begin while anything is in it, and may then overdraw it by what one call may use: the debt is paid before
/// the next one begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    per_second: i64,
    left: i64,
    at_ns: u64,
}

impl Share {
    pub(crate) fn new(per_second: u64, now_ns: u64) -> Self {
        let per_second = i64::try_from(per_second).unwrap_or(i64::MAX);
        Self { per_second, left: per_second, at_ns: now_ns }
    }

    /// Whether a call may begin.
    pub(crate) fn may_begin(&mut self, now_ns: u64) -> bool {
        let elapsed_ns = now_ns.saturating_sub(self.at_ns);
        let earned = i128::from(self.per_second) * i128::from(elapsed_ns) / 1_000_000_000;
        // What is too little to count stays on the clock.
        if earned > 0 {
            self.at_ns = now_ns;
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(earned).min(self.per_second);
        }
        self.left > 0
    }

    /// Whether half of what there may be is left: enough for a call that nobody waits for.
    pub(crate) fn has_spare(&mut self, now_ns: u64) -> bool {
        self.may_begin(now_ns) && self.left > self.per_second / 2
    }

    /// What a call used: its fuel, or a unit for each nanosecond where that is more. A unit takes some 0.6 ns; of a module
    /// that reads where no cache helps, 5 (`make hostile-rules`).
    pub(crate) fn take(&mut self, fuel: u64, took_ns: u64) {
        let used = fuel.max(took_ns.saturating_sub(UNCOUNTED_NS));
        self.left = self.left.saturating_sub(i64::try_from(used).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_share_is_used_up_and_comes_back() {
        let mut share = Share::new(100, 0);
        assert!(share.may_begin(0));
        share.take(150, 0);
        assert!(!share.may_begin(0), "used up, and 50 in debt");
        assert!(!share.may_begin(SECOND / 2), "the debt is paid, nothing more");
        assert!(share.may_begin(SECOND / 2 + SECOND / 100));
        share.take(1, 0);
        assert!(share.may_begin(100 * SECOND));
        share.take(100, 0);
        assert!(!share.may_begin(100 * SECOND), "idle time earns one second's worth at most");
    }

    #[test]
    fn what_nobody_waits_for_leaves_half_of_the_share() {
        let mut share = Share::new(100, 0);
        share.take(49, 0);
        assert!(share.has_spare(0));
        share.take(1, 0);
        assert!(!share.has_spare(0));
        assert!(share.may_begin(0), "what answers an order may take the rest");
        assert!(share.has_spare(SECOND / 50), "and it comes back");
    }

    #[test]
    fn a_call_that_takes_longer_than_its_fuel_pays_for_its_time() {
        let mut share = Share::new(1_000_000, 0);
        share.take(1, UNCOUNTED_NS);
        assert_eq!(share.left, 999_999, "the host's own part is not counted");
        share.take(11, UNCOUNTED_NS + 900_000);
        assert_eq!(share.left, 99_999);
        share.take(99_999, 90_000);
        assert!(!share.may_begin(0), "more fuel than time");
    }

    #[test]
    fn many_short_looks_earn_as_much_as_one_long() {
        let mut share = Share::new(1_000, 0);
        share.take(2_000, 0);
        for step in 1..=1_001 {
            share.may_begin(step * SECOND / 1_000);
        }
        assert!(share.may_begin(SECOND + SECOND / 500));
    }
}
