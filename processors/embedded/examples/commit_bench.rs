//! How fast appends and task commits are, on this disk: `cargo run --release -p tillstream-embedded --example commit_bench`.
//!
//! Arguments: seconds per part (5), directory (a temporary one).
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench")]

use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Headers, Log, NewRecord, ReadLimit, TopicPartition};
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table, TimerName};
use tillstream_state::{Commit, TaskCommit, TaskId, Timer};

fn record(to: TopicPartition, number: u64, bytes: usize) -> NewRecord {
    let key = Bytes::from(format!("demo/ord_{number:020}"));
    NewRecord { to, key, value: Bytes::from(vec![b'x'; bytes]), headers: Headers::new() }
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// CPU seconds of this process, from its ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

struct Part {
    begun: Instant,
    cpu: f64,
    groups: u64,
}

impl Part {
    fn begin(store: &EmbeddedStore) -> Self {
        Self { begun: Instant::now(), cpu: cpu_seconds(), groups: store.groups_committed() }
    }

    fn end(self, store: &EmbeddedStore, what: &str, done: u64, mut waits: Vec<Duration>) {
        let seconds = self.begun.elapsed().as_secs_f64();
        waits.sort_unstable();
        let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or_default();
        println!(
            "{what}: {:.0}/s, p50 {:.1?} p99 {:.1?} max {:.1?}, {:.0} groups/s, {:.2} CPU s/s, RSS {} MB (peak {})",
            done as f64 / seconds,
            at(0.5),
            at(0.99),
            waits.last().copied().unwrap_or_default(),
            (store.groups_committed() - self.groups) as f64 / seconds,
            (cpu_seconds() - self.cpu) / seconds,
            status("VmRSS:"),
            status("VmHWM:"),
        );
    }
}

async fn appends(store: &Arc<EmbeddedStore>, clients: u64, each: u64, time: Duration) {
    let part = Part::begin(store);
    let number = Arc::new(AtomicU64::new(0));
    let runs = (0..clients).map(|client| {
        let (store, number) = (store.clone(), number.clone());
        tokio::spawn(async move {
            let (begun, mut waits) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let first = number.fetch_add(each, Ordering::Relaxed);
                let to = TopicPartition::new(Topic::OrderCommands, (client % 4) as u32);
                let records = (first..first + each).map(|it| record(to, it, 200)).collect();
                let asked = Instant::now();
                store.append(records).await.unwrap();
                waits.push(asked.elapsed());
            }
            waits
        })
    });
    let waits: Vec<_> = join_all(runs).await.into_iter().flat_map(Result::unwrap).collect();
    let done = number.load(Ordering::Relaxed);
    part.end(store, &format!("append, {clients} clients, {each} × 200 B"), done, waits);
}

fn task_commit(task: TaskId, from: u64, size: u64) -> TaskCommit {
    let keys = |it: u64| Key::new(format!("demo/ord_{:020}", it.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let timer =
        |it: u64| Timer { due_ms: 1_700_000_000_000 + it as i64, key: keys(it), name: TimerName::HoldExpiry };
    let range = from..from + size;
    let to = TopicPartition::new(Topic::OrderEvents, task.partition);
    TaskCommit {
        task,
        from_offset: from,
        next_offset: from + size,
        outputs: range.clone().map(|it| record(to, it, 200)).collect(),
        rows: range
            .clone()
            .map(|it| (RowKey::new(Table::Order, keys(it)), Some(Bytes::from(vec![b'r'; 500]))))
            .collect(),
        timers_removed: (from.saturating_sub(size)..from).map(timer).collect(),
        timers_set: range.map(timer).collect(),
    }
}

/// `every`: a task waits until its next turn, as it does when orders come in at a steady rate.
async fn commits(store: &Arc<EmbeddedStore>, tasks: u32, size: u64, every: Duration, time: Duration) {
    let part = Part::begin(store);
    let runs = (0..tasks).map(|partition| {
        let (store, task) = (store.clone(), TaskId { kind: TaskKind::Order, partition });
        tokio::spawn(async move {
            let (begun, mut waits) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                tokio::time::sleep_until((begun + every * waits.len() as u32).into()).await;
                let commit = task_commit(task, store.committed_now(task), size);
                let asked = Instant::now();
                store.commit(commit).await.unwrap();
                waits.push(asked.elapsed());
            }
            waits
        })
    });
    let waits: Vec<_> = join_all(runs).await.into_iter().flat_map(Result::unwrap).collect();
    let done = waits.len() as u64;
    part.end(
        store,
        &format!("commit, {tasks} tasks, {size} each of outputs, rows of 500 B, timers set, timers removed; every {every:?}"),
        done,
        waits,
    );
}

async fn reads(store: &Arc<EmbeddedStore>) {
    let from = TopicPartition::new(Topic::OrderCommands, 0);
    let (end, mut offset) = (store.end_offset(from).unwrap(), store.start_offset(from).unwrap());
    let (part, first) = (Part::begin(store), offset);
    let mut waits = Vec::new();
    while offset < end {
        let asked = Instant::now();
        let read =
            store.read(from, offset, ReadLimit { records_max: 1000, bytes_max: 1 << 20 }).await.unwrap();
        waits.push(asked.elapsed());
        offset = read.last().unwrap().offset + 1;
    }
    part.end(store, "read, 1000 at a time", end - first, waits);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let time = Duration::from_secs(arguments.next().map_or(5, |it| it.parse().unwrap()));
    let dir = tempfile::tempdir().unwrap();
    let path = arguments.next().map_or(dir.path().to_owned(), Into::into);
    let store = EmbeddedStore::open(EmbeddedSettings::new(path)).unwrap();
    appends(&store, 1, 1, time / 5).await;
    appends(&store, 64, 1, time).await;
    appends(&store, 512, 1, time).await;
    appends(&store, 8, 500, time).await;
    commits(&store, 1, 1, Duration::ZERO, time / 5).await;
    commits(&store, 4, 10, Duration::from_millis(20), time * 2).await;
    commits(&store, 4, 100, Duration::from_millis(20), time).await;
    commits(&store, 4, 100, Duration::ZERO, time).await;
    commits(&store, 4, 1000, Duration::ZERO, time).await;
    reads(&store).await;
    let begun = Instant::now();
    store.close().await.unwrap();
    println!("close: {:.1?}", begun.elapsed());
}
