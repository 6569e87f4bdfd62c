//! Every metric of the shell. All label values are bounded.

use crate::RuntimeError;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tillstream_stage::StageName;
use tillstream_stage::rule::{Hook, RULE_OUTCOMES};

/// Seconds a batch, a commit or a rule takes.
const SHORT_SECONDS: [f64; 13] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Seconds an order or a request takes.
const LONG_SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0];

const RULE_SECONDS: [f64; 9] = [5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 5e-4, 2e-3, 1e-2, 1e-1];
const RULE_FUEL: [f64; 8] = [1e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1.1e7];
const BATCH_RECORDS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Every reason a dead letter may have.
const DEAD_LETTER_REASONS: [&str; 6] = ["decode", "stage", "panic", "partition", "overflow", "corrupt"];

/// The metrics, and the registry they stand in.
#[derive(Debug)]
pub struct Metrics {
    /// The registry; other parts of the process may add theirs.
    pub registry: Registry,
    /// `tillstream_stage_records_total{stage,outcome}`
    pub stage_records: IntCounterVec,
    /// `tillstream_stage_decide_seconds_total{stage}`
    pub stage_decide_seconds: CounterVec,
    /// `tillstream_stage_batch_seconds{stage}`; the stage is the task's name.
    pub batch_seconds: HistogramVec,
    /// `tillstream_stage_batch_records{stage}`; the stage is the task's name.
    pub batch_records: HistogramVec,
    /// `tillstream_stage_commit_seconds{stage}`; the stage is the task's name.
    pub commit_seconds: HistogramVec,
    /// `tillstream_stage_lag_records{stage,partition}`; the stage is the task's name.
    pub lag_records: IntGaugeVec,
    /// `tillstream_stage_event_lag_seconds{stage}`; the stage is the task's name.
    pub event_lag_seconds: GaugeVec,
    /// `tillstream_stage_batch_failures_total{stage}`: batches dropped and run again.
    pub batch_failures: IntCounterVec,
    /// `tillstream_stage_restarts_total{stage}`: tasks that started again after an error.
    pub restarts: IntCounterVec,
    /// `tillstream_stage_timers_fired_total{stage}`
    pub timers_fired: IntCounterVec,
    /// `tillstream_state_reads_total{stage,source}`; source is `cache` or `store`.
    pub state_reads: IntCounterVec,
    /// `tillstream_state_unflushed_rows{stage}`
    pub unflushed_rows: IntGaugeVec,
    /// `tillstream_rule_calls_total{stage,outcome}`
    pub rule_calls: IntCounterVec,
    /// `tillstream_rule_call_seconds{stage}`
    pub rule_call_seconds: HistogramVec,
    /// `tillstream_rule_fuel_units{stage}`
    pub rule_fuel_units: HistogramVec,
    /// `tillstream_dead_letters_total{stage,reason}`
    pub dead_letters: IntCounterVec,
    /// `tillstream_order_seconds{to}`
    pub order_seconds: HistogramVec,
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Result<Self, RuntimeError> {
        let on = Maker { registry: Registry::new() };
        let stage = &["stage"];
        let metrics = Self {
            stage_records: on.counter(
                "stage_records_total",
                "Inputs a stage decided, by what became of them",
                &["stage", "outcome"],
            )?,
            stage_decide_seconds: on.seconds_total(
                "stage_decide_seconds_total",
                "Seconds spent deciding, per stage",
                stage,
            )?,
            batch_seconds: on.histogram(
                "stage_batch_seconds",
                "Seconds from a batch's read to its commit",
                stage,
                &SHORT_SECONDS,
            )?,
            batch_records: on.histogram("stage_batch_records", "Inputs per batch", stage, &BATCH_RECORDS)?,
            commit_seconds: on.histogram(
                "stage_commit_seconds",
                "Seconds until a commit was durable",
                stage,
                &SHORT_SECONDS,
            )?,
            lag_records: on.gauge(
                "stage_lag_records",
                "Input records not committed yet",
                &["stage", "partition"],
            )?,
            event_lag_seconds: on.float_gauge(
                "stage_event_lag_seconds",
                "Age of the last committed input since it was accepted",
                stage,
            )?,
            batch_failures: on.counter(
                "stage_batch_failures_total",
                "Batches dropped and run again",
                stage,
            )?,
            restarts: on.counter("stage_restarts_total", "Tasks started again after an error", stage)?,
            timers_fired: on.counter("stage_timers_fired_total", "Timers fired", stage)?,
            state_reads: on.counter(
                "state_reads_total",
                "Rows asked for, by where they were found",
                &["stage", "source"],
            )?,
            unflushed_rows: on.gauge(
                "state_unflushed_rows",
                "Committed rows the state store has not acknowledged yet",
                stage,
            )?,
            rule_calls: on.counter("rule_calls_total", "Rule calls", &["stage", "outcome"])?,
            rule_call_seconds: on.histogram(
                "rule_call_seconds",
                "Seconds per rule call",
                stage,
                &RULE_SECONDS,
            )?,
            rule_fuel_units: on.histogram("rule_fuel_units", "Fuel per rule call", stage, &RULE_FUEL)?,
            dead_letters: on.counter("dead_letters_total", "Inputs given up", &["stage", "reason"])?,
            order_seconds: on.histogram(
                "order_seconds",
                "Seconds from an order's acceptance",
                &["to"],
                &LONG_SECONDS,
            )?,
            registry: on.registry,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// A counter that has not counted yet is shown as 0, so that an alert on it works from the start.
    fn begin_at_zero(&self) {
        for stage in StageName::ALL.map(StageName::as_str) {
            for reason in DEAD_LETTER_REASONS {
                self.dead_letters.with_label_values(&[stage, reason]);
            }
        }
        for stage in Hook::ALL.map(|it| it.stage().as_str()) {
            for outcome in RULE_OUTCOMES {
                self.rule_calls.with_label_values(&[stage, outcome]);
            }
            self.rule_call_seconds.with_label_values(&[stage]);
            self.rule_fuel_units.with_label_values(&[stage]);
        }
    }

    /// The text format of Prometheus.
    pub fn encode(&self) -> Result<String, RuntimeError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

struct Maker {
    registry: Registry,
}

type Made<T> = Result<T, prometheus::Error>;

impl Maker {
    fn register<T: prometheus::core::Collector + Clone + 'static>(&self, metric: T) -> Made<T> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.register(IntCounterVec::new(options(name, help), labels)?)
    }

    fn seconds_total(&self, name: &str, help: &str, labels: &[&str]) -> Made<CounterVec> {
        self.register(CounterVec::new(options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.register(IntGaugeVec::new(options(name, help), labels)?)
    }

    fn float_gauge(&self, name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
        self.register(GaugeVec::new(options(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Made<HistogramVec> {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("tillstream")
}
