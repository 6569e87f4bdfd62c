//! The commands that speak to a running pipeline: topics, dead letters, keys.

use crate::cli::{DlqCommand, KeysCommand, Target, TopicsCommand};
use crate::client::{Client, ClientError, segment};
use crate::output::line;
use serde_json::{Value, json};
use std::time::Duration;

/// Records per request while tailing.
const TAIL_PAGE: u64 = 500;

fn client(target: &Target) -> Result<Client, ClientError> {
    Client::new(&target.url, &target.api_key)
}

fn rows(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["data"].as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `topics`.
pub async fn topics(command: TopicsCommand) -> Result<(), ClientError> {
    match command {
        TopicsCommand::List { target } => {
            let answer = client(&target)?.get("/v1/topics").await?;
            line(format_args!("{:<34} {:<22} {:>10} {:>14}", "TOPIC", "SHORT", "PARTITIONS", "RECORDS"));
            for topic in rows(&answer) {
                let partitions = topic["partitions"].as_array().map_or(0, Vec::len);
                let records: u64 = topic["partitions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|it| it["end_offset"].as_u64().unwrap_or(0) - it["start_offset"].as_u64().unwrap_or(0))
                    .sum();
                let (name, short) = (text(&topic["topic"]), text(&topic["short_name"]));
                line(format_args!("{name:<34} {short:<22} {partitions:>10} {records:>14}"));
            }
            Ok(())
        }
        TopicsCommand::Describe { topic, target } => {
            let found = find_topic(&client(&target)?, &topic).await?;
            line(format_args!("{} ({})", text(&found["topic"]), text(&found["short_name"])));
            for partition in found["partitions"].as_array().into_iter().flatten() {
                line(format_args!(
                    "  partition {:>3}  offsets {}..{}",
                    partition["partition"], partition["start_offset"], partition["end_offset"]
                ));
            }
            Ok(())
        }
        TopicsCommand::Tail { topic, from_beginning, json, limit, target } => {
            tail(&client(&target)?, &topic, from_beginning, json, limit).await
        }
    }
}

async fn find_topic(client: &Client, name: &str) -> Result<Value, ClientError> {
    let answer = client.get("/v1/topics").await?;
    let found = rows(&answer).find(|it| it["topic"] == name || it["short_name"] == name).cloned();
    found.ok_or_else(|| ClientError::Refused {
        method: reqwest::Method::GET,
        path: "/v1/topics".to_owned(),
        status: 404,
        problem: format!("there is no topic '{name}'; `tillstream topics list` shows them"),
    })
}

async fn tail(client: &Client, name: &str, from_beginning: bool, json: bool, limit: Option<u64>) -> Result<(), ClientError> {
    let topic = find_topic(client, name).await?;
    let start = if from_beginning { "start_offset" } else { "end_offset" };
    let mut positions: Vec<(u64, u64)> = topic["partitions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| (it["partition"].as_u64().unwrap_or(0), it[start].as_u64().unwrap_or(0)))
        .collect();
    let mut left = limit.unwrap_or(u64::MAX);
    loop {
        let mut quiet = true;
        for (partition, offset) in &mut positions {
            let count = left.min(TAIL_PAGE);
            let path = format!("/v1/topics/{}/records?partition={partition}&offset={offset}&limit={count}", segment(name));
            for record in rows(&client.get(&path).await?) {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                quiet = false;
                *offset = record["offset"].as_u64().map_or(*offset, |it| it + 1);
                print_record(record, *partition, json);
            }
        }
        if left == 0 || (quiet && limit.is_some()) {
            return Ok(());
        }
        if quiet {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn print_record(record: &Value, partition: u64, json: bool) {
    if json {
        return line(record);
    }
    let kind = record["headers"]["ce_type"].as_str().unwrap_or("");
    line(format_args!("{partition}:{} {} {} {kind}", record["offset"], text(&record["timestamp"]), text(&record["key"])));
    line(format_args!("    {}", record["value"]));
}

/// `dlq`.
pub async fn dlq(command: DlqCommand) -> Result<(), ClientError> {
    match command {
        DlqCommand::List { topic, reason, limit, target } => {
            let path = filtered("/v1/dead-letters", topic.as_deref(), reason.as_deref(), Some(limit));
            let answer = client(&target)?.get(&path).await?;
            for letter in rows(&answer) {
                line(format_args!(
                    "{}  {}  {}  {}  {}",
                    text(&letter["id"]),
                    text(&letter["failed_at"]),
                    text(&letter["stage"]),
                    text(&letter["reason"]),
                    text(&letter["message"])
                ));
            }
            if !answer["next_cursor"].is_null() {
                line("… and more: raise --limit");
            }
            Ok(())
        }
        DlqCommand::Show { id, target } => {
            let letter = client(&target)?.get(&format!("/v1/dead-letters/{}", segment(&id))).await?;
            line(format_args!("{letter:#}"));
            Ok(())
        }
        DlqCommand::Redrive { id: Some(id), target, .. } => {
            let path = format!("/v1/dead-letters/{}/redrive", segment(&id));
            let answer = client(&target)?.post(&path, None, &json!({})).await?;
            line(format_args!("redriven: {}", answer));
            Ok(())
        }
        DlqCommand::Redrive { id: None, topic, reason, all, target } => {
            if topic.is_none() && reason.is_none() && !all {
                return Err(ClientError::Unreadable {
                    path: "dlq redrive".to_owned(),
                    detail: "name an id, a filter (--topic, --reason) or --all".to_owned(),
                });
            }
            let mut body = json!({});
            if let Some(topic) = topic {
                body["topic"] = json!(topic);
            }
            if let Some(reason) = reason {
                body["reason"] = json!(reason);
            }
            let answer = client(&target)?.post("/v1/dead-letters/redrive", None, &body).await?;
            line(format_args!("redriven: {}", answer));
            Ok(())
        }
    }
}

fn filtered(path: &str, topic: Option<&str>, reason: Option<&str>, limit: Option<u32>) -> String {
    let mut query = Vec::new();
    if let Some(topic) = topic {
        query.push(format!("topic={}", segment(topic)));
    }
    if let Some(reason) = reason {
        query.push(format!("reason={}", segment(reason)));
    }
    if let Some(limit) = limit {
        query.push(format!("limit={limit}"));
    }
    format!("{path}?{}", query.join("&"))
}

/// `keys`.
pub async fn keys(command: KeysCommand) -> Result<(), ClientError> {
    match command {
        KeysCommand::Create { name, target } => {
            let answer = client(&target)?.post("/v1/keys", None, &json!({"name": name})).await?;
            line(format_args!("{}  {}", text(&answer["id"]), text(&answer["key"])));
            line("This is the only time the key is shown.");
            Ok(())
        }
        KeysCommand::List { target } => {
            let answer = client(&target)?.get("/v1/keys").await?;
            for key in rows(&answer) {
                let revoked = key["revoked_at"].as_str().map_or(String::new(), |it| format!("  revoked {it}"));
                line(format_args!("{}  {}  {}{revoked}", text(&key["id"]), text(&key["created_at"]), text(&key["name"])));
            }
            Ok(())
        }
        KeysCommand::Revoke { id, target } => {
            client(&target)?.delete(&format!("/v1/keys/{}", segment(&id))).await?;
            line(format_args!("{id} is revoked"));
            Ok(())
        }
    }
}
