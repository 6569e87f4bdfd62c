//! The log for followers and plain appends.

use super::call::Call;
use super::core::{Attempt, Core, Site};
use super::member::record_of;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_log::broker::BrokerError;
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;

/// A process's view of the log: it knows the ends that its own calls have told it.
pub struct SimLog {
    core: Arc<Core>,
    process: Arc<str>,
    known: Mutex<BTreeMap<TopicPartition, (u64, u64)>>,
}

impl SimLog {
    pub(crate) fn new(core: Arc<Core>, process: Arc<str>) -> Self {
        Self { core, process, known: Mutex::default() }
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

    /// Learns where these partitions begin and end.
    fn learn(&self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let world = self.core.lock();
        let mut known = self.known.lock();
        for at in partitions {
            let log = world.partitions.get(at).ok_or(LogError::NoSuchPartition(*at))?;
            known.insert(*at, (log.start(), log.stable_end()));
        }
        Ok(())
    }

    fn known(&self, at: TopicPartition) -> Result<(u64, u64), LogError> {
        if !self.core.lock().partitions.contains_key(&at) {
            return Err(LogError::NoSuchPartition(at));
        }
        Ok(self.known.lock().get(&at).copied().unwrap_or_default())
    }
}

impl Log for SimLog {
    fn partitions(&self, topic: Topic) -> u32 {
        self.core.lock().counts_of.get(&topic).copied().unwrap_or(0)
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let partitions: Vec<TopicPartition> = records.iter().map(|it| it.to).collect();
            self.learn(&partitions)?;
            let scope = partitions.first().map(ToString::to_string).unwrap_or_default();
            let appended = self.core.call(self.site(Call::Append, &scope), |world| {
                if let Some(missing) = partitions.iter().find(|at| !world.partitions.contains_key(at)) {
                    return Attempt::Done(Err(BrokerError::Refused(format!("{missing} does not exist"))));
                }
                for record in &records {
                    let value = Some(record.value.clone());
                    world.append_plain(record.to, record.key.clone(), value, record.headers.clone());
                }
                Attempt::Done(Ok(()))
            });
            appended.await.map_err(BrokerError::into_log_error)?;
            self.learn(&partitions)
        })
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move { self.read_on(from, offset, limit).await.map(|(records, _)| records) })
    }

    fn read_on(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<(Vec<Record>, u64), LogError>> {
        Box::pin(async move {
            let scope = from.to_string();
            let read = self.core.call(self.site(Call::Read, &scope), |world| {
                let Some(log) = world.partitions.get(&from) else {
                    return Attempt::Done(Ok(Err(LogError::NoSuchPartition(from))));
                };
                if !log.holds(offset) {
                    let (start, end) = (log.start(), log.stable_end());
                    let error = LogError::OutOfRange { partition: from, start, end, asked: offset };
                    return Attempt::Done(Ok(Err(error)));
                }
                Attempt::Done(Ok(Ok(log.committed(offset, u64::MAX, limit))))
            });
            let (records, next) = read.await.map_err(BrokerError::into_log_error)??;
            self.learn(&[from])?;
            Ok((records.into_iter().map(record_of).collect(), next))
        })
    }

    fn refresh<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move {
            let scope = partitions.first().map(ToString::to_string).unwrap_or_default();
            let asked = self.core.call(self.site(Call::Refresh, &scope), |_| Attempt::Done(Ok(())));
            asked.await.map_err(BrokerError::into_log_error)?;
            self.learn(partitions)
        })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            loop {
                self.core.while_paused(&self.process).await;
                let changed = {
                    let world = self.core.lock();
                    let log = world.partitions.get(&partition);
                    log.ok_or(LogError::NoSuchPartition(partition))?.changed.clone()
                };
                let notified = changed.notified();
                let mut notified = std::pin::pin!(notified);
                notified.as_mut().enable();
                let is_there = {
                    let world = self.core.lock();
                    let end = world.partitions.get(&partition).map_or(0, |it| it.stable_end());
                    world.reaches(&self.process) && end > offset
                };
                if is_there {
                    return self.learn(&[partition]);
                }
                notified.await;
            }
        })
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.known(partition).map(|(start, _)| start)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.known(partition).map(|(_, end)| end)
    }
}
