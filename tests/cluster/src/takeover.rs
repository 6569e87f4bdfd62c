//! How long the partitions of a killed worker stand still.

use crate::cluster::{Cluster, PARTITIONS, RECOVERY};
use crate::load::Load;
use crate::topics::ends;
use crate::worker::Worker;
use crate::{blocking, wait_for};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tillstream_e2e::KEY;
use tillstream_schemas::Topic;

/// Lines of one bulk request.
const BULK: usize = 5_000;
/// SKUs the loaded orders spread over.
const SKUS: usize = 500;

/// One partition's way from its owner's death to the first new commit.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// The task, such as `order.2`.
    pub task: String,
    /// From the kill to the assignment to another worker.
    pub detection: Duration,
    /// From there to the first committed record of the new owner.
    pub first_commit: Duration,
    /// Of which fencing, offsets, checkpoint and replay.
    pub opening: Duration,
    /// Changelog records replayed.
    pub replayed: u64,
}

/// The wall clock, since log lines of other processes carry it.
#[allow(clippy::disallowed_methods, reason = "measured against other processes' log lines")]
fn now_ms() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_secs_f64() * 1_000.0
}

/// Places orders of one line in bulk until so many exist.
pub async fn load(cluster: &Arc<Cluster>, orders: usize, first: usize) {
    let client = reqwest::Client::new();
    let url = |worker: &Worker| format!("{}/v1/orders/bulk", worker.server().expect("it is up").url());
    let worker = cluster.workers()[0].clone();
    for start in (first..first + orders).step_by(BULK) {
        let line = |n: usize| {
            json!({"idempotency_key": format!("bulk-{n}"), "currency": "GBP", "country": "GB",
                   "lines": [{"sku": format!("bulk-{}", n % SKUS), "quantity": 1, "unit_price": 250}],
                   "payment": {"method": "pm_card_visa", "capture": "automatic"}})
            .to_string()
        };
        let lines: Vec<String> = (start..(start + BULK).min(first + orders)).map(line).collect();
        let call = client.post(url(&worker)).bearer_auth(KEY).header("Content-Type", "application/x-ndjson");
        let answer = call.body(lines.join("\n")).send().await.expect("bulk orders are answered");
        let text = answer.text().await.expect("bulk orders are answered");
        let refused = text.lines().find(|it| !it.contains("\"id\""));
        assert!(refused.is_none(), "{refused:?}");
    }
}

/// Stock for what [`load`] orders.
pub async fn stock_up(cluster: &Arc<Cluster>) {
    for n in 0..SKUS {
        let body = json!({"delta": 1_000_000, "reason": "received", "location": "main"});
        let (status, answer) =
            cluster.post(&format!("/v1/inventory/bulk-{n}/adjustments"), "stock", &body).await;
        assert!(status.is_success(), "{answer}");
    }
}

/// Waits until nothing is left to do, however long it takes.
pub async fn settled(cluster: &Arc<Cluster>) {
    for _ in 0..60 {
        if cluster.drained().await.is_empty() {
            return;
        }
    }
    panic!("the load does not settle:\n{}", cluster.tails());
}

/// Notes when committed records come, by topic and partition, until told to stop.
fn watch(brokers: String, stop: Arc<AtomicBool>) -> Vec<((Topic, i32), f64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("group.id", "takeover")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "5")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in ends(&brokers, &Topic::CHANGELOGS, PARTITIONS) {
        list.add_partition_offset(topic.name(), partition, Offset::Offset(offset)).expect("an offset");
    }
    consumer.assign(&list).expect("partitions can be assigned");
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
            let topic = Topic::parse(message.topic()).expect("a topic of ours");
            seen.push(((topic, message.partition()), now_ms()));
        }
    }
    seen
}

/// Milliseconds since 1970 of a log line's timestamp, such as `2026-11-21T16:26:31.463202Z`.
fn stamp_ms(line: &str) -> Option<f64> {
    let stamp = line.split_whitespace().next()?.strip_suffix('Z')?;
    let (date, time) = stamp.split_once('T')?;
    let mut date = date.split('-').map(|it| it.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let hours: f64 = time.next()?.parse().ok()?;
    let minutes: f64 = time.next()?.parse().ok()?;
    let seconds: f64 = time.next()?.parse().ok()?;
    // Days from the civil calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days as f64 * 86_400_000.0 + hours * 3_600_000.0 + minutes * 60_000.0 + seconds * 1_000.0)
}

/// What stands behind `name=` in a log line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!(" {name}="))?;
    rest.split_whitespace().next()
}

/// Kills one of the two workers under load, and tells what became of the partitions it had.
pub async fn measure(cluster: &Arc<Cluster>, seed: u64) -> Vec<Takeover> {
    let load = Arc::new(Load::new(seed, seed));
    load.stock_up(cluster).await;
    let clients = load.begin(cluster);
    load.more(50).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let (brokers, stop) = (cluster.brokers().to_owned(), stop.clone());
        blocking(move || watch(brokers, stop))
    });
    load.more(100).await;
    let workers = cluster.workers();
    let (victim, heir) = (&workers[0], &workers[1]);
    let lines = heir.output();
    let (kept, before) = (owned(&lines), lines.len());
    // On a busy machine a worker may have lost a partition that it has not let go of.
    let taken: BTreeSet<String> = owned(&victim.output()).difference(&kept).cloned().collect();
    let killed_ms = now_ms();
    victim.kill();
    let last = wait_for(RECOVERY, async || {
        let lines = heir.output();
        let lives = lives(&lines[before..]);
        taken.iter().all(|it| lives.contains_key(it)).then_some(())
    });
    assert!(last.await.is_some(), "not every one of {taken:?} was taken:\n{}", heir.tail(60));
    load.more(300).await;
    load.end(clients).await;
    stop.store(true, Ordering::Relaxed);
    let seen = watching.await.expect("the watcher does not panic");
    victim.start();
    cluster.ready().await;
    told(&heir.output()[before..], &taken, killed_ms, &seen)
}

/// The tasks that a line of the log gives or takes.
fn listed(line: &str) -> Vec<String> {
    let kind = field(line, "stage").unwrap_or_default().trim_matches('"');
    let listed = line.split_once("partitions=[").map_or("", |it| it.1).trim_end_matches(']');
    listed.split(", ").filter(|it| !it.is_empty()).map(|it| format!("{kind}.{it}")).collect()
}

/// The tasks a worker has at the end of its log.
fn owned(lines: &[String]) -> BTreeSet<String> {
    let mut owned = BTreeSet::new();
    for line in lines {
        if line.contains("partitions assigned") {
            owned.extend(listed(line));
        } else if line.contains("partitions revoked") || line.contains("partitions lost") {
            let gone = listed(line);
            owned.retain(|it| !gone.contains(it));
        }
    }
    owned
}

/// The first life of every task in these lines.
fn lives(lines: &[String]) -> BTreeMap<String, &String> {
    let mut lives = BTreeMap::new();
    for line in lines.iter().filter(|it| it.contains("a life begins")) {
        if let Some(task) = field(line, "task") {
            lives.entry(task.to_owned()).or_insert(line);
        }
    }
    lives
}

fn changelog_of(task: &str) -> Option<(Topic, i32)> {
    let (kind, partition) = task.split_once('.')?;
    let topic = match kind {
        "order" => Topic::OrderChangelog,
        "item" => Topic::ItemChangelog,
        "analytics" => Topic::AnalyticsChangelog,
        _ => return None,
    };
    Some((topic, partition.parse().ok()?))
}

fn told(
    lines: &[String],
    taken: &BTreeSet<String>,
    killed_ms: f64,
    seen: &[((Topic, i32), f64)],
) -> Vec<Takeover> {
    let mut assigned: BTreeMap<String, f64> = BTreeMap::new();
    for line in lines.iter().filter(|it| it.contains("partitions assigned")) {
        for task in listed(line) {
            assigned.entry(task).or_insert_with(|| stamp_ms(line).expect("a log line begins with its time"));
        }
    }
    let lives = lives(lines);
    let span = |from: f64, to: f64| Duration::from_secs_f64((to - from).max(0.0) / 1_000.0);
    let one = |task: &String| {
        let (place, assigned_ms, line) = (changelog_of(task)?, *assigned.get(task)?, lives.get(task)?);
        // Commits of the dead owner may be seen a moment after its end, never as late as the assignment.
        let mut commits = seen.iter().filter(|(at_place, at)| *at_place == place && *at > assigned_ms);
        // A task that nobody gave anything to do commits nothing.
        let (_, first_ms) = commits.next()?;
        Some(Takeover {
            task: task.clone(),
            detection: span(killed_ms, assigned_ms),
            first_commit: span(assigned_ms, *first_ms),
            opening: Duration::from_millis(
                field(line, "took_ms").and_then(|it| it.parse().ok()).unwrap_or(0),
            ),
            replayed: field(line, "replayed").and_then(|it| it.parse().ok()).unwrap_or(0),
        })
    };
    taken.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_lines_stamp_is_read() {
        assert_eq!(stamp_ms("1970-01-01T00:00:01.500000Z  INFO x"), Some(1_500.0));
        assert_eq!(stamp_ms("2026-03-01T00:00:00.000000Z  INFO x"), Some(1_772_323_200_000.0));
    }
}
