//! When a delivery that failed is tried again.

use thiserror::Error;

/// The longest a receiver may put a delivery off with `Retry-After`, ms.
pub const RETRY_AFTER_MAX_MS: i64 = 24 * 3_600_000;
/// The longest wait of a schedule, ms.
const WAIT_MAX_MS: i64 = 7 * 24 * 3_600_000;
/// The most attempts of a schedule.
const ATTEMPTS_MAX: usize = 50;

/// Why waits cannot be a schedule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// Too many.
    #[error("{0} waits are more than {ATTEMPTS_MAX}")]
    TooMany(usize),
    /// One is out of range.
    #[error("a wait of {0} ms is not from 1 ms to 7 days")]
    OutOfRange(i64),
}

/// The waits after each failed attempt; after the last the delivery is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<i64>);

impl Default for Schedule {
    /// What Standard Webhooks recommends: at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h:
    /// ten attempts within a good three days.
    fn default() -> Self {
        const SECOND: i64 = 1_000;
        const MINUTE: i64 = 60 * SECOND;
        const HOUR: i64 = 60 * MINUTE;
        Self(vec![
            5 * SECOND,
            5 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ])
    }
}

impl Schedule {
    /// A schedule of these waits, ms.
    ///
    /// # Errors
    /// [`ScheduleError`]
    pub fn new(waits_ms: Vec<i64>) -> Result<Self, ScheduleError> {
        if waits_ms.len() >= ATTEMPTS_MAX {
            return Err(ScheduleError::TooMany(waits_ms.len()));
        }
        match waits_ms.iter().find(|it| !(1..=WAIT_MAX_MS).contains(*it)) {
            Some(wait) => Err(ScheduleError::OutOfRange(*wait)),
            None => Ok(Self(waits_ms)),
        }
    }

    /// How many attempts a delivery has.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.0.len() + 1).unwrap_or(u32::MAX)
    }

    /// How long to wait after `failed` attempts, ms; `None`: it is given up. Up to a fifth is added or taken away, by
    /// the message's id and the attempt, so that what failed together does not come back together. A receiver may ask
    /// for a longer wait, of a day at most.
    pub fn wait_ms(&self, message_id: &str, failed: u32, retry_after_ms: Option<i64>) -> Option<i64> {
        let wait_ms = *self.0.get((failed as usize).checked_sub(1)?)?;
        let hash = tillstream_stage::partition::murmur2(format!("{message_id}/{failed}").as_bytes());
        let share = i64::from(hash % 401) - 200;
        let jittered = (wait_ms + wait_ms / 1_000 * share + wait_ms % 1_000 * share / 1_000).max(1);
        Some(jittered.max(retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_tries_for_days_and_then_gives_up() {
        let schedule = Schedule::default();
        let waits: Vec<i64> = (1..10).map(|it| schedule.wait_ms("msg_1", it, None).unwrap()).collect();
        let whole_hours = waits.iter().sum::<i64>() / 3_600_000;
        assert!((60..=92).contains(&whole_hours), "{whole_hours} h");
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(schedule.wait_ms("msg_1", 10, None), None);
        assert_eq!(schedule.attempts(), 10);
    }

    #[test]
    fn what_cannot_be_a_schedule_is_refused() {
        assert_eq!(Schedule::new(vec![0]), Err(ScheduleError::OutOfRange(0)));
        assert_eq!(Schedule::new(vec![1, WAIT_MAX_MS + 1]), Err(ScheduleError::OutOfRange(WAIT_MAX_MS + 1)));
        assert_eq!(Schedule::new(vec![1; 50]), Err(ScheduleError::TooMany(50)));
        assert_eq!(Schedule::new(Vec::new()).map(|it| it.attempts()), Ok(1));
    }

    proptest! {
        #[test]
        fn a_wait_stays_near_its_place(id in "[a-z]{1,20}", failed in 1u32..10, after in 0i64..100_000_000) {
            let plain = Schedule::default().0[failed as usize - 1];
            let wait = Schedule::default().wait_ms(&id, failed, None).unwrap();
            prop_assert!((plain * 8 / 10 - 1..=plain * 12 / 10 + 1).contains(&wait), "{} of {}", wait, plain);
            let asked = Schedule::default().wait_ms(&id, failed, Some(after)).unwrap();
            prop_assert_eq!(asked, wait.max(after.min(RETRY_AFTER_MAX_MS)));
        }
    }
}
