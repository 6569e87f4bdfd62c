//! `<topic>.dlq`: what no stage could take, with its reason and origin.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A dead letter. Key: the source record's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Deterministic id, from the origin.
    pub id: Text,
    /// Source topic.
    pub topic: Text,
    /// Source partition.
    pub partition: i32,
    /// Source offset.
    pub offset: i64,
    /// When the source record was appended, ms since the epoch.
    pub appended_at_ms: i64,
    /// When it was given up, ms since the epoch.
    pub failed_at_ms: i64,
    /// The stage that could not take it.
    pub stage: Text,
    /// Stable error code, such as `TS0103`.
    pub code: Text,
    /// Bounded reason label: `decode`, `stage`, `panic`, `partition`, `overflow`, `corrupt`.
    pub reason: Text,
    /// A sentence.
    pub message: Text,
    /// How often it was tried.
    pub attempts: i32,
    /// The version of tillstream that gave it up.
    pub version: Text,
    /// The source record's key.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// The source record's value, byte for byte.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}
