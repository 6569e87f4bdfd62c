//! The store: opening, closing, and the traits of log and state.

use crate::batch::Budget;
use crate::committer::{Ask, Committer, Purge, Request};
use crate::dir::{self, DirLock, Marker};
use crate::error::StoreError;
use crate::high_water;
use crate::layout;
use crate::read::{check_range, read_disk};
use crate::retention::{Retention, RetentionReport};
use crate::settings::{EmbeddedSettings, Ended};
use crate::shared::Shared;
use crate::tables::{Tables, io_error};
use crate::work;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as bell;
use std::time::Duration;
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::{Commit, Health, Keys, Page, State, StoredKey, TaskCommit, TaskId, Timer};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the group-commit thread; more wait where they are made.
const REQUESTS_WAITING_MAX: usize = 1024;
const PARTITIONS_MAX: u32 = 1024;

/// What is waited for when the store goes.
struct Beside(Vec<Ended>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|ended| ended());
    }
}

/// Log and state on one database. Dropping it ends what waits, as [`EmbeddedStore::close`] does.
pub struct EmbeddedStore {
    // The order matters when it is dropped: retention ends, then the group-commit thread, then the database,
    // then the data dir is free.
    _retention_bell: bell::Sender<()>,
    requests: mpsc::Sender<Request>,
    retention: Arc<Retention>,
    _beside: Beside,
    shared: Arc<Shared>,
    deployment: String,
    _lock: DirLock,
}

impl EmbeddedStore {
    /// Opens the store in the data dir, or makes one there.
    ///
    /// # Errors
    /// Another process has it open, another version or another number of partitions made it, or it cannot be
    /// read.
    pub fn open(settings: EmbeddedSettings) -> Result<Arc<Self>, StoreError> {
        if settings.partitions == 0 || settings.partitions > PARTITIONS_MAX {
            let asked = settings.partitions;
            return Err(StoreError::Settings(format!("{asked} partitions: give 1 to {PARTITIONS_MAX}")));
        }
        let data_dir = settings.data_dir.clone();
        let lock = dir::lock(&data_dir)?;
        let marker = match dir::read_marker(&data_dir)? {
            Some(marker) => marker,
            None => create(&settings)?,
        };
        if marker.partitions != settings.partitions {
            let (found, asked) = (marker.partitions, settings.partitions);
            return Err(StoreError::Partitions { data_dir, found, asked });
        }
        if !dir::database_in_place(&data_dir)? {
            let detail = format!("it has no {} directory", dir::DATABASE);
            return Err(StoreError::NotAStore { data_dir, detail });
        }
        let shared = Arc::new(recover(settings)?);
        high_water::check(&data_dir, &shared)?;
        Self::start(shared, marker.deployment, lock).map(Arc::new)
    }

    fn start(shared: Arc<Shared>, deployment: String, lock: DirLock) -> Result<Self, StoreError> {
        let (requests, waiting) = mpsc::channel(REQUESTS_WAITING_MAX);
        let committer = Committer::new(shared.clone());
        let retention = Arc::new(Retention::new(shared.clone()));
        let every_ms = shared.settings.retention_every_ms;
        let (retention_bell, rung) = bell::channel();
        let (keeper, asks) = (retention.clone(), requests.downgrade());
        let data_dir = shared.settings.data_dir.clone();
        let failed =
            |error| StoreError::Io { doing: "cannot start a thread for", path: data_dir.clone(), error };
        let commits = (shared.settings.spawn)("group-commit", Box::pin(committer.run(waiting)));
        let mut beside = vec![commits.map_err(failed)?];
        if every_ms > 0 {
            let every = Duration::from_millis(every_ms);
            // It sleeps and reads for long: always a thread.
            let kept =
                work::on_a_thread("retention", Box::pin(async move { keep(&keeper, &asks, &rung, every) }));
            beside.push(kept.map_err(failed)?);
        }
        Ok(Self {
            _retention_bell: retention_bell,
            requests,
            retention,
            _beside: Beside(beside),
            shared,
            deployment,
            _lock: lock,
        })
    }

    /// Drains what waits, writes it out, and stops: every later call gets [`LogError::Stopped`].
    ///
    /// # Errors
    /// The store had stopped before, or the last sync failed.
    pub async fn close(&self) -> Result<(), LogError> {
        self.ask(Ask::Close).await
    }

    /// The id that the data dir got when it was made.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// The offset a task goes on from, without waiting; 0 before its first commit.
    pub fn committed_now(&self, task: TaskId) -> u64 {
        self.shared.committed(task)
    }

    /// How many groups were committed since the store was opened: each cost one sync.
    pub fn groups_committed(&self) -> u64 {
        self.shared.groups.load(Ordering::Relaxed)
    }

    /// Runs retention over all partitions now, and waits until what it did is durable.
    ///
    /// # Errors
    /// The store has stopped, or the log cannot be read.
    pub async fn run_retention_now(&self) -> Result<RetentionReport, LogError> {
        let (retention, asks) = (self.retention.clone(), self.requests.downgrade());
        let pass = move || retention.run(true, &mut |purge| purge_blocking(&asks, purge));
        tokio::task::spawn_blocking(pass).await.map_err(io_error)?
    }

    async fn ask(&self, ask: Ask) -> Result<(), LogError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Request { ask, answer }).await;
        match sent {
            Ok(()) => match answered.await {
                Ok(verdict) => verdict,
                Err(_) => Err(self.stopped()),
            },
            Err(_) => Err(self.stopped()),
        }
    }

    fn stopped(&self) -> LogError {
        let unsaid = || LogError::Stopped("the group-commit thread has ended".to_owned());
        self.shared.check_running().err().unwrap_or_else(unsaid)
    }

    /// Reads from the database: inline when it is short, else where it holds up no task.
    async fn reading<T: Send + 'static>(
        &self,
        rows: usize,
        read: impl FnOnce(&Shared) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        self.shared.check_running()?;
        if rows <= self.shared.settings.inline_rows_max || tokio::runtime::Handle::try_current().is_err() {
            return read(&self.shared);
        }
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || read(&shared)).await.map_err(io_error)?
    }
}

/// Opens the database that is in its place, once what is known to mislead it is out of the way.
fn recover(settings: EmbeddedSettings) -> Result<Shared, StoreError> {
    let data_dir = settings.data_dir.clone();
    let path = data_dir.join(dir::DATABASE);
    // Without it fjall knows none of its keyspaces, and removes them.
    if !path.join("keyspaces/0/current").exists() {
        return Err(StoreError::database(&data_dir, "its list of tables is gone"));
    }
    tillstream_journal::mend(&path).map_err(|error| StoreError::journal(&data_dir, error))?;
    // fjall and its trees hold some of what they read for given, and panic where it is not so.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let tables = Tables::open(&path, &settings)?;
        Shared::recover(settings, tables)
    }));
    match opened {
        Ok(shared) => shared.map_err(|error| StoreError::database(&data_dir, error)),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            Err(StoreError::database(&data_dir, said))
        }
    }
}

/// Makes a store aside and puts it in its place once it is whole.
fn create(settings: &EmbeddedSettings) -> Result<Marker, StoreError> {
    let data_dir = &settings.data_dir;
    let path = dir::begin_creation(data_dir)?;
    Tables::open(&path, settings).map(drop).map_err(|error| StoreError::database(data_dir, error))?;
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| StoreError::Settings(format!("no randomness: {error}")))?;
    let deployment = format!("{:016x}", u64::from_be_bytes(id));
    let marker = Marker { partitions: settings.partitions, deployment };
    dir::finish_creation(data_dir, &marker)?;
    Ok(marker)
}

fn purge_blocking(asks: &mpsc::WeakSender<Request>, purge: Purge) -> Result<(), LogError> {
    let gone = || LogError::Stopped("it is closed".to_owned());
    let (answer, answered) = oneshot::channel();
    let asks = asks.upgrade().ok_or_else(gone)?;
    asks.blocking_send(Request { ask: Ask::Purge(purge), answer }).map_err(|_| gone())?;
    answered.blocking_recv().map_err(|_| gone())?
}

/// The retention thread: a pass now and then, until the store goes.
fn keep(retention: &Retention, asks: &mpsc::WeakSender<Request>, rung: &bell::Receiver<()>, every: Duration) {
    while rung.recv_timeout(every) == Err(bell::RecvTimeoutError::Timeout) {
        match retention.run(false, &mut |purge| purge_blocking(asks, purge)) {
            Ok(report) if report != RetentionReport::default() => {
                tracing::debug!(?report, "retention");
            }
            Ok(_) => {}
            Err(LogError::Stopped(_)) => return,
            Err(error) => tracing::error!(%error, "retention failed; it is tried again"),
        }
    }
}

impl Log for EmbeddedStore {
    fn partitions(&self, _topic: Topic) -> u32 {
        self.shared.partitions.per_topic()
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.ask(Ask::Append(records)))
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        Box::pin(async move {
            self.shared.check_running()?;
            let end = check_range(&self.shared, from, offset)?;
            if offset == end {
                return Ok(Vec::new());
            }
            if let Some(read) = self.shared.partitions.get(from)?.read_tail(offset, &mut Budget::new(limit)) {
                return read.map_err(io_error);
            }
            let records = self
                .reading(limit.records_max, move |shared| read_disk(shared, from, offset, end, limit))
                .await?;
            // Retention may have passed by meanwhile: then it is said, and nothing is skipped.
            check_range(&self.shared, from, offset)?;
            Ok(records)
        })
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            match self.shared.partitions.get(partition)?.past(offset).await {
                true => Ok(()),
                false => Err(self.stopped()),
            }
        })
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.shared.check_running()?;
        Ok(self.shared.partitions.get(partition)?.start())
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.shared.check_running()?;
        Ok(self.shared.partitions.get(partition)?.end())
    }
}

/// Reads up to `limit` rows of the table whose keys start with `prefix` and are past `after`.
fn scan(
    shared: &Shared,
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Page, LogError> {
    let lower = match after.filter(|after| *after >= prefix) {
        Some(after) => Bound::Excluded(after.to_vec()),
        None => Bound::Included(prefix.to_vec()),
    };
    let upper = layout::prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
    if let (Bound::Excluded(lower), Bound::Excluded(upper)) = (&lower, &upper)
        && lower >= upper
    {
        return Ok(Page::default());
    }
    let mut page = Page::default();
    for guard in shared.tables.rows(table).range::<Vec<u8>, _>((lower, upper)) {
        if page.rows.len() == limit {
            page.more = true;
            break;
        }
        let (key, value) = guard.into_inner().map_err(io_error)?;
        page.rows.push((Key::from_utf8(key).map_err(io_error)?, layout::bytes_of(value)));
    }
    Ok(page)
}

fn timers_due(
    shared: &Shared,
    task: TaskId,
    from_ms: i64,
    until_ms: i64,
    limit: usize,
) -> Result<Vec<Timer>, LogError> {
    let last = until_ms.saturating_add(1);
    if until_ms < 0 || from_ms > until_ms {
        return Ok(Vec::new());
    }
    let due = layout::timer_prefix(task, from_ms)..layout::timer_prefix(task, last);
    let mut timers = Vec::new();
    for guard in shared.tables.timers.range(due).take(limit) {
        let key = guard.key().map_err(io_error)?;
        timers.push(layout::timer_of(&key).ok_or_else(|| io_error("the key of a timer cannot be read"))?);
    }
    Ok(timers)
}

impl State for EmbeddedStore {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>> {
        Box::pin(async move {
            self.shared.check_running()?;
            // In key order: neighbours lie in the same blocks and on the same paths through the memtables.
            let mut order: Vec<usize> = (0..keys.len()).collect();
            order.sort_unstable_by_key(|index| &keys[*index]);
            let mut rows = vec![None; keys.len()];
            for index in order {
                let RowKey { table, key } = &keys[index];
                let row = self.shared.tables.rows(*table).get(key.as_bytes()).map_err(io_error)?;
                rows[index] = row.map(layout::bytes_of);
            }
            Ok(rows)
        })
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        let (prefix, after) = (prefix.as_bytes().to_vec(), after.map(|after| after.as_bytes().to_vec()));
        Box::pin(self.reading(limit, move |shared| scan(shared, table, &prefix, after.as_deref(), limit)))
    }

    fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        Box::pin(self.reading(limit, move |shared| timers_due(shared, task, from_ms, until_ms, limit)))
    }

    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move {
            self.shared.check_running()?;
            Ok(self.shared.committed(task))
        })
    }
}

impl Commit for EmbeddedStore {
    fn commit(&self, commit: TaskCommit) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.ask(Ask::Commit(commit)))
    }
}

impl Keys for EmbeddedStore {
    fn list_keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, LogError>> {
        let list = |shared: &Shared| {
            let read = |guard: fjall::Guard| {
                let (id, value) = guard.into_inner().map_err(io_error)?;
                layout::decode_stored_key(&id, &value)
            };
            shared.tables.keys.iter().map(read).collect()
        };
        Box::pin(self.reading(0, list))
    }
}

impl Health for EmbeddedStore {
    fn trouble(&self) -> Option<LogError> {
        self.shared.trouble()
    }
}
