//! `schemas`.

use super::Secret;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `schemas`.
#[derive(Debug, Args)]
pub struct Schemas {
    /// What to do.
    #[command(subcommand)]
    pub command: SchemasCommand,
}

/// What to do with schemas.
#[derive(Debug, Subcommand)]
pub enum SchemasCommand {
    /// Says how every subject stands; exit code 1 unless all is as `register` would leave it. Changes nothing.
    Check {
        /// The registry.
        #[command(flatten)]
        registry: SchemaRegistry,
    },
    /// Registers every schema this build writes or reads, and sets each subject's compatibility level.
    Register {
        /// The registry.
        #[command(flatten)]
        registry: SchemaRegistry,
    },
}

/// A schema registry that a command needs.
#[derive(Clone, Debug, Args)]
pub struct SchemaRegistry {
    /// URL of the schema registry's Confluent API; Apicurio's ends in `/apis/ccompat/v7`.
    #[arg(long = "schema-registry", env = "TILLSTREAM_SCHEMA_REGISTRY", value_name = "URL")]
    pub url: String,
    /// How to get in.
    #[command(flatten)]
    pub access: SchemaRegistryAccess,
}

/// How to get into a schema registry.
#[derive(Clone, Debug, Args)]
pub struct SchemaRegistryAccess {
    /// User of the schema registry.
    #[arg(
        long = "schema-registry-user",
        id = "schema_registry_user",
        env = "TILLSTREAM_SCHEMA_REGISTRY_USER",
        value_name = "USER"
    )]
    pub user: Option<String>,
    /// Its password. Others on the machine see what is on a command line: better a file, or the environment.
    #[arg(
        long = "schema-registry-password",
        id = "schema_registry_password",
        env = "TILLSTREAM_SCHEMA_REGISTRY_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub password: Option<Secret>,
    /// File with its password; a line break at the end is none of it.
    #[arg(
        long = "schema-registry-password-file",
        id = "schema_registry_password_file",
        env = "TILLSTREAM_SCHEMA_REGISTRY_PASSWORD_FILE",
        conflicts_with = "schema_registry_password",
        value_name = "FILE"
    )]
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificates to trust for the schema registry, instead of the system's.
    #[arg(
        long = "schema-registry-ca",
        id = "schema_registry_ca",
        env = "TILLSTREAM_SCHEMA_REGISTRY_CA",
        value_name = "FILE"
    )]
    pub ca_file: Option<PathBuf>,
}
