//! Reading the log: on, as the oracle follows it, and again from the beginning.

use super::Alone;
use crate::course::Course;
use crate::house::PARTITIONS;
use crate::oracle::{Checked, Violation, expect};
use std::collections::BTreeSet;
use std::sync::Arc;
use tillstream_log::{Log, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_simulation::broker::StoredRecord;
use xxhash_rust::xxh3::Xxh3;

/// What is read at once.
const PAGE: ReadLimit = ReadLimit { records_max: 1_000, bytes_max: 8 << 20 };

impl Alone {
    /// Reads on, and takes the rows that were committed.
    pub(super) async fn read_on(&mut self) -> Checked {
        let Some(process) = &self.process else { return Ok(()) };
        let witness = process.witness.clone();
        let mut read = Vec::new();
        for at in every_partition() {
            let place = self.places.entry(at).or_default();
            let mut records = Vec::new();
            while witness.end_offset(at).is_ok_and(|end| *place < end) {
                // A store that has stopped says no more.
                let Ok(page) = witness.read(at, *place, PAGE).await else { break };
                *place = page.last().map_or(*place, |it| it.offset + 1);
                records.extend(page);
            }
            if !records.is_empty() {
                let hash = self.read.entry(at).or_default();
                records.iter().for_each(|it| add(hash, it));
                if at.topic.is_dlq() {
                    self.letters.entry(at).or_default().extend(records.iter().cloned());
                }
                read.push((at, records.into_iter().map(stored).collect()));
            }
        }
        drop(witness);
        self.seen.take_all(read, self.house.now_ns())?;
        let told = self.books.lock().told();
        for (topic, key, value) in told {
            self.seen.take_row(topic, key, value)?;
        }
        for line in self.seen.lines() {
            self.tell(|| format!("        {line}"));
        }
        Ok(())
    }

    /// Reads everything from the beginning: it must be what was read before, and have all that clients were told of.
    pub(super) async fn reread(&mut self) -> Checked {
        let Some(process) = &self.process else { return Ok(()) };
        let witness = process.witness.clone();
        let mut there = BTreeSet::new();
        for at in every_partition() {
            let (mut hash, mut place) = (Xxh3::new(), 0);
            while witness.end_offset(at).is_ok_and(|end| place < end) {
                let page = witness.read(at, place, PAGE).await;
                let page = page.map_err(|error| Violation(format!("{at} cannot be read: {error}")))?;
                place = page.last().map_or(place, |it| it.offset + 1);
                for record in page {
                    add(&mut hash, &record);
                    there.insert((at, record.key, record.value));
                }
            }
            let before = self.read.get(&at).map_or_else(|| Xxh3::new().digest(), Xxh3::digest);
            expect(hash.digest() == before, || format!("{at} is not what was read of it before"))?;
        }
        let lost = self.door.taken().into_iter().find(|it| !there.contains(it));
        expect(lost.is_none(), || format!("a record that was acknowledged is gone: {lost:?}"))
    }
}

fn every_partition() -> impl Iterator<Item = TopicPartition> {
    let topics = Topic::ALL.into_iter();
    topics.flat_map(|topic| (0..PARTITIONS).map(move |it| TopicPartition::new(topic, it)))
}

fn add(hash: &mut Xxh3, record: &Record) {
    hash.update(&record.offset.to_le_bytes());
    hash.update(&record.timestamp_ms.to_le_bytes());
    hash.update(&record.key);
    hash.update(&record.value);
}

fn stored(record: Record) -> Arc<StoredRecord> {
    let Record { offset, timestamp_ms, key, value, headers } = record;
    Arc::new(StoredRecord { offset, timestamp_ms, key, value: Some(value), headers })
}
