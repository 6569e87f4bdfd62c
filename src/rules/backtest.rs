//! `rules backtest`: uploads a module, begins a backtest, follows it, prints its report.

use super::RulesError;
use super::remote::{client, path, send};
use super::signing::signature_of;
use crate::cli::Backtest;
use crate::client::{Client, segment};
use crate::output::{error, line};
use serde_json::{Value, json};
use std::time::Duration;
use tillstream_stage::rule::Hook;

/// How often a running backtest is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs one to its end; whether it got there. Ctrl-C stops it.
pub(super) async fn backtest(ask: Backtest) -> Result<bool, RulesError> {
    let client = client(&ask.target)?;
    let name = name_of(&ask)?;
    let mut body = json!({ "alone": ask.alone });
    if let Some(module) = &ask.module {
        let signature = signature_of(module, None)?;
        let uploaded = send(&client, &name, super::javascript::module(module)?, signature).await?;
        body["version"] = uploaded["version"].clone();
    }
    let settings = ask.settings.as_deref().map(serde_json::from_str::<Value>).transpose();
    let settings = settings.map_err(|error| RulesError::Json { what: "--settings".to_owned(), error })?;
    let given = [
        ("hook", ask.hook.map(|it| Value::from(Hook::from(it).as_str()))),
        ("version", ask.version.map(Value::from)),
        ("against", ask.against.map(Value::from)),
        ("settings", settings),
        ("from", ask.from.map(Value::from)),
        ("to", ask.to.map(Value::from)),
        ("orders_per_second", ask.orders_per_second.map(Value::from)),
    ];
    for (field, value) in given {
        if let Some(value) = value {
            body[field] = value;
        }
    }
    let begun = client.post(&path(&name, "/backtests"), None, &body).await?;
    let id = begun["id"].as_str().unwrap_or_default().to_owned();
    let ended = tokio::select! {
        ended = follow(&client, &name, &id) => ended?,
        () = crate::serve::asked_to_stop() => {
            client.post(&path(&name, &format!("/backtests/{}/cancel", segment(&id))), None, &json!({})).await?
        }
    };
    if ask.json {
        line(format_args!("{ended:#}"));
    } else {
        show(&ended);
    }
    Ok(ended["status"] == "done")
}

/// The name given, or that of the module's file.
fn name_of(ask: &Backtest) -> Result<String, RulesError> {
    let stem = || ask.module.as_ref()?.file_stem()?.to_str().map(str::to_owned);
    let missing = || RulesError::Build("name the rule (--name), or give its module".to_owned());
    ask.name.clone().or_else(stem).ok_or_else(missing)
}

async fn follow(client: &Client, name: &str, id: &str) -> Result<Value, RulesError> {
    let path = path(name, &format!("/backtests/{}", segment(id)));
    let mut told = 0;
    loop {
        let now = client.get(&path).await?;
        if now["status"] != "running" {
            return Ok(now);
        }
        // Whole tenths of the way, on the error stream: what is printed at the end can be kept in a file.
        #[allow(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
        let tenth = (now["progress"].as_f64().unwrap_or(0.0) * 10.0) as i64;
        if tenth > told {
            told = tenth;
            error(format_args!("{tenth}0 %  {} orders", now["report"]["orders"]));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Minor units, or that there is no amount.
fn money(minor: &Value) -> String {
    minor.as_i64().map_or_else(|| "refused".to_owned(), |it| it.to_string())
}

fn show(ended: &Value) {
    let report = &ended["report"];
    let with = match (ended["against"].as_i64(), ended["compared_with"].as_str()) {
        (Some(version), _) => format!("version {version}"),
        (None, Some("active")) => "what is active".to_owned(),
        (None, _) => "what happened".to_owned(),
    };
    line(format_args!(
        "{} version {} at {} beside {with}: {}, {} orders/s  ({})",
        ended["rule"].as_str().unwrap_or("-"),
        ended["version"],
        ended["hook"].as_str().unwrap_or("-"),
        ended["status"].as_str().unwrap_or("-"),
        ended["orders_per_second"],
        ended["id"].as_str().unwrap_or("-"),
    ));
    if let Some(text) = ended["error"].as_str() {
        line(format_args!("  {text}"));
    }
    for (label, field) in [
        ("orders", "orders"),
        ("compared", "compared"),
        ("changed", "changed"),
        ("refused before", "refused_before"),
        ("refused after", "refused_after"),
        ("to be looked at", "reviews"),
        ("not compared", "not_compared"),
    ] {
        line(format_args!("  {label:<18} {:>12}", report[field]));
    }
    for (outcome, count) in report["errors"].as_object().into_iter().flatten() {
        line(format_args!("  no answer: {outcome:<7} {count:>12}"));
    }
    for (currency, money) in report["money"].as_object().into_iter().flatten() {
        line(format_args!("  {currency} in minor units      before        after   difference"));
        for field in ["orders", "gross_minor", "discount_minor", "net_minor", "tax_minor", "total_minor"] {
            let of = |when: &str| money[when][field].as_i64().unwrap_or_default();
            let (before, after) = (of("before"), of("after"));
            let label = field.trim_end_matches("_minor");
            line(format_args!("    {label:<12} {before:>14} {after:>12} {:>+12}", after - before));
        }
        line(format_args!("    {:<12} {:>40}", "margin", signed(&money["margin_difference_minor"])));
    }
    let of = |field: &str, quantile: &str| report[field][quantile].as_u64().unwrap_or_default();
    let fuel = (of("fuel", "p50"), of("fuel", "p99"), of("fuel", "max"));
    line(format_args!("  fuel per call      p50 {}  p99 {}  max {}", fuel.0, fuel.1, fuel.2));
    let ns = |quantile| of("duration_ns", quantile) / 1_000;
    line(format_args!("  us per call        p50 {}  p99 {}  max {}", ns("p50"), ns("p99"), ns("max")));
    let largest = report["largest_differences"].as_array();
    for it in largest.into_iter().flatten().take(10) {
        line(format_args!(
            "  {}  {:>12} -> {:<12} {}",
            it["order_id"].as_str().unwrap_or("-"),
            money(&it["total_before_minor"]),
            money(&it["total_after_minor"]),
            it["refusal"].as_str().unwrap_or_default()
        ));
        let (before, after) = (it["answer_before"].as_str(), it["answer_after"].as_str());
        if before.is_some() || after.is_some() {
            line(format_args!("      {} -> {}", before.unwrap_or("nothing"), after.unwrap_or("nothing")));
        }
    }
}

fn signed(minor: &Value) -> String {
    format!("{:+}", minor.as_i64().unwrap_or_default())
}
