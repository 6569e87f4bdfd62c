//! The commands that speak to a running pipeline: topics, dead letters; keys have a file of their own.

use crate::cli::{DlqCommand, Target, TopicsCommand};
use crate::client::{Client, ClientError, problem_text, segment};
use crate::output::line;
use indicatif::ProgressBar;
use serde_json::{Value, json};

/// Records per request while tailing.
const TAIL_PAGE: u64 = 500;
/// How long one request waits for a new record.
const TAIL_WAIT_SECONDS: u64 = 20;
/// Dead letters per request while redriving, at most.
const REDRIVE_CALL_MAX: u32 = 1_000;

pub(crate) fn client(target: &Target) -> Result<Client, ClientError> {
    Client::new(&target.url, &target.api_key)
}

pub(crate) fn rows(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["data"].as_array().into_iter().flatten()
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `topics`.
pub async fn topics(command: TopicsCommand) -> Result<(), ClientError> {
    match command {
        // It speaks to a broker, not to a pipeline.
        TopicsCommand::Create { .. } => Ok(()),
        TopicsCommand::List { target } => {
            let answer = client(&target)?.get("/v1/topics").await?;
            line(format_args!("{:<34} {:<22} {:>10} {:>14}", "TOPIC", "SHORT", "PARTITIONS", "RECORDS"));
            for topic in rows(&answer) {
                let partitions = topic["partitions"].as_array().map_or(0, Vec::len);
                let records: u64 = topic["partitions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|it| {
                        it["end_offset"].as_u64().unwrap_or(0) - it["start_offset"].as_u64().unwrap_or(0)
                    })
                    .sum();
                let (name, short) = (text(&topic["full_name"]), text(&topic["name"]));
                line(format_args!("{name:<34} {short:<22} {partitions:>10} {records:>14}"));
            }
            Ok(())
        }
        TopicsCommand::Describe { topic, target } => {
            let found = find_topic(&client(&target)?, &topic).await?;
            line(format_args!("{} ({})", text(&found["full_name"]), text(&found["name"])));
            for partition in found["partitions"].as_array().into_iter().flatten() {
                line(format_args!(
                    "  partition {:>3}  offsets {}..{}",
                    partition["partition"], partition["start_offset"], partition["end_offset"]
                ));
            }
            Ok(())
        }
        TopicsCommand::Tail { topic, from_beginning, json, limit, target } => {
            tail(&client(&target)?, &Tail { topic, from_beginning, json, limit }).await
        }
    }
}

async fn find_topic(client: &Client, name: &str) -> Result<Value, ClientError> {
    let answer = client.get("/v1/topics").await?;
    let found = rows(&answer).find(|it| it["name"] == name || it["full_name"] == name).cloned();
    found.ok_or_else(|| ClientError::Refused {
        method: reqwest::Method::GET,
        path: "/v1/topics".to_owned(),
        status: 404,
        problem: format!("there is no topic '{name}'; `tillstream topics list` shows them"),
    })
}

/// What to tail.
struct Tail {
    topic: String,
    from_beginning: bool,
    json: bool,
    limit: Option<u64>,
}

async fn tail(client: &Client, tail: &Tail) -> Result<(), ClientError> {
    let base = format!("/v1/topics/{}/records", segment(&tail.topic));
    let from = if tail.from_beginning { "beginning" } else { "end" };
    let mut left = tail.limit.unwrap_or(u64::MAX);
    let mut place = format!("from={from}");
    while left > 0 {
        let count = left.min(TAIL_PAGE);
        // With a limit the tail ends with the records that are there; without one it waits for more.
        let wait = if tail.limit.is_some() { 0 } else { TAIL_WAIT_SECONDS };
        let answer = client.get(&format!("{base}?{place}&limit={count}&wait={wait}")).await?;
        let mut found = 0;
        for record in rows(&answer) {
            print_record(record, tail.json);
            found += 1;
        }
        left = left.saturating_sub(found);
        if found == 0 && tail.limit.is_some() {
            break;
        }
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        place = format!("cursor={}", segment(cursor));
    }
    Ok(())
}

fn print_record(record: &Value, json: bool) {
    if json {
        return line(record);
    }
    let kind = record["headers"]["ce_type"].as_str().unwrap_or("");
    line(format_args!(
        "{}:{} {} {} {kind}",
        record["partition"],
        record["offset"],
        text(&record["timestamp"]),
        text(&record["key"])
    ));
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
                    "{}/{}/{}  {}  {}  {}  {}",
                    text(&letter["topic"]),
                    letter["partition"],
                    letter["offset"],
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
            let letter = client(&target)?.get(&letter_path(&id)?).await?;
            line(format_args!("{letter:#}"));
            Ok(())
        }
        DlqCommand::Redrive { id: Some(id), target, .. } => {
            let path = format!("{}/redrive", letter_path(&id)?);
            let answer = client(&target)?.post(&path, None, &json!({})).await?;
            line(format_args!("redriven: {} to {}", text(&answer["id"]), text(&answer["to"])));
            Ok(())
        }
        // The command line sees to it that a filter or --all is given.
        DlqCommand::Redrive { id: None, topic, reason, all: _, rate, target } => {
            let mut body = json!({ "rate": rate, "limit": rate.min(REDRIVE_CALL_MAX) });
            if let Some(topic) = topic {
                body["topic"] = json!(topic);
            }
            if let Some(reason) = reason {
                body["reason"] = json!(reason);
            }
            redrive(&client(&target)?, body).await
        }
    }
}

/// Redrives call by call, each about a second long: the pipeline keeps the rate.
async fn redrive(client: &Client, mut body: Value) -> Result<(), ClientError> {
    let (mut redriven, mut refused) = (0, 0);
    let bar = ProgressBar::new_spinner();
    loop {
        let answer = match client.post("/v1/dead-letters/redrive", None, &body).await {
            Ok(answer) => answer,
            Err(error) => {
                bar.finish_and_clear();
                line(format_args!("redriven until then: {redriven}"));
                return Err(error);
            }
        };
        redriven += answer["redriven"].as_u64().unwrap_or(0);
        for refusal in answer["refused"].as_array().into_iter().flatten() {
            refused += 1;
            let why = problem_text(&refusal["problem"]).unwrap_or_default();
            bar.suspend(|| line(format_args!("not redriven: {}: {why}", text(&refusal["place"]))));
        }
        bar.set_message(format!("{redriven} redriven, {refused} not"));
        bar.tick();
        match &answer["next_cursor"] {
            Value::Null => break,
            next => body["cursor"] = next.clone(),
        }
    }
    bar.finish_and_clear();
    line(format_args!("redriven: {redriven}, not redriven: {refused}"));
    Ok(())
}

/// The path of a dead letter from its place, `topic/partition/offset`, as `list` prints it.
fn letter_path(place: &str) -> Result<String, ClientError> {
    let parts: Vec<&str> = place.split('/').collect();
    match parts[..] {
        [topic, partition, offset] => {
            Ok(format!("/v1/dead-letters/{}/{}/{}", segment(topic), segment(partition), segment(offset)))
        }
        _ => Err(ClientError::Unreadable {
            path: "dlq".to_owned(),
            detail: format!("'{place}' is not topic/partition/offset, as `tillstream dlq list` prints it"),
        }),
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
