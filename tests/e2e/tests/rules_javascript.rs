//! Rules in JavaScript on the real binary: the example as `make rules` packs it, and sources that are none.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use reqwest::StatusCode;
use serde_json::{Value, json};
use std::process::Command;
use tillstream_e2e::{KEY, Server, binary, root};

const FIRST_LINE: &str = "// tillstream:rule javascript-1\n";

async fn upload(server: &Server, rule: &str, source: String) -> (StatusCode, Value) {
    let url = format!("{}/v1/rules/{rule}/versions", server.url());
    let call = reqwest::Client::new().put(url).bearer_auth(KEY).header("Content-Type", "text/javascript");
    let answer = call.body(source).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// Uploads what must be taken, and activates it; its digest.
async fn put_in_force(server: &Server, rule: &str, source: String, activation: &Value) -> Value {
    let (status, uploaded) = upload(server, rule, source).await;
    assert_eq!(status, StatusCode::CREATED, "{uploaded}");
    server.post(&format!("/v1/rules/{rule}/activate"), rule, activation).await;
    uploaded["digest"].clone()
}

async fn stock(server: &Server, location: &str, units: i64) {
    let body = json!({"delta": units, "reason": "received", "location": location});
    server.post("/v1/inventory/71053/adjustments", location, &body).await;
}

/// An order of so many lanterns, once it is paid or refused.
async fn order(server: &Server, key: &str, quantity: i64) -> Value {
    let order = json!({"currency": "GBP", "country": "US",
        "lines": [{"sku": "71053", "quantity": quantity, "unit_price": 339}],
        "payment": {"method": "pm_card_visa", "capture": "automatic"}});
    let placed = server.post("/v1/orders", key, &order).await;
    let path = format!("/v1/orders/{}", placed["id"].as_str().unwrap());
    server.until(&path, |it| it["status"] != "pending").await
}

async fn calls(server: &Server, stage: &str, outcome: &str) -> String {
    let text = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
    let series = format!("tillstream_rule_calls_total{{outcome=\"{outcome}\",stage=\"{stage}\"}} ");
    text.lines().find_map(|it| it.strip_prefix(&series)).unwrap_or_else(|| panic!("no {series}")).to_owned()
}

#[tokio::test]
async fn a_rule_in_javascript_shapes_an_order_over_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    stock(&server, "north", 7).await;
    stock(&server, "south", 5).await;
    let path = root().join("rules/javascript/examples/carrier-choice/target/carrier-choice.js");
    let source = std::fs::read_to_string(&path);
    let source = source.unwrap_or_else(|error| panic!("{}: {error}: run `make rules`", path.display()));
    let settings = json!({"grams": 300, "carriers": [{"name": "post", "grams_max": 2000, "days": 3, "price": 320},
        {"name": "courier", "grams_max": 30000, "days": 1, "price": 990}]});
    let activation = json!({"version": 1, "fallback": "refuse", "settings": settings});
    let digest = put_in_force(&server, "carrier-choice", source, &activation).await;
    let placed = order(&server, "both", 12).await;

    server.kill();
    let server = Server::start(dir.path(), &[]).await;
    let path = format!("/v1/orders/{}", placed["id"].as_str().unwrap());
    server.post(&format!("{path}/shipments"), "ship", &json!({})).await;
    let shipped = server.until(&path, |it| it["status"] == "shipped").await;
    let parcel = |it: &Value| (it["location"].as_str().unwrap().to_owned(), it["carrier"].clone());
    let mut parcels: Vec<_> = shipped["shipments"].as_array().unwrap().iter().map(parcel).collect();
    parcels.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let expected = [("north".to_owned(), json!("courier")), ("south".to_owned(), json!("post"))];
    assert_eq!(parcels, expected, "2,100 g are too much for the post: {shipped:#}");
    let shaped =
        json!([{"stage": "fulfillment", "name": "carrier-choice", "version": "1", "digest": digest}]);
    assert_eq!(shipped["rules"], shaped);
    assert_eq!(calls(&server, "fulfillment", "answered").await, "1");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_of_a_source_says_what_it_would_have_taken_off() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    stock(&server, "main", 100).await;
    for quantity in [3, 12, 20] {
        assert_eq!(order(&server, &format!("of-{quantity}"), quantity).await["status"], "confirmed");
    }
    let source = dir.path().join("per-unit.js");
    let body = "{ adjust: lines.flatMap((it, line) => it.quantity >= order.settings.from ? { line, discount: it.quantity } : []) }";
    std::fs::write(&source, format!("export const price = ({{ order, lines }}) => ({body});")).unwrap();
    let source = source.to_str().unwrap();
    let arguments = ["rules", "backtest", source, "--settings", r#"{"from":12}"#, "--json"];
    let mut command = Command::new(binary());
    let ran = command.args(arguments).args(["--url", server.url(), "--api-key", KEY]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let ran: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let report = &ran["report"];
    assert_eq!((&report["compared"], &report["changed"]), (&json!(3), &json!(2)), "{ran:#}");
    assert_eq!(report["money"]["GBP"]["margin_difference_minor"], -32);
    assert_eq!(report["errors"], json!({}));
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn what_a_source_does_wrong_is_told_at_its_upload_or_falls_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    stock(&server, "main", 100).await;
    for (source, reason) in [
        ("export function price() { return 'pass' }".to_owned(), "not_wasm"),
        ("// tillstream:rule cobol-1\nexport function price() { return 'pass' }".to_owned(), "engine"),
        (format!("{FIRST_LINE}export function price( {{"), "source"),
        (format!("{FIRST_LINE}function price() {{}}"), "no_hook"),
        (format!("{FIRST_LINE}export function price() {{}}"), "dry_run"),
    ] {
        let (status, problem) = upload(&server, "wrong", source).await;
        let field = problem["errors"][0]["field"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (status, field),
            (StatusCode::UNPROCESSABLE_ENTITY, format!("(module: {reason})")),
            "{problem}"
        );
    }
    // The sample orders of an upload have no line of eleven.
    let body = "switch (lines[0].quantity) { case 11: return lines.none.x; case 13: for (;;) {} default: return 'pass'; }";
    let source = format!("{FIRST_LINE}export function price({{ lines }}) {{ {body} }}");
    put_in_force(&server, "fragile", source, &json!({"version": 1})).await;
    for (quantity, outcome) in [(11, "trap"), (13, "fuel"), (12, "passed")] {
        assert_eq!(order(&server, &format!("of-{quantity}"), quantity).await["status"], "confirmed");
        assert_eq!(calls(&server, "pricing", outcome).await, "1");
    }
    assert!(server.terminate().await.success());
}
