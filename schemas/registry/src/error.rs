//! What can go wrong with a registry.

use std::error::Error;
use tillstream_schemas::wire_ids::WireIdsError;

/// Why the registry could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nobody answers, or not in time.
    #[error("TS0110: the schema registry {url} does not answer: {detail}")]
    Unreachable {
        /// Its base URL.
        url: String,
        /// The library's words.
        detail: String,
    },
    /// It does not let us in.
    #[error("TS0111: the schema registry {url} answered {status} to {call}: check its user and password")]
    Denied {
        /// Its base URL.
        url: String,
        /// The call.
        call: String,
        /// 401 or 403.
        status: u16,
    },
    /// It answered what is of no use.
    #[error("TS0112: the schema registry answered {status} to {call}: {words}")]
    Refused {
        /// The call.
        call: String,
        /// HTTP's status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// A schema this build needs is not registered.
    #[error(
        "TS0113: the schema registry has no version of subject {subject} that is this build's {schema} (id {local} here): \
         run `tillstream schemas register`"
    )]
    Missing {
        /// The subject.
        subject: String,
        /// The schema's name.
        schema: &'static str,
        /// The version's id here.
        local: u32,
    },
    /// A schema of this build may not follow what is registered.
    #[error("TS0114: subject {subject} cannot take this build's schema: {words}")]
    Incompatible {
        /// The subject.
        subject: String,
        /// The registry's words.
        words: String,
    },
    /// The settings cannot be used.
    #[error("TS0115: {0}")]
    Settings(String),
    /// The registry's ids contradict each other.
    #[error("TS0116: the schema registry's ids cannot be used: {0}")]
    Ids(#[from] WireIdsError),
    /// The registry is down, and the last start's ids do not help.
    #[error("TS0117: {down}; and the ids of an earlier start in {path} cannot take its place: {detail}")]
    NoCache {
        /// What the registry said.
        down: Box<RegistryError>,
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A schema of this build is no Avro schema: an error of ours.
    #[error("TS0118: this build's {schema} (id {local}) is no Avro schema: {detail}")]
    OwnSchema {
        /// The schema's name.
        schema: &'static str,
        /// The version's id here.
        local: u32,
        /// The parser's words.
        detail: String,
    },
}

impl RegistryError {
    /// Whether the registry itself is down, rather than saying no.
    pub fn is_down(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// The innermost words of an error: the outer ones repeat the URL.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
