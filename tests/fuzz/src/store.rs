//! The embedded store's files: damage to any one of them is an error that says so, or costs nothing.

use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Log, LogError, NewRecord, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{RowKey, Table};
use tillstream_state::{Commit, State, TaskCommit, TaskId};
use tokio::runtime::Runtime;

const AT: TopicPartition = TopicPartition { topic: Topic::OrderCommands, partition: 1 };
const TASK: TaskId = TaskId { kind: TaskKind::Order, partition: 1 };
const RECORDS: u64 = 24;
const BIG_ROWS: u64 = 8;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
}

fn settings(dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings {
        partitions: 2,
        retention_every_ms: 0,
        cache_bytes: 1 << 20,
        tail_bytes: 0,
        ..EmbeddedSettings::new(dir)
    }
}

fn value(n: u64) -> Bytes {
    Bytes::from(format!("value {n} {}", "x".repeat(n as usize * 7)))
}

fn row_key(n: u64) -> RowKey {
    RowKey::new(Table::Order, format!("demo/{n}").as_str().into())
}

/// Rows that are more than a memtable takes, so that their table is written to files of its own.
fn big_row(n: u64) -> (RowKey, Bytes) {
    let key = RowKey::new(Table::OrderIndex, format!("demo/{n}").as_str().into());
    (key, Bytes::from(n.to_string().repeat(600_000)))
}

async fn fill(dir: &Path) {
    let store = EmbeddedStore::open(settings(dir)).unwrap();
    for n in 0..RECORDS {
        let mut rows = vec![(row_key(n), Some(value(n)))];
        if n < BIG_ROWS {
            let (key, row) = big_row(n);
            rows.push((key, Some(row)));
        }
        let record = NewRecord {
            to: AT,
            key: Bytes::from(n.to_string()),
            value: value(n),
            headers: Vec::new().into(),
        };
        let commit = TaskCommit {
            task: TASK,
            from_offset: n,
            next_offset: n + 1,
            outputs: vec![record],
            rows,
            timers_removed: Vec::new(),
            timers_set: Vec::new(),
        };
        store.commit(commit).await.unwrap();
    }
    store.close().await.unwrap();
}

/// A store that was filled and closed; its directory goes with the process.
static FILLED: LazyLock<(TempDir, Vec<PathBuf>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    RUNTIME.with(|it| it.block_on(fill(dir.path())));
    // Opened once more, the database cuts its journal where it ends.
    drop(EmbeddedStore::open(settings(dir.path())).unwrap());
    let mut files = Vec::new();
    find_files(dir.path(), dir.path(), &mut files);
    files.sort();
    (dir, files)
});

fn find_files(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_files(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).unwrap().to_path_buf());
        }
    }
}

fn copy(to: &Path) {
    let (from, files) = &*FILLED;
    for file in files {
        fs::create_dir_all(to.join(file).parent().unwrap()).unwrap();
        fs::copy(from.path().join(file), to.join(file)).unwrap();
    }
}

/// One kind of damage: to bytes, or to the whole file.
fn damage(path: &Path, steps: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    for step in steps.chunks_exact(5) {
        let [kind, at @ .., with] = step else { return };
        let place = u32::from_le_bytes([at[0], at[1], at[2], 0]) as usize;
        let place = if bytes.is_empty() { 0 } else { place % bytes.len() };
        match kind % 6 {
            0 if !bytes.is_empty() => bytes[place] ^= with.max(&1),
            1 => bytes.truncate(place),
            2 => bytes.iter_mut().skip(place).take(usize::from(*with) * 16).for_each(|it| *it = 0),
            3 => bytes.extend(std::iter::repeat_n(*with, place % 5_000)),
            4 => {
                let end = (place + usize::from(*with)).min(bytes.len());
                drop(bytes.drain(place..end));
            }
            5 => return fs::remove_file(path).unwrap(),
            _ => {}
        }
    }
    fs::write(path, bytes).unwrap();
}

async fn check_log(store: &EmbeddedStore) {
    let mut offset = 0;
    while offset < RECORDS {
        match store.read(AT, offset, ReadLimit { records_max: 10, bytes_max: 1 << 20 }).await {
            Ok(records) => {
                assert!(!records.is_empty(), "the log ends at {offset}, not at {RECORDS}");
                for record in records {
                    assert_eq!((record.offset, &record.value), (offset, &value(offset)), "another record");
                    offset += 1;
                }
            }
            Err(LogError::Corrupt { next_offset, .. }) if next_offset > offset => offset = next_offset,
            Err(error) => return assert!(!error.to_string().is_empty()),
        }
    }
}

async fn check(store: &EmbeddedStore) {
    assert_eq!(store.committed_now(TASK), RECORDS, "the offset went back");
    check_log(store).await;
    let keys: Vec<RowKey> = (0..RECORDS).map(row_key).collect();
    if let Ok(rows) = store.get_many(&keys).await {
        for (n, row) in (0..).zip(rows) {
            assert_eq!(row, Some(value(n)), "row {n} is another");
        }
    }
    for n in 0..BIG_ROWS {
        let (key, row) = big_row(n);
        if let Ok(rows) = store.get_many(&[key]).await {
            assert_eq!(rows, [Some(row)], "big row {n} is another");
        }
    }
}

/// The number of a file, then steps of damage to it, of five bytes each.
pub fn damaged(input: &[u8]) {
    let Some((file, steps)) = input.split_first() else { return };
    if steps.len() < 5 {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path());
    let file = &FILLED.1[usize::from(*file) % FILLED.1.len()];
    damage(&dir.path().join(file), steps);
    match EmbeddedStore::open(settings(dir.path())) {
        Ok(store) => RUNTIME.with(|it| it.block_on(check(&store))),
        Err(error) => assert!(error.to_string().starts_with("TS03"), "{}: {error}", file.display()),
    }
}
