//! A store in memory, with switches for what can go wrong.

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::codec::{self, Wire};
use tillstream_schemas::order_command::OrderCommand;
use tillstream_schemas::{Topic, codec::CodecError};
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::{Health, Keys, Page, State, StoredKey, TaskId, Timer};
use tokio::sync::{Notify, RwLock};

pub const PARTITIONS: u32 = 4;

#[derive(Default)]
pub struct MemoryStore {
    log: Mutex<BTreeMap<TopicPartition, Vec<Record>>>,
    rows: Mutex<BTreeMap<(Table, Key), Bytes>>,
    /// Keys of an earlier version.
    pub earlier_keys: Mutex<Vec<StoredKey>>,
    trouble: Mutex<Option<LogError>>,
    appended: Notify,
    /// What was asked of the store, call by call, without whose it was.
    work: Mutex<Vec<String>>,
    written: Mutex<Vec<String>>,
    /// Appends wait while a test holds this for writing.
    pub gate: RwLock<()>,
}

impl MemoryStore {
    pub fn set_trouble(&self, trouble: Option<LogError>) {
        *self.trouble.lock() = trouble;
    }

    fn note(&self, work: String) {
        self.work.lock().push(work);
    }

    /// What was asked since the last look.
    pub fn take_work(&self) -> Vec<String> {
        std::mem::take(&mut *self.work.lock())
    }

    pub fn put<T: Wire>(&self, table: Table, key: &str, row: &T) {
        self.rows.lock().insert((table, key.into()), codec::encode(row).unwrap().into());
    }

    pub fn put_empty(&self, table: Table, key: &str) {
        self.rows.lock().insert((table, key.into()), Bytes::new());
    }

    pub fn records(&self, topic: Topic) -> Vec<Record> {
        let log = self.log.lock();
        log.iter().filter(|(at, _)| at.topic == topic).flat_map(|(_, records)| records.clone()).collect()
    }

    /// The key of every record, oldest first.
    pub fn written(&self) -> Vec<String> {
        self.written.lock().clone()
    }

    pub fn order_commands(&self) -> Vec<OrderCommand> {
        let decoded: Result<_, CodecError> =
            self.records(Topic::OrderCommands).iter().map(|it| codec::decode(&it.value)).collect();
        decoded.unwrap()
    }
}

impl Log for MemoryStore {
    fn partitions(&self, _topic: Topic) -> u32 {
        PARTITIONS
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        self.note(format!("append {}", records.len()));
        Box::pin(async move {
            let _gate = self.gate.read().await;
            if let Some(error) = self.trouble.lock().clone() {
                return Err(error);
            }
            let mut log = self.log.lock();
            for it in records {
                self.written.lock().push(String::from_utf8_lossy(&it.key).into_owned());
                let partition = log.entry(it.to).or_default();
                partition.push(Record {
                    offset: partition.len() as u64,
                    timestamp_ms: 1_000 + partition.len() as i64,
                    key: it.key,
                    value: it.value,
                    headers: it.headers,
                });
            }
            drop(log);
            self.appended.notify_waiters();
            Ok(())
        })
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        self.note(format!("read {from:?} {limit:?}"));
        let log = self.log.lock();
        let records =
            log.get(&from).into_iter().flatten().skip(offset as usize).take(limit.records_max).cloned();
        let records: Vec<Record> = records.collect();
        Box::pin(async move { Ok(records) })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            loop {
                let appended = self.appended.notified();
                if self.end_offset(partition)? > offset {
                    return Ok(());
                }
                appended.await;
            }
        })
    }

    fn start_offset(&self, _partition: TopicPartition) -> Result<u64, LogError> {
        Ok(0)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        Ok(self.log.lock().get(&partition).map_or(0, |it| it.len() as u64))
    }
}

impl State for MemoryStore {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>> {
        let tables: Vec<Table> = keys.iter().map(|it| it.table).collect();
        self.note(format!("get {tables:?}"));
        let rows = self.rows.lock();
        let found = keys.iter().map(|it| rows.get(&(it.table, it.key.clone())).cloned()).collect();
        Box::pin(async move { Ok(found) })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        self.note(format!("scan {table:?} {limit}"));
        let rows = self.rows.lock();
        let mut found: Vec<(Key, Bytes)> = rows
            .iter()
            .filter(|((it, key), _)| *it == table && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_str() > after))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .take(limit + 1)
            .collect();
        let more = found.len() > limit;
        found.truncate(limit);
        Box::pin(async move { Ok(Page { rows: found, more }) })
    }

    fn timers_due(
        &self,
        _task: TaskId,
        _from_ms: i64,
        _until_ms: i64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn committed(&self, _task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async { Ok(0) })
    }
}

impl Keys for MemoryStore {
    fn list_keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, LogError>> {
        let keys = self.earlier_keys.lock().clone();
        Box::pin(async move { Ok(keys) })
    }
}

impl Health for MemoryStore {
    fn trouble(&self) -> Option<LogError> {
        self.trouble.lock().clone()
    }
}
