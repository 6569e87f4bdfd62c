//! The calls. Versions are read and written by `schema_registry_converter`. Its errors keep neither the status nor the
//! registry's words, and it has no calls for lists with a status, compatibility and levels: those are made here.

use crate::error::root_cause;
use crate::{Registry, RegistryError};
use reqwest::{Method, StatusCode};
use schema_registry_converter::async_impl::schema_registry::{perform_sr_call, post_schema};
use schema_registry_converter::schema_registry_common::{
    RawRegisteredSchema, SchemaType, SrCall, SuppliedSchema,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tillstream_schemas::codec::{Compatibility, Version};

/// What the Confluent API's bodies are called.
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// No answer of a registry that we ask for is longer: a schema has some 20 kB.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Of words that are no JSON (a proxy's page), this many are shown.
const WORDS_SHOWN_MAX: usize = 300;

/// One version under a subject.
#[derive(Debug)]
pub(crate) struct Registered {
    pub id: u32,
    pub text: String,
}

#[derive(Deserialize)]
struct Verdict {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<Value>,
}

#[derive(Deserialize)]
struct Level {
    #[serde(rename = "compatibilityLevel")]
    level: String,
}

impl Registry {
    /// Every subject there is.
    pub(crate) async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.ask(Method::GET, "/subjects", None).await
    }

    /// The numbers of a subject's versions, oldest first.
    async fn version_numbers(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let mut numbers: Vec<u32> =
            self.ask(Method::GET, &format!("/subjects/{subject}/versions"), None).await?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Every version under a subject, oldest first.
    pub(crate) async fn versions(&self, subject: &str) -> Result<Vec<Registered>, RegistryError> {
        let mut found = Vec::new();
        for number in self.version_numbers(subject).await? {
            let answer =
                perform_sr_call(&self.library, SrCall::GetBySubjectAndVersion(subject, number)).await;
            let raw = match answer {
                Ok(raw @ RawRegisteredSchema { id: Some(_), schema: Some(_), .. }) => raw,
                // Again by hand, for the registry's own words.
                _ => self.ask(Method::GET, &format!("/subjects/{subject}/versions/{number}"), None).await?,
            };
            match (raw.id, raw.schema) {
                // Somebody else's Protobuf or JSON schema is none of ours.
                (Some(id), Some(text)) if raw.schema_type.as_deref().is_none_or(|it| it == "AVRO") => {
                    found.push(Registered { id, text });
                }
                (Some(_), Some(_)) => {}
                _ => {
                    return Err(RegistryError::Refused {
                        call: format!("GET /subjects/{subject}/versions/{number}"),
                        status: 200,
                        words: "an answer without id or schema".into(),
                    });
                }
            }
        }
        Ok(found)
    }

    /// Registers a version under a subject; the id it has there, also if it was there before.
    pub(crate) async fn post(&self, subject: &str, version: &Version) -> Result<u32, RegistryError> {
        let schema = SuppliedSchema {
            name: None,
            schema_type: SchemaType::Avro,
            schema: version.text.to_owned(),
            references: Vec::new(),
            properties: None,
            tags: None,
        };
        if let Ok(registered) = post_schema(&self.library, subject.to_owned(), schema).await {
            return Ok(registered.id);
        }
        // Again by hand, for the registry's own words: posting twice registers once.
        #[derive(Deserialize)]
        struct Posted {
            id: u32,
        }
        let path = format!("/subjects/{subject}/versions");
        let posted: Result<Posted, _> = self.ask(Method::POST, &path, Some(body(version))).await;
        match posted {
            Ok(posted) => Ok(posted.id),
            Err(RegistryError::Refused { status: 409, words, .. }) => {
                let words = match self.refusal(subject, version).await {
                    Ok(Some(told)) => told,
                    _ => words,
                };
                Err(RegistryError::Incompatible { subject: subject.to_owned(), words })
            }
            Err(error) => Err(error),
        }
    }

    /// Why a version may not follow what a subject has; `None` when it may.
    pub(crate) async fn refusal(
        &self,
        subject: &str,
        version: &Version,
    ) -> Result<Option<String>, RegistryError> {
        let path = format!("/compatibility/subjects/{subject}/versions?verbose=true");
        let verdict: Verdict = self.ask(Method::POST, &path, Some(body(version))).await?;
        if verdict.is_compatible {
            return Ok(None);
        }
        let words: Vec<String> = verdict
            .messages
            .iter()
            .map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned))
            .collect();
        Ok(Some(if words.is_empty() {
            "the registry calls it incompatible".into()
        } else {
            words.join("; ")
        }))
    }

    /// The level a subject is held to, its own or the registry's.
    pub(crate) async fn level(&self, subject: &str) -> Result<String, RegistryError> {
        let path = format!("/config/{subject}?defaultToGlobal=true");
        let level: Level = match self.ask(Method::GET, &path, None).await {
            Err(RegistryError::Refused { status: 404, .. }) => self.ask(Method::GET, "/config", None).await?,
            other => other?,
        };
        Ok(level.level)
    }

    /// Sets the level a subject is held to.
    pub(crate) async fn set_level(&self, subject: &str, level: Compatibility) -> Result<(), RegistryError> {
        let body = json!({ "compatibility": level.as_str() });
        self.ask::<Value>(Method::PUT, &format!("/config/{subject}"), Some(body)).await?;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, RegistryError> {
        let unreachable = |error: &reqwest::Error| RegistryError::Unreachable {
            url: self.url.clone(),
            detail: root_cause(error),
        };
        let call = || format!("{method} {}", path.split('?').next().unwrap_or(path));
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url))
            .header(reqwest::header::ACCEPT, format!("{CONTENT_TYPE}, application/json"));
        if let Some(user) = &self.user {
            request = request.basic_auth(user, self.password.as_deref());
        }
        if let Some(body) = body {
            request = request.header(reqwest::header::CONTENT_TYPE, CONTENT_TYPE).body(body.to_string());
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Denied {
                url: self.url.clone(),
                call: call(),
                status: status.as_u16(),
            });
        }
        let refused = |words: String| RegistryError::Refused { call: call(), status: status.as_u16(), words };
        if response.content_length().is_some_and(|it| it > ANSWER_BYTES_MAX) {
            return Err(refused(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
        }
        let text = response.text().await.map_err(|error| unreachable(&error))?;
        if !status.is_success() {
            return Err(refused(words(&text)));
        }
        serde_json::from_str(&text).map_err(|error| refused(format!("{error}: {}", words(&text))))
    }
}

fn body(version: &Version) -> Value {
    json!({ "schema": version.text, "schemaType": "AVRO" })
}

/// What an answer says: the message of an error document, or its text.
fn words(text: &str) -> String {
    let message = serde_json::from_str::<Value>(text)
        .ok()
        .and_then(|it| it.get("message").and_then(Value::as_str).map(str::to_owned));
    let words = message.unwrap_or_else(|| text.trim().to_owned());
    match words.char_indices().nth(WORDS_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}
