//! `schemas`: this build's schemas beside a registry's.

use crate::cli::{SchemaRegistryAccess, SchemasCommand, given_or_read};
use crate::output::line;
use std::process::ExitCode;
use tillstream_registry::{Registry, RegistryError, RegistrySettings, Standing};

/// `schemas`. Exit code 1 when `check` finds something to do.
pub async fn run(command: SchemasCommand) -> Result<ExitCode, RegistryError> {
    match command {
        SchemasCommand::Check { registry } => check(&connect(&registry.url, &registry.access)?).await,
        SchemasCommand::Register { registry } => {
            register(&connect(&registry.url, &registry.access)?).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The registry at `url`, with the access that the options give.
pub fn connect(url: &str, access: &SchemaRegistryAccess) -> Result<Registry, RegistryError> {
    let mut settings = RegistrySettings::new(url);
    settings.user = access.user.clone();
    settings.ca_file = access.ca_file.clone();
    let file = access.password_file.as_ref();
    settings.password = given_or_read(access.password.as_ref(), file).map_err(|error| {
        let path = file.map(|it| it.display().to_string()).unwrap_or_default();
        RegistryError::Settings(format!("--schema-registry-password-file {path}: {error}"))
    })?;
    Registry::new(settings)
}

async fn check(registry: &Registry) -> Result<ExitCode, RegistryError> {
    let found = registry.check().await?;
    line(format_args!("{:<40} {:<20} {:<20} STATUS", "SUBJECT", "SCHEMA", "COMPATIBILITY"));
    for status in &found {
        let (name, level) = (status.schema.name(), status.schema.compatibility().as_str());
        line(format_args!("{:<40} {name:<20} {level:<20} {}", status.subject, status.standing));
    }
    let wanting = found.iter().filter(|it| it.standing != Standing::Same).count();
    if wanting == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    line(match found.iter().any(|it| matches!(it.standing, Standing::Incompatible(_))) {
        true => format!(
            "{wanting} of {} subjects are not as they should be; an incompatible one stops `tillstream schemas register`",
            found.len()
        ),
        false => format!(
            "{wanting} of {} subjects are not as they should be; `tillstream schemas register` makes them so",
            found.len()
        ),
    });
    Ok(ExitCode::FAILURE)
}

async fn register(registry: &Registry) -> Result<(), RegistryError> {
    let (mut subjects, mut versions) = (0, 0);
    registry
        .register(|step| {
            let done = match step.added.as_slice() {
                [] => "already there".to_owned(),
                ids => {
                    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                    format!("registered with id {}", ids.join(", "))
                }
            };
            line(format_args!("{:<40} {:<20} {done}", step.subject, step.level.as_str()));
            subjects += 1;
            versions += step.added.len();
        })
        .await?;
    line(format_args!("{subjects} subjects, {versions} versions added"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, Schemas};
    use clap::Parser;

    fn access(more: &[&str]) -> SchemaRegistryAccess {
        let all = ["tillstream", "schemas", "check", "--schema-registry", "http://r"];
        match Cli::try_parse_from(all.iter().chain(more)).unwrap().command {
            Command::Schemas(Schemas { command: SchemasCommand::Check { registry } }) => registry.access,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_password_is_in_no_debug_text_and_comes_by_one_way_only() {
        let given = access(&["--schema-registry-user", "ursula", "--schema-registry-password", "hunter2"]);
        assert_eq!(given.password.as_ref().unwrap().reveal(), "hunter2");
        assert!(!format!("{given:?}").contains("hunter2"));
        let both = ["--schema-registry-password", "hunter2", "--schema-registry-password-file", "f"];
        let all = ["tillstream", "schemas", "register", "--schema-registry", "http://r"];
        assert!(Cli::try_parse_from(all.iter().chain(&both)).is_err());
    }

    #[test]
    fn a_password_file_that_cannot_be_read_is_named() {
        let given = access(&[
            "--schema-registry-user",
            "ursula",
            "--schema-registry-password-file",
            "/nowhere/password",
        ]);
        let error = connect("http://r", &given).unwrap_err().to_string();
        assert!(error.starts_with("TS0115") && error.contains("/nowhere/password"), "{error}");
    }
}
