//! What the store must hold: every commit that was answered, and of those that were not, all or nothing.

use crate::oracle::{Checked, Violation, expect};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tillstream_embedded::EmbeddedStore;
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, Record, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::{RowKey, Table};
use tillstream_state::{Commit, Page, State, TaskCommit, TaskId, Timer};

/// Rows of a page that is read at once.
const PAGE: usize = 1_000;

/// A row of a changelog, as the oracle knows them: its topic, key and value.
pub type Told = (Topic, Bytes, Option<Bytes>);

/// A commit that is not answered yet.
struct Noted {
    from: u64,
    next: u64,
    rows: Vec<(RowKey, Option<Bytes>)>,
    timers_removed: Vec<Timer>,
    timers_set: Vec<Timer>,
}

/// What is in the store.
#[derive(Default)]
pub struct Books {
    rows: BTreeMap<RowKey, Bytes>,
    timers: BTreeSet<(TaskId, Timer)>,
    offsets: BTreeMap<TaskId, u64>,
    unanswered: BTreeMap<TaskId, Noted>,
    told: Vec<Told>,
}

impl Books {
    fn begin(&mut self, commit: &TaskCommit) {
        let noted = Noted {
            from: commit.from_offset,
            next: commit.next_offset,
            rows: commit.rows.clone(),
            timers_removed: commit.timers_removed.clone(),
            timers_set: commit.timers_set.clone(),
        };
        // Of one that the store ended with nothing is known before the next start, and nothing comes after it.
        self.unanswered.entry(commit.task).or_insert(noted);
    }

    fn answered(&mut self, task: TaskId, answer: &Result<(), LogError>) {
        match answer {
            Ok(()) => self.happened(task),
            // What was written then is unknown.
            Err(LogError::Stopped(_)) => {}
            // It was refused.
            Err(_) => drop(self.unanswered.remove(&task)),
        }
    }

    fn happened(&mut self, task: TaskId) {
        let Some(noted) = self.unanswered.remove(&task) else { return };
        self.offsets.insert(task, noted.next);
        let topic = task.kind.changelog();
        for (key, row) in noted.rows {
            if let Some(topic) = topic {
                let key = format!("{}/{}", key.table.name(), key.key);
                self.told.push((topic, key.into(), row.clone()));
            }
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        let named = |it: &Timer| format!("timer/{:014}/{}/{}", it.due_ms, it.name.as_str(), it.key);
        for timer in noted.timers_removed {
            self.told.extend(topic.map(|topic| (topic, named(&timer).into(), None)));
            self.timers.remove(&(task, timer));
        }
        for timer in noted.timers_set {
            self.told.extend(topic.map(|topic| (topic, named(&timer).into(), Some(Bytes::new()))));
            self.timers.insert((task, timer));
        }
    }

    /// What was committed since the last call, in order.
    pub fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Whether a commit that was not answered has happened, if the store's offset does not tell: only timers fired.
    fn shows(noted: &Noted, held: &Held, task: TaskId) -> bool {
        noted.rows.iter().all(|(key, row)| held.rows.get(key) == row.as_ref())
            && noted.timers_set.iter().all(|it| held.timers.contains(&(task, it.clone())))
            && noted
                .timers_removed
                .iter()
                .all(|it| noted.timers_set.contains(it) || !held.timers.contains(&(task, it.clone())))
    }

    /// Decides what became of the commits that were not answered, and compares everything.
    fn settle(&mut self, held: &Held) -> Checked {
        let unanswered: Vec<TaskId> = self.unanswered.keys().copied().collect();
        for task in unanswered {
            let Some(noted) = self.unanswered.get(&task) else { continue };
            let found = held.offsets.get(&task).copied().unwrap_or(0);
            let happened = match noted.from == noted.next {
                true => Self::shows(noted, held, task),
                false => found == noted.next,
            };
            match happened {
                true => self.happened(task),
                false => drop(self.unanswered.remove(&task)),
            }
        }
        self.compare(held)
    }

    fn compare(&self, held: &Held) -> Checked {
        for (task, offset) in &held.offsets {
            let expected = self.offsets.get(task).copied().unwrap_or(0);
            expect(expected == *offset, || {
                format!("{task} has committed {offset}, it should be {expected}")
            })?;
        }
        let differs = |key: &&RowKey| self.rows.get(*key) != held.rows.get(*key);
        if let Some(key) = self.rows.keys().chain(held.rows.keys()).find(differs) {
            let is = match (self.rows.get(key), held.rows.get(key)) {
                (Some(_), None) => "is gone",
                (None, Some(_)) => "is there, and nobody committed it",
                _ => "is another than the one that was committed",
            };
            return Err(Violation(format!("the row {}/{} {is}", key.table.name(), key.key)));
        }
        let timer = self.timers.symmetric_difference(&held.timers).next();
        expect(timer.is_none(), || format!("a timer that is set in one of store and books alone: {timer:?}"))
    }
}

/// What the store says that it holds.
#[derive(Default)]
struct Held {
    rows: BTreeMap<RowKey, Bytes>,
    timers: BTreeSet<(TaskId, Timer)>,
    offsets: BTreeMap<TaskId, u64>,
}

impl Held {
    async fn read(store: &EmbeddedStore, tasks: &[TaskId]) -> Result<Self, LogError> {
        let mut held = Self::default();
        for table in Table::ALL {
            let mut after: Option<String> = None;
            loop {
                let page = store.scan(table, "", after.as_deref(), PAGE).await?;
                after = page.rows.last().map(|(key, _)| key.to_string());
                held.rows.extend(page.rows.into_iter().map(|(key, row)| (RowKey::new(table, key), row)));
                if !page.more {
                    break;
                }
            }
        }
        for task in tasks {
            held.offsets.insert(*task, store.committed_now(*task));
            // A task has a timer for each order that holds stock: they are fewer than a page is long.
            let timers = store.timers_due(*task, 0, i64::MAX - 1, PAGE).await?;
            held.timers.extend(timers.into_iter().map(|it| (*task, it)));
        }
        Ok(held)
    }
}

/// The store as a process sees it; what it commits goes into the books.
pub struct Witness {
    /// The store.
    pub store: Arc<EmbeddedStore>,
    books: Arc<Mutex<Books>>,
}

impl Witness {
    /// A store that was just opened: it must hold what the books say.
    ///
    /// # Errors
    /// What it does not hold, or holds beyond.
    pub async fn new(
        store: Arc<EmbeddedStore>,
        books: Arc<Mutex<Books>>,
        tasks: &[TaskId],
    ) -> Result<Self, Violation> {
        let held = Held::read(&store, tasks).await;
        let held = held.map_err(|error| Violation(format!("the store cannot be read: {error}")))?;
        books.lock().settle(&held)?;
        Ok(Self { store, books })
    }
}

impl Log for Witness {
    fn partitions(&self, topic: Topic) -> u32 {
        self.store.partitions(topic)
    }

    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Result<(), LogError>> {
        self.store.append(records)
    }

    fn read(
        &self,
        from: TopicPartition,
        offset: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Record>, LogError>> {
        self.store.read(from, offset, limit)
    }

    fn wait_past(&self, partition: TopicPartition, offset: u64) -> BoxFuture<'_, Result<(), LogError>> {
        self.store.wait_past(partition, offset)
    }

    fn start_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.store.start_offset(partition)
    }

    fn end_offset(&self, partition: TopicPartition) -> Result<u64, LogError> {
        self.store.end_offset(partition)
    }
}

impl State for Witness {
    fn get_many<'a>(&'a self, keys: &'a [RowKey]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, LogError>> {
        self.store.get_many(keys)
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, LogError>> {
        self.store.scan(table, prefix, after, limit)
    }

    fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
        self.store.timers_due(task, from_ms, until_ms, limit)
    }

    fn committed(&self, task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
        self.store.committed(task)
    }
}

impl Commit for Witness {
    fn commit(&self, commit: TaskCommit) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let task = commit.task;
            self.books.lock().begin(&commit);
            let answer = self.store.commit(commit).await;
            self.books.lock().answered(task, &answer);
            answer
        })
    }
}
