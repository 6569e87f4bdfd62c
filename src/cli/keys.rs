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
    /// Makes a key and prints it, once. Without roles and scopes it may do what the calling key may.
    Create {
        /// What people call it.
        #[arg(long, env = "TILLSTREAM_KEY_NAME", default_value = "cli")]
        name: String,
        /// Its roles: admin, merchant, storefront, analyst, rule-author, sre.
        #[arg(long = "role", env = "TILLSTREAM_KEY_ROLES", value_delimiter = ',', value_name = "ROLES")]
        roles: Vec<String>,
        /// Scopes beside those of its roles, such as `orders:read`.
        #[arg(long = "scope", env = "TILLSTREAM_KEY_SCOPES", value_delimiter = ',', value_name = "SCOPES")]
        scopes: Vec<String>,
        /// When it ends by itself, RFC 3339.
        #[arg(long, env = "TILLSTREAM_KEY_EXPIRES_AT", value_name = "TIME")]
        expires_at: Option<String>,
        /// Calls it may make in a minute.
        #[arg(long, env = "TILLSTREAM_KEY_REQUESTS_PER_MINUTE", value_name = "CALLS")]
        requests_per_minute: Option<u32>,
        /// Whose.
        #[command(flatten)]
        whose: Whose,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// The tenant's keys; never the keys themselves.
    List {
        /// Whose.
        #[command(flatten)]
        whose: Whose,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Gives a key a new secret and prints it, once; the one before holds for a while.
    Rotate {
        /// Its id, as `list` prints it.
        id: String,
        /// How long the secret before holds.
        #[arg(long, env = "TILLSTREAM_KEY_OVERLAP_SECONDS", default_value_t = 86_400)]
        overlap_seconds: u32,
        /// Whose.
        #[command(flatten)]
        whose: Whose,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
    /// Revokes a key, with all its secrets.
    Revoke {
        /// Its id, as `list` prints it.
        id: String,
        /// Whose.
        #[command(flatten)]
        whose: Whose,
        /// The pipeline.
        #[command(flatten)]
        target: Target,
    },
}

/// Whose keys a command is about.
#[derive(Debug, Args)]
pub struct Whose {
    /// The tenant, for keys of the operator; a new tenant is made by its first key. Without it: the calling key's.
    #[arg(long, env = "TILLSTREAM_TENANT", value_name = "TENANT")]
    pub tenant: Option<String>,
}
