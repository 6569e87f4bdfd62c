//! The changelog's records: the new value of every touched row and timer, and the incarnation it began with.
//!
//! Keys are text so that a compacted topic keeps the latest value of each: `<table>/<row key>`,
//! `timer/<due, ms, 14 digits>/<name>/<key>`, `incarnation`.

use bytes::Bytes;
use tillstream_log::broker::{ProduceRecord, ReplayRecord};
use tillstream_log::{Headers, TopicPartition};
use tillstream_stage::{Key, RowKey, Table, TimerName};
use tillstream_state::Timer;
use tillstream_state::row_store::{Checkpoint, StateKey};

/// The key of the record a changelog begins with.
const INCARNATION: &str = "incarnation";

/// What a changelog record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The changelog's incarnation.
    Incarnation(u32),
    /// A row's or timer's new value; `None` deletes.
    State(StateKey, Option<Bytes>),
}

/// The timestamp a write of this changelog record carries: `generation << 40 | offset`, always below the present in µs
/// while generations stay below 1,600.
pub fn timestamp(generation: u32, offset: u64) -> i64 {
    (i64::from(generation) << 40) | i64::try_from(offset).unwrap_or(i64::MAX)
}

/// The record that begins a changelog.
pub fn incarnation(to: TopicPartition, generation: u32) -> ProduceRecord {
    ProduceRecord {
        to,
        key: Bytes::from_static(INCARNATION.as_bytes()),
        value: Some(Bytes::from(generation.to_string())),
        headers: Headers::new(),
    }
}

/// The record of a row.
pub fn row(to: TopicPartition, key: &RowKey, value: Option<Bytes>) -> ProduceRecord {
    let table = key.table.name();
    let mut text = Vec::with_capacity(table.len() + 1 + key.key.len());
    text.extend_from_slice(table.as_bytes());
    text.push(b'/');
    text.extend_from_slice(key.key.as_bytes());
    ProduceRecord { to, key: text.into(), value, headers: Headers::new() }
}

/// The record of a timer that is set, or not any more.
pub fn timer(to: TopicPartition, timer: &Timer, set: bool) -> ProduceRecord {
    let key = format!("timer/{:014}/{}/{}", timer.due_ms, timer.name.as_str(), timer.key);
    let value = set.then(|| Bytes::from_static(b"1"));
    ProduceRecord { to, key: key.into(), value, headers: Headers::new() }
}

/// Reads a record.
///
/// # Errors
/// A sentence on what is wrong.
pub fn read(record: ReplayRecord) -> Result<Change, String> {
    let key = std::str::from_utf8(&record.key).map_err(|error| error.to_string())?;
    if key == INCARNATION {
        let text = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        return text
            .parse()
            .map(Change::Incarnation)
            .map_err(|_| format!("incarnation {text:?} is no number"));
    }
    let (kind, rest) = key.split_once('/').ok_or_else(|| format!("key {key:?} names no table"))?;
    if kind == "timer" {
        let mut parts = rest.splitn(3, '/');
        let due_ms = parts.next().and_then(|it| it.parse().ok());
        let name = parts.next().and_then(TimerName::parse);
        let (Some(due_ms), Some(name), Some(key)) = (due_ms, name, parts.next()) else {
            return Err(format!("key {key:?} is no timer"));
        };
        let timer = Timer { due_ms, key: Key::from(key), name };
        return Ok(Change::State(StateKey::Timer(timer), record.value.map(|_| Bytes::new())));
    }
    let table = Table::parse(kind).ok_or_else(|| format!("key {key:?} names no table"))?;
    Ok(Change::State(StateKey::Row(RowKey::new(table, Key::from(rest))), record.value))
}

/// What is committed with an input offset: the checkpoint that is surely on the database's disks. A database that says
/// less was restored from an older copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The changelog's incarnation.
    pub generation: u32,
    /// The durable checkpoint.
    pub checkpoint: u64,
}

impl Tag {
    /// As metadata of an offset.
    pub fn encode(self) -> String {
        format!("v1 generation={} checkpoint={}", self.generation, self.checkpoint)
    }

    /// From metadata; `None` where another program committed the offset.
    pub fn decode(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("v1 generation=")?;
        let (generation, checkpoint) = rest.split_once(" checkpoint=")?;
        Some(Self { generation: generation.parse().ok()?, checkpoint: checkpoint.parse().ok()? })
    }

    /// Whether the database is at least where the log says it is.
    pub fn is_met_by(self, found: Option<Checkpoint>) -> bool {
        match found {
            Some(found) => (found.generation, found.offset) >= (self.generation, self.checkpoint),
            None => self.checkpoint == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tillstream_schemas::Topic;

    const TO: TopicPartition = TopicPartition { topic: Topic::OrderChangelog, partition: 0 };

    fn replayed(record: ProduceRecord) -> Result<Change, String> {
        read(ReplayRecord { offset: 7, key: record.key, value: record.value })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(key in "[a-z]{1,8}/[ -~]{0,20}", due_ms in 0i64..99_999_999_999_999, set: bool) {
            for table in Table::ALL {
                let row_key = RowKey::new(table, Key::from(key.as_str()));
                let value = set.then(|| Bytes::from_static(b"v"));
                let change = replayed(row(TO, &row_key, value.clone()));
                prop_assert_eq!(change, Ok(Change::State(StateKey::Row(row_key), value)));
            }
            let it = Timer { due_ms, key: Key::from(key.as_str()), name: TimerName::HoldExpiry };
            let change = replayed(timer(TO, &it, set));
            prop_assert_eq!(change, Ok(Change::State(StateKey::Timer(it), set.then(Bytes::new))));
        }

        #[test]
        fn a_tag_reads_as_it_was_written(generation in 1u32..1_600, checkpoint: u64) {
            let tag = Tag { generation, checkpoint };
            prop_assert_eq!(Tag::decode(&tag.encode()), Some(tag));
        }
    }

    #[test]
    fn timestamps_grow_with_generation_and_offset_and_stay_below_the_present() {
        assert!(timestamp(1, 5) < timestamp(1, 6));
        assert!(timestamp(1, (1 << 40) - 1) < timestamp(2, 0));
        let in_2026_us = 1_767_225_600_000_000_i64;
        assert!(timestamp(1_600, (1 << 40) - 1) < in_2026_us);
    }

    #[test]
    fn foreign_records_are_named() {
        for key in ["nonsense", "other/x", "timer/x/y", "timer/1/unknown/k"] {
            let record = ReplayRecord { offset: 0, key: Bytes::copy_from_slice(key.as_bytes()), value: None };
            assert!(read(record).unwrap_err().contains(key), "{key}");
        }
        assert_eq!(replayed(incarnation(TO, 3)), Ok(Change::Incarnation(3)));
    }

    #[test]
    fn an_older_database_does_not_meet_the_tag() {
        let tag = Tag { generation: 2, checkpoint: 100 };
        let at = |generation, offset| Some(Checkpoint { generation, offset, timers_from_ms: 0 });
        assert!(tag.is_met_by(at(2, 100)) && tag.is_met_by(at(2, 101)) && tag.is_met_by(at(3, 0)));
        assert!(!tag.is_met_by(at(2, 99)) && !tag.is_met_by(at(1, 500)) && !tag.is_met_by(None));
    }
}
