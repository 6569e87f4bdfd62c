//! Dead letters: who sees them, and what is sent back how fast, how often and with what history.

use crate::harness::{Api, NOW_MS, eventually_by_the_clock};
use serde_json::{Value, json};
use std::time::Duration;
use tillstream_log::headers::{
    FIRST_ORIGIN, ORIGIN, REDRIVE_COUNT, REDRIVEN_FROM, TRACEPARENT, find, header,
};
use tillstream_log::{Headers, Log, LogError, NewRecord, TopicPartition};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::{Topic, codec};
use tokio::time::Instant;

pub async fn bury(api: &Api, tenant: &str, reason: &str, value: &[u8]) {
    bury_key(api, format!("{tenant}/ord_1").as_bytes(), reason, value).await;
}

async fn bury_key(api: &Api, key: &[u8], reason: &str, value: &[u8]) {
    let headers = [header(REDRIVE_COUNT, "1")].into_iter().collect();
    bury_letter(api, &letter(key, reason, value), headers).await;
}

fn letter(key: &[u8], reason: &str, value: &[u8]) -> DeadLetter {
    DeadLetter {
        id: format!("dl_{reason}").into(),
        topic: Topic::OrderCommands.name().into(),
        partition: 0,
        offset: 7,
        appended_at_ms: NOW_MS,
        failed_at_ms: NOW_MS,
        stage: "pricing".into(),
        code: "TS0103".into(),
        reason: reason.into(),
        message: "it cannot be decoded".into(),
        attempts: 2,
        version: "0.1.0".into(),
        key: key.to_vec(),
        value: value.to_vec(),
    }
}

/// Writes a letter where the task would.
async fn bury_letter(api: &Api, letter: &DeadLetter, headers: Headers) {
    let topic = Topic::parse(&letter.topic).unwrap().dlq().unwrap();
    let record = NewRecord {
        to: TopicPartition::new(topic, 0),
        key: letter.key.clone().into(),
        value: codec::encode(letter).unwrap().into(),
        headers,
    };
    api.store.append(vec![record]).await.unwrap();
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_redriven_by_their_tenant() {
    let api = Api::start().await;
    bury(&api, "demo", "decode", b"\x00garbage").await;
    bury(&api, "other", "decode", b"secret").await;
    bury(&api, "demo", "panic", b"\x01").await;
    let json = api.get("/v1/dead-letters").await.json();
    let reasons: Vec<&str> =
        json["data"].as_array().unwrap().iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["decode", "panic"]);
    assert_eq!(json["data"][1]["offset"], 2);
    assert_eq!(json["data"][0]["redrive_count"], 1);
    assert!(!json.to_string().contains("secret"));
    let filtered = api.get("/v1/dead-letters?topic=orders.commands&reason=panic").await.json();
    assert_eq!(filtered["data"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/v1/dead-letters?topic=items.commands").await.json()["data"], json!([]));

    let shown = api.get("/v1/dead-letters/orders.commands.dlq/0/0").await.json();
    assert_eq!(shown["value"]["bytes"], 8);
    assert_eq!(api.get("/v1/dead-letters/orders.commands.dlq/0/1").await.status, 404);

    let redriven = api.post("/v1/dead-letters/orders.commands.dlq/0/0/redrive", "k", &json!({})).await;
    assert_eq!((redriven.status.as_u16(), &redriven.json()["redriven"]), (200, &json!(1)));
    let back = api.store.records(Topic::OrderCommands);
    assert_eq!((back[0].key.as_ref(), back[0].value.as_ref()), (&b"demo/ord_1"[..], &b"\x00garbage"[..]));
    assert_eq!(find(&back[0].headers, REDRIVE_COUNT), Some("2"));
    assert_eq!(find(&back[0].headers, FIRST_ORIGIN), Some("orders.order.commands.v1/0/7"));
    assert_eq!(find(&back[0].headers, REDRIVEN_FROM), Some("orders.order.commands.v1.dlq/0/0"));

    let all = api.post("/v1/dead-letters/redrive", "k", &json!({"reason": "panic"})).await.json();
    assert_eq!((&all["redriven"], &all["next_cursor"]), (&json!(1), &Value::Null));
    assert_eq!(api.store.records(Topic::OrderCommands).len(), 2);
}

#[tokio::test]
async fn letters_that_are_no_tenants_are_the_operators() {
    let api = Api::start().await;
    let other = api.with_key("till_other");
    bury(&api, "other", "decode", b"secret").await;
    bury_key(&api, b"\xffnobody", "decode", b"garbage").await;
    bury_key(&api, b"", "corrupt", b"").await;
    // A tenant without a key cannot ask for its letters.
    bury(&api, "ghost", "decode", b"x").await;
    let seen = async |api: &Api| {
        let json = api.get("/v1/dead-letters").await.json();
        let letters = json["data"].as_array().unwrap().clone();
        letters
            .iter()
            .map(|it| (it["offset"].as_u64().unwrap(), it["unowned"].as_bool().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(&api).await, [(1, true), (2, true), (3, true)]);
    assert_eq!(seen(&other).await, [(0, false)]);

    let at = |offset: u64, then: &str| format!("/v1/dead-letters/orders.commands.dlq/0/{offset}{then}");
    assert_eq!(api.get(&at(1, "")).await.json()["value"]["bytes"], 7);
    for offset in 1..4 {
        assert_eq!(other.get(&at(offset, "")).await.status, 404, "{offset}");
        assert_eq!(other.post(&at(offset, "/redrive"), "k", &json!({})).await.status, 404, "{offset}");
    }
    assert_eq!(api.get(&at(0, "")).await.status, 404);
    assert_eq!(other.post("/v1/dead-letters/redrive", "k", &json!({})).await.json()["redriven"], 1);

    assert_eq!(api.post(&at(1, "/redrive"), "k", &json!({})).await.status, 200);
    let back = api.store.records(Topic::OrderCommands);
    let sent: Vec<&[u8]> = back.iter().map(|it| it.value.as_ref()).collect();
    assert_eq!(sent, [&b"secret"[..], b"garbage"]);
    assert_eq!(back[1].key.as_ref(), b"\xffnobody");
    // What held no record has nothing to send again.
    let empty = api.post(&at(2, "/redrive"), "k", &json!({})).await;
    assert_eq!(empty.problem().0, 409);
}

#[tokio::test]
async fn dead_letters_are_paged() {
    let api = Api::start().await;
    for n in 0..5 {
        bury(&api, "demo", &format!("r{n}"), b"x").await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let json = api.get(&format!("/v1/dead-letters?limit=2{cursor}")).await.json();
        seen.extend(
            json["data"].as_array().unwrap().iter().map(|it| it["reason"].as_str().unwrap().to_owned()),
        );
        match json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
}

#[tokio::test]
async fn a_record_that_was_redriven_keeps_its_history() {
    let api = Api::start().await;
    let mut again = letter(b"demo/ord_1", "decode", b"x");
    again.offset = 99;
    let kept = [
        header(ORIGIN, "orders.order.commands.v1/0/99"),
        header(TRACEPARENT, "00-trace"),
        header(REDRIVE_COUNT, "3"),
        header(FIRST_ORIGIN, "orders.order.commands.v1/2/5"),
        header(REDRIVEN_FROM, "orders.order.commands.v1.dlq/0/44"),
    ];
    bury_letter(&api, &again, kept.into_iter().collect()).await;
    let shown = api.get("/v1/dead-letters/orders.commands.dlq/0/0").await.json();
    assert_eq!(shown["redriven_from"], "orders.order.commands.v1.dlq/0/44");
    assert_eq!(shown["first_origin"], "orders.order.commands.v1/2/5");

    api.post("/v1/dead-letters/orders.commands.dlq/0/0/redrive", "k", &json!({})).await;
    let back = api.store.records(Topic::OrderCommands);
    let history = |name: &str| find(&back[0].headers, name);
    assert_eq!(history(REDRIVE_COUNT), Some("4"));
    assert_eq!(history(FIRST_ORIGIN), Some("orders.order.commands.v1/2/5"));
    assert_eq!(history(REDRIVEN_FROM), Some("orders.order.commands.v1.dlq/0/0"));
    assert_eq!((history(TRACEPARENT), history(ORIGIN)), (Some("00-trace"), None));
}

#[tokio::test(start_paused = true)]
async fn many_are_sent_back_at_their_rate_and_in_calls_that_end() {
    let api = Api::start().await;
    for n in 0..130 {
        bury(&api, "demo", "decode", format!("{n}").as_bytes()).await;
    }
    let began = Instant::now();
    let mut body = json!({"rate": 20, "limit": 1_000});
    let (mut redriven, mut calls) = (0, 0);
    loop {
        let call = Instant::now();
        let answer = api.post("/v1/dead-letters/redrive", "k", &body).await.json();
        calls += 1;
        let sent = answer["redriven"].as_u64().unwrap();
        redriven += sent;
        assert!(call.elapsed() >= Duration::from_millis(sent * 50), "{sent} in {:?}", call.elapsed());
        assert!(call.elapsed() < Duration::from_millis(5_200), "{:?}", call.elapsed());
        assert_eq!(api.store.records(Topic::OrderCommands).len() as u64, redriven);
        match &answer["next_cursor"] {
            Value::Null => break,
            next => body["cursor"] = next.clone(),
        }
    }
    assert_eq!((redriven, calls), (130, 2));
    assert!(began.elapsed() >= Duration::from_millis(6_500), "130 at 20 a second: {:?}", began.elapsed());
    let values: Vec<String> = api
        .store
        .records(Topic::OrderCommands)
        .iter()
        .map(|it| String::from_utf8(it.value.to_vec()).unwrap())
        .collect();
    assert_eq!(values, (0..130).map(|n| n.to_string()).collect::<Vec<_>>(), "each once, in order");
}

#[tokio::test(start_paused = true)]
async fn letters_go_back_in_small_steps() {
    let api = Api::start().await;
    for _ in 0..100 {
        bury(&api, "demo", "decode", b"x").await;
    }
    let body = json!({"rate": 100});
    let call = api.post("/v1/dead-letters/redrive", "k", &body);
    tokio::pin!(call);
    tokio::select! {
        _ = &mut call => panic!("a second's worth was sent at once"),
        () = tokio::time::sleep(Duration::from_millis(450)) => {}
    }
    let sent = api.store.records(Topic::OrderCommands).len();
    assert!((40..=50).contains(&sent), "{sent} of 100 after 450 ms");
    assert_eq!(call.await.json()["redriven"], 100);
}

#[tokio::test]
async fn what_fails_again_is_not_sent_back_by_the_same_run() {
    let api = Api::start().await;
    for _ in 0..3 {
        bury(&api, "demo", "decode", b"x").await;
    }
    let mut body = json!({"rate": 10_000, "limit": 2});
    let mut redriven = Vec::new();
    loop {
        let answer = api.post("/v1/dead-letters/redrive", "k", &body).await.json();
        let sent = answer["redriven"].as_u64().unwrap();
        redriven.push(sent);
        // They fail again at once, behind all others.
        api.clock.advance(1);
        for _ in 0..sent {
            let mut again = letter(b"demo/ord_1", "decode", b"x");
            again.failed_at_ms = NOW_MS + 1;
            bury_letter(&api, &again, Headers::new()).await;
        }
        assert!(redriven.len() < 10, "it goes on for ever: {redriven:?}");
        match &answer["next_cursor"] {
            Value::Null => break,
            next => body["cursor"] = next.clone(),
        }
    }
    assert_eq!(redriven.iter().sum::<u64>(), 3, "{redriven:?}");
    // The next run takes them.
    let next = api.post("/v1/dead-letters/redrive", "k", &json!({"rate": 10_000})).await.json();
    assert_eq!(next["redriven"], 6, "the three, and the three of before");
}

#[tokio::test]
async fn a_delta_is_sent_back_once_and_a_command_as_often_as_asked() {
    let api = Api::start().await;
    let mut delta = letter(b"demo", "overflow", b"delta");
    delta.topic = Topic::AnalyticsDeltas.name().into();
    bury_letter(&api, &delta, Headers::new()).await;
    bury(&api, "demo", "decode", b"command").await;

    let deltas = "/v1/dead-letters/analytics.deltas.dlq/0/0/redrive";
    assert_eq!(api.post(deltas, "k", &json!({})).await.status, 200);
    let refused = api.post(deltas, "k", &json!({})).await;
    assert_eq!(refused.problem().0, 409);
    assert!(refused.text.contains("sent back before"), "{}", refused.text);
    for _ in 0..2 {
        let all = api.post("/v1/dead-letters/redrive", "k", &json!({"rate": 10_000})).await.json();
        assert_eq!(all["redriven"], 1);
        assert_eq!(all["refused"][0]["place"], format!("{}/0/0", Topic::AnalyticsDeltasDlq));
    }
    assert_eq!(api.store.records(Topic::AnalyticsDeltas).len(), 1);
    assert_eq!(api.store.records(Topic::OrderCommands).len(), 2);

    // Failed again, it has a letter of its own.
    let moved = api.store.records(Topic::AnalyticsDeltas).remove(0);
    delta.offset = i64::try_from(moved.offset).unwrap();
    delta.partition = i32::try_from(tillstream_stage::partition::partition_of(b"demo", 4)).unwrap();
    bury_letter(&api, &delta, moved.headers).await;
    let newer = "/v1/dead-letters/analytics.deltas.dlq/0/1/redrive";
    assert_eq!(api.post(newer, "k", &json!({})).await.status, 200);
    assert_eq!(api.post(newer, "k", &json!({})).await.status, 409);
    assert_eq!(api.store.records(Topic::AnalyticsDeltas).len(), 2);
}

#[tokio::test]
async fn two_redrives_at_once_send_a_delta_back_once() {
    let api = Api::start().await;
    let mut delta = letter(b"demo", "overflow", b"delta");
    delta.topic = Topic::AnalyticsDeltas.name().into();
    bury_letter(&api, &delta, Headers::new()).await;
    let body = json!({"rate": 10_000});
    let one = "/v1/dead-letters/analytics.deltas.dlq/0/0/redrive";
    let held = api.store.gate.write().await;
    let (by_place, by_filter) = (api.post(one, "k", &body), api.post("/v1/dead-letters/redrive", "k", &body));
    let release = async {
        tokio::task::yield_now().await;
        drop(held);
    };
    tokio::join!(by_place, by_filter, release);
    assert_eq!(api.store.records(Topic::AnalyticsDeltas).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_is_cut_short_says_where_to_go_on() {
    let api = Api::start().await;
    for n in 0..5 {
        bury(&api, "demo", "decode", format!("{n}").as_bytes()).await;
    }
    let body = json!({"rate": 1});
    let call = api.post("/v1/dead-letters/redrive", "k", &body);
    let trouble = async {
        // One a second: before the fourth.
        eventually_by_the_clock(|| (api.store.records(Topic::OrderCommands).len() == 3).then_some(())).await;
        api.store.set_trouble(Some(LogError::Io("no".into())));
    };
    let (answer, ()) = tokio::join!(call, trouble);
    let answer = answer.json();
    assert_eq!(answer["redriven"], 3, "{answer}");
    let rest = json!({"rate": 10_000, "cursor": answer["next_cursor"]});
    assert!(!api.post("/v1/dead-letters/redrive", "k", &rest).await.status.is_success());
    api.store.set_trouble(None);
    assert_eq!(api.post("/v1/dead-letters/redrive", "k", &rest).await.json()["redriven"], 2);
    let values: Vec<u8> = api.store.records(Topic::OrderCommands).iter().map(|it| it.value[0]).collect();
    assert_eq!(values, *b"01234");
}

#[tokio::test]
async fn a_rate_or_cursor_that_makes_no_sense_is_refused() {
    let api = Api::start().await;
    let listed = api.get("/v1/dead-letters?limit=1").await.json();
    assert_eq!(listed["next_cursor"], Value::Null);
    for body in [
        json!({"rate": 0}),
        json!({"rate": 10_001}),
        json!({"rate": "fast"}),
        json!({"cursor": "d00"}),
        json!({"cursor": "r31"}),
    ] {
        let refused = api.post("/v1/dead-letters/redrive", "k", &body).await;
        assert!((400..=422).contains(&refused.problem().0), "{body}: {}", refused.text);
    }
}
