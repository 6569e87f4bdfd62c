//! What calls write: made of their bodies and what they are told, without sockets, rows or a clock.

use tillstream_schemas::Text;
use tillstream_stage::Key;

/// A command that is ready to be judged and appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its id: equal for a repeat of the call.
    pub id: Text,
    /// Of its body; empty where nobody judges a repeat.
    pub fingerprint: Text,
    /// The key of its record.
    pub key: Key,
    /// The value of its record.
    pub value: Vec<u8>,
}
