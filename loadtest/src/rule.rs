//! One rule, uploaded and activated over HTTP before the load comes.

use crate::BenchError;
use crate::client::{Call, Connection, Target};
use bytes::Bytes;
use http::Method;
use std::path::Path;

/// The rule's name.
const NAME: &str = "bench";

/// Uploads a module as a version of a rule and activates it.
///
/// # Errors
/// When the file cannot be read, or the server does not take it.
pub async fn activate(target: &Target, file: &Path) -> Result<(), BenchError> {
    let module = std::fs::read(file).map_err(BenchError::io(file.display().to_string()))?;
    let mut connection = Connection::open(target).await?;
    let path = format!("/v1/rules/{NAME}/versions");
    let mut upload = Call::json(Method::PUT, &path, String::new());
    upload.content_type = "application/wasm";
    upload.body = Bytes::from(module);
    let answer = connection.call(upload).await?.success()?;
    let uploaded: serde_json::Value = serde_json::from_slice(&answer.body).map_err(BenchError::http)?;
    let path = format!("/v1/rules/{NAME}/activate");
    let body = serde_json::json!({ "version": uploaded["version"] }).to_string();
    connection.call(Call::json(Method::POST, &path, body).with_key("bench-activate")).await?.success()?;
    Ok(())
}
