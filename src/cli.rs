//! The command line: every option is also `TILLSTREAM_…` in the environment and a key of the TOML file.

mod cluster;
mod dlq;
mod import;
mod keys;
mod load;
mod rules;
mod sandbox;
mod schemas;
mod secret;
mod serve;
mod state;
mod topics;
mod webhooks;

pub use cluster::{Broker, Database, Role, SaslMechanism};
pub use dlq::{Dlq, DlqCommand};
pub use import::Import;
pub use keys::{Keys, KeysCommand, Whose};
pub use load::Load;
pub use rules::{Backtest, CanaryBounds, Fallback, HookName, Language, Rules, RulesCommand, SigningCommand};
pub use sandbox::Sandbox;
pub use schemas::{SchemaRegistry, SchemaRegistryAccess, Schemas, SchemasCommand};
pub use secret::{Secret, given_or_read};
pub use serve::{LogFormat, Mode, Serve};
pub use state::{Deployment, State, StateCommand};
pub use topics::{Topics, TopicsCommand};
pub use webhooks::Webhooks;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// An order pipeline for high-volume commerce, in one binary.
#[derive(Debug, Parser)]
#[command(name = "tillstream", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// TOML file with the options' long names as keys, at the top level or under the command's name.
    /// A flag wins over the environment, the environment over the file.
    #[arg(long, global = true, env = "TILLSTREAM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the pipeline: whole on the embedded store, or its roles on a cluster.
    Serve(Box<Serve>),
    /// Brings real order history in from a CSV file, with a report of what became of every row.
    Import(Import),
    /// Makes topics, and looks at them.
    Topics(Topics),
    /// Verifies, rebuilds and repairs a cluster's state.
    State(Box<State>),
    /// Looks at dead letters and sends them back.
    Dlq(Dlq),
    /// Builds, tries, uploads, activates and rolls back rules.
    Rules(Rules),
    /// Compiles one rule from standard input: what a server runs for itself, within bounds.
    #[command(hide = true)]
    CompileRule,
    /// Makes, lists, rotates and revokes API keys.
    Keys(Keys),
    /// Serves the sandbox payment provider to the workers of a cluster.
    Sandbox(Sandbox),
    /// Checks and registers schemas with a schema registry.
    Schemas(Schemas),
}

/// The running pipeline that a command speaks to.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Its URL.
    #[arg(long, env = "TILLSTREAM_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// An API key of the tenant.
    #[arg(long, env = "TILLSTREAM_API_KEY", hide_env_values = true)]
    pub api_key: String,
}
