//! What puts a version on trial, and what changes the settings of the active one.

use super::RulesError;
use super::remote::{client, latest, path, read_settings, show};
use crate::cli::{CanaryBounds, Target};
use serde_json::{Value, json};

/// What to put on trial.
pub(super) struct Trial {
    pub version: Option<i64>,
    pub settings: Option<String>,
}

impl Trial {
    async fn body(self, target: &Target, name: &str) -> Result<Value, RulesError> {
        let version = match self.version {
            Some(version) => json!(version),
            None => latest(target, name).await?,
        };
        let mut body = json!({ "version": version });
        if let Some(settings) = self.settings {
            body["settings"] = read_settings(&settings)?;
        }
        Ok(body)
    }
}

pub(super) async fn shadow(target: &Target, name: &str, trial: Trial) -> Result<(), RulesError> {
    let body = trial.body(target, name).await?;
    show(&client(target)?.post(&path(name, "/shadow"), None, &body).await?);
    Ok(())
}

/// How many orders a canary answers for, and how far it may go.
pub(super) struct Share {
    pub percent: u8,
    pub bounds: CanaryBounds,
    pub force: bool,
}

pub(super) async fn canary(
    target: &Target,
    name: &str,
    trial: Trial,
    share: Share,
) -> Result<(), RulesError> {
    let mut body = trial.body(target, name).await?;
    body["percent"] = json!(share.percent);
    body["stop_at_failures"] = json!(share.bounds.stop_at_failures);
    body["stop_at_difference"] = json!(share.bounds.stop_at_difference);
    body["forced"] = json!(share.force);
    show(&client(target)?.post(&path(name, "/canary"), None, &body).await?);
    Ok(())
}

pub(super) async fn configure(
    target: &Target,
    name: &str,
    settings: &str,
    force: bool,
) -> Result<(), RulesError> {
    let body = json!({ "settings": read_settings(settings)?, "forced": force });
    show(&client(target)?.put(&path(name, "/settings"), &body).await?);
    Ok(())
}
