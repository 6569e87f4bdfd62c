//! Backtests: a candidate rule over a tenant's own orders, beside what happened or another version.
//!
//! [`judge`] compares one order and is pure; [`History`] reads the orders from the log; [`Backtests`] runs jobs on
//! threads of low priority, so that live traffic goes first, and keeps where they are.

mod distribution;
mod error;
mod history;
mod job;
mod judge;
mod question;
mod recent;
mod report;
mod run;
mod shelf;
mod work;

pub use distribution::{Distribution, Quantiles};
pub use error::BacktestError;
pub use history::{Chunk, History, Place};
pub use job::{Baseline, Spec, Status, View};
pub use judge::{Against, Ended, PastOrder, Pricer, Said, Trial, judge};
pub use question::HOOKS;
pub use recent::recent_questions;
pub use report::{DIFFERENCES_MAX, Difference, Found, Money, Report, Sums, Tally};
pub use run::{Backtests, Ports, Products, Rehearsals, Side};
