//! A member of a consumer group: what the client has been told and what it has fetched.

use super::call::Call;
use super::core::{Attempt, Core, Site};
use super::partition::StoredRecord;
use super::world::World;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tillstream_log::broker::{BrokerError, GroupEvent, GroupMember, GroupMetadata, Release};
use tillstream_log::{ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;

/// A member's place in its group, as a commit carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) member_id: u64,
    pub(crate) generation: u32,
}

#[derive(Debug)]
pub(crate) enum Event {
    Assigned(Vec<u32>),
    Revoked { partitions: Vec<u32>, ticket: u64 },
    Lost(Vec<u32>),
}

/// Where the client fetches a partition.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    position: Option<u64>,
    buffer: VecDeque<Record>,
    failed: Option<BrokerError>,
}

pub(crate) struct ClientMember {
    pub(crate) group: String,
    pub(crate) topic: Topic,
    pub(crate) process: Arc<str>,
    /// Its id in the group, and the generation it knows.
    pub(crate) member_id: u64,
    pub(crate) generation: u32,
    pub(crate) events: VecDeque<Event>,
    /// The partitions it believes to own.
    pub(crate) fetches: BTreeMap<u32, Fetch>,
    /// Since when its handle is dropped.
    pub(crate) gone_since_ns: Option<u64>,
    pub(crate) expelled: bool,
    pub(crate) left: bool,
}

impl ClientMember {
    pub(crate) fn new(group: &str, topic: Topic, process: &Arc<str>) -> Self {
        Self {
            group: group.to_owned(),
            topic,
            process: process.clone(),
            member_id: 0,
            generation: 0,
            events: VecDeque::new(),
            fetches: BTreeMap::new(),
            gone_since_ns: None,
            expelled: false,
            left: false,
        }
    }
}

pub(crate) fn record_of(stored: Arc<StoredRecord>) -> Record {
    let StoredRecord { offset, timestamp_ms, key, value, headers } = Arc::unwrap_or_clone(stored);
    Record { offset, timestamp_ms, key, value: value.unwrap_or_else(Bytes::new), headers }
}

impl World {
    /// Fetches until more than `wanted` records are there, or nothing more is.
    fn fetch(&mut self, client: u64, partition: u32, wanted: usize) -> Option<&mut Fetch> {
        let member = self.members.get(&client)?;
        let at = TopicPartition::new(member.topic, partition);
        let reaches = self.reaches(&member.process.clone());
        let fetch = self.members.get_mut(&client)?.fetches.get_mut(&partition)?;
        if let Some(position) = fetch.position.filter(|_| reaches && fetch.failed.is_none())
            && fetch.buffer.len() <= wanted
            && let Some(log) = self.partitions.get(&at)
        {
            if log.holds(position) {
                let records_max = self.settings.fetch_records_max.max(wanted + 1);
                let limit = ReadLimit { records_max, bytes_max: usize::MAX };
                let (records, next) = log.committed(position, u64::MAX, limit);
                fetch.buffer.extend(records.into_iter().map(record_of));
                fetch.position = Some(next);
            } else {
                let detail = format!("it has {}..{}", log.start(), log.end());
                fetch.failed = Some(BrokerError::OutOfRange { partition: at, offset: position, detail });
            }
        }
        Some(fetch)
    }
}

/// A member's handle. Dropped without leaving, the client has crashed: its session has to end first.
pub(crate) struct SimMember {
    pub(crate) core: Arc<Core>,
    pub(crate) process: Arc<str>,
    pub(crate) group: String,
    pub(crate) handle: u64,
}

impl Drop for SimMember {
    fn drop(&mut self) {
        let mut world = self.core.lock();
        let now_ns = world.now_ns;
        if let Some(member) = world.members.get_mut(&self.handle) {
            member.gone_since_ns.get_or_insert(now_ns);
        }
        world.wake_all();
    }
}

impl SimMember {
    fn site(&self, call: Call) -> Site<'_> {
        Site { call, scope: &self.group, producer: None, process: &self.process, timed_out: None }
    }

    fn count(&self, call: Call) -> Result<(), BrokerError> {
        let mut world = self.core.lock();
        *world.counts.entry(call).or_default() += 1;
        world.strike(call, &self.group).map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The next event, if there is one.
    fn try_next(&self) -> Option<GroupEvent> {
        let mut world = self.core.lock();
        let process = world.process(&self.process);
        if process.paused || process.killed {
            return None;
        }
        let member = world.members.get_mut(&self.handle)?;
        if member.left {
            return Some(GroupEvent::Failed(BrokerError::Refused("this member has left".into())));
        }
        Some(match member.events.pop_front()? {
            Event::Assigned(partitions) => GroupEvent::Assigned(partitions),
            Event::Lost(partitions) => GroupEvent::Lost(partitions),
            Event::Revoked { partitions, ticket } => {
                let (core, group) = (self.core.clone(), self.group.clone());
                GroupEvent::Revoked(
                    partitions,
                    Release::new(move || {
                        core.lock().release(&group, ticket);
                    }),
                )
            }
        })
    }
}

impl GroupMember for SimMember {
    fn next_event(&self) -> BoxFuture<'_, GroupEvent> {
        Box::pin(async move {
            let told = self.core.lock().told.clone();
            loop {
                let notified = told.notified();
                let mut notified = std::pin::pin!(notified);
                notified.as_mut().enable();
                match self.try_next() {
                    Some(event) => return event,
                    None => notified.await,
                }
            }
        })
    }

    fn fetch_from(&self, partition: u32, offset: u64) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.core.call(self.site(Call::FetchFrom), move |world| {
            let fetch = world.members.get_mut(&self.handle).and_then(|it| it.fetches.get_mut(&partition));
            let Some(fetch) = fetch else {
                let text = format!("partition {partition} is not assigned to this member");
                return Attempt::Done(Err(BrokerError::Unavailable(text)));
            };
            *fetch = Fetch { position: Some(offset), ..Fetch::default() };
            world.wake_all();
            Attempt::Done(Ok(()))
        }))
    }

    fn take(&self, partition: u32, limit: ReadLimit) -> Result<Vec<Record>, BrokerError> {
        self.count(Call::Take)?;
        let mut world = self.core.lock();
        let Some(fetch) = world.fetch(self.handle, partition, limit.records_max) else {
            return Ok(Vec::new());
        };
        if let Some(error) = fetch.failed.as_ref().filter(|_| fetch.buffer.is_empty()) {
            return Err(error.clone());
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(record) = fetch.buffer.front() {
            bytes += record.key.len() + record.value.len();
            if !taken.is_empty() && (taken.len() >= limit.records_max || bytes > limit.bytes_max) {
                break;
            }
            taken.extend(fetch.buffer.pop_front());
        }
        Ok(taken)
    }

    fn buffered(&self, partition: u32) -> usize {
        self.core.lock().fetch(self.handle, partition, 0).map_or(0, |it| it.buffer.len())
    }

    fn wait_buffered(&self, partition: u32, records: usize) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let changed = {
                let world = self.core.lock();
                let topic = world.members.get(&self.handle).map(|it| it.topic);
                let at = topic.map(|it| TopicPartition::new(it, partition));
                at.and_then(|it| world.partitions.get(&it)).map(|it| it.changed.clone())
            };
            let Some(changed) = changed else { return };
            loop {
                self.core.while_paused(&self.process).await;
                let notified = changed.notified();
                let mut notified = std::pin::pin!(notified);
                notified.as_mut().enable();
                let enough = {
                    let mut world = self.core.lock();
                    let fetch = world.fetch(self.handle, partition, records);
                    fetch.is_none_or(|it| it.failed.is_some() || it.buffer.len() > records)
                };
                if enough {
                    return;
                }
                notified.await;
            }
        })
    }

    fn metadata(&self) -> Result<GroupMetadata, BrokerError> {
        self.count(Call::Metadata)?;
        let world = self.core.lock();
        let member = world.members.get(&self.handle).filter(|it| !it.left);
        let member = member.ok_or_else(|| BrokerError::Refused("this member has left".into()))?;
        let (group, member_id, generation) = (member.group.clone(), member.member_id, member.generation);
        Ok(GroupMetadata(Arc::new(Place { group, member_id, generation })))
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let left = self.core.call(self.site(Call::Leave), |world| {
                if let Some(member) = world.members.get_mut(&self.handle).filter(|it| !it.left) {
                    member.left = true;
                    member.events.clear();
                    member.fetches.clear();
                    let (group, id) = (member.group.clone(), member.member_id);
                    world.remove_member(&group, id);
                    world.wake_all();
                }
                Attempt::Done(Ok(()))
            });
            // A failed leave is told to nobody: the session ends it.
            left.await.unwrap_or_default();
        })
    }
}
