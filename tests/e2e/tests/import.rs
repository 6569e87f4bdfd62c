//! Real input: a wholesaler's December, to the penny.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use tillstream_e2e::{KEY, Server, binary, shared_data as data};

fn import(server: &Server, file: &Path, report: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("import")
        .arg(file)
        .args(["--url", server.url(), "--api-key", KEY])
        .arg("--report")
        .arg(report);
    command
}

fn shown(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn revenue(server: &Server, query: &str, group: &str, field: &str) -> BTreeMap<String, i64> {
    let path =
        format!("/v1/analytics/revenue?from=2010-12-01T00:00:00Z&to=2010-12-31T00:00:00Z&by=day{query}");
    let answer = server.get(&path).await;
    let mut sums = BTreeMap::new();
    for row in answer["data"].as_array().unwrap() {
        let key = row[group].as_str().unwrap();
        let key = if group == "window_start" { &key[..10] } else { key };
        *sums.entry(key.to_owned()).or_default() += row[field].as_i64().unwrap();
    }
    sums.retain(|_, sum| *sum != 0);
    sums
}

fn truth_map(truth: &Value, name: &str) -> BTreeMap<String, i64> {
    truth[name]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.as_i64().unwrap()))
        .collect()
}

fn iso(name: &str) -> &'static str {
    match name {
        "United Kingdom" => "GB",
        "Germany" => "DE",
        "France" => "FR",
        "EIRE" => "IE",
        "Japan" => "JP",
        "Norway" => "NO",
        "Portugal" => "PT",
        "Lithuania" => "LT",
        "Denmark" => "DK",
        "Spain" => "ES",
        "Iceland" => "IS",
        "Australia" => "AU",
        "Italy" => "IT",
        "Channel Islands" => "JE",
        "Belgium" => "BE",
        "Switzerland" => "CH",
        "Poland" => "PL",
        "Netherlands" => "NL",
        other => panic!("{other}"),
    }
}

/// What is left of a SKU's 100,000, read off the CSV by code that shares nothing with the importer.
fn expected_stock(csv: &str) -> BTreeMap<String, i64> {
    let fees = ["POST", "DOT", "M", "D", "C2", "S", "BANK CHARGES", "AMAZONFEE"];
    let mut stock = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let head: Vec<&str> = line.splitn(3, ',').collect();
        let tail: Vec<&str> = head[2].rsplitn(6, ',').collect();
        let quantity: i64 = tail[4].parse().unwrap();
        if !fees.contains(&head[1]) {
            // Sales are positive and leave; returns and write-offs are negative: the first come back, the second go.
            let gone = if head[0].starts_with('C') { quantity } else { quantity.abs() };
            *stock.entry(head[1].to_owned()).or_insert(100_000) -= gone;
        }
    }
    stock
}

async fn check_truth(server: &Server, truth: &Value) {
    assert_eq!(revenue(server, "", "window_start", "gross").await, truth_map(truth, "gross_minor_by_day"));
    assert_eq!(revenue(server, "", "window_start", "orders").await, truth_map(truth, "orders_by_day"));
    let by_country: BTreeMap<String, i64> = truth_map(truth, "gross_minor_by_country")
        .into_iter()
        .map(|(name, gross)| (iso(&name).to_owned(), gross))
        .collect();
    assert_eq!(revenue(server, "&group=country", "country", "gross").await, by_country);
    let total = |sums: BTreeMap<String, i64>| sums.values().sum::<i64>();
    let truth_of = |name: &str| truth[name].as_i64().unwrap();
    assert_eq!(total(revenue(server, "", "window_start", "gross").await), truth_of("gross_minor"));
    assert_eq!(total(revenue(server, "", "window_start", "orders").await), truth_of("orders"));
    assert_eq!(total(revenue(server, "", "window_start", "units").await), truth_of("units"));
    assert_eq!(total(revenue(server, "", "window_start", "refunded").await), truth_of("return_minor"));
}

async fn check_stock(server: &Server, csv: &str) {
    let expected = expected_stock(csv);
    assert!(expected.len() > 2_500);
    for (sku, units) in expected {
        let level = server.get(&format!("/v1/inventory/{sku}")).await;
        assert_eq!(
            (level["on_hand"].as_i64(), level["reserved"].as_i64()),
            (Some(units), Some(0)),
            "{sku}: {level}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_ends_with_the_truth_and_again_after_it_was_cut_and_repeated() {
    let truth: Value = serde_json::from_str(&std::fs::read_to_string(data("truth-a.json")).unwrap()).unwrap();
    let file = data("online-retail-a.csv");
    let csv = std::fs::read_to_string(&file).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.ndjson");
    let server = Server::start(&dir.path().join("data"), &[]).await;

    // The first try is cut once orders are coming in; the second must go on from there.
    let mut cut = import(&server, &file, &report).stderr(std::process::Stdio::null()).spawn().unwrap();
    server.until("/v1/orders?limit=1", |it| !it["data"].as_array().unwrap().is_empty()).await;
    cut.kill().unwrap();
    cut.wait().unwrap();

    for _ in 0..2 {
        let output = import(&server, &file, &report).output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        check_truth(&server, &truth).await;
    }
    check_stock(&server, &csv).await;

    let mut fates: BTreeMap<String, u64> = BTreeMap::new();
    let report = std::fs::read_to_string(&report).unwrap();
    for line in report.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        *fates.entry(entry["fate"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let rows = |name: &str| truth[name].as_u64().unwrap();
    assert_eq!(report.lines().count() as u64, rows("rows"), "every row is in the report");
    assert_eq!(fates["ordered"], rows("order_lines"));
    assert_eq!(fates["adjusted"], rows("stock_adjustment_rows"));
    assert_eq!(fates["returned"] + fates["credited"], rows("return_rows"));
    assert!(fates["returned"] > 0 && fates["credited"] > 250, "{fates:?}");
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_row_is_named_by_line_and_holds_back_its_invoice_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orders.csv");
    std::fs::write(
        &file,
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n\
         1,A,Tea,2,2026-01-05T10:00:00Z,1.50,7,France\n\
         2,A,Tea,two,2026-01-05T10:00:00Z,1.50,7,France\n\
         2,B,Cup,1,2026-01-05T10:00:00Z,4.00,7,France\n\
         C3,A,Tea,-1,2026-01-06T10:00:00Z,1.50,7,France\n",
    )
    .unwrap();
    let report = dir.path().join("report.ndjson");
    let server = Server::start(&dir.path().join("data"), &[]).await;
    let output = import(&server, &file, &report).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("line 3"), "{}", shown(&output));
    let entries: Vec<Value> = std::fs::read_to_string(&report)
        .unwrap()
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let fates: Vec<_> =
        entries.iter().map(|it| (it["line"].as_u64().unwrap(), it["fate"].as_str().unwrap())).collect();
    assert_eq!(fates, [(2, "ordered"), (3, "malformed"), (4, "held_back"), (5, "returned")]);
    let sums =
        server.get("/v1/analytics/revenue?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&by=day").await;
    let gross: i64 = sums["data"].as_array().unwrap().iter().map(|it| it["gross"].as_i64().unwrap()).sum();
    let refunded: i64 =
        sums["data"].as_array().unwrap().iter().map(|it| it["refunded"].as_i64().unwrap()).sum();
    assert_eq!((gross, refunded), (300, 150));
}
