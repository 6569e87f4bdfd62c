//! A backtest on the real binary, over real orders: what it says is what a sum by hand says.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use tillstream_e2e::{KEY, Server, binary, shared_data};
use tillstream_rule_modules::{off, plain};

/// Taken off the first line of every order, pence.
const OFF: i64 = 25;

fn tillstream(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).args(["--url", server.url(), "--api-key", KEY]);
    command.output().unwrap()
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn pence(price: &str) -> i64 {
    let (pounds, rest) = price.split_once('.').unwrap_or((price, ""));
    pounds.parse::<i64>().unwrap() * 100 + format!("{rest:0<2}").parse::<i64>().unwrap()
}

/// The first line of every order of the file, pence, and how many orders there are: read without our importer. No
/// description has a comma in front of a number, so the fields are counted from both ends.
fn first_lines(csv: &Path) -> BTreeMap<String, i64> {
    let mut orders = BTreeMap::new();
    for row in std::fs::read_to_string(csv).unwrap().lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let from_end = |at: usize| fields[fields.len() - at];
        let (invoice, quantity, price) = (fields[0], from_end(5).parse::<i64>().unwrap(), from_end(3));
        if invoice.starts_with('C') || quantity <= 0 {
            continue;
        }
        orders.entry(invoice.to_owned()).or_insert_with(|| quantity * pence(price));
    }
    orders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_over_real_orders_says_what_a_sum_by_hand_says_and_goes_on_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]).await;
    let (data, report) = (shared_data("online-retail-a.csv"), dir.path().join("import.json"));
    let imported =
        tillstream(&server, &["import", data.to_str().unwrap(), "--report", report.to_str().unwrap()]);
    assert!(imported.status.success(), "{}", shown(&imported));
    server.drained().await;
    let module = dir.path().join("first-line-off.wasm");
    std::fs::write(&module, off(OFF)).unwrap();
    let module = module.to_str().unwrap();

    let ran = tillstream(&server, &["rules", "backtest", module, "--json"]);
    assert!(ran.status.success(), "{}", shown(&ran));
    let ran: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let by_hand = first_lines(&data);
    let off: i64 = by_hand.values().map(|it| OFF.min(*it)).sum();
    let changed = by_hand.values().filter(|it| **it > 0).count();
    let (found, money) = (&ran["report"], &ran["report"]["money"]["GBP"]);
    assert_eq!(found["orders"], by_hand.len(), "{ran:#}");
    assert_eq!((&found["compared"], &found["changed"]), (&json!(by_hand.len()), &json!(changed)));
    let sum = |when: &str, field: &str| money[when][field].as_i64().unwrap();
    assert_eq!(sum("after", "discount_minor") - sum("before", "discount_minor"), off);
    assert_eq!(money["margin_difference_minor"], -off);
    assert_eq!(sum("after", "gross_minor"), sum("before", "gross_minor"));
    assert_eq!(found["errors"], json!({}));

    // The same orders of one day, and one version beside another: twice as much is off.
    let twice = dir.path().join("twice.wasm");
    std::fs::write(&twice, tillstream_rule_modules::off(2 * OFF)).unwrap();
    let day = ["--from", "2010-12-01T00:00:00Z", "--to", "2010-12-02T00:00:00Z"];
    let args = [
        "rules",
        "backtest",
        twice.to_str().unwrap(),
        "--name",
        "first-line-off",
        "--against",
        "1",
        "--json",
    ];
    let beside = tillstream(&server, &[&args[..], &day[..]].concat());
    assert!(beside.status.success(), "{}", shown(&beside));
    let beside: Value = serde_json::from_slice(&beside.stdout).unwrap();
    assert!(beside["report"]["orders"].as_u64().unwrap() > 50, "{beside:#}");
    assert!(beside["report"]["orders"].as_u64().unwrap() < by_hand.len() as u64);
    let money = &beside["report"]["money"]["GBP"];
    assert!(money["margin_difference_minor"].as_i64().unwrap() < 0);

    // Slow on purpose, so that the kill finds it under way; the next process ends it, and nothing is counted twice.
    let begun = server
        .post(
            "/v1/rules/first-line-off/backtests",
            "unused",
            &json!({"version": 1, "orders_per_second": 300}),
        )
        .await;
    let path = format!("/v1/rules/first-line-off/backtests/{}", begun["id"].as_str().unwrap());
    server.until(&path, |it| it["report"]["orders"].as_u64().unwrap() > 0).await;
    server.kill();
    server = Server::start(dir.path(), &[]).await;
    let ended = server.until(&path, |it| it["status"] != "running").await;
    assert_eq!((&ended["status"], &ended["report"]["orders"]), (&json!("done"), &json!(by_hand.len())));
    assert_eq!(ended["report"]["money"]["GBP"], ran["report"]["money"]["GBP"]);
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_tried_is_refused_with_a_reason_and_a_table_is_printed_of_what_can() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let refused = tillstream(&server, &["rules", "backtest", "--name", "nothing"]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(shown(&refused).contains("nothing"), "{}", shown(&refused));
    let module = dir.path().join("off.wasm");
    std::fs::write(&module, off(OFF)).unwrap();
    let ran = tillstream(&server, &["rules", "backtest", module.to_str().unwrap()]);
    assert!(ran.status.success(), "{}", shown(&ran));
    assert!(shown(&ran).contains("off version 1 at price beside what happened: done"), "{}", shown(&ran));
    let version = ["rules", "backtest", "--name", "off", "--version", "9"];
    let refused = tillstream(&server, &version);
    assert!(shown(&refused).contains("no version 9"), "{}", shown(&refused));
    let reversed = ["--from", "2011-01-01T00:00:00Z", "--to", "2010-01-01T00:00:00Z"];
    let refused = tillstream(&server, &[&["rules", "backtest", "--name", "off"][..], &reversed[..]].concat());
    assert!(shown(&refused).contains("`from`"), "{}", shown(&refused));
    let bad = dir.path().join("bad.wasm");
    std::fs::write(&bad, plain("(module)")).unwrap();
    let refused = tillstream(&server, &["rules", "backtest", bad.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(server.terminate().await.success());
}
