//! Why a benchmark gave up.

use thiserror::Error;

/// Why a benchmark gave up.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Files, processes, sockets.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// The server under test.
    #[error("the server: {0}")]
    Server(String),
    /// The HTTP client.
    #[error("HTTP: {0}")]
    Http(String),
    /// The pipeline in this process.
    #[error("the pipeline: {0}")]
    Pipeline(String),
    /// The broker, or this program's own clients of it.
    #[error("the broker: {0}")]
    Broker(String),
    /// The comparison program.
    #[error("the yardstick: {0}")]
    Yardstick(String),
    /// The result is not what the workload says.
    #[error("not verified: {0}")]
    Unverified(String),
}

impl BenchError {
    /// An error of the operating system.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    /// An error of a part of the pipeline.
    pub fn pipeline(error: impl std::fmt::Display) -> Self {
        Self::Pipeline(error.to_string())
    }

    /// An error of the HTTP client.
    pub fn http(error: impl std::fmt::Display) -> Self {
        Self::Http(error.to_string())
    }
}
