//! Bad input gets a clear error and loses nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../bad_input/cases.rs"]
mod cases;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;
use tillstream_e2e::{KEY, Server, binary, free_port, serve_command};

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn order() -> Value {
    json!({"currency": "GBP", "country": "GB", "lines": [{"sku": "a", "quantity": 1, "unit_price": 100}],
           "payment": {"method": "pm_card_visa", "capture": "automatic"}})
}

#[tokio::test]
async fn a_second_process_on_the_same_data_dir_is_told_so_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let second = serve_command(dir.path(), free_port()).output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{}", shown(&second));
    assert!(shown(&second).contains("TS03") && shown(&second).contains("in use"), "{}", shown(&second));
    server.post("/v1/orders", "k", &order()).await;
}

#[tokio::test]
async fn a_start_on_a_taken_port_says_so_and_does_not_spend_the_key_that_is_shown_once() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let start = || serve_command(dir.path(), port).env_remove("TILLSTREAM_DEMO_KEY").output().unwrap();
    for _ in 0..2 {
        let output = start();
        assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
        assert!(shown(&output).contains("TS0732"), "{}", shown(&output));
        assert!(!shown(&output).contains("till_"), "{}", shown(&output));
    }
}

#[tokio::test]
async fn a_data_dir_of_another_version_is_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path(), &[]).await.terminate().await;
    let file = dir.path().join("STORE");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replacen("format=1", "format=99", 1);
    assert_ne!(text, changed, "{text}");
    std::fs::write(&file, &changed).unwrap();
    let output = serve_command(dir.path(), free_port()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("99"), "{}", shown(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), changed);
}

#[tokio::test]
async fn another_partition_count_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path(), &[]).await.terminate().await;
    let output = serve_command(dir.path(), free_port()).args(["--partitions", "7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains('7') && shown(&output).contains('4'), "{}", shown(&output));
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_says_so_and_keeps_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let id = server.post("/v1/orders", "k", &order()).await["id"].as_str().unwrap().to_owned();
    server.until(&format!("/v1/orders/{id}"), |it| it["status"] != "pending").await;
    assert!(server.terminate().await.success());

    // More than any disk has: to the store the disk is full.
    let full = Server::spawn(dir.path(), &["--disk-reserve-bytes", "9000000000000000"]);
    let ready = loop {
        if let Ok(answer) = full.try_call(Method::GET, "/readyz", None, None).await
            && answer.text.contains("disk")
        {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.text);
    let refused = full.call(Method::POST, "/v1/orders", Some("k2"), Some(&order())).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text);
    assert_eq!(full.get(&format!("/v1/orders/{id}")).await["id"], json!(id));
    assert!(full.terminate().await.success());

    let again = Server::start(dir.path(), &[]).await;
    again.post("/v1/orders", "k2", &order()).await;
}

#[tokio::test]
async fn what_is_wrong_with_an_order_is_named_with_its_fix() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let line = json!({"sku": "a", "quantity": 1, "unit_price": 100});
    let cases = [
        ("lines", json!(vec![line.clone(); 1_001]), "lines"),
        ("lines", json!([]), "lines"),
        ("lines", json!([{"sku": "a", "quantity": 1, "unit_price": -1}]), "lines[0].unit_price"),
        ("lines", json!([{"sku": "a", "quantity": 0}]), "lines[0].quantity"),
        (
            "lines",
            json!([{"sku": "a", "quantity": 1_000_000, "unit_price": 9_000_000_000_000_000i64}]),
            "lines[0]",
        ),
        ("lines", json!([{"sku": "a".repeat(65), "quantity": 1}]), "lines[0].sku"),
        ("currency", json!("XXQ"), "currency"),
        ("country", json!("England"), "country"),
        ("placed_at", json!("yesterday"), "placed_at"),
        ("colour", json!("red"), "colour"),
    ];
    for (field, value, named) in cases {
        let mut body = order();
        body[field] = value;
        let answer = server.call(Method::POST, "/v1/orders", Some("bad"), Some(&body)).await;
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{field}: {} {}", answer.status, answer.text);
        let errors = answer.json["errors"].as_array().unwrap_or_else(|| panic!("{field}: {}", answer.text));
        let hit = errors.iter().find(|it| it["field"].as_str().is_some_and(|it| it.starts_with(named)));
        let hit = hit.unwrap_or_else(|| panic!("{named} is not named in {}", answer.text));
        assert!(hit["fix"].as_str().is_some_and(|it| !it.is_empty()), "{}", answer.text);
    }
    let missing = server.call(Method::POST, "/v1/orders", None, Some(&order())).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    server.post("/v1/orders", "bad", &order()).await;
}

#[tokio::test]
async fn wrong_use_of_the_command_line_exits_2_and_a_failed_command_exits_1() {
    let run = |arguments: &[&str]| Command::new(binary()).args(arguments).output().unwrap();
    let cases: [(&[&str], i32); 7] = [
        (&["serve", "--partitions", "zero"], 2),
        (&["frobnicate"], 2),
        (&["dlq", "show", "no-place", "--api-key", "till_x"], 2),
        (&["dlq", "redrive", "--api-key", "till_x"], 2),
        (&["keys", "list", "--config", "does-not-exist.toml"], 2),
        (&["keys", "list", "--url", "http://127.0.0.1:1", "--api-key", "till_x"], 1),
        (&["import", "does-not-exist.csv", "--url", "http://127.0.0.1:1", "--api-key", "till_x"], 1),
    ];
    for (arguments, code) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", shown(&output));
        assert!(!output.stderr.is_empty(), "{arguments:?} says why");
    }
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[tokio::test]
async fn bad_input_is_answered_with_a_problem_that_names_it_and_the_server_stays_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let made = server.post("/v1/keys", "k", &json!({ "name": "to be revoked" })).await;
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(server.call(Method::DELETE, &path, None, None).await.status, StatusCode::OK);
    let client = reqwest::Client::new();
    let mut faults = Vec::new();
    for case in cases::all() {
        let mut call = client.request(case.method.parse().unwrap(), format!("{}{}", server.url(), case.path));
        call = match case.key.as_str() {
            "valid" => call.bearer_auth(KEY),
            "revoked" => call.bearer_auth(made["key"].as_str().unwrap()),
            "long" => call.bearer_auth("till_".repeat(1_000)),
            "wrong" => call.bearer_auth("till_wrong"),
            "basic" => call.basic_auth("demo", Some("x")),
            _ => call,
        };
        for (name, value) in &case.headers {
            call = call.header(name, value);
        }
        let answer = match call.body(case.body.clone()).send().await {
            Ok(answer) => answer,
            // What is far too much is refused before it is read: the refusal may be lost with the connection.
            Err(error) => {
                assert_eq!(case.status, 413, "{}: {error}", case.name);
                continue;
            }
        };
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let header = |name: &str| headers.get(name).map_or("", |it| it.to_str().unwrap()).to_owned();
        faults.extend(cases::fault(&case, status, header, &answer.text().await.unwrap()));
    }
    assert!(faults.is_empty(), "{faults:#?}");
    server.post("/v1/orders", "after", &cases::order()).await;
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn what_is_no_http_or_far_too_much_of_it_ends_its_own_connection_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let address = server.url().trim_start_matches("http://").to_owned();
    let many: String = (0..5_000).map(|it| format!("x-bomb-{it}: b\r\n")).collect();
    let long = format!("x-bomb: {}\r\n", "b".repeat(4 << 20));
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("noise", vec![0xff; 4_096], &[400]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400]),
        ("5,000 headers", format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n").into(), &[431]),
        ("a header of 4 MiB", format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{long}\r\n").into(), &[431]),
        (
            "a path of 1 MiB",
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "p".repeat(1 << 20)).into(),
            &[414, 431],
        ),
        ("NUL in a header", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n".to_vec(), &[400]),
        (
            "two lengths",
            b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na"
                .to_vec(),
            &[400],
        ),
        (
            "a length that is none",
            b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(),
            &[400],
        ),
    ];
    for (name, bytes, expected) in cases {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may have had enough before everything is written.
        let _ = stream.write_all(&bytes);
        let mut answer = [0; 12];
        if stream.read_exact(&mut answer).is_ok() {
            let text = String::from_utf8_lossy(&answer).into_owned();
            let status: u16 = text[9..12].parse().unwrap_or_else(|_| panic!("{name}: {text:?}"));
            assert!(expected.contains(&status), "{name}: {status}");
        }
        assert_eq!(server.get("/healthz").await["status"], "ok", "{name}");
    }
    server.post("/v1/orders", "after", &order()).await;
}
