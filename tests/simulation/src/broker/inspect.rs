//! What a test may look at.

use super::SimBroker;
use super::call::Call;
use super::group::Owner;
use super::partition::{Fate, StoredRecord};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tillstream_log::broker::GroupOffset;
use tillstream_log::{Headers, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;

const ALL: ReadLimit = ReadLimit { records_max: usize::MAX, bytes_max: usize::MAX };

/// Which records are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As `read_committed` does: up to the last stable offset, without aborted ones.
    Committed,
    /// As `read_uncommitted` does: all of them.
    Uncommitted,
}

/// A member of a group, as the broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its number, for [`super::Faults::expel`].
    pub member: u64,
    /// Its process.
    pub process: String,
    /// What it owns, partitions included that it was asked back.
    pub partitions: Vec<u32>,
    /// The generation its client knows.
    pub generation: u32,
}

impl SimBroker {
    /// The records of a partition.
    pub fn records(&self, partition: TopicPartition, seen: Seen) -> Vec<StoredRecord> {
        let world = self.core.lock();
        let Some(log) = world.partitions.get(&partition) else { return Vec::new() };
        let records: Vec<Arc<StoredRecord>> = match seen {
            Seen::Committed => log.committed(0, u64::MAX, ALL).0,
            Seen::Uncommitted => log.uncommitted().into_iter().map(|(_, record)| record).collect(),
        };
        records.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// Committed records of a partition from an offset on, and where to go on.
    pub fn committed_from(&self, partition: TopicPartition, offset: u64) -> (Vec<Arc<StoredRecord>>, u64) {
        let world = self.core.lock();
        world
            .partitions
            .get(&partition)
            .map_or((Vec::new(), offset), |it| it.committed(offset, u64::MAX, ALL))
    }

    /// Reads on in every partition: `places` says where, and is moved on. Partitions in which nothing is new are
    /// left out.
    pub fn read_on(
        &self,
        places: &mut BTreeMap<TopicPartition, u64>,
    ) -> Vec<(TopicPartition, Vec<Arc<StoredRecord>>)> {
        let world = self.core.lock();
        let mut read = Vec::new();
        for (at, log) in &world.partitions {
            let place = places.entry(*at).or_default();
            if *place < log.stable_end() {
                let (records, next) = log.committed(*place, u64::MAX, ALL);
                *place = next;
                read.push((*at, records));
            }
        }
        read
    }

    /// The records of all partitions of a topic.
    pub fn topic_records(&self, topic: Topic, seen: Seen) -> Vec<(u32, StoredRecord)> {
        let count = self.core.lock().counts_of.get(&topic).copied().unwrap_or(0);
        let all = (0..count).flat_map(|partition| {
            let records = self.records(TopicPartition::new(topic, partition), seen);
            records.into_iter().map(move |it| (partition, it))
        });
        all.collect()
    }

    /// Offsets of records that no reader of committed records will ever see.
    pub fn aborted_offsets(&self, partition: TopicPartition) -> Vec<u64> {
        let world = self.core.lock();
        let records = world.partitions.get(&partition).map(|it| it.uncommitted()).unwrap_or_default();
        records.into_iter().filter(|(fate, _)| *fate == Fate::Aborted).map(|(_, it)| it.offset).collect()
    }

    /// First offset, last stable offset and end of a partition.
    pub fn ends(&self, partition: TopicPartition) -> Option<(u64, u64, u64)> {
        let world = self.core.lock();
        world.partitions.get(&partition).map(|it| (it.start(), it.stable_end(), it.end()))
    }

    /// Appends a record of no transaction.
    pub fn append(&self, to: TopicPartition, key: &str, value: Option<&[u8]>) {
        let value = value.map(Bytes::copy_from_slice);
        self.core.lock().append_plain(to, Bytes::copy_from_slice(key.as_bytes()), value, Headers::new());
    }

    /// The group's place as committed so far, whatever is open.
    pub fn group_offset(&self, group: &str, partition: TopicPartition) -> Option<GroupOffset> {
        self.core.lock().groups.get(group)?.offsets.get(&partition).cloned()
    }

    /// The group's members, in the order they joined.
    pub fn members(&self, group: &str) -> Vec<MemberView> {
        let world = self.core.lock();
        let Some(found) = world.groups.get(group) else { return Vec::new() };
        let members = found.members.iter().filter_map(|(id, client)| {
            let member = world.members.get(client)?;
            let owned = found.owners.iter().filter(|(_, owner)| match owner {
                Owner::Of(owner) | Owner::Releasing { member: owner, .. } => owner == id,
            });
            Some(MemberView {
                member: *client,
                process: member.process.to_string(),
                partitions: owned.map(|(partition, _)| *partition).collect(),
                generation: member.generation,
            })
        });
        members.collect()
    }

    /// The group's generation; 0 before its first.
    pub fn generation(&self, group: &str) -> u32 {
        self.core.lock().groups.get(group).map_or(0, |it| it.generation)
    }

    /// What a client did that the protocol never does: the first time.
    pub fn broken(&self) -> Option<String> {
        self.core.lock().broken.clone()
    }

    /// Transactional ids whose transaction is open, or decided without its markers.
    pub fn open_transactions(&self) -> BTreeSet<String> {
        self.core.lock().open_transactions()
    }

    /// Calls so far, by kind.
    pub fn calls(&self) -> BTreeMap<Call, u64> {
        self.core.lock().counts.clone()
    }

    /// Calls of a kind so far.
    pub fn count(&self, call: Call) -> u64 {
        self.core.lock().counts.get(&call).copied().unwrap_or(0)
    }

    /// Faults that have struck.
    pub fn faults_struck(&self) -> u64 {
        self.core.lock().injected
    }

    /// A hash of everything that has happened: equal for equal histories.
    pub fn trace_hash(&self) -> u64 {
        self.core.lock().trace
    }
}
