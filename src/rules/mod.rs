//! The `rules` commands: those for authors run here, the others speak to a running pipeline.

mod backtest;
mod build;
mod cache;
mod fixtures;
mod flags;
mod input;
mod javascript;
mod local;
mod profile;
mod project;
mod remote;
mod replay;
mod rollout;
mod signing;

pub use project::example_names;

use crate::cli::{HookName, Language, Rules, RulesCommand};
use crate::client::ClientError;
use std::path::{Path, PathBuf};
use tillstream_rule_host::{Fault, Pool, Refusal, RuleHostError};
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
    /// A name.
    #[error(
        "TS0941: {0:?} cannot be the name of a rule: send a to z, 0 to 9 and -, a letter first, at most 64"
    )]
    Name(String),
    /// A language.
    #[error(
        "TS0942: there is no SDK for {}: a module that brings its engine is far larger than a rule may be; docs/RULES.md, \
         \"Other languages\", has the figures, and `--lang rust` and `--lang javascript` have one", .0.as_str()
    )]
    Language(Language),
    /// Nothing to test.
    #[error("TS0943: {0} has no fixture; put an input there as NAME.json and run this with --update")]
    NoFixture(PathBuf),
    /// No example to begin from.
    #[error("TS0947: the example {example} is not there in {}; there are: {there}", .language.as_str())]
    NoExample {
        /// Which.
        example: String,
        /// The language.
        language: Language,
        /// Those that are there.
        there: String,
    },
    /// No profile.
    #[error(
        "TS0948: a profile tells fuel by a module's own functions; those of a rule in JavaScript are its engine's"
    )]
    NoProfile,
    /// Nothing to replay.
    #[error("TS0944: no call of {rule} is kept for order {order}: only some are, and not for long")]
    NoSample {
        /// The rule.
        rule: String,
        /// The order.
        order: String,
    },
    /// A signing key.
    #[error("TS0951: {path} is no key to sign with: {why}")]
    SigningKey {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The engine.
    #[error(transparent)]
    Host(#[from] RuleHostError),
    /// The pipeline.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Runs a command; whether what it looked at is good.
pub async fn run(asked: Rules) -> Result<bool, RulesError> {
    let cache = cache::folder(asked.cache_dir, |it| std::env::var_os(it));
    let cache = cache.as_deref();
    match asked.command {
        RulesCommand::New { name, lang, from } => project::new(&name, lang, &from).map(|()| true),
        RulesCommand::Build { project, out, names } => {
            let built = build::build(&project, out.as_deref(), names)?;
            if javascript::is_project(&project) {
                // What a compiler tells of the other languages, the engine tells of this one.
                local::load(&built, Pool::OnDemand, cache)?;
            }
            Ok(true)
        }
        RulesCommand::Test { project, update } => fixtures::test(&project, update, cache),
        RulesCommand::Validate { module } => local::validate(&module, cache).map(|()| true),
        RulesCommand::Run { module, input, settings, profile } => {
            local::run(&module, &input, settings.as_deref(), profile.as_deref(), cache)
        }
        RulesCommand::Replay { name, module, order, hook, save, target } => {
            let wanted = replay::Wanted { rule: &name, order: &order, hook: hook.map(Hook::from) };
            replay::replay(&target, &wanted, &module, save.as_deref(), cache).await
        }
        remote => run_remote(remote).await,
    }
}

/// The commands that speak to a pipeline, or prepare what is sent to one.
async fn run_remote(command: RulesCommand) -> Result<bool, RulesError> {
    match command {
        RulesCommand::Upload { name, module, settings_schema, signature, target } => {
            let bytes = self::module(&module, settings_schema.as_deref())?;
            let signature = signing::signature_of(&module, signature.as_deref())?;
            remote::upload(&target, &name, bytes, signature).await?;
        }
        RulesCommand::Shadow { name, version, settings, target } => {
            rollout::shadow(&target, &name, rollout::Trial { version, settings }).await?;
        }
        RulesCommand::Canary { name, version, percent, settings, bounds, force, target } => {
            let trial = rollout::Trial { version, settings };
            rollout::canary(&target, &name, trial, rollout::Share { percent, bounds, force }).await?;
        }
        RulesCommand::Settings { name, settings, force, target } => {
            rollout::configure(&target, &name, &settings, force).await?;
        }
        RulesCommand::Activate { name, version, order, settings, fallback, force, target } => {
            let activation = remote::Activation { version, order, settings, fallback, force };
            remote::activate(&target, &name, activation).await?;
        }
        RulesCommand::Rollback { name, target } => remote::roll_back(&target, &name).await?,
        RulesCommand::Retire { name, target } => remote::retire(&target, &name).await?,
        RulesCommand::Versions { name, target } => remote::versions(&target, &name).await?,
        RulesCommand::Keygen { key } => signing::keygen(&key)?,
        RulesCommand::Sign { module, key, settings_schema } => {
            signing::sign(&module, &key, settings_schema.as_deref())?;
        }
        RulesCommand::Signing { command } => signing::signing(command).await?,
        RulesCommand::Backtest(asked) => return backtest::backtest(*asked).await,
        RulesCommand::List { target } => remote::list(&target).await?,
        RulesCommand::New { .. }
        | RulesCommand::Build { .. }
        | RulesCommand::Test { .. }
        | RulesCommand::Validate { .. }
        | RulesCommand::Run { .. }
        | RulesCommand::Replay { .. } => {}
    }
    Ok(true)
}

/// A module as it is uploaded: with the schema for its settings in it.
fn module(path: &Path, settings_schema: Option<&Path>) -> Result<Vec<u8>, RulesError> {
    let bytes = javascript::module(path)?;
    let Some(schema) = settings_schema else { return Ok(bytes) };
    let schema = String::from_utf8_lossy(&read(schema)?).into_owned();
    Ok(tillstream_rule_host::with_settings_schema(&bytes, &schema))
}

fn read(path: &Path) -> Result<Vec<u8>, RulesError> {
    std::fs::read(path).map_err(|error| RulesError::File { path: path.to_path_buf(), error })
}

impl Language {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Javascript => "javascript",
            Self::Python => "python",
        }
    }
}

impl From<HookName> for Hook {
    fn from(name: HookName) -> Self {
        match name {
            HookName::Price => Self::Price,
            HookName::Allocate => Self::Allocate,
            HookName::Risk => Self::Risk,
            HookName::Ship => Self::Ship,
            HookName::Measure => Self::Measure,
        }
    }
}
