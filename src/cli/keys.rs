//! `keys`.

use super::Target;
use clap::{Args, Subcommand};

/// `keys`.
#[derive(Debug, Args)]
pub struct Keys {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Makes a key of the caller's tenant and prints it, once.
    Create {
        /// What people call it.
        #[arg(long, env = "TILLSTREAM_KEY_NAME", default_value = "")]
        name: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// The tenant's keys; never the keys themselves.
    List {
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Revokes a key.
    Revoke {
        /// Its id, as `list` prints it.
        id: String,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
}
