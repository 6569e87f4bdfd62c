//! Tenants' rules on the real binary: the examples as `make rules` builds them, and modules that mean harm.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod admission;
mod caller;

use caller::{Caller, demo};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tillstream_e2e::{KEY, Server, bare_command, metric_values, root};
use tillstream_rule_modules::{HARMS, Harm, harms_guests, off, plain, price_rule};

/// How far the server's memory may grow under modules that mean harm.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// An example, as `make rules` builds it.
fn built(name: &str) -> Vec<u8> {
    let path = root().join(format!("rules/examples/target/{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run `make rules`", path.display()))
}

/// The record that names a rule, wherever it stands in an event.
fn rule_in(event: &Value) -> Option<&Value> {
    match event {
        Value::Object(fields) => match fields.get("rule") {
            Some(rule) if !rule.is_null() => Some(rule),
            _ => fields.values().find_map(rule_in),
        },
        Value::Array(items) => items.iter().find_map(rule_in),
        _ => None,
    }
}

fn assert_names(event: &Value, name: &str, version: &str, digest: &Value) {
    let rule = rule_in(event).unwrap_or_else(|| panic!("no rule in {event:#}")).to_string();
    for word in [name, version, digest.as_str().unwrap()] {
        assert!(rule.contains(&format!("\"{word}\"")), "{word} is not in {rule}");
    }
}

async fn metrics(server: &Server) -> String {
    reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap()
}

async fn calls(server: &Server, stage: &str, outcome: &str) -> f64 {
    let series = format!("tillstream_rule_calls_total{{outcome=\"{outcome}\",stage=\"{stage}\"}}");
    let text = metrics(server).await;
    let line = text.lines().find_map(|it| it.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series}")).trim().parse().unwrap()
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}

#[tokio::test]
async fn a_discount_holds_from_its_activation_over_a_crash_to_its_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    merchant.stock("main", 1_000).await;
    assert_eq!(merchant.order("before", 12).await["total"], 4_068);

    let uploaded = merchant.upload("volume-discount", built("volume-discount")).await.json;
    assert_eq!((&uploaded["version"], &uploaded["dry_run"][0]["hook"]), (&json!(1), &json!("price")));
    assert_eq!(merchant.order("uploaded", 12).await["total"], 4_068, "an upload activates nothing");

    let path = "/v1/rules/volume-discount/activate";
    let rule = merchant.change(path, &json!({"version": 1})).await.json;
    assert_eq!(rule["active"]["digest"], uploaded["digest"], "{rule}");
    let discounted = merchant.order("active", 12).await;
    assert_eq!(discounted["total"], 3_661, "the very next order has it: {discounted}");
    let shaped = &discounted["rules"][0];
    assert_eq!((&shaped["stage"], &shaped["name"]), (&json!("pricing"), &json!("volume-discount")));
    assert_eq!((&shaped["version"], &shaped["digest"]), (&json!("1"), &uploaded["digest"]));
    let priced = merchant.events(&discounted, "order.priced").await;
    assert_names(&priced[0], "volume-discount", "1", &uploaded["digest"]);
    assert_eq!(calls(&server, "pricing", "answered").await, 1.0);
    let text = metrics(&server).await;
    assert_eq!(metric_values(&text, "tillstream_rule_fuel_units_count").iter().sum::<f64>(), 1.0);

    let settings = json!({"version": 1, "settings": {"from_quantity": 13}});
    merchant.change(path, &settings).await;
    assert_eq!(merchant.order("settings", 12).await["total"], 4_068, "other settings are an activation");

    server.kill();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    assert_eq!(merchant.order("restarted", 12).await["total"], 4_068, "the settings outlast a crash");
    assert_eq!(merchant.order("many", 13).await["total"], 4_407 - 441);
    merchant.change("/v1/rules/volume-discount/rollback", &json!({})).await;
    assert_eq!(merchant.order("rolled back", 12).await["total"], 3_661, "what was before holds again");
    let rule = merchant.change("/v1/rules/volume-discount/rollback", &json!({})).await.json;
    assert_eq!(rule["active"], Value::Null, "{rule}");
    assert_eq!(merchant.order("rolled back twice", 12).await["total"], 4_068);
    assert!(server.terminate().await.success());
}

/// Calls of versions on trial.
async fn trial_calls(server: &Server, kind: &str, outcome: &str) -> f64 {
    let labels = format!("{{kind=\"{kind}\",outcome=\"{outcome}\",stage=\"pricing\"}}");
    let series = format!("tillstream_rule_trial_calls_total{labels}");
    let text = metrics(server).await;
    let line = text.lines().find_map(|it| it.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series}")).trim().parse().unwrap()
}

#[tokio::test]
async fn a_version_is_tried_beside_the_active_one_then_on_orders_until_it_moves_too_much_money() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    merchant.stock("main", 1_000).await;
    merchant.put_in_force("off", off(5), &json!({"version": 1})).await;
    assert_eq!(merchant.upload("off", off(7)).await.json["version"], 2);
    merchant.change("/v1/rules/off/shadow", &json!({"version": 2})).await;
    for index in 0..10 {
        assert_eq!(merchant.order(&format!("shadow-{index}"), 1).await["total"], 334, "nothing is applied");
    }
    assert_eq!(trial_calls(&server, "shadow", "different").await, 10.0);
    let trial = server.until("/v1/rules/off", |it| it["trial"]["calls"] == 10).await["trial"].clone();
    assert_eq!(
        (&trial["calls"], &trial["different"], &trial["failures"]),
        (&json!(10), &json!(10), &json!(0))
    );
    assert_eq!(trial["money"], json!([{"currency": "GBP", "difference": 20, "net": -20}]));

    let body = json!({"version": 2, "percent": 100, "stop_at_difference": 10});
    merchant.change("/v1/rules/off/canary", &body).await;
    let mut heard = Vec::new();
    for index in 0..8 {
        let order = merchant.order(&format!("canary-{index}"), 1).await;
        let version = order["rules"][0]["version"].as_str().unwrap().to_owned();
        heard.push((order["total"].as_i64().unwrap(), version));
    }
    let expected = [vec![(332, "2".to_owned()); 5], vec![(334, "1".to_owned()); 3]].concat();
    assert_eq!(heard, expected, "at 2 each, the fifth order reaches the bound of 10");
    let rule = server.until("/v1/rules/off", |it| !it["trial"]["stopped"].is_null()).await;
    assert_eq!(
        (&rule["active"]["version"], &rule["trial"]["stopped"]["reason"]),
        (&json!(1), &json!("difference"))
    );
    assert_eq!(trial_calls(&server, "canary", "different").await, 5.0);

    let samples = server.until("/v1/rules/off/samples?kind=difference", |it| it["data"][0].is_object()).await;
    let sample = &samples["data"][0];
    assert_eq!((&sample["version"], &sample["other"]["version"]), (&json!("2"), &json!("1")), "{sample:#}");
    assert_eq!(sample["input"]["lines"][0]["quantity"], 1);
    let order = merchant.get(&format!("/v1/orders/{}", sample["order_id"].as_str().unwrap())).await;
    assert_eq!(order.status, StatusCode::OK, "it is a real order's");

    server.kill();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    assert_eq!(merchant.order("restarted", 1).await["total"], 334, "it stays stopped");
    server.until("/v1/rules/off/samples?kind=difference", |it| it["data"][0].is_object()).await;
    let rule = merchant.change("/v1/rules/off/activate", &json!({"version": 2})).await.json;
    assert_eq!(rule["trial"], Value::Null);
    assert_eq!(merchant.order("for all", 1).await["total"], 332);
    assert!(server.terminate().await.success());
}

/// `tillstream rules …`: whether it succeeded, and what it printed.
fn rules(server: &Server, arguments: &[&str]) -> (bool, String) {
    let mut command = bare_command();
    command.arg("rules").args(arguments);
    if !matches!(arguments[0], "run" | "validate") {
        command.args(["--url", server.url(), "--api-key", KEY]);
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn the_command_line_tries_uploads_activates_lists_and_rolls_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let module = root().join("rules/examples/target/volume-discount.wasm");
    let module = module.to_str().unwrap();
    let input = dir.path().join("input.json");
    let order = json!({"currency": "GBP", "country": "GB", "placed_at_ms": 1_291_191_960_000_i64});
    let line = json!({"sku": "71053", "quantity": 12, "unit_price_minor": 339, "tax_rate_bp": 2_000});
    std::fs::write(&input, json!({"hook": "price", "order": order, "lines": [line]}).to_string()).unwrap();
    let settings = r#"{"from_quantity":12}"#;
    let schema = dir.path().join("schema.json");
    let from = json!({"properties": {"from_quantity": {"type": "integer"}}});
    std::fs::write(&schema, from.to_string()).unwrap();
    let schema = schema.to_str().unwrap();
    let steps: [(&[&str], &str); 14] = [
        (&["validate", module], "good: price"),
        (&["run", module, "--input", input.to_str().unwrap(), "--settings", settings], "407"),
        (&["upload", "tiers", module], "version 1"),
        (&["activate", "tiers", "--version", "1"], "version 1"),
        (&["activate", "tiers", "--settings", settings, "--fallback", "refuse"], "version 1"),
        (&["list"], "tiers"),
        (&["rollback", "tiers"], "version 1"),
        (&["upload", "tiers", module, "--settings-schema", schema], "version 2"),
        (&["shadow", "tiers"], "version 2  shadow  0 calls"),
        (&["canary", "tiers", "--percent", "5", "--stop-at-difference", "900"], "version 2  canary 5 %"),
        (&["rollback", "tiers"], "version 1"),
        (&["activate", "tiers"], "version 2"),
        (&["settings", "tiers", "--settings", settings], settings),
        (&["rollback", "tiers"], "version 2  order 100  price  skip  {}"),
    ];
    for (arguments, expected) in steps {
        let (good, said) = rules(&server, arguments);
        assert!(good && said.contains(expected), "{arguments:?}: {said}");
    }
    let rule = demo(&server).get("/v1/rules/tiers").await.json;
    assert_eq!((&rule["active"]["version"], &rule["active"]["settings"]), (&json!(2), &json!({})));
    let wrong = r#"{"from_quantity":"many"}"#;
    let (good, said) = rules(&server, &["settings", "tiers", "--settings", wrong]);
    assert!(!good && said.contains("settings.from_quantity"), "{said}");
    let (good, said) = rules(&server, &["activate", "nobodys"]);
    assert!(!good && said.contains("404"), "{said}");
    let (good, said) = rules(&server, &["validate", input.to_str().unwrap()]);
    assert!(!good && said.contains("TS0933"), "{said}");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn goods_of_two_places_leave_in_two_shipments_that_name_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    merchant.stock("north", 7).await;
    merchant.stock("south", 5).await;
    let activation = json!({"version": 1, "settings": {"carrier": "post"}});
    let uploaded = merchant.put_in_force("split-by-location", built("split-by-location"), &activation).await;
    let order = merchant.order("both", 12).await;
    let id = order["id"].as_str().unwrap();
    server.post(&format!("/v1/orders/{id}/shipments"), "ship", &json!({})).await;
    let shipped = server.until(&format!("/v1/orders/{id}"), |it| it["status"] == "shipped").await;
    let parcels: Vec<_> = shipped["shipments"].as_array().unwrap().iter().collect();
    let mut left: Vec<_> =
        parcels.iter().map(|it| (it["location"].as_str().unwrap(), &it["lines"][0]["quantity"])).collect();
    left.sort_unstable_by_key(|it| it.0);
    assert_eq!(left, [("north", &json!(7)), ("south", &json!(5))], "{shipped:#}");
    assert!(parcels.iter().all(|it| it["carrier"] == "post"), "{shipped:#}");
    let events = merchant.events(&order, "shipment.shipped").await;
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_names(event, "split-by-location", "1", &uploaded["digest"]);
    }
    let version = json!({"name": "split-by-location", "version": "1", "digest": uploaded["digest"]});
    let history = merchant.get(&format!("/v1/orders/{id}/events")).await.json;
    for event in history["data"].as_array().unwrap() {
        let shaped = event["type"] == "shipment.shipped";
        assert_eq!(event["rules"], if shaped { json!([version]) } else { json!([]) }, "{event:#}");
    }
    let mut shown = version;
    shown["stage"] = json!("fulfillment");
    assert_eq!(shipped["rules"], json!([shown]), "once, though it shaped two shipments");
    assert_eq!(calls(&server, "fulfillment", "answered").await, 1.0);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_module_that_means_harm_falls_back_by_its_policy_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    merchant.stock("main", 10_000).await;
    merchant.put_in_force("warm", price_rule("", "(i32.const 16)"), &json!({"version": 1})).await;
    merchant.order("warm", 1).await;
    let before = resident_bytes(server.pid());
    for (index, Harm { name, declarations, body, outcome }) in HARMS.into_iter().enumerate() {
        let rule = format!("harm-{index}");
        for fallback in ["skip", "refuse", "review"] {
            let counted = calls(&server, "pricing", outcome).await;
            // By force: its dry run on the orders before says what it is.
            let activation = json!({"version": 1, "fallback": fallback, "forced": true});
            merchant.put_in_force(&rule, harms_guests(declarations, body), &activation).await;
            let order = merchant.order(&format!("{index}-{fallback}"), 1).await;
            let found = (order["status"].as_str().unwrap(), order["stage"].as_str().unwrap());
            let expected = match fallback {
                "skip" => ("confirmed", "fulfillment"),
                "refuse" => ("failed", "done"),
                _ => ("pending", "review"),
            };
            assert_eq!(found, expected, "{name}, {fallback}: {order:#}");
            if fallback == "refuse" {
                assert_eq!(order["reason"]["code"], "rule_failed", "{name}: {order:#}");
            }
            assert_eq!(calls(&server, "pricing", outcome).await, counted + 1.0, "{name}, {fallback}");
        }
        let gone = server.call(Method::DELETE, &format!("/v1/rules/{rule}"), None, None).await;
        assert_eq!(gone.json["active"], Value::Null, "{}", gone.text);
    }
    let grown = resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown <= GROWTH_BYTES_MAX, "grown by {grown} bytes");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn an_order_under_review_ships_only_after_somebody_approved_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    merchant.stock("main", 100).await;
    let module = harms_guests("", "unreachable");
    merchant.put_in_force("odd", module, &json!({"version": 1, "fallback": "review"})).await;
    let (approved, refused) = (merchant.order("approved", 1).await, merchant.order("refused", 1).await);
    for order in [&approved, &refused] {
        assert_eq!((&order["status"], &order["stage"]), (&json!("pending"), &json!("review")), "{order:#}");
        assert!(order["payment"]["review"].as_str().unwrap().contains("odd"), "{order:#}");
        let path = format!("/v1/orders/{}/shipments", order["id"].as_str().unwrap());
        let early = server.call(Method::POST, &path, Some("early"), Some(&json!({}))).await;
        assert!(!early.status.is_success() || early.status == StatusCode::ACCEPTED, "{}", early.text);
    }
    let path = |order: &Value| format!("/v1/orders/{}", order["id"].as_str().unwrap());
    server.post(&format!("{}/capture", path(&approved)), "yes", &json!({})).await;
    server.post(&format!("{}/cancel", path(&refused)), "no", &json!({})).await;
    let approved = server.until(&path(&approved), |it| it["status"] == "confirmed").await;
    assert_eq!(approved["shipments"], json!([]), "what was asked for too early is refused for good");
    server.post(&format!("{}/shipments", path(&approved)), "now", &json!({})).await;
    server.until(&path(&approved), |it| it["status"] == "shipped").await;
    let refused = server.until(&path(&refused), |it| it["payment"]["status"] == "cancelled").await;
    assert_eq!((&refused["status"], &refused["shipments"]), (&json!("cancelled"), &json!([])));
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn a_rule_that_fails_every_time_is_taken_out_and_orders_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    merchant.stock("main", 100).await;
    merchant.put_in_force("broken", harms_guests("", "unreachable"), &json!({"version": 1})).await;
    for index in 0..20 {
        assert_eq!(merchant.order(&format!("order-{index}"), 1).await["status"], "confirmed");
    }
    let rule = server.until("/v1/rules/broken", |it| !it["tripped"].is_null()).await;
    assert_eq!((&rule["tripped"]["failures"], &rule["tripped"]["outcome"]), (&json!(20), &json!("trap")));
    assert_eq!(merchant.order("after", 1).await["status"], "confirmed");
    assert_eq!(calls(&server, "pricing", "trap").await, 20.0);
    assert!(calls(&server, "pricing", "tripped").await >= 1.0);
    let rule = merchant.change("/v1/rules/broken/rollback", &json!({})).await.json;
    assert_eq!((&rule["active"], &rule["tripped"]), (&Value::Null, &Value::Null));
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn another_tenants_rule_is_neither_run_nor_seen_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]).await;
    let made = server.post("/v1/keys", "k", &json!({"name": "first", "tenant": "other"})).await;
    let key = made["key"].as_str().unwrap().to_owned();
    for caller in [demo(&server), Caller { server: &server, key: &key }] {
        caller.stock("main", 1_000).await;
    }
    demo(&server).put_in_force("volume-discount", built("volume-discount"), &json!({"version": 1})).await;
    for round in ["first", "after kill -9"] {
        let other = Caller { server: &server, key: &key };
        assert_eq!(demo(&server).order(round, 12).await["total"], 3_661, "{round}");
        let order = other.order(round, 12).await;
        assert_eq!((&order["total"], &order["rules"]), (&json!(4_068), &json!([])), "{round}");
        assert_eq!(other.get("/v1/rules").await.json["data"], json!([]), "{round}");
        for path in ["/v1/rules/volume-discount", "/v1/rules/volume-discount/versions"] {
            assert_eq!(other.get(path).await.status, StatusCode::NOT_FOUND, "{round}: {path}");
        }
        for (path, body) in [("activate", json!({"version": 1})), ("rollback", json!({}))] {
            let answer = other.change(&format!("/v1/rules/volume-discount/{path}"), &body).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{round}: {}", answer.text);
        }
        let rules = demo(&server).get("/v1/rules").await.json;
        assert_eq!(rules["data"][0]["active"]["version"], 1, "{round}: {rules}");
        server.kill();
        server = Server::start(dir.path(), &[]).await;
    }
    // The same name is another rule, with versions of its own.
    let other = Caller { server: &server, key: &key };
    let uploaded = other.upload("volume-discount", price_rule("", "(i32.const 16)")).await.json;
    assert_eq!(uploaded["version"], 1, "{uploaded}");
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn what_cannot_be_a_rule_gets_a_problem_that_says_why_and_the_server_stays_up() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let merchant = demo(&server);
    let mut torn = built("volume-discount");
    torn.truncate(torn.len() / 2);
    let foreign = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
    let other = r#"(component
        (core module $m (func (export "decide") (result i32) (i32.const 1)))
        (core instance $i (instantiate $m))
        (func $decide (result u32) (canon lift (core func $i "decide")))
        (instance $price (export "decide" (func $decide)))
        (export "tillstream:rules/price@1.0.0" (instance $price)))"#;
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("empty", Vec::new(), "not_wasm"),
        ("text", b"#!/bin/sh\necho no".to_vec(), "not_wasm"),
        ("core", b"\0asm\x01\0\0\0".to_vec(), "not_component"),
        ("nothing", b"\0asm\x0d\0\x01\0".to_vec(), "no_hook"),
        ("torn", torn, "invalid"),
        ("large", vec![0; 300 << 10], "too_large"),
        ("imports", plain(foreign), "imports"),
        ("exports", plain(other), "hook"),
        ("endless", price_rule("", "(loop $l (br $l)) unreachable"), "dry_run"),
        ("traps", price_rule("", "unreachable"), "dry_run"),
    ];
    for (name, module, reason) in cases {
        let answer = merchant.upload(name, module).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {}", answer.text);
        assert_eq!(answer.json["code"], "TS0663");
        let field = answer.json["errors"][0]["field"].as_str().unwrap();
        assert_eq!(field, format!("(module: {reason})"), "{name}: {}", answer.text);
        if name == "imports" {
            assert!(answer.text.contains("wasi:clocks/wall-clock"), "it names the import: {}", answer.text);
        }
    }
    assert_eq!(merchant.get("/v1/rules").await.json["data"], json!([]), "nothing of it is a rule");
    let good = merchant.upload("good", built("volume-discount")).await;
    assert_eq!(good.status, StatusCode::CREATED, "{}", good.text);
    assert!(server.terminate().await.success());
}
