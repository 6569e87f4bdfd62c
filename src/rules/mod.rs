//! The `rules` commands: those for authors run here, the others speak to a running pipeline.

mod backtest;
mod build;
mod local;
mod remote;
mod rollout;

use crate::cli::RulesCommand;
use crate::client::ClientError;
use std::path::{Path, PathBuf};
use tillstream_rule_host::{Fault, Refusal, RuleHostError};
use tillstream_stage::rule::Hook;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file.
    #[error("TS0931: {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// JSON that was given.
    #[error("TS0932: {what} cannot be read: {error}")]
    Json {
        /// What.
        what: String,
        /// Where, and what is wrong.
        error: serde_json::Error,
    },
    /// The module.
    #[error("TS0933: {0}")]
    Refused(#[from] Refusal),
    /// A sample.
    #[error("TS0934: the {} hook, tried on a sample order of {lines} lines: {fault}", .hook.as_str())]
    Sample {
        /// Which hook.
        hook: Hook,
        /// Lines of the order.
        lines: usize,
        /// What went wrong.
        fault: Fault,
    },
    /// The project.
    #[error("TS0935: the rule cannot be built: {0}")]
    Build(String),
    /// The engine.
    #[error(transparent)]
    Host(#[from] RuleHostError),
    /// The pipeline.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Runs a command; whether what it looked at is good.
pub async fn run(command: RulesCommand) -> Result<bool, RulesError> {
    match command {
        RulesCommand::Build { project, out } => build::build(&project, out.as_deref()).map(|()| true),
        RulesCommand::Validate { module } => local::validate(&module).map(|()| true),
        RulesCommand::Run { module, input, settings } => local::run(&module, &input, &settings),
        RulesCommand::Upload { name, module, settings_schema, target } => {
            let mut bytes = read(&module)?;
            if let Some(path) = settings_schema {
                let schema = String::from_utf8_lossy(&read(&path)?).into_owned();
                bytes = tillstream_rule_host::with_settings_schema(&bytes, &schema);
            }
            remote::upload(&target, &name, bytes).await?;
            Ok(true)
        }
        RulesCommand::Shadow { name, version, settings, target } => {
            rollout::shadow(&target, &name, rollout::Trial { version, settings }).await?;
            Ok(true)
        }
        RulesCommand::Canary { name, version, percent, settings, bounds, target } => {
            let trial = rollout::Trial { version, settings };
            rollout::canary(&target, &name, trial, percent, bounds).await?;
            Ok(true)
        }
        RulesCommand::Settings { name, settings, target } => {
            rollout::configure(&target, &name, &settings).await?;
            Ok(true)
        }
        RulesCommand::Activate { name, version, order, settings, fallback, target } => {
            let activation = remote::Activation { version, order, settings, fallback };
            remote::activate(&target, &name, activation).await?;
            Ok(true)
        }
        RulesCommand::Rollback { name, target } => {
            remote::roll_back(&target, &name).await?;
            Ok(true)
        }
        RulesCommand::Retire { name, target } => {
            remote::retire(&target, &name).await?;
            Ok(true)
        }
        RulesCommand::Backtest(it) => {
            let ask = backtest::Ask {
                name: it.name,
                module: it.module,
                version: it.version,
                against: it.against,
                settings: it.settings,
                alone: it.alone,
                from: it.from,
                to: it.to,
                orders_per_second: it.orders_per_second,
                json: it.json,
            };
            backtest::backtest(&it.target, ask).await
        }
        RulesCommand::List { target } => {
            remote::list(&target).await?;
            Ok(true)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RulesError> {
    std::fs::read(path).map_err(|error| RulesError::File { path: path.to_path_buf(), error })
}
