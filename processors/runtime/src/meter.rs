//! What one task counts: tallied in plain fields, written to the registry once per committed batch.

use crate::{Clock, Metrics};
use prometheus::core::{AtomicF64, GenericCounter, GenericGauge};
use prometheus::{Histogram, IntCounter};
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_stage::StageName;
use tillstream_stage::ids::trace_id;
use tillstream_stage::rule::RuleRun;
use tillstream_stage::task::{Outcome, StageMeter, TaskKind};

/// The target of a stage's log lines: `pipeline=debug` in the filter shows them.
pub(crate) const LOG_TARGET: &str = "pipeline";
const STAGES: usize = StageName::ALL.len();
const OUTCOMES: [Outcome; 4] = [Outcome::Applied, Outcome::Duplicate, Outcome::Refused, Outcome::Ignored];
const STEPS: [&str; 4] = ["priced", "reserved", "paid", "completed"];

/// One stage's tally of the open batch.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    outcomes: [u64; OUTCOMES.len()],
    decide_ns: u64,
}

/// One stage's counters, resolved when the stage first decides.
struct StageCounters {
    outcomes: [IntCounter; OUTCOMES.len()],
    decide_seconds: GenericCounter<AtomicF64>,
}

/// The counters of one task. What a dropped batch tallied is thrown away.
pub(crate) struct TaskMeter {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tallies: [Tally; STAGES],
    stages: [Option<StageCounters>; STAGES],
    rules: Vec<(StageName, RuleRun)>,
    reached: Vec<(usize, i64)>,
    /// The traces of the input that is being decided, while somebody listens to the pipeline's log.
    trace_ids: Vec<Text>,
    order_seconds: [Histogram; STEPS.len()],
    batch_seconds: Histogram,
    batch_records: Histogram,
    commit_seconds: Histogram,
    event_lag: GenericGauge<AtomicF64>,
    reads_cache: IntCounter,
    reads_store: IntCounter,
    timers_fired: IntCounter,
    failures: IntCounter,
}

/// What one committed batch was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BatchFigures {
    /// Records and timers.
    pub inputs: usize,
    /// Timers of them.
    pub timers: usize,
    /// Row reads answered without the store.
    pub reads_cache: u64,
    /// Row reads answered by the store.
    pub reads_store: u64,
    /// When the last command was accepted, ms since the epoch.
    pub accepted_at_ms: Option<i64>,
    /// When the batch was read, monotonic ns.
    pub begun_ns: u64,
    /// When its commit was asked for, monotonic ns.
    pub commit_ns: u64,
}

impl TaskMeter {
    /// The counters of a task of this kind.
    pub fn new(kind: TaskKind, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let task = [kind.as_str()];
        // The series must be there where nothing is written behind the commit, too. A life that has begun may have told
        // of rows by now, so it is not set.
        metrics.unflushed_rows.with_label_values(&task);
        Self {
            clock,
            tallies: [Tally::default(); STAGES],
            stages: [const { None }; STAGES],
            rules: Vec::new(),
            reached: Vec::new(),
            trace_ids: Vec::new(),
            order_seconds: STEPS.map(|to| metrics.order_seconds.with_label_values(&[to])),
            batch_seconds: metrics.batch_seconds.with_label_values(&task),
            batch_records: metrics.batch_records.with_label_values(&task),
            commit_seconds: metrics.commit_seconds.with_label_values(&task),
            event_lag: metrics.event_lag_seconds.with_label_values(&task),
            reads_cache: metrics.state_reads.with_label_values(&[task[0], "cache"]),
            reads_store: metrics.state_reads.with_label_values(&[task[0], "store"]),
            timers_fired: metrics.timers_fired.with_label_values(&task),
            failures: metrics.batch_failures.with_label_values(&task),
            metrics,
        }
    }

    /// The batch came to nothing: forget what it counted.
    pub fn dropped(&mut self) {
        self.failures.inc();
        self.tallies = [Tally::default(); STAGES];
        self.rules.clear();
        self.reached.clear();
    }

    /// An input is about to be decided: its trace, and those it sums up, for the log lines of its stages.
    pub fn traced(&mut self, traceparent: Option<&str>, linked: &[Text]) {
        self.trace_ids.clear();
        self.trace_ids.extend(traceparent.and_then(trace_id).map(Text::from));
        self.trace_ids.extend_from_slice(linked);
    }

    /// A dead letter is committed.
    pub fn dead_letter(&self, stage: &str, reason: &str) {
        self.metrics.dead_letters.with_label_values(&[stage, reason]).inc();
    }

    /// The batch is committed: write everything it counted.
    pub fn committed(&mut self, batch: &BatchFigures) {
        let (now_ns, now_ms) = (self.clock.monotonic_ns(), self.clock.now_ms());
        self.batch_seconds.observe(seconds(now_ns.saturating_sub(batch.begun_ns)));
        self.commit_seconds.observe(seconds(now_ns.saturating_sub(batch.commit_ns)));
        self.batch_records.observe(batch.inputs as f64);
        self.reads_cache.inc_by(batch.reads_cache);
        self.reads_store.inc_by(batch.reads_store);
        self.timers_fired.inc_by(batch.timers as u64);
        if let Some(accepted_at_ms) = batch.accepted_at_ms {
            self.event_lag.set(age_seconds(now_ms, accepted_at_ms));
        }
        for (to, accepted_at_ms) in self.reached.drain(..) {
            self.order_seconds[to].observe(age_seconds(now_ms, accepted_at_ms));
        }
        for (stage, run) in self.rules.drain(..) {
            let stage = stage.as_str();
            self.metrics.rule_calls.with_label_values(&[stage, run.outcome]).inc();
            self.metrics.rule_call_seconds.with_label_values(&[stage]).observe(seconds(run.ns));
            self.metrics.rule_fuel_units.with_label_values(&[stage]).observe(run.fuel as f64);
        }
        self.write_tallies();
    }

    fn write_tallies(&mut self) {
        for (index, stage) in StageName::ALL.into_iter().enumerate() {
            let tally = std::mem::take(&mut self.tallies[index]);
            if tally.outcomes.iter().all(|count| *count == 0) {
                continue;
            }
            let metrics = &self.metrics;
            let counters = self.stages[index].get_or_insert_with(|| StageCounters {
                outcomes: OUTCOMES
                    .map(|it| metrics.stage_records.with_label_values(&[stage.as_str(), it.as_str()])),
                decide_seconds: metrics.stage_decide_seconds.with_label_values(&[stage.as_str()]),
            });
            for (counter, count) in counters.outcomes.iter().zip(tally.outcomes) {
                counter.inc_by(count);
            }
            counters.decide_seconds.inc_by(seconds(tally.decide_ns));
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn age_seconds(now_ms: i64, then_ms: i64) -> f64 {
    now_ms.saturating_sub(then_ms).max(0) as f64 / 1e3
}

impl StageMeter for TaskMeter {
    fn begin(&mut self) -> u64 {
        self.clock.monotonic_ns()
    }

    fn end(&mut self, stage: StageName, begun: u64, outcome: Outcome) {
        let tally = &mut self.tallies[stage as usize];
        tally.outcomes[outcome as usize] += 1;
        tally.decide_ns += self.clock.monotonic_ns().saturating_sub(begun);
        for trace_id in &self.trace_ids {
            let (stage, outcome) = (stage.as_str(), outcome.as_str());
            tracing::debug!(target: LOG_TARGET, %trace_id, stage, outcome, "decided");
        }
    }

    fn rule(&mut self, stage: StageName, run: &RuleRun) {
        self.rules.push((stage, *run));
    }

    fn order_reached(&mut self, to: &'static str, accepted_at_ms: i64) {
        // An unknown step would be an unbounded label: it is not counted.
        if let Some(step) = STEPS.iter().position(|it| *it == to) {
            self.reached.push((step, accepted_at_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemClock;

    #[test]
    fn indexes_follow_the_declared_order() {
        for (index, stage) in StageName::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
        for (index, outcome) in OUTCOMES.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn a_task_that_starts_leaves_the_rows_alone_that_its_life_told_of_before() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let meter = |kind| TaskMeter::new(kind, Arc::new(SystemClock::new()), Arc::clone(&metrics));
        metrics.unflushed_rows.with_label_values(&["item"]).add(210);
        let _meters = (meter(TaskKind::Item), meter(TaskKind::Order));
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"tillstream_state_unflushed_rows{stage="item"} 210"#), "{text}");
        assert!(text.contains(r#"tillstream_state_unflushed_rows{stage="order"} 0"#), "{text}");
    }

    #[test]
    fn a_dropped_batch_counts_nothing_and_a_committed_one_counts_once() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut meter = TaskMeter::new(TaskKind::Order, Arc::new(SystemClock::new()), Arc::clone(&metrics));
        let tally = |meter: &mut TaskMeter| {
            let begun = meter.begin();
            meter.end(StageName::Pricing, begun, Outcome::Applied);
            meter.rule(StageName::Pricing, &RuleRun { outcome: "passed", fuel: 1_500, ns: 9_000 });
            meter.order_reached("priced", 0);
            meter.order_reached("no such step", 0);
        };
        tally(&mut meter);
        meter.dropped();
        tally(&mut meter);
        meter.committed(&BatchFigures::default());
        meter.committed(&BatchFigures::default());
        assert_eq!(metrics.stage_records.with_label_values(&["pricing", "applied"]).get(), 1);
        assert_eq!(metrics.rule_calls.with_label_values(&["pricing", "passed"]).get(), 1);
        let fuel = metrics.rule_fuel_units.with_label_values(&["pricing"]);
        assert_eq!((fuel.get_sample_count(), fuel.get_sample_sum()), (1, 1_500.0));
        assert_eq!(metrics.order_seconds.with_label_values(&["priced"]).get_sample_count(), 1);
        let text = metrics.encode().unwrap();
        assert!(
            text.contains(r#"tillstream_stage_records_total{outcome="applied",stage="pricing"} 1"#),
            "{text}"
        );
        assert!(!text.contains("no such step"));
    }
}
