//! Bad input gets a clear error and loses nothing.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::process::{Command, Output};
use tillstream_e2e::{Server, binary, free_port, serve_command};

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
