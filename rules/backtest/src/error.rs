//! What can go wrong.

use thiserror::Error;
use tillstream_log::LogError;

/// Why a backtest did not begin, or ended before its time. All of it is the caller's to mend or to try again: a backtest
/// changes nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BacktestError {
    /// There is no such rule or version, or it has no hook that is asked.
    #[error("TS0665: {0}")]
    NotPossible(String),
    /// Others run.
    #[error("TS0665: {0}")]
    TooMany(String),
    /// There is none of this id.
    #[error("TS0603: there is no backtest {0} of this rule")]
    Unknown(String),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Files, threads, the catalog.
    #[error("TS0666: {0}")]
    Failed(String),
}
