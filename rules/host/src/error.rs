//! What can go wrong around a rule; what goes wrong in one is a [`crate::Refusal`] or a fault.

use std::path::PathBuf;
use thiserror::Error;
use tillstream_rule_engine::EngineError;

/// Why rules cannot be run here.
#[derive(Debug, Error)]
pub enum RuleHostError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The cache of compiled code.
    #[error("TS0924: {path} cannot be used for compiled rules: {error}")]
    Cache {
        /// Where.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The compiler's process.
    #[error("TS0925: the process that compiles rules cannot be run: {0}")]
    Compiler(String),
    /// Randomness.
    #[error("TS0926: the system gives no random bytes: {0}")]
    Randomness(String),
    /// A sample.
    #[error("TS0927: a sample of a rule's call cannot be kept: {0}")]
    Sample(String),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] tillstream_registry_log::RegistryError),
}
