//! A process's client of the broker.

use super::call::Call;
use super::core::{Attempt, Core, Site};
use super::log::SimLog;
use super::member::{ClientMember, SimMember};
use super::partition::StoredRecord;
use super::producer::{ClientProducer, SimProducer};
use futures::future::BoxFuture;
use std::sync::Arc;
use tillstream_log::broker::{
    Broker, BrokerError, GroupMember, GroupOffset, Replay, ReplayRecord, TransactionalProducer,
};
use tillstream_log::{ReadLimit, TopicPartition};
use tillstream_schemas::Topic;

/// The broker as one process sees it.
#[derive(Clone)]
pub struct SimClient {
    core: Arc<Core>,
    process: Arc<str>,
}

impl SimClient {
    pub(crate) fn new(core: Arc<Core>, process: &str) -> Self {
        Self { core, process: process.into() }
    }

    /// The process's name.
    pub fn process(&self) -> &str {
        &self.process
    }

    /// The log for followers and appends, as this process sees it: a new one knows of no ends.
    pub fn log(&self) -> SimLog {
        SimLog::new(self.core.clone(), self.process.clone())
    }

    fn site<'a>(&'a self, call: Call, scope: &'a str) -> Site<'a> {
        Site {
            call,
            scope,
            producer: None,
            process: &self.process,
            timed_out: Some(BrokerError::Unavailable),
        }
    }
}

impl Broker for SimClient {
    fn producer(&self, transactional_id: &str) -> Result<Arc<dyn TransactionalProducer>, BrokerError> {
        let mut world = self.core.lock();
        let handle = world.id();
        world.producers.insert(handle, ClientProducer::new(transactional_id, &self.process));
        Ok(Arc::new(SimProducer {
            core: self.core.clone(),
            process: self.process.clone(),
            transactional_id: transactional_id.to_owned(),
            handle,
        }))
    }

    fn join(&self, group: &str, topic: Topic) -> Result<Arc<dyn GroupMember>, BrokerError> {
        let mut world = self.core.lock();
        *world.counts.entry(Call::Join).or_default() += 1;
        if let Some((_, error)) = world.strike(Call::Join, group) {
            return Err(error);
        }
        let handle = world.id();
        world.members.insert(handle, ClientMember::new(group, topic, &self.process));
        world.enter(handle);
        let (core, process) = (self.core.clone(), self.process.clone());
        Ok(Arc::new(SimMember { core, process, group: group.to_owned(), handle }))
    }

    fn group_offsets<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<GroupOffset>>, BrokerError>> {
        Box::pin(self.core.call(self.site(Call::GroupOffsets, group), move |world| {
            let moves = |at: &TopicPartition| world.coordinators.values().any(|it| it.moves(group, *at));
            if partitions.iter().any(moves) {
                return Attempt::Wait;
            }
            let offsets = world.groups.get(group).map(|it| &it.offsets);
            let found = partitions.iter().map(|at| offsets.and_then(|it| it.get(at)).cloned());
            Attempt::Done(Ok(found.collect()))
        }))
    }

    fn bounds(&self, partition: TopicPartition) -> BoxFuture<'_, Result<(u64, u64), BrokerError>> {
        Box::pin(async move {
            let scope = partition.to_string();
            let bounds = self.core.call(self.site(Call::Bounds, &scope), |world| {
                world.partition(partition).map(|it| (it.start(), it.stable_end())).into()
            });
            bounds.await
        })
    }

    fn replay(&self, partition: TopicPartition, offset: u64) -> Result<Box<dyn Replay>, BrokerError> {
        let world = self.core.lock();
        let log = world.partition(partition)?;
        let (end, incarnation) = (log.stable_end(), log.incarnation);
        let client = self.clone();
        Ok(Box::new(SimReplay { client, partition, offset, end, incarnation }))
    }

    fn set_group_offset<'a>(
        &'a self,
        group: &'a str,
        partition: TopicPartition,
        place: GroupOffset,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(self.core.call(self.site(Call::SetGroupOffset, group), move |world| {
            if let Err(error) = world.partition(partition) {
                return Attempt::Done(Err(error));
            }
            let found = world.groups.entry(group.to_owned()).or_default();
            if !found.members.is_empty() {
                return Attempt::Done(Err(BrokerError::Refused(format!("{group} is not empty"))));
            }
            found.offsets.insert(partition, place.clone());
            Attempt::Done(Ok(()))
        }))
    }

    fn partitions(&self, topic: Topic) -> BoxFuture<'_, Result<Option<u32>, BrokerError>> {
        Box::pin(self.core.call(self.site(Call::Partitions, topic.name()), move |world| {
            Attempt::Done(Ok(world.counts_of.get(&topic).copied().filter(|count| *count > 0)))
        }))
    }
}

struct SimReplay {
    client: SimClient,
    partition: TopicPartition,
    offset: u64,
    end: u64,
    incarnation: u32,
}

impl Replay for SimReplay {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<ReplayRecord>, BrokerError>> {
        Box::pin(async move {
            let (partition, offset, end, incarnation) =
                (self.partition, self.offset, self.end, self.incarnation);
            let scope = partition.to_string();
            let read = self.client.core.call(self.client.site(Call::Replay, &scope), |world| {
                let records_max = 1 + world.random.below(world.settings.replay_records_max);
                let log = match world.partition(partition) {
                    Ok(log) => log,
                    Err(error) => return Attempt::Done(Err(error)),
                };
                if !log.holds(offset) || log.incarnation != incarnation {
                    let detail = format!("it has {}..{}", log.start(), log.end());
                    return Attempt::Done(Err(BrokerError::OutOfRange { partition, offset, detail }));
                }
                let limit = ReadLimit { records_max, bytes_max: usize::MAX };
                Attempt::Done(Ok(log.committed(offset, end, limit)))
            });
            let (records, next) = read.await?;
            self.offset = next;
            let records = records.into_iter();
            let replayed = |it: Arc<StoredRecord>| ReplayRecord {
                offset: it.offset,
                key: it.key.clone(),
                value: it.value.clone(),
            };
            Ok(records.map(replayed).collect())
        })
    }
}
