//! The database is away for a while under load. `TILLSTREAM_OUTAGE_SECONDS` says how long, `TILLSTREAM_OUTAGE_RATE` how
//! many orders per second are placed meanwhile, `TILLSTREAM_OUTAGE_KILL=1` kills the database instead of freezing it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_e2e::{KEY, metric_values};
use tillstream_e2e_cluster::audit::Audit;
use tillstream_e2e_cluster::avro::Decoder;
use tillstream_e2e_cluster::cluster::{Cluster, PARTITIONS};
use tillstream_e2e_cluster::load::{Load, Placed};
use tillstream_e2e_cluster::topics::{Places, ends, read};
use tillstream_e2e_cluster::{blocking, from_environment, pass, wait_for};
use tillstream_schemas::Topic;
use tokio::time::{Instant, MissedTickBehavior};

/// So long the tasks must have kept up before the outage.
const WARM_UP: Duration = Duration::from_secs(5);
/// The longest an answer to a post may take, whatever it says.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// After the return the lag must be gone within this.
const LAG_GONE: Duration = Duration::from_secs(30);
/// What a worker may have in memory.
const RSS_MAX_MIB: u64 = 600;
/// About what an order comes to in the inputs of all tasks.
const RECORDS_PER_ORDER: u64 = 10;
/// In the minute of a cluster's first history.
const PLACED_AT: &str = "2026-03-01T00:00:07Z";
/// A client gives up on an order after this; none may have to.
const PATIENCE: Duration = Duration::from_secs(180);

/// What clients saw.
#[derive(Default)]
struct Tally {
    sent: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
    slowest_ms: AtomicUsize,
    enough: AtomicBool,
}

/// An open loop: so many orders per second, whatever becomes of them.
struct Clients {
    cluster: Arc<Cluster>,
    load: Arc<Load>,
    tally: Tally,
    http: reqwest::Client,
    rate: u64,
}

impl Clients {
    fn order(&self, n: usize) -> (Value, Placed) {
        let names = [format!("hot-{}", n % 2), format!("cold-{}", n % 24)];
        let mut placed = Placed { units: BTreeMap::new(), gross: 0, currency: "GBP" };
        let lines: Vec<Value> = names
            .iter()
            .map(|name| {
                let sku = format!("{}-{name}", self.load.tag);
                placed.gross += 199;
                *placed.units.entry(sku.clone()).or_default() += 1;
                json!({"sku": sku, "quantity": 1, "unit_price": 199})
            })
            .collect();
        let order = json!({
            "currency": "GBP", "country": "GB", "placed_at": PLACED_AT, "lines": lines,
            "payment": {"method": "pm_card_visa", "capture": "automatic"},
        });
        (order, placed)
    }

    /// Places one order, again and again until it is acknowledged.
    async fn place(&self, n: usize) {
        let (body, placed) = self.order(n);
        let key = format!("{}-{n}", self.load.tag);
        let began = Instant::now();
        for turn in n.. {
            let live: Vec<_> = self.cluster.workers().iter().filter_map(|it| it.server()).collect();
            let url = format!("{}/v1/orders", live[turn % live.len()].url());
            drop(live);
            let asked = Instant::now();
            let call =
                self.http.post(&url).bearer_auth(KEY).header("Idempotency-Key", &key).json(&body).send();
            let answer = tokio::time::timeout(ANSWER_MAX, call).await;
            let took_ms = usize::try_from(asked.elapsed().as_millis()).unwrap();
            self.tally.slowest_ms.fetch_max(took_ms, Ordering::Relaxed);
            let wait = match answer {
                Ok(Ok(answer)) if answer.status().is_success() => {
                    let answer: Value = answer.json().await.expect("an acknowledgement is JSON");
                    let id = answer["id"].as_str().expect("an accepted order has an id").to_owned();
                    self.load.book.lock().orders.insert(id, placed);
                    return;
                }
                Ok(Ok(answer)) => {
                    let (status, headers) = (answer.status(), answer.headers().clone());
                    let text = answer.text().await.unwrap_or_default();
                    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{key}: {text}");
                    let after =
                        headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
                    self.tally.refused.fetch_add(1, Ordering::Relaxed);
                    Duration::from_secs(
                        after.unwrap_or_else(|| panic!("refused without Retry-After: {text}")),
                    )
                }
                Ok(Err(error)) => panic!("{key}: {error}"),
                Err(_) => {
                    self.tally.unanswered.fetch_add(1, Ordering::Relaxed);
                    Duration::from_secs(1)
                }
            };
            assert!(began.elapsed() < PATIENCE, "{key} was never acknowledged");
            pass(wait).await;
        }
    }

    async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / self.rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut placing = tokio::task::JoinSet::new();
        while !self.tally.enough.load(Ordering::Relaxed) {
            ticks.tick().await;
            let n = self.tally.sent.fetch_add(1, Ordering::Relaxed);
            let own = self.clone();
            placing.spawn(async move { own.place(n).await });
            while placing
                .try_join_next()
                .is_some_and(|it| it.map(|()| true).expect("a client does not panic"))
            {}
        }
        while let Some(placed) = placing.join_next().await {
            placed.expect("a client does not panic");
        }
    }
}

/// The largest worker, MiB.
fn rss_mib(cluster: &Cluster) -> u64 {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    cluster.workers().iter().filter_map(|it| Some(of(it.server()?.pid()))).max().unwrap_or(0)
}

/// Records that no task has committed, as every worker tells it at most.
async fn lag(cluster: &Cluster) -> Option<f64> {
    let mut most: Option<f64> = None;
    for worker in cluster.workers() {
        let metrics = worker.call(reqwest::Method::GET, "/metrics", None, None).await?.text;
        let values = metric_values(&metrics, "tillstream_stage_lag_records");
        if values.is_empty() {
            return None;
        }
        most = Some(most.unwrap_or(0.0).max(values.iter().sum()));
    }
    most
}

/// Waits until the groups have settled, the tasks keep up with the load, and they ask the database for no row any more: then
/// they know their keys. The lag then.
async fn warmed_up(cluster: &Cluster, rate: u64) -> f64 {
    let (mut low, mut left, few) = (None, f64::MAX, (2 * rate * RECORDS_PER_ORDER) as f64);
    let mut asked = BTreeMap::new();
    let settled = wait_for(Duration::from_secs(90), async || {
        left = lag(cluster).await?;
        let asked_before = std::mem::replace(&mut asked, reads(cluster).await);
        let since = *low.get_or_insert_with(Instant::now);
        if left > few || asked != asked_before {
            low = None;
        }
        (left <= few && since.elapsed() > WARM_UP).then_some(())
    });
    assert!(settled.await.is_some(), "{left} records are left under the usual load\n{}", cluster.tails());
    left
}

/// Reads that went to the database, by stage, of all workers.
async fn reads(cluster: &Cluster) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for worker in cluster.workers() {
        let metrics = worker.call(reqwest::Method::GET, "/metrics", None, None).await.map(|it| it.text);
        for line in metrics.iter().flat_map(|it| it.lines()) {
            let asked = line.strip_prefix("tillstream_state_misses_total{source=\"database\",stage=\"");
            if let Some((stage, count)) = asked.and_then(|it| it.split_once("\"} ")) {
                *all.entry(stage.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
            }
        }
    }
    all
}

async fn ends_of_events(cluster: &Cluster) -> Places {
    let brokers = cluster.brokers().to_owned();
    blocking(move || ends(&brokers, &[Topic::OrderEvents], PARTITIONS)).await
}

/// Orders that were confirmed between two places of the log.
async fn confirmed(cluster: &Cluster, from: Places, to: Places) -> BTreeSet<String> {
    let brokers = cluster.brokers().to_owned();
    let mut raw = blocking(move || read(&brokers, &from)).await;
    raw.retain(|it| it.offset < to[&(it.topic, it.partition)]);
    let mut decoder = Decoder::new(cluster.stack.registry.address());
    decoder.learn(raw.iter().filter_map(|it| it.value.as_deref())).await;
    let events = raw.iter().filter_map(|it| Some(decoder.decode(it.value.as_deref()?)));
    let confirmed = events.filter(|it| it["status"] == "confirmed");
    confirmed.map(|it| it["order_id"].as_str().expect("an event has an order").to_owned()).collect()
}

async fn away(cluster: &Arc<Cluster>, kill: bool, seconds: u64) -> u64 {
    let stack = cluster.stack.clone();
    blocking(move || if kill { stack.cassandra.kill() } else { stack.cassandra.pause() })
        .await
        .expect("it was up");
    let mut peak = 0;
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        peak = peak.max(rss_mib(cluster));
        pass(Duration::from_millis(250)).await;
    }
    peak
}

async fn back(cluster: &Arc<Cluster>, kill: bool) {
    let stack = cluster.stack.clone();
    blocking(move || if kill { stack.cassandra.start_again() } else { stack.cassandra.resume() })
        .await
        .expect("the database is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_stops_no_cached_work_and_loses_nothing() {
    let seconds = from_environment("TILLSTREAM_OUTAGE_SECONDS", 12);
    let rate = from_environment("TILLSTREAM_OUTAGE_RATE", 150);
    let kill = from_environment("TILLSTREAM_OUTAGE_KILL", 0) == 1;
    let cluster = Cluster::start().await;
    for _ in 0..2 {
        // A machine that is busy must not look like a worker that is gone.
        let worker =
            cluster.worker("", &["--session-timeout-ms", "10000", "--transaction-timeout-ms", "12000"]);
        worker.start();
        cluster.adopt(worker);
        cluster.ready().await;
    }
    let from = {
        let brokers = cluster.brokers().to_owned();
        blocking(move || ends(&brokers, &Topic::ALL, PARTITIONS)).await
    };
    let load = Arc::new(Load::new(4, 0));
    load.stock_up(&cluster).await;
    let clients = Arc::new(Clients {
        cluster: cluster.clone(),
        load: load.clone(),
        tally: Tally::default(),
        http: reqwest::Client::new(),
        rate,
    });
    let running = tokio::spawn(clients.clone().run());
    let usual = warmed_up(&cluster, rate).await;
    let acknowledged = || load.book.lock().orders.len();
    let before: BTreeSet<String> = load.book.lock().orders.keys().cloned().collect();

    let from_events = ends_of_events(&cluster).await;
    let (rss_before, reads_before) = (rss_mib(&cluster), reads(&cluster).await);
    let mut peak = away(&cluster, kill, seconds).await;
    let (sent, taken) = (clients.tally.sent.load(Ordering::Relaxed), acknowledged());
    let to_events = ends_of_events(&cluster).await;
    let reads_during = reads(&cluster).await;
    back(&cluster, kill).await;

    // The load goes on while it catches up: what two seconds bring is no lag.
    let returned = Instant::now();
    let small = (2 * rate * RECORDS_PER_ORDER) as f64;
    let mut left = f64::MAX;
    let caught_up = wait_for(LAG_GONE, async || {
        peak = peak.max(rss_mib(&cluster));
        left = lag(&cluster).await?;
        (left <= small).then_some(())
    });
    let caught_up = caught_up.await.is_some();
    let caught_up_after = returned.elapsed();
    clients.tally.enough.store(true, Ordering::Relaxed);
    running.await.expect("the clients end");
    let tally = &clients.tally;
    let done = confirmed(&cluster, from_events, to_events).await;
    let fresh = done.iter().filter(|it| !before.contains(*it)).count();
    println!(
        "{seconds} s without the database ({}) at {rate} orders/s: {sent} sent by its end, {taken} acknowledged, {} \
         refusals, {} unanswered, slowest answer {} ms; {fresh} orders placed meanwhile were confirmed meanwhile; lag \
         {usual} before, back to {left} after {:.1} s; RSS {rss_before} MiB before, {peak} MiB at most; rows asked for {reads_before:?} before, {reads_during:?} \
         at its end",
        if kill { "killed" } else { "frozen" },
        tally.refused.load(Ordering::Relaxed),
        tally.unanswered.load(Ordering::Relaxed),
        tally.slowest_ms.load(Ordering::Relaxed),
        caught_up_after.as_secs_f64(),
    );
    assert_eq!(tally.unanswered.load(Ordering::Relaxed), 0, "posts hung\n{}", cluster.tails());
    assert!(caught_up, "{left} records are left {LAG_GONE:?} after the return\n{}", cluster.tails());
    let placed = taken - before.len();
    assert!(fresh * 2 > placed, "only {fresh} of {placed} orders were confirmed\n{}", cluster.tails());
    assert!(peak < RSS_MAX_MIB, "a worker took {peak} MiB");

    settled(&cluster, &load, from).await;
    cluster.stop_workers().await;
}

/// Every acknowledged order stands once in every stage's output, and tables equal the log.
async fn settled(cluster: &Arc<Cluster>, load: &Arc<Load>, from: Places) {
    let left = cluster.drained().await;
    assert!(left.is_empty(), "{left:?} left\n{}", cluster.tails());
    let mut audit = Audit::new(cluster, load, from).await;
    let mut problems = Vec::new();
    let clean = wait_for(Duration::from_secs(60), async || {
        problems = audit.look().await.problems;
        problems.is_empty().then_some(())
    });
    let clean = clean.await.is_some();
    problems.truncate(30);
    assert!(clean, "{}\n{}", problems.join("\n"), cluster.tails());
    let verified = cluster.state(&["verify", "--strict"]).await;
    println!("{} orders, each once; {}", load.book.lock().orders.len(), verified.text.trim());
    assert_eq!(verified.code, Some(0), "{}", verified.text);
}
