//! What is known of inputs that failed: run again, then alone, then dead-lettered.

use crate::dead_letter::Failure;
use std::collections::BTreeMap;
use tillstream_log::Record;
use tillstream_state::Timer;

/// After so many failures at one offset the input is run alone; the next failure gives it up.
const FAILURES_BEFORE_ALONE: u32 = 2;

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Culprit {
    /// The record at this offset.
    Record(u64),
    /// A fired timer.
    Timer(Timer),
    /// The end of the batch that began at this offset: which input is to blame is not known.
    Batch(u64),
}

/// Failures of inputs that are not committed yet. Empty but for the seconds after a failure.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    failures: BTreeMap<Culprit, u32>,
    condemned: BTreeMap<Culprit, Failure>,
    /// So many batches hold one input each, to find the culprit of a failed batch end.
    singles: usize,
}

impl Poison {
    /// Notes a failure. `inputs`: how many the batch had. Answers how often it has failed.
    pub fn note(&mut self, culprit: Culprit, inputs: usize) -> u32 {
        let failures = self.failures.entry(culprit.clone()).or_default();
        *failures += 1;
        if matches!(culprit, Culprit::Batch(_)) && *failures >= FAILURES_BEFORE_ALONE {
            self.singles = self.singles.max(inputs);
        }
        *failures
    }

    /// How often it has failed before.
    pub fn failures(&self, culprit: &Culprit) -> u32 {
        self.failures.get(culprit).copied().unwrap_or_default()
    }

    /// Whether one more failure gives it up.
    pub fn is_last_try(&self, culprit: &Culprit) -> bool {
        self.failures(culprit) >= FAILURES_BEFORE_ALONE
    }

    /// The batch of this input alone failed at its end: dead-letter it without running it again.
    pub fn condemn(&mut self, culprit: Culprit, failure: Failure) {
        self.condemned.insert(culprit, failure);
    }

    /// Why it must not be run again.
    pub fn condemned(&self, culprit: &Culprit) -> Option<&Failure> {
        self.condemned.get(culprit)
    }

    /// Cuts the batch so that a culprit on its last try stands alone.
    pub fn isolate(&self, records: &mut Vec<Record>, timers: &mut Vec<Timer>) {
        if self.failures.is_empty() && self.singles == 0 {
            return;
        }
        let culprit = records.iter().position(|it| self.is_last_try(&Culprit::Record(it.offset)));
        match culprit {
            Some(0) => records.truncate(1),
            Some(before) => records.truncate(before),
            None => {}
        }
        if self.singles > 0 {
            records.truncate(1);
            timers.truncate(1);
        }
        if !records.is_empty() && (culprit.is_some() || self.singles > 0) {
            timers.clear();
        }
    }

    /// A batch is committed: nothing below `next_offset`, and none of these timers, comes again.
    pub fn committed(&mut self, next_offset: u64, fired: &[Timer]) {
        self.singles = self.singles.saturating_sub(1);
        if self.failures.is_empty() && self.condemned.is_empty() {
            return;
        }
        let open = |culprit: &Culprit| match culprit {
            Culprit::Record(offset) => *offset >= next_offset,
            Culprit::Batch(offset) => *offset >= next_offset && self.singles > 0,
            Culprit::Timer(timer) => !fired.contains(timer),
        };
        self.failures.retain(|culprit, _| open(culprit));
        self.condemned.retain(|culprit, _| open(culprit));
    }
}
