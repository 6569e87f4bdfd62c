//! Broker and database of one process, with their calls noted down, and with something done at a call.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_log::broker::{
    Broker, BrokerError, GroupMember, GroupMetadata, GroupOffset, ProduceRecord, Replay,
    TransactionalProducer,
};
use tillstream_log::{LogError, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_simulation::SimRows;
use tillstream_simulation::broker::SimClient;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{RowKey, Table};
use tillstream_state::row_store::{
    Checkpoint, Deployment, RowStore, RowWrite, ShardPage, ShardPlace, StoredRow,
};
use tillstream_state::{Page, TaskId, Timer};

/// What is done at a call.
type Hook = BoxFuture<'static, ()>;

/// Notes every call; runs a hook once before the next call of its name (`timers` and `… after`: after it).
#[derive(Clone, Default)]
pub struct Hooks {
    calls: Arc<Mutex<Vec<String>>>,
    next: Arc<Mutex<BTreeMap<&'static str, Hook>>>,
}

impl Hooks {
    pub fn at(&self, call: &'static str, hook: impl Future<Output = ()> + Send + 'static) {
        self.next.lock().insert(call, Box::pin(hook));
    }

    /// The calls since the last time this was asked.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }

    async fn reach(&self, call: &'static str) {
        self.calls.lock().push(call.to_owned());
        self.run(call).await;
    }

    async fn run(&self, call: &'static str) {
        let hook = self.next.lock().remove(call);
        if let Some(hook) = hook {
            hook.await;
        }
    }
}

pub struct HookedBroker {
    pub inner: SimClient,
    pub hooks: Hooks,
}

impl Broker for HookedBroker {
    fn producer(&self, transactional_id: &str) -> Result<Arc<dyn TransactionalProducer>, BrokerError> {
        let inner = self.inner.producer(transactional_id)?;
        Ok(Arc::new(HookedProducer { inner, hooks: self.hooks.clone() }))
    }

    fn join(&self, group: &str, topic: Topic) -> Result<Arc<dyn GroupMember>, BrokerError> {
        self.inner.join(group, topic)
    }

    fn group_offsets<'a>(
        &'a self,
        group: &'a str,
        partitions: &'a [TopicPartition],
    ) -> BoxFuture<'a, Result<Vec<Option<GroupOffset>>, BrokerError>> {
        Box::pin(async move {
            self.hooks.reach("group_offsets").await;
            let found = self.inner.group_offsets(group, partitions).await;
            self.hooks.run("group_offsets after").await;
            found
        })
    }

    fn bounds(&self, partition: TopicPartition) -> BoxFuture<'_, Result<(u64, u64), BrokerError>> {
        self.inner.bounds(partition)
    }

    fn replay(&self, partition: TopicPartition, offset: u64) -> Result<Box<dyn Replay>, BrokerError> {
        self.hooks.calls.lock().push("replay".to_owned());
        self.inner.replay(partition, offset)
    }

    fn set_group_offset<'a>(
        &'a self,
        group: &'a str,
        partition: TopicPartition,
        place: GroupOffset,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.inner.set_group_offset(group, partition, place)
    }

    fn partitions(&self, topic: Topic) -> BoxFuture<'_, Result<Option<u32>, BrokerError>> {
        self.inner.partitions(topic)
    }
}

struct HookedProducer {
    inner: Arc<dyn TransactionalProducer>,
    hooks: Hooks,
}

impl TransactionalProducer for HookedProducer {
    fn init(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.hooks.reach("init").await;
            self.inner.init().await
        })
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.hooks.reach("begin").await;
            self.inner.begin().await
        })
    }

    fn produce(&self, records: Vec<ProduceRecord>) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.hooks.reach("produce").await;
            self.inner.produce(records).await
        })
    }

    fn drain(&self) -> BoxFuture<'_, Result<Vec<u64>, BrokerError>> {
        Box::pin(async move {
            self.hooks.reach("drain").await;
            self.inner.drain().await
        })
    }

    fn send_offset(
        &self,
        group: &str,
        member: &GroupMetadata,
        partition: TopicPartition,
        offset: GroupOffset,
    ) -> BoxFuture<'_, Result<(), BrokerError>> {
        let (group, member) = (group.to_owned(), member.clone());
        Box::pin(async move {
            self.hooks.reach("send_offset").await;
            self.inner.send_offset(&group, &member, partition, offset).await
        })
    }

    fn commit(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.hooks.reach("commit").await;
            self.inner.commit().await
        })
    }

    fn abort(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.hooks.reach("abort").await;
            self.inner.abort().await
        })
    }
}

pub struct HookedRows {
    pub inner: SimRows,
    pub hooks: Hooks,
}

impl RowStore for HookedRows {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<StoredRow>>, LogError>> {
        self.inner.get_many(keys)
    }

    fn write<'a>(&'a self, task: TaskId, writes: &'a [RowWrite]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move {
            self.hooks.reach("write").await;
            self.inner.write(task, writes).await
        })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        self.inner.scan(table, prefix, after, limit)
    }

    fn shard_page<'a>(
        &'a self,
        table: Table,
        partition: u32,
        from: Option<&'a ShardPlace>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ShardPage, LogError>> {
        self.inner.shard_page(table, partition, from, limit)
    }

    fn timers(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Timer, i64)>, LogError>> {
        Box::pin(async move {
            let found = self.inner.timers(task, from_ms, until_ms, limit).await;
            self.hooks.run("timers").await;
            found
        })
    }

    fn checkpoint(&self, task: TaskId) -> BoxFuture<'_, Result<Option<Checkpoint>, LogError>> {
        self.inner.checkpoint(task)
    }

    fn put_checkpoint(
        &self,
        task: TaskId,
        checkpoint: Checkpoint,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.put_checkpoint(task, checkpoint, timestamp)
    }

    fn put_flushed(
        &self,
        task: TaskId,
        input_offset: u64,
        timestamp: i64,
    ) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.put_flushed(task, input_offset, timestamp)
    }

    fn flushed(&self, kind: TaskKind) -> BoxFuture<'_, Result<BTreeMap<u32, u64>, LogError>> {
        self.inner.flushed(kind)
    }

    fn marked_tables(&self, task: TaskId) -> BoxFuture<'_, Result<Vec<Table>, LogError>> {
        self.inner.marked_tables(task)
    }

    fn incarnations(&self) -> BoxFuture<'_, Result<BTreeMap<String, Option<i64>>, LogError>> {
        self.inner.incarnations()
    }

    fn deployment(&self) -> BoxFuture<'_, Result<Option<Deployment>, LogError>> {
        self.inner.deployment()
    }

    fn claim(&self, deployment: Deployment) -> BoxFuture<'_, Result<Deployment, LogError>> {
        self.inner.claim(deployment)
    }

    fn set_rebuilding(&self, rebuilding: bool) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.set_rebuilding(rebuilding)
    }

    fn truncate(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.truncate()
    }
}
