//! `tillstream keys`.

use crate::cli::{KeysCommand, Whose};
use crate::client::{ClientError, segment};
use crate::commands::{client, rows, text};
use crate::output::line;
use serde_json::{Value, json};

/// `keys`.
pub async fn run(command: KeysCommand) -> Result<(), ClientError> {
    match command {
        KeysCommand::Create { name, roles, scopes, expires_at, requests_per_minute, whose, target } => {
            let mut body = json!({ "name": name });
            for (field, names) in [("roles", roles), ("scopes", scopes)] {
                if !names.is_empty() {
                    body[field] = json!(names);
                }
            }
            body["tenant"] = json!(whose.tenant);
            body["expires_at"] = json!(expires_at);
            body["requests_per_minute"] = json!(requests_per_minute);
            print_secret(&client(&target)?.post("/v1/keys", None, &body).await?);
        }
        KeysCommand::List { whose, target } => {
            let answer = client(&target)?.get(&path("", &whose)).await?;
            rows(&answer).for_each(print_key);
        }
        KeysCommand::Rotate { id, overlap_seconds, whose, target } => {
            let path = path(&format!("/{}/rotate", segment(&id)), &whose);
            let body = json!({ "overlap_seconds": overlap_seconds });
            let answer = client(&target)?.post(&path, None, &body).await?;
            print_secret(&answer);
            line(format_args!("The key before holds until {}.", text(&answer["previous_until"])));
        }
        KeysCommand::Revoke { id, whose, target } => {
            client(&target)?.delete(&path(&format!("/{}", segment(&id)), &whose)).await?;
            line(format_args!("{id} is revoked"));
        }
    }
    Ok(())
}

fn path(rest: &str, whose: &Whose) -> String {
    let query = whose.tenant.as_ref().map_or(String::new(), |it| format!("?tenant={}", segment(it)));
    format!("/v1/keys{rest}{query}")
}

fn print_secret(answer: &Value) {
    line(format_args!("{}  {}", text(&answer["id"]), text(&answer["key"])));
    line("This is the only time the key is shown.");
}

fn print_key(key: &Value) {
    let roles: Vec<&str> = key["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let may = if roles.is_empty() { "scopes".to_owned() } else { roles.join(",") };
    let ends = [("expires", "expires_at"), ("revoked", "revoked_at")]
        .into_iter()
        .filter_map(|(word, field)| Some(format!("  {word} {}", key[field].as_str()?)));
    let ends: String = ends.collect();
    let (id, created, name) = (text(&key["id"]), text(&key["created_at"]), text(&key["name"]));
    line(format_args!("{id}  {created}  {may}  {name}{ends}"));
}
