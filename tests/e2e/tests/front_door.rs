//! The door of the real binary: bulk in constant memory, streams over a crash, overload and its end.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tillstream_e2e::audit::audit;
use tillstream_e2e::events::Events;
use tillstream_e2e::{DEADLINE, KEY, Server};
use tokio::time::Instant;

fn order(sku: &str) -> Value {
    json!({"currency": "GBP", "country": "GB", "lines": [{"sku": sku, "quantity": 1, "unit_price": 100}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

/// Resident memory of a process, bytes.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}

/// Watches the memory of a process until it is stopped; answers the peak.
struct Watch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn start(pid: u32) -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn({
            let (stop, peak) = (stop.clone(), peak.clone());
            async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(20));
                while !stop.load(Ordering::SeqCst) {
                    ticks.tick().await;
                    peak.fetch_max(resident_bytes(pid), Ordering::SeqCst);
                }
            }
        });
        Self { stop, peak, task }
    }

    async fn peak(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.peak.load(Ordering::SeqCst)
    }
}

/// A bulk body of exactly so many bytes, in lines of some 25 kB, and how many lines it has.
fn bulk_body(name: &str, bytes: usize) -> (Vec<u8>, usize) {
    let mut body = Vec::with_capacity(bytes);
    let mut lines = 0;
    loop {
        let pairs =
            (0..48).map(|it| (format!("key-{it}"), Value::from(format!("{lines}-{}", "x".repeat(480)))));
        let mut line = order("bulk");
        line["metadata"] = Value::Object(pairs.collect());
        line["idempotency_key"] = format!("{name}-{lines}").into();
        let line = format!("{line}\n");
        if body.len() + line.len() > bytes {
            break;
        }
        body.extend_from_slice(line.as_bytes());
        lines += 1;
    }
    // Empty lines are passed over.
    body.resize(bytes, b'\n');
    (body, lines)
}

async fn post_bulk(server: &Server, body: Vec<u8>) -> Vec<Value> {
    let call = Client::new().post(format!("{}/v1/orders/bulk", server.url())).bearer_auth(KEY);
    let response = call.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.unwrap();
    text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// The peak of the server's memory while it takes the bodies one after the other and works them off.
async fn peak_of(server: &Server, bodies: &[(String, usize)], answered: &mut Vec<Vec<Value>>) -> u64 {
    let watch = Watch::start(server.pid());
    for (name, bytes) in bodies {
        let (body, lines) = bulk_body(name, *bytes);
        assert_eq!(body.len(), *bytes);
        let answers = post_bulk(server, body).await;
        assert_eq!(answers.len(), lines);
        let other = answers.iter().find(|it| it["status"] != 202);
        assert!(other.is_none(), "{other:?}");
        answered.push(answers);
    }
    server.drained().await;
    watch.peak().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_mebibytes_in_bulk_take_no_more_memory_than_ten_and_repeat_to_the_same_orders() {
    const SMALL: usize = 10 << 20;
    const LARGE: usize = 100 << 20;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let (mut small_peaks, mut large_peaks) = (Vec::new(), Vec::new());
    let mut repeated = Vec::new();
    // What memtables, caches and batches take grows with the backlog, up to bounds of their own: so as much goes in as
    // ten small bodies, without a pause, before it goes in as a large one.
    for round in 0..2 {
        let small = (0..10).map(|it| (format!("small-{round}-{it}"), SMALL)).collect::<Vec<_>>();
        small_peaks.push(peak_of(&server, &small, &mut Vec::new()).await);
        let large = [(format!("large-{round}"), LARGE)];
        repeated.clear();
        large_peaks.push(peak_of(&server, &large, &mut repeated).await);
    }
    println!("peak RSS: small bodies {small_peaks:?}, large ones {large_peaks:?}");
    // A body that is kept takes 90 MiB more in both rounds. A flush that is behind takes as much in one, now and then.
    let least = *large_peaks.iter().min().unwrap();
    let most = *small_peaks.iter().max().unwrap();
    assert!(least < most + (48 << 20), "100 MiB peaked at {large_peaks:?}, 10 MiB at {small_peaks:?}");
    assert!(large_peaks.iter().all(|it| *it < 640 << 20), "{large_peaks:?}");
    peak_of(&server, &[("large-1".to_owned(), LARGE)], &mut repeated).await;
    assert_eq!(repeated[0], repeated[1], "a repeated body answers the same ids");
    let more = bulk_body("more", LARGE).0.into_iter().chain(*b"x").collect();
    let call =
        Client::new().post(format!("{}/v1/orders/bulk", server.url())).bearer_auth(KEY).body::<Vec<u8>>(more);
    let refused = call.header("content-type", "application/x-ndjson").send().await;
    // The server need not read on before it answers.
    assert!(refused.is_err() || refused.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);
    assert!(server.terminate().await.success());
}

/// Sends raw bytes as the beginning of a bulk call.
fn begin_bulk(server: &Server, body: &[u8]) -> TcpStream {
    let address = server.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/orders/bulk HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: 90000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

#[tokio::test]
async fn clients_that_break_off_mid_line_or_never_read_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let line = |key: &str| {
        let mut line = order("a");
        line["idempotency_key"] = key.into();
        format!("{line}\n")
    };
    let half = line("half");
    drop(begin_bulk(&server, format!("{}{}", line("whole"), &half[..half.len() / 2]).as_bytes()));
    // Results are never read: the server stops reading, and goes on for everybody else.
    let many: String = (0..2_000).map(|it| line(&format!("unread-{it}"))).collect();
    let deaf = begin_bulk(&server, many.as_bytes());
    let placed = server.post("/v1/orders", "k", &order("a")).await;
    server.until(placed["links"]["self"].as_str().unwrap(), |it| it["status"] != "pending").await;
    // The line that was whole is an order; the half one is none, and its key is free.
    let whole = post_bulk(&server, line("whole").into_bytes()).await;
    server
        .until(&format!("/v1/orders/{}", whole[0]["id"].as_str().unwrap()), |it| it["status"] != "pending")
        .await;
    let mut other = order("b");
    other["idempotency_key"] = "half".into();
    assert_eq!(post_bulk(&server, format!("{other}\n").into_bytes()).await[0]["status"], 202);
    drop(deaf);
    server.drained().await;
    assert!(server.terminate().await.success());
}

async fn all_events(server: &Server) -> BTreeMap<String, Value> {
    let mut seen = BTreeMap::new();
    let mut path = "/v1/orders/events?limit=1000".to_owned();
    loop {
        let page = server.get(&path).await;
        let rows = page["data"].as_array().unwrap();
        if rows.is_empty() {
            return seen;
        }
        seen.extend(rows.iter().map(|it| (it["id"].as_str().unwrap().to_owned(), it.clone())));
        path = format!("/v1/orders/events?limit=1000&cursor={}", page["next_cursor"].as_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_over_a_crash_without_a_gap_or_a_repeat_and_ends_cleanly_at_a_drain() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]).await;
    let mut events = Events::open(server.url(), "/v1/orders/events?from=beginning", None).await;
    let mut seen: Vec<(String, Value)> = Vec::new();
    for round in 0..3 {
        for n in 0..40 {
            server.post("/v1/orders", &format!("k-{round}-{n}"), &order("a")).await;
        }
        for _ in 0..20 {
            seen.push(events.next().await.unwrap().unwrap());
        }
        server.kill();
        // Whatever is on its way comes, or the connection breaks: never something else.
        while let Ok(Some(event)) = events.next().await {
            seen.push(event);
        }
        server = Server::start(dir.path(), &[]).await;
        let last = seen.last().unwrap().0.clone();
        events = Events::open(server.url(), "/v1/orders/events?from=beginning", Some(&last)).await;
    }
    server.drained().await;
    let all = all_events(&server).await;
    assert!(all.len() >= 120, "{}", all.len());
    while seen.len() < all.len() {
        seen.push(events.next().await.unwrap().unwrap());
    }
    let ids: BTreeSet<&str> = seen.iter().map(|(_, it)| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), seen.len(), "an event came twice");
    assert!(seen.iter().all(|(_, it)| all[it["id"].as_str().unwrap()] == *it));
    let order = seen[0].1["order_id"].as_str().unwrap().to_owned();
    let mut one = Events::open(server.url(), &format!("/v1/orders/{order}/events"), None).await;
    assert_eq!(one.next().await.unwrap().unwrap().1["version"], 1);
    let ending = tokio::spawn(server.terminate());
    for events in [&mut events, &mut one] {
        while let Some(event) = events.next().await.expect("a clean end") {
            assert_eq!(event.1["order_id"], order.as_str());
        }
    }
    assert!(ending.await.unwrap().success());
}

/// Posts orders as fast as the server takes them until `stop`; answers the accepted ids, and counts refusals.
async fn flood(url: String, name: String, stop: Arc<AtomicBool>, refused: Arc<AtomicU64>) -> Vec<String> {
    let client = Client::new();
    let mut accepted = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let call = client.post(format!("{url}/v1/orders")).bearer_auth(KEY);
        let call = call.header("Idempotency-Key", format!("{name}-{n}")).json(&order("flood"));
        let response = call.send().await.unwrap();
        match response.status() {
            StatusCode::ACCEPTED => {
                let body: Value = response.json().await.unwrap();
                accepted.push(body["id"].as_str().unwrap().to_owned());
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                assert_eq!(response.headers()["retry-after"], "2");
                let body: Value = response.json().await.unwrap();
                assert_eq!(body["code"], "TS0614", "{body}");
                refused.fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("{other}: {}", response.text().await.unwrap()),
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_tasks_can_take_is_refused_before_memory_grows_and_all_that_was_taken_ends_once() {
    const LAG_MAX: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    // One thread that commits every record by itself is slower than the door by far.
    let lag_max = LAG_MAX.to_string();
    let slow = [
        "--partitions",
        "1",
        "--threads",
        "1",
        "--batch-records-max",
        "1",
        "--order-lag-records-max",
        &lag_max,
    ];
    let server = Server::start(dir.path(), &slow).await;
    server.put("/v1/products/flood", &json!({"name": "Flood", "active": true, "prices": {"GBP": 100}})).await;
    let stock = json!({"delta": 1_000_000, "reason": "received", "location": "main"});
    server.post("/v1/inventory/flood/adjustments", "stock", &stock).await;
    server.drained().await;
    let before = resident_bytes(server.pid());
    let watch = Watch::start(server.pid());
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let floods: Vec<_> = (0..16)
        .map(|it| {
            tokio::spawn(flood(server.url().to_owned(), format!("f{it}"), stop.clone(), refused.clone()))
        })
        .collect();
    let deadline = Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut lag_seen = 0.0_f64;
    while refused.load(Ordering::SeqCst) < 2_000 {
        ticks.tick().await;
        // Reads and operations go on.
        let metrics = server.call(Method::GET, "/metrics", None, None).await.text;
        lag_seen = tillstream_e2e::metric_values(&metrics, "tillstream_stage_lag_records")
            .into_iter()
            .fold(lag_seen, f64::max);
        server.get("/v1/orders?limit=5").await;
        server.get("/healthz").await;
        assert!(Instant::now() < deadline, "only {} refusals", refused.load(Ordering::SeqCst));
    }
    stop.store(true, Ordering::SeqCst);
    let mut accepted = BTreeSet::new();
    for flood in floods {
        accepted.extend(flood.await.unwrap());
    }
    let peak = watch.peak().await;
    let refused = refused.load(Ordering::SeqCst);
    println!(
        "{} accepted, {refused} refused, highest lag {lag_seen}, RSS {} MiB before and {} MiB at its peak",
        accepted.len(),
        before >> 20,
        peak >> 20
    );
    assert!(accepted.len() as u64 > LAG_MAX / 2, "only {} were accepted", accepted.len());
    assert!(peak < before + (64 << 20), "memory grew from {before} to {peak}");
    // A bound that lets more than a moment's posts through is none.
    assert!(lag_seen < 20.0 * LAG_MAX as f64, "the lag grew to {lag_seen}");
    let metrics = server.call(Method::GET, "/metrics", None, None).await.text;
    let counted: f64 = tillstream_e2e::metric_values(&metrics, "tillstream_http_refusals_total").iter().sum();
    assert_eq!(counted, refused as f64);
    // It recovers alone.
    server.drained().await;
    let after = server.post("/v1/orders", "after", &order("flood")).await;
    accepted.insert(after["id"].as_str().unwrap().to_owned());
    server.drained().await;
    let totals = audit(&server, &accepted, &["flood".to_owned()]).await;
    assert_eq!(totals.by_status.get("confirmed"), Some(&(accepted.len() as u64)), "{totals:?}");
    assert_eq!(totals.analytics.0, accepted.len() as i64, "what was refused left no trace");
    assert!(server.terminate().await.success());
}
