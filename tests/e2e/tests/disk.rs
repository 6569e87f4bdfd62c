//! A disk that loses power, at any point of a run: every state it can be left in opens, with all that was acknowledged.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tillstream_e2e::Server;
use tillstream_e2e::disk::check::{Found, check};
use tillstream_e2e::disk::model::{Disk, Left};
use tillstream_e2e::disk::trace::{self, Change, Event};
use tillstream_random::Random;

const WRITERS: usize = 4;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// An order of up to 400 lines, so that a group is one write, or several, or more than a memtable takes.
fn order(seed: u64, n: usize) -> Value {
    let mut random = Random::new(seed ^ (n as u64).wrapping_mul(0x9e37_79b9));
    let lines = if random.below(8) == 0 { 1 + random.below(400) } else { 1 + random.below(4) };
    let lines: Vec<Value> = (0..lines)
        .map(|_| json!({"sku": format!("sku-{}", random.below(40)), "quantity": 1, "unit_price": 100}))
        .collect();
    json!({
        "customer": format!("c-{}", random.below(100)), "currency": "GBP", "country": "GB", "lines": lines,
        "payment": {"method": "pm_card_visa", "capture": "automatic"},
    })
}

/// An order that a client was told of, and how long the trace was by then at least.
struct Acknowledged {
    id: String,
    trace_bytes: u64,
}

/// What a run left: its trace, and what its clients were told.
struct Run {
    events: Vec<Event>,
    acknowledged: Vec<Acknowledged>,
}

async fn start(data_dir: &Path, trace: &Path) -> Server {
    let flags = ["-t", trace.to_str().unwrap()];
    let mut server = Server::spawn_traced(data_dir, &["--sandbox-latency-max-ms", "5"], &flags);
    server.ready().await;
    server
}

/// The trace leads to the journals that are there: a call that it missed would look like a loss that never was.
fn assert_tells_all(trace: &Path, data_dir: &Path) {
    let mut disk = Disk::default();
    trace::read(trace, data_dir).iter().for_each(|it| disk.apply(&it.change));
    let told = tempfile::tempdir().unwrap();
    disk.save(Left::Everything, told.path()).unwrap();
    let mut journals = 0;
    for part in ["db", "sandbox"] {
        for entry in std::fs::read_dir(data_dir.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "jnl") {
                let told = std::fs::read(told.path().join(part).join(path.file_name().unwrap())).unwrap();
                assert!(
                    told == std::fs::read(&path).unwrap(),
                    "{} is not as the trace tells",
                    path.display()
                );
                journals += 1;
            }
        }
    }
    assert!(journals >= 2, "{journals}");
}

/// Places `orders` orders on a traced server that is killed half-way and started again.
async fn run(seed: u64, orders: usize) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, trace) = (dir.path().join("data"), dir.path().join("trace"));
    std::fs::create_dir(&data_dir).unwrap();
    let mut acknowledged = Vec::new();
    for half in 0..2 {
        let server = Arc::new(start(&data_dir, &trace).await);
        for sku in 0..40 {
            let body = json!({"delta": 1_000_000, "reason": "received", "location": "main"});
            server.post(&format!("/v1/inventory/sku-{sku}/adjustments"), "stock", &body).await;
        }
        let next = Arc::new(AtomicUsize::new(half * orders / 2));
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (server, next, trace) = (server.clone(), next.clone(), trace.clone());
                tokio::spawn(async move {
                    let mut told = Vec::new();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= (half + 1) * orders / 2 {
                            return told;
                        }
                        let answer = server.post("/v1/orders", &format!("order-{n}"), &order(seed, n)).await;
                        let trace_bytes = std::fs::metadata(&trace).unwrap().len();
                        told.push(Acknowledged {
                            id: answer["id"].as_str().unwrap().to_owned(),
                            trace_bytes,
                        });
                    }
                })
            })
            .collect();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        let server = Arc::try_unwrap(server).ok().unwrap();
        if half == 0 {
            server.kill();
            assert_tells_all(&trace, &data_dir);
        } else {
            server.drained().await;
            assert!(server.terminate().await.success());
        }
    }
    Run { events: trace::read(&trace, &data_dir), acknowledged }
}

impl Run {
    /// How many changes were made when the power went: half the time just before a journal was synced, when a group
    /// hangs in the air, else anywhere.
    fn point(&self, random: &mut Random) -> usize {
        let is_sync = |it: &Event| matches!(&it.change, Change::Sync { path, .. } if path.ends_with(".jnl"));
        let syncs: Vec<usize> = (0..self.events.len()).filter(|it| is_sync(&self.events[*it])).collect();
        match random.below(2) {
            0 => syncs[random.below(syncs.len())],
            _ => random.below(self.events.len() + 1),
        }
    }

    fn acknowledged_by(&self, trace_bytes: u64) -> BTreeSet<String> {
        self.acknowledged.iter().filter(|it| it.trace_bytes <= trace_bytes).map(|it| it.id.clone()).collect()
    }
}

/// What the disk is left with, at a point of the run.
fn left(random: &mut Random) -> Left {
    match random.below(8) {
        0 => Left::Nothing,
        1 => Left::Everything,
        _ => Left::Torn(random.next_u64()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_that_a_loss_of_power_can_leave_opens_with_all_that_was_acknowledged() {
    let states = from_environment("TILLSTREAM_STATES", 40);
    let seed = from_environment("SEED", 0xd15c);
    let run = run(seed, from_environment("TILLSTREAM_ORDERS", 80) as usize).await;
    let mut random = Random::new(seed);
    let mut points: Vec<usize> = (1..states).map(|_| run.point(&mut random)).collect();
    points.push(run.events.len());
    points.sort_unstable();
    let (mut disk, mut done, mut last) = (Disk::default(), 0, Found::default());
    let (mut failures, mut torn) = (Vec::new(), 0);
    for point in points {
        run.events[done..point].iter().for_each(|it| disk.apply(&it.change));
        done = point;
        let trace_bytes = if point == 0 { 0 } else { run.events[point - 1].end };
        let acknowledged = run.acknowledged_by(trace_bytes);
        let left = if point == run.events.len() { Left::Everything } else { left(&mut random) };
        torn += usize::from(disk.unsafe_changes() > 0 && left != Left::Everything);
        let dir = tempfile::tempdir().unwrap();
        disk.save(left, dir.path()).unwrap();
        match check(dir.path(), &acknowledged).await {
            Ok(found) => last = found,
            Err(error) => {
                failures.push(format!("{left:?} after {point} of {} changes: {error}", run.events.len()));
            }
        }
    }
    println!(
        "seed {seed}: {states} states of {} changes, {torn} with losses; {last:?} in the last",
        run.events.len()
    );
    assert!(failures.is_empty(), "SEED={seed}: {} failures\n{}", failures.len(), failures.join("\n"));
    assert!(torn > 0 && last.charges > 0 && last.rows > 0, "{torn} {last:?}");
}
