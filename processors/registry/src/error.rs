//! What can go wrong, besides a refusal.

use thiserror::Error;
use tillstream_log::LogError;
use tillstream_schemas::Topic;
use tillstream_schemas::codec::CodecError;

/// Why a registry cannot answer.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The event does not fit its schema.
    #[error("TS0371: a change for {topic} cannot be encoded: {error}")]
    Encode {
        /// Where it should have gone.
        topic: Topic,
        /// Why.
        error: CodecError,
    },
    /// The event may be in the log, but was not followed in time: asking again under the same id is safe.
    #[error(
        "TS0372: the change is not in force yet: {topic} was not followed to it in time; ask again, or look whether \
         it has come into force"
    )]
    NotFollowed {
        /// Which topic.
        topic: Topic,
    },
    /// This process no longer follows the topic.
    #[error("TS0373: the follower of {0} has ended")]
    FollowerStopped(Topic),
    /// The system has no randomness for a record's key.
    #[error("TS0374: no randomness: {0}")]
    Randomness(String),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
}
