//! Wire types, codec, topic names and schema ids.
//!
//! Every value that crosses the log or is kept as state is one of the types here, in Avro, behind the
//! Confluent header (0, schema id). The `.avsc` files in `schemas/avro` are the contract; the Rust types
//! mirror them and a test holds the two together.

pub mod access;
pub mod analytics;
pub mod codec;
mod datum;
pub mod dead_letter;
pub mod effects;
pub mod item;
mod json;
pub mod order_command;
pub mod order_event;
pub mod order_state;
pub mod registry;
pub mod rule_sample;
pub mod rules;
pub mod topics;
pub mod webhook;
pub mod wire_ids;

/// The text type of all ids, SKUs and codes: at most 24 bytes live inline, without an allocation.
pub type Text = compact_str::CompactString;

/// An ordered text map, so that encoding is deterministic.
pub type TextMap = std::collections::BTreeMap<Text, Text>;

pub use topics::Topic;
