//! What a running pipeline is asked.

use super::RulesError;
use super::javascript::media_type;
use super::signing::Signature;
use crate::cli::{Fallback, Target};
use crate::client::{Client, segment};
use crate::output::line;
use serde_json::{Value, json};

/// What to activate.
pub(super) struct Activation {
    pub version: Option<i64>,
    pub order: Option<i32>,
    pub settings: Option<String>,
    pub fallback: Option<Fallback>,
    pub force: bool,
}

pub(super) fn client(target: &Target) -> Result<Client, RulesError> {
    Ok(Client::new(&target.url, &target.api_key)?)
}

pub(super) fn path(name: &str, call: &str) -> String {
    format!("/v1/rules/{}{call}", segment(name))
}

/// Makes a module the next version of a rule; what became of it.
pub(super) async fn send(
    client: &Client,
    name: &str,
    module: Vec<u8>,
    signature: Option<Signature>,
) -> Result<Value, RulesError> {
    let query = signature.map_or_else(String::new, |it| {
        format!("?signed_by={}&signature={}", segment(&it.key_id), segment(&it.signature))
    });
    let path = path(name, &format!("/versions{query}"));
    let kind = media_type(&module);
    Ok(client.put_bytes(&path, kind, module).await?)
}

pub(super) async fn upload(
    target: &Target,
    name: &str,
    module: Vec<u8>,
    signature: Option<Signature>,
) -> Result<(), RulesError> {
    let answer = send(&client(target)?, name, module, signature).await?;
    line(format_args!("{name} version {}  {}", answer["version"], answer["digest"].as_str().unwrap_or("-")));
    if let Some(key) = answer["signed_by"].as_str() {
        line(format_args!("  signed by {key}"));
    }
    for sample in answer["dry_run"].as_array().into_iter().flatten() {
        let hook = sample["hook"].as_str().unwrap_or("-");
        line(format_args!("  {hook:<8} {:>3} lines  {:>9} fuel", sample["lines"], sample["fuel"]));
    }
    show_recent(&answer["recent"]);
    Ok(())
}

pub(super) async fn versions(target: &Target, name: &str) -> Result<(), RulesError> {
    let answer = client(target)?.get(&path(name, "/versions")).await?;
    for version in answer["data"].as_array().into_iter().flatten() {
        let word = |field: &str| version[field].as_str().unwrap_or("-");
        let active = if version["active"] == true { "  active" } else { "" };
        line(format_args!("{name} version {}  {}{active}", version["version"], word("digest")));
        if let Some(key) = version["signed_by"].as_str() {
            line(format_args!("  signed by {key}"));
        }
        show_recent(&version["recent"]);
    }
    Ok(())
}

/// What a version made of recent inputs.
fn show_recent(recent: &Value) {
    for it in recent["hooks"].as_array().into_iter().flatten() {
        let hook = it["hook"].as_str().unwrap_or("-");
        let inputs = match it["inputs"].as_str() {
            Some("samples") => "recent calls",
            Some("log") => "recent orders",
            _ => {
                line(format_args!("  {hook:<8} no inputs yet"));
                continue;
            }
        };
        let failures: Vec<String> = it["failures"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(outcome, calls)| format!(", {calls} {outcome}"))
            .collect();
        line(format_args!(
            "  {hook:<8} {} {inputs}: {} changed{}  fuel p50 {} max {}",
            it["calls"],
            it["changed"],
            failures.concat(),
            it["fuel_p50"],
            it["fuel_max"]
        ));
    }
    if recent["fails_on_most"] == true {
        line(format_args!(
            "  it gives no answer to most of them: `--force` would put it in force nevertheless"
        ));
    }
}

pub(super) async fn activate(target: &Target, name: &str, activation: Activation) -> Result<(), RulesError> {
    let client = client(target)?;
    let version = match activation.version {
        Some(version) => json!(version),
        None => latest(target, name).await?,
    };
    let mut body = json!({ "version": version, "forced": activation.force });
    if let Some(order) = activation.order {
        body["order"] = json!(order);
    }
    if let Some(settings) = activation.settings {
        body["settings"] = read_settings(&settings)?;
    }
    if let Some(fallback) = activation.fallback {
        body["fallback"] = json!(match fallback {
            Fallback::Skip => "skip",
            Fallback::Refuse => "refuse",
            Fallback::Review => "review",
        });
    }
    show(&client.post(&path(name, "/activate"), None, &body).await?);
    Ok(())
}

pub(super) async fn roll_back(target: &Target, name: &str) -> Result<(), RulesError> {
    show(&client(target)?.post(&path(name, "/rollback"), None, &json!({})).await?);
    Ok(())
}

pub(super) async fn retire(target: &Target, name: &str) -> Result<(), RulesError> {
    show(&client(target)?.delete(&path(name, "")).await?);
    Ok(())
}

pub(super) async fn list(target: &Target) -> Result<(), RulesError> {
    let answer = client(target)?.get("/v1/rules").await?;
    for rule in answer["data"].as_array().into_iter().flatten() {
        show(rule);
    }
    Ok(())
}

/// The newest version of a rule.
pub(super) async fn latest(target: &Target, name: &str) -> Result<Value, RulesError> {
    Ok(client(target)?.get(&path(name, "")).await?["latest_version"].clone())
}

/// Settings as they were typed.
pub(super) fn read_settings(text: &str) -> Result<Value, RulesError> {
    serde_json::from_str(text).map_err(|error| RulesError::Json { what: "--settings".to_owned(), error })
}

pub(super) fn show(rule: &Value) {
    let name = rule["name"].as_str().unwrap_or("-");
    show_active(name, rule);
    if !rule["trial"].is_null() {
        show_trial(name, &rule["trial"]);
    }
}

fn show_trial(name: &str, trial: &Value) {
    let share = trial["percent"].as_i64().map_or_else(String::new, |it| format!(" {it} %"));
    let stopped = trial["stopped"]["reason"].as_str();
    let stopped = stopped.map_or_else(String::new, |it| format!("  stopped by itself: {it}"));
    line(format_args!(
        "{name:<24} version {}  {}{share}  {} calls, {} different, {} failed{stopped}",
        trial["version"],
        trial["kind"].as_str().unwrap_or("-"),
        trial["calls"],
        trial["different"],
        trial["failures"]
    ));
    for money in trial["money"].as_array().into_iter().flatten() {
        let currency = money["currency"].as_str().unwrap_or("-");
        line(format_args!("{name:<24}   {currency} {} off, {} net", money["difference"], money["net"]));
    }
}

fn show_active(name: &str, rule: &Value) {
    let active = &rule["active"];
    if active.is_null() {
        return line(format_args!("{name:<24} not active"));
    }
    let hooks: Vec<_> = active["hooks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let out = if rule["tripped"].is_null() { "" } else { "  taken out: it failed too often" };
    line(format_args!(
        "{name:<24} version {}  order {}  {}  {}  {}{out}",
        active["version"],
        active["order"],
        hooks.join(","),
        active["fallback"].as_str().unwrap_or("-"),
        active["settings"]
    ));
}
