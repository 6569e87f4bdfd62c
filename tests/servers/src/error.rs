//! What can go wrong with a server.

use std::path::PathBuf;

/// Why a server is not as it was asked to be.
#[derive(thiserror::Error)]
pub enum ServerError {
    /// A file, a process or a socket of this machine failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        source: std::io::Error,
    },
    /// Something that must be installed or fetched first.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// What.
        what: String,
        /// How it gets there.
        remedy: &'static str,
    },
    /// The server ended, did not get ready in time, or refused.
    #[error("{server} {what}; the end of {}:\n{tail}", .log.display())]
    Failed {
        /// Which server.
        server: &'static str,
        /// What it did.
        what: String,
        /// Its whole log; gone with the server's folder unless `TILLSTREAM_KEEP_SERVERS` is set.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The server is not running, and what was asked needs it to.
    #[error("{server} is not running")]
    Down {
        /// Which server.
        server: &'static str,
    },
    /// A program beside the servers, such as `openssl`, failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: String,
        /// What it wrote.
        output: String,
    },
}

/// As it is displayed, so that a test's `unwrap` and a `main` that returns it show the log line by line.
impl std::fmt::Debug for ServerError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

/// Names what was tried in an I/O error.
pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServerError {
    let what = what.into();
    move |source| ServerError::Io { what, source }
}
