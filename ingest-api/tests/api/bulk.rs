use crate::harness::{Answer, Api, eventually, order};
use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tillstream_schemas::order_state::OrderStatus;

const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

fn line(key: &str) -> Value {
    let mut line = order();
    line["idempotency_key"] = json!(key);
    line
}

async fn bulk(api: &Api, body: impl Into<Body>) -> Answer {
    api.call(Method::POST, "/v1/orders/bulk", &NDJSON, body).await
}

#[tokio::test]
async fn every_line_has_its_result_and_a_bad_one_harms_no_other() {
    let api = Api::start().await;
    let mut bad = line("k2");
    bad["currency"] = json!("nope");
    let mut nameless = order();
    nameless["note"] = json!("no key");
    let body = format!("{}\n\n{}\n{{broken\r\n{}\n{}", line("k1"), bad, nameless, line("k3"));
    let answer = bulk(&api, body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let results: Vec<(u64, u64, Value)> = answer
        .lines()
        .iter()
        .map(|it| {
            (it["line"].as_u64().unwrap(), it["status"].as_u64().unwrap(), it["problem"]["code"].clone())
        })
        .collect();
    let codes = json!([null, "TS0607", "TS0606", "TS0607", null]);
    let expected: Vec<(u64, u64, Value)> = [(1, 202), (3, 400), (4, 400), (5, 400), (6, 202)]
        .into_iter()
        .zip(codes.as_array().unwrap())
        .map(|((line, status), code)| (line, status, code.clone()))
        .collect();
    assert_eq!(results, expected);
    assert_eq!(answer.lines()[3]["problem"]["errors"][0]["field"], "idempotency_key");
    assert_eq!(api.store.order_commands().len(), 2);
}

#[tokio::test]
async fn a_line_is_the_same_order_as_a_single_post_with_its_key() {
    let api = Api::start().await;
    api.tasks.stalled.store(true, Ordering::SeqCst);
    let single = api.post("/v1/orders", "k1", &order()).await.json();
    let mut other = line("k1");
    other["currency"] = json!("EUR");
    let answer = bulk(&api, format!("{}\n{other}\n{}\n", line("k1"), line("k2"))).await.lines();
    assert_eq!(answer[0]["id"], single["id"]);
    assert_eq!(answer[1]["problem"]["code"], "TS0609");
    assert_eq!(answer[2]["status"], 202);
    assert_eq!(api.store.order_commands().len(), 2);
    // Also once rows are the judge.
    let ids: Vec<String> = api.store.order_commands().iter().map(|it| it.order_id.to_string()).collect();
    ids.iter().for_each(|id| api.commit_order(id, OrderStatus::Confirmed, |_| {}));
    let api = Api::over(api.store.clone(), Arc::default()).await;
    let answer = bulk(&api, format!("{}\n{other}\n", line("k1"))).await.lines();
    assert_eq!((&answer[0]["id"], &answer[1]["status"]), (&single["id"], &json!(422)));
    assert_eq!(api.store.order_commands().len(), 2);
}

#[tokio::test]
async fn many_lines_in_odd_pieces_all_come_through_in_order() {
    let api = Api::start().await;
    let text: String = (0..1_700).map(|it| format!("{}\n", line(&format!("k{it}")))).collect();
    let pieces: Vec<Bytes> = text.as_bytes().chunks(4_093).map(Bytes::copy_from_slice).collect();
    let answer = bulk(&api, Body::from_stream(stream::iter(pieces).map(Ok::<_, Infallible>))).await;
    let lines: Vec<u64> = answer.lines().iter().map(|it| it["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (1..=1_700).collect::<Vec<u64>>());
    assert!(answer.lines().iter().all(|it| it["status"] == 202));
    assert_eq!(api.store.order_commands().len(), 1_700);
}

#[tokio::test]
async fn a_line_past_the_limit_is_refused_alone() {
    let api = Api::start().await;
    let mut long = line("k2");
    long["note"] = json!("x".repeat(3 << 20));
    let body = format!("{}\n{long}\n{}\n", line("k1"), line("k3"));
    let pieces: Vec<Bytes> = body.as_bytes().chunks(100_000).map(Bytes::copy_from_slice).collect();
    let answer = bulk(&api, Body::from_stream(stream::iter(pieces).map(Ok::<_, Infallible>))).await.lines();
    let results: Vec<_> = answer.iter().map(|it| (it["line"].as_u64(), it["status"].as_u64())).collect();
    assert_eq!(results, [(Some(1), Some(202)), (Some(2), Some(413)), (Some(3), Some(202))]);
}

#[tokio::test]
async fn the_body_is_read_no_faster_than_results_are_taken() {
    let api = Api::start().await;
    let gate = api.store.gate.write().await;
    let read = Arc::new(AtomicUsize::new(0));
    let pieces = stream::iter(0..100_000).map({
        let read = read.clone();
        move |n: usize| {
            read.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Bytes::from(format!("{}\n", line(&format!("k{n}")))))
        }
    });
    let call = tokio::spawn({
        let api = api.clone();
        async move { bulk(&api, Body::from_stream(pieces.take(5_000))).await }
    });
    // Nothing becomes durable: reading stops after the chunks that may be under way.
    let stalled = eventually(|| Some(read.load(Ordering::SeqCst)).filter(|it| *it >= 500)).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let read_while_stalled = read.load(Ordering::SeqCst);
    assert!(stalled <= read_while_stalled && read_while_stalled <= 2_500, "{read_while_stalled}");
    drop(gate);
    assert_eq!(call.await.unwrap().lines().len(), 5_000);
}

#[tokio::test]
async fn a_full_disk_refuses_lines_and_says_so() {
    let api = Api::start().await;
    let full = tillstream_log::LogError::DiskFull { available_bytes: 1, needed_bytes: 2 };
    api.store.set_trouble(Some(full));
    let answer = bulk(&api, format!("{}\n", line("k1"))).await.lines();
    assert_eq!((&answer[0]["status"], &answer[0]["problem"]["code"]), (&json!(503), &json!("TS0615")));
    api.store.set_trouble(None);
    assert_eq!(bulk(&api, format!("{}\n", line("k1"))).await.lines()[0]["status"], 202);
}

#[tokio::test]
async fn bulk_media_types_and_declared_sizes_are_judged() {
    let api = Api::start().await;
    let xml = [("content-type", "text/xml")];
    assert_eq!(api.call(Method::POST, "/v1/orders/bulk", &xml, "").await.problem(), (415, "TS0611".into()));
    let huge = [("content-type", "application/x-ndjson"), ("content-length", "104857601")];
    assert_eq!(api.call(Method::POST, "/v1/orders/bulk", &huge, "").await.problem(), (413, "TS0610".into()));
    assert_eq!(bulk(&api, "").await.text, "");
}
