//! A backtest as it is asked for, as it stands, and as it is kept on disk.

use crate::history::Place;
use crate::report::{Report, Tally};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tillstream_stage::rule::Hook;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its id.
    pub id: String,
    /// Whose orders, and whose rule.
    pub tenant: String,
    /// The rule.
    pub rule: String,
    /// The candidate: a version of the rule, active or not.
    pub version: i64,
    /// The hook that is asked.
    pub hook: Hook,
    /// What it is told beside the order, a JSON object. What it is compared with is told what the active version is told.
    pub settings: String,
    /// The version it is compared with; `None`: what happened, or at a hook whose answer stands in later events what the
    /// rules that are active now say.
    pub against: Option<i64>,
    /// Whether the tenant's other active rules stay out of it.
    pub alone: bool,
    /// Orders placed at this time or later, ms since the epoch.
    pub from_ms: Option<i64>,
    /// Orders placed before this time, ms since the epoch.
    pub to_ms: Option<i64>,
    /// Orders a second, at most.
    pub orders_per_second_max: Option<u32>,
    /// When it was asked for, ms since the epoch.
    pub created_at_ms: i64,
}

/// What a candidate is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BacktestBaseline")]
pub enum Baseline {
    /// What happened.
    History,
    /// What the rules that are active now say.
    Active,
    /// Another version of the rule.
    Version,
}

impl Spec {
    /// What the candidate is compared with. What became of an order at the price and measure hooks stands in the event that
    /// prices it; at the others it stands in later events, which a backtest does not read.
    pub fn baseline(&self) -> Baseline {
        match (self.against, self.hook) {
            (Some(_), _) => Baseline::Version,
            (None, Hook::Price | Hook::Measure) => Baseline::History,
            (None, _) => Baseline::Active,
        }
    }
}

/// Where a backtest stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "BacktestStatus")]
pub enum Status {
    /// It runs. A process that ends meanwhile goes on with it at its next start.
    #[default]
    Running,
    /// It has read all there was.
    Done,
    /// It was stopped; it can go on from where it was.
    Cancelled,
    /// It met an error; it can go on from where it was.
    Failed,
    /// The process that ran it ended. That process goes on with it at its next start; before, any other that shares the
    /// folder can.
    Interrupted,
}

/// One partition of the history.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Where to go on; `None`: it was not begun.
    pub place: Option<Place>,
    /// Records read.
    pub read: u64,
    /// Records there are.
    pub all: u64,
    /// Whether it is read.
    pub done: bool,
    /// What was found in it. Always that of the records before `place`: both change together.
    pub tally: Tally,
}

/// A job as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub spec: Spec,
    pub status: Status,
    pub error: Option<String>,
    pub parts: Vec<Part>,
    /// Time at work over all runs, ms.
    pub worked_ms: u64,
    pub ended_at_ms: Option<i64>,
}

/// A backtest as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// What was asked.
    pub spec: Spec,
    /// Where it stands.
    pub status: Status,
    /// What went wrong.
    pub error: Option<String>,
    /// How much of the history has been read, 0 to 1.
    pub progress: f64,
    /// Time at work so far, ms.
    pub worked_ms: u64,
    /// When it ended, ms since the epoch.
    pub ended_at_ms: Option<i64>,
    /// What was found so far.
    pub report: Report,
}

impl Kept {
    pub(crate) fn view(&self, running_ms: u64) -> View {
        let mut tally = Tally::default();
        self.parts.iter().for_each(|it| tally.merge(&it.tally));
        let (read, all) = self.parts.iter().fold((0, 0), |sum, it| (sum.0 + it.read, sum.1 + it.all));
        let progress = match self.status {
            Status::Done => 1.0,
            _ if all == 0 => 0.0,
            // Counts of records: far below where a float grows coarse.
            #[allow(clippy::cast_precision_loss, reason = "a share that is shown")]
            _ => read as f64 / all as f64,
        };
        View {
            spec: self.spec.clone(),
            status: self.status,
            error: self.error.clone(),
            progress,
            worked_ms: self.worked_ms + running_ms,
            ended_at_ms: self.ended_at_ms,
            report: tally.report(),
        }
    }
}
