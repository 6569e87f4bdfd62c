//! Counts what versions on trial say, and tells what there is to tell: often enough to stop a canary soon, seldom enough
//! that the log holds a handful of events per trial.

use crate::compare::Difference;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use rustc_hash::FxHashMap;
use tillstream_rule_lifecycle::{Canary, Tally, TrialKind};
use tillstream_schemas::Text;
use tillstream_stage::rule::Hook;

/// A worker tells what it counted at every such part of a bound.
const PARTS_OF_A_BOUND: i64 = 8;

/// Every kind of trial, and what may become of a call: the labels of the counter.
const KINDS: [&str; 2] = ["shadow", "canary"];
const OUTCOMES: [&str; 4] = ["same", "different", "failed", "skipped"];

/// What became of a call of a version on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It answered, and this is how its answer differs.
    Answered(Difference),
    /// It answered an order, and nothing is known to compare its answer with.
    Alone,
    /// It gave no answer.
    Failed,
    /// It was not asked: the tenant's share of fuel is for what answers orders.
    Skipped,
}

impl Tried {
    /// Whether something else would have become of the order.
    pub(crate) fn differs(self) -> bool {
        matches!(self, Self::Answered(Difference { differs: true, .. }))
    }

    fn outcome(self) -> &'static str {
        match self {
            Self::Answered(it) if it.differs => "different",
            Self::Answered(_) => "same",
            Self::Failed => "failed",
            Self::Alone | Self::Skipped => "skipped",
        }
    }

    fn tally(self) -> Option<Tally> {
        let call = Tally { calls: 1, ..Tally::default() };
        match self {
            Self::Answered(it) => Some(Tally {
                different: i64::from(it.differs),
                difference_minor: it.total_minor.saturating_abs(),
                net_minor: it.total_minor,
                ..call
            }),
            Self::Alone => Some(call),
            Self::Failed => Some(Tally { failures: 1, ..call }),
            Self::Skipped => None,
        }
    }
}

/// What a worker counted of a trial since it last said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Whose.
    pub tenant: Text,
    /// Which rule.
    pub rule: Text,
    /// The trial's revision.
    pub revision: i64,
    /// The currency of the orders.
    pub currency: Text,
    /// What was counted.
    pub tally: Tally,
}

/// Metrics of trials. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct TrialMetrics {
    calls: IntCounterVec,
}

impl TrialMetrics {
    /// Makes them, and registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let text = "Calls of rule versions on trial, by how their answers compare with those of the version in force";
        let opts = Opts::new("tillstream_rule_trial_calls_total", text);
        let calls = IntCounterVec::new(opts, &["stage", "kind", "outcome"])?;
        registry.register(Box::new(calls.clone()))?;
        for (hook, kind) in Hook::ALL.into_iter().flat_map(|hook| KINDS.map(|kind| (hook, kind))) {
            for outcome in OUTCOMES {
                calls.with_label_values(&[hook.stage().as_str(), kind, outcome]);
            }
        }
        Ok(Self { calls })
    }
}

/// A trial: tenant, rule, revision.
pub(crate) type TrialKey = (Text, Text, i64);

/// What this process counted of a trial, in one currency.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: Tally,
    told: Tally,
}

impl Count {
    fn untold(&self) -> Tally {
        Tally {
            calls: self.all.calls - self.told.calls,
            failures: self.all.failures - self.told.failures,
            different: self.all.different - self.told.different,
            difference_minor: self.all.difference_minor.saturating_sub(self.told.difference_minor),
            net_minor: self.all.net_minor.saturating_sub(self.told.net_minor),
        }
    }

    /// Worth an event: as many calls as were told of before, or a good part of what may still happen.
    fn is_worth_telling(&self, kind: TrialKind) -> bool {
        let untold = self.untold();
        let part = |found: i64, most: i64| found > 0 && found >= (most / PARTS_OF_A_BOUND).max(1);
        let of_bound = match kind {
            TrialKind::Shadow => false,
            TrialKind::Canary(it) => {
                part(untold.failures, it.failures_max)
                    || it.difference_max_minor.is_some_and(|most| part(untold.difference_minor, most))
            }
        };
        of_bound || untold.calls >= self.told.calls.max(1)
    }
}

/// What this process counted of a trial.
#[derive(Debug, Default)]
struct Counts {
    by_currency: Vec<(Text, Count)>,
    /// This process alone found the trial past a bound: it does not wait for the registry to say so.
    stopped: bool,
}

impl Counts {
    fn is_past(&self, it: Canary) -> bool {
        let failures: i64 = self.by_currency.iter().map(|it| it.1.all.failures).sum();
        let differs = |most: i64| self.by_currency.iter().any(|it| it.1.all.difference_minor >= most);
        failures >= it.failures_max || it.difference_max_minor.is_some_and(differs)
    }
}

/// The trials of this process.
#[derive(Debug)]
pub(crate) struct Trials {
    counts: Mutex<FxHashMap<TrialKey, Counts>>,
    metrics: TrialMetrics,
}

impl Trials {
    pub(crate) fn new(metrics: TrialMetrics) -> Self {
        Self { counts: Mutex::default(), metrics }
    }

    /// Whether this process has found the trial past a bound.
    pub(crate) fn is_stopped(&self, key: &TrialKey) -> bool {
        self.counts.lock().get(key).is_some_and(|it| it.stopped)
    }

    /// Takes a call in; answers what is to be told now.
    pub(crate) fn note(
        &self,
        key: &TrialKey,
        kind: TrialKind,
        (hook, currency): (Hook, &Text),
        tried: Tried,
    ) -> Option<Measured> {
        let labels = [hook.stage().as_str(), kind.as_str(), tried.outcome()];
        self.metrics.calls.with_label_values(&labels).inc();
        let tally = tried.tally()?;
        let mut all = self.counts.lock();
        let counts = all.entry(key.clone()).or_default();
        let index = counts.by_currency.iter().position(|it| it.0 == *currency).unwrap_or_else(|| {
            counts.by_currency.push((currency.clone(), Count::default()));
            counts.by_currency.len() - 1
        });
        let count = &mut counts.by_currency[index].1;
        count.all = count.all.plus(tally);
        let untold = count.is_worth_telling(kind).then(|| count.untold());
        count.told = if untold.is_some() { count.all } else { count.told };
        if let TrialKind::Canary(it) = kind {
            counts.stopped = counts.stopped || counts.is_past(it);
        }
        let (tenant, rule, revision) = key.clone();
        untold.map(|tally| Measured { tenant, rule, revision, currency: currency.clone(), tally })
    }

    /// What this process counted and has not told, by currency.
    pub(crate) fn untold(&self, key: &TrialKey) -> Vec<(Text, Tally)> {
        let counts = self.counts.lock();
        let all = counts.get(key).into_iter().flat_map(|it| &it.by_currency);
        all.map(|(currency, count)| (currency.clone(), count.untold())).collect()
    }

    /// Forgets trials that are over.
    pub(crate) fn retain(&self, is_on: impl Fn(&TrialKey) -> bool) {
        self.counts.lock().retain(|key, _| is_on(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: TrialKind =
        TrialKind::Canary(Canary { percent: 5, failures_max: 16, difference_max_minor: Some(800) });

    fn differs(total_minor: i64) -> Tried {
        Tried::Answered(Difference { differs: true, total_minor })
    }

    /// The calls after which something was told, and what was told in all.
    fn tell(kind: TrialKind, calls: impl IntoIterator<Item = Tried>) -> (Vec<usize>, Tally, Trials) {
        let trials = Trials::new(TrialMetrics::register(&Registry::new()).unwrap());
        let key = ("demo".into(), "volume".into(), 7);
        let (mut at, mut sum) = (Vec::new(), Tally::default());
        for (index, tried) in calls.into_iter().enumerate() {
            if let Some(it) = trials.note(&key, kind, (Hook::Price, &"GBP".into()), tried) {
                at.push(index + 1);
                sum = sum.plus(it.tally);
            }
        }
        let rest = trials.untold(&key);
        (at, rest.into_iter().fold(sum, |sum, it| sum.plus(it.1)), trials)
    }

    #[test]
    fn a_million_calls_are_told_in_a_handful_of_events_and_none_is_told_twice() {
        let calls = (0..1_000_000).map(|it| differs(if it % 2 == 0 { 3 } else { -1 }));
        let (at, sum, _) = tell(TrialKind::Shadow, calls);
        assert_eq!((at.len(), at[..4].to_vec()), (20, vec![1, 2, 4, 8]));
        let expected = Tally {
            calls: 1_000_000,
            failures: 0,
            different: 1_000_000,
            difference_minor: 2_000_000,
            net_minor: 1_000_000,
        };
        assert_eq!(sum, expected);
    }

    #[test]
    fn a_canary_tells_at_every_eighth_of_a_bound_and_stops_here_at_the_bound() {
        let same = Tried::Answered(Difference::default());
        let quiet = std::iter::repeat_n(same, 1_000);
        let (at, _, trials) = tell(CANARY, quiet.clone().chain([differs(-99), differs(1), same]));
        assert_eq!(at.last(), Some(&1_002), "100 is an eighth of 800");
        let key = ("demo".into(), "volume".into(), 7);
        assert!(!trials.is_stopped(&key));
        let failing = std::iter::repeat_n(Tried::Failed, 15);
        let (at, _, trials) = tell(CANARY, quiet.clone().chain(failing.clone()));
        assert_eq!(at[at.len() - 3..], [1_010, 1_012, 1_014], "every second failure is an eighth of 16");
        assert!(!trials.is_stopped(&key));
        let (_, sum, trials) = tell(CANARY, quiet.chain(failing).chain([Tried::Failed]));
        assert_eq!((sum.failures, trials.is_stopped(&key)), (16, true));
        assert!(
            tell(CANARY, [differs(-500), differs(300)]).2.is_stopped(&key),
            "what is up does not make good"
        );
        assert!(!tell(TrialKind::Shadow, [Tried::Failed; 99]).2.is_stopped(&key), "a shadow harms nobody");
    }

    #[test]
    fn what_was_not_asked_is_counted_by_the_metric_alone() {
        let (at, sum, trials) = tell(CANARY, [Tried::Skipped, Tried::Skipped, Tried::Alone]);
        assert_eq!((at, sum), (vec![3], Tally { calls: 1, ..Tally::default() }));
        let skipped = trials.metrics.calls.with_label_values(&["pricing", "canary", "skipped"]);
        assert_eq!(skipped.get(), 3);
    }
}
