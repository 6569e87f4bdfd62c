//! A registry: one topic, followed, folded, appended to.

use crate::error::RegistryError;
use crate::event::{Fold, RegistryEvent};
use crate::shared::{Shared, name_of};
use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::RwLock;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tillstream_log::{Headers, Log, LogError, NewRecord, TopicPartition};
use tillstream_runtime::follow::{Followed, follow, partitions};
use tillstream_runtime::{Clock, timeout};
use tillstream_schemas::{Topic, codec};
use tillstream_stage::partition::partition_of;
use tokio::sync::{oneshot, watch};

/// What the fold said about an event.
pub type Verdict<F> = Result<(), <F as Fold>::Refusal>;

/// An append and the way to its own event together may take so long.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries of an append.
const RETRY_WAIT: Duration = Duration::from_millis(50);

/// How far a partition was followed.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: u64,
    /// Where the partition ended when the registry was opened.
    end_at_open: u64,
    ended: bool,
}

impl Position {
    fn is_caught_up(&self) -> bool {
        self.offset >= self.end_at_open
    }
}

/// The registry of one domain in this process.
pub struct Registry<F: Fold> {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    shared: RwLock<Shared<F>>,
    /// Written after what the records changed.
    positions: Vec<watch::Sender<Position>>,
    changes: watch::Sender<u64>,
    unreadable: AtomicU64,
}

impl<F: Fold> Registry<F> {
    /// A registry that has followed nothing yet: run [`Registry::run_follower`], then wait for
    /// [`Registry::caught_up`].
    ///
    /// # Errors
    /// The log's, when it does not tell where its partitions end.
    pub async fn open(log: Arc<dyn Log>, clock: Arc<dyn Clock>, fold: F) -> Result<Arc<Self>, RegistryError> {
        let all = partitions(&*log, F::Event::TOPIC);
        log.refresh(&all).await?;
        let mut positions = Vec::with_capacity(all.len());
        for partition in all {
            let (offset, end_at_open) = (log.start_offset(partition)?, log.end_offset(partition)?);
            positions.push(watch::channel(Position { offset, end_at_open, ended: false }).0);
        }
        let (shared, changes) = (RwLock::new(Shared::new(fold)), watch::channel(0).0);
        Ok(Arc::new(Self { log, clock, shared, positions, changes, unreadable: AtomicU64::new(0) }))
    }

    /// The topic.
    pub fn topic(&self) -> Topic {
        F::Event::TOPIC
    }

    /// Follows the topic until `shutdown`. Once this has ended nothing comes into force here any more, and whoever
    /// waits is told.
    ///
    /// # Errors
    /// What the log says.
    pub async fn run_follower(&self, mut shutdown: watch::Receiver<bool>) -> Result<(), RegistryError> {
        let _ending = Ending(self);
        let all = partitions(&*self.log, self.topic()).into_iter().map(|it| self.follow_partition(it));
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|it| *it) => Ok(()),
            ended = try_join_all(all) => ended.map(|_: Vec<()>| ()),
        }
    }

    async fn follow_partition(&self, partition: TopicPartition) -> Result<(), RegistryError> {
        let position = self.position(partition)?;
        loop {
            let offset = position.borrow().offset;
            let (records, next_offset, mut unreadable) = match follow(&*self.log, partition, offset).await {
                Ok(Followed::Records(records, next_offset)) => (records, next_offset, 0),
                // It has been told where; what stood there is lost here.
                Ok(Followed::Gap(next_offset)) => (Vec::new(), next_offset, 1),
                Err(LogError::Unavailable(reason)) => {
                    tracing::debug!(%partition, reason, "following goes on when the broker answers");
                    self.clock.sleep(RETRY_WAIT).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let applied = {
                let mut shared = self.shared.write();
                for record in &records {
                    unreadable += u64::from(!shared.take(partition.partition, record));
                }
                shared.applied
            };
            self.unreadable.fetch_add(unreadable, Ordering::Relaxed);
            position.send_modify(|it| it.offset = next_offset);
            self.changes.send_if_modified(|it| std::mem::replace(it, applied) != applied);
        }
    }

    /// Whether everything that was in the log when the registry was opened is in force here.
    pub fn is_caught_up(&self) -> bool {
        self.positions.iter().all(|it| it.borrow().is_caught_up())
    }

    /// Resolves once [`Registry::is_caught_up`] holds.
    ///
    /// # Errors
    /// [`RegistryError::FollowerStopped`] when it never will.
    pub async fn caught_up(&self) -> Result<(), RegistryError> {
        for position in &self.positions {
            let mut position = position.subscribe();
            let reached = position.wait_for(|it| it.ended || it.is_caught_up()).await;
            if !reached.is_ok_and(|it| it.is_caught_up()) {
                return Err(RegistryError::FollowerStopped(self.topic()));
            }
        }
        Ok(())
    }

    /// Resolves once everything that was durable in the log when this was called is in force here.
    ///
    /// # Errors
    /// [`RegistryError::FollowerStopped`] when it never will, or the log's, when it does not tell where it ends.
    pub async fn followed_to_end(&self) -> Result<(), RegistryError> {
        let all = partitions(&*self.log, self.topic());
        self.log.refresh(&all).await?;
        for partition in all {
            let end = self.log.end_offset(partition)?;
            let mut position = self.position(partition)?.subscribe();
            let reached = position.wait_for(|it| it.ended || it.offset >= end).await;
            if !reached.is_ok_and(|it| it.offset >= end) {
                return Err(RegistryError::FollowerStopped(self.topic()));
            }
        }
        Ok(())
    }

    /// Looks at what is in force now. Keep it short: nothing is folded meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&F) -> T) -> T {
        look(&self.shared.read().fold)
    }

    /// Turns with every event that changed something: for whoever must act on it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many records or stretches of the log could not be read, and were skipped.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Appends the event and gives the fold's verdict on it. When this returns `Ok(Ok(()))` the change is durable and in
    /// force in this process; in the others it is as soon as they have followed. An event whose id is known gets the
    /// verdict it got before.
    ///
    /// # Errors
    /// [`RegistryError::NotFollowed`] when the event is in the log but not yet in force here,
    /// [`RegistryError::FollowerStopped`], or the log's. The event may come into force all the same: asking again under
    /// the same id is safe.
    pub async fn append(&self, event: &F::Event) -> Result<Verdict<F>, RegistryError> {
        let topic = self.topic();
        let value = codec::encode(event).map_err(|error| RegistryError::Encode { topic, error })?;
        let name = name_of(event);
        let count = self.log.partitions(topic);
        let to = TopicPartition::new(topic, partition_of(event.tenant().as_bytes(), count));
        let position = self.position(to)?.subscribe();
        let deadline_ns = self.clock.deadline(APPEND_TIMEOUT);
        let mut answered = self.shared.write().verdict(&name);
        if let Ok(verdict) = answered.try_recv() {
            return Ok(verdict);
        }
        // After the waiter is there: a follower that ended before it would never tell.
        if position.borrow().ended {
            return Err(RegistryError::FollowerStopped(topic));
        }
        let result = self.append_until(&name, to, value.into(), deadline_ns, answered).await;
        self.shared.write().tidy(&name);
        result
    }

    async fn append_until(
        &self,
        name: &str,
        to: TopicPartition,
        value: Bytes,
        deadline_ns: u64,
        mut answered: oneshot::Receiver<Verdict<F>>,
    ) -> Result<Verdict<F>, RegistryError> {
        let stopped = |_| RegistryError::FollowerStopped(to.topic);
        while let Err(error) = self.append_once(name, to, value.clone()).await? {
            // A failed append may be there all the same: then the verdict comes, and nothing is appended again.
            match timeout(&*self.clock, self.clock.deadline(RETRY_WAIT), &mut answered).await {
                Some(verdict) => return verdict.map_err(stopped),
                None if self.clock.monotonic_ns() >= deadline_ns => return Err(error.into()),
                None => {}
            }
        }
        match timeout(&*self.clock, deadline_ns, answered).await {
            Some(verdict) => verdict.map_err(stopped),
            None => Err(RegistryError::NotFollowed { topic: to.topic }),
        }
    }

    /// One try. The outer error is final, the inner one is worth another try.
    async fn append_once(
        &self,
        name: &str,
        to: TopicPartition,
        value: Bytes,
    ) -> Result<Result<(), LogError>, RegistryError> {
        let record = NewRecord { to, key: record_key(name)?.into(), value, headers: Headers::new() };
        match self.log.append(vec![record]).await {
            Err(error @ (LogError::Unavailable(_) | LogError::LifeOver { .. })) => Ok(Err(error)),
            other => Ok(Ok(other?)),
        }
    }

    fn position(&self, partition: TopicPartition) -> Result<&watch::Sender<Position>, LogError> {
        self.positions.get(partition.partition as usize).ok_or(LogError::NoSuchPartition(partition))
    }
}

/// `tenant/id/nonce`: every try has a key of its own. Were two tries to share one, compaction would keep the later, and
/// the event would move behind what came between them: another history than the one that was answered from.
fn record_key(name: &str) -> Result<String, RegistryError> {
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| RegistryError::Randomness(error.to_string()))?;
    let mut key = String::with_capacity(name.len() + 17);
    let _ = write!(key, "{name}/{:016x}", u64::from_be_bytes(nonce));
    Ok(key)
}

/// However the follower ends (an error, a dropped future), nobody must wait for it.
struct Ending<'a, F: Fold>(&'a Registry<F>);

impl<F: Fold> Drop for Ending<'_, F> {
    fn drop(&mut self) {
        for position in &self.0.positions {
            position.send_modify(|it| it.ended = true);
        }
        self.0.shared.write().give_up();
    }
}
