//! The TOML file: its keys become defaults of the options of the same name.

use crate::cli::Cli;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used. All of it is wrong use: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("TS0721: --config {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("TS0722: --config {path} is not TOML: {error}")]
    Syntax {
        /// The file.
        path: String,
        /// The parser's words, with line and column.
        error: String,
    },
    /// A key that names no option.
    #[error("TS0723: --config {path}: '{key}' is no option of {command}; see `tillstream {command} --help`")]
    UnknownKey {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// The command.
        command: String,
    },
    /// A value that is neither text, number nor switch.
    #[error("TS0724: --config {path}: '{key}' must be a text, a number or true/false")]
    Value {
        /// The file.
        path: String,
        /// The key.
        key: String,
    },
    /// The command line itself.
    #[error(transparent)]
    Usage(#[from] clap::Error),
}

/// Parses the command line, over the environment, over the file that `--config` names.
pub fn parse(arguments: Vec<OsString>) -> Result<Cli, ConfigError> {
    let mut command = Cli::command();
    if let Some(path) = config_path(&arguments) {
        command = with_defaults(command, &path)?;
    }
    let matches: ArgMatches = command.try_get_matches_from(arguments)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// The file has to be known before the options are parsed, since it gives them their defaults.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            break;
        }
        if text == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("TILLSTREAM_CONFIG").map(PathBuf::from)
}

fn with_defaults(command: Command, path: &Path) -> Result<Command, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: shown.clone(), error })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: shown.clone(),
        error: error.to_string(),
    })?;
    let names: Vec<String> = command.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    for (key, value) in &table {
        let known = match value {
            toml::Value::Table(_) => names.contains(key),
            _ => command.get_subcommands().any(|it| has_option(it, key)),
        };
        if !known {
            return Err(ConfigError::UnknownKey {
                path: shown,
                key: key.clone(),
                command: "any command".into(),
            });
        }
    }
    let mut command = command;
    for name in names {
        let own = table.get(&name).and_then(toml::Value::as_table);
        let shared = table.iter().filter(|(_, value)| !value.is_table());
        let mut failed = None;
        command = command.mut_subcommand(&name, |mut sub| {
            for (key, value) in shared.chain(own.into_iter().flatten()) {
                if !has_option(&sub, key) {
                    if own.is_some_and(|it| it.contains_key(key)) {
                        failed = Some(ConfigError::UnknownKey {
                            path: shown.clone(),
                            key: key.clone(),
                            command: name.clone(),
                        });
                    }
                    continue;
                }
                match scalar(value) {
                    Some(text) => sub = set_default(sub, key, &text),
                    None => failed = Some(ConfigError::Value { path: shown.clone(), key: key.clone() }),
                }
            }
            sub
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(command)
}

fn has_option(command: &Command, key: &str) -> bool {
    command.get_arguments().any(|it| it.get_long() == Some(key))
        || command.get_subcommands().any(|it| has_option(it, key))
}

fn set_default(command: Command, key: &str, text: &str) -> Command {
    let nested: Vec<String> = command.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    let id = command.get_arguments().find(|it| it.get_long() == Some(key)).map(|it| it.get_id().clone());
    let mut command = command;
    if let Some(id) = id {
        let text = text.to_owned();
        // What is secret in the environment is secret in the file: `--help` shows defaults.
        command = command.mut_arg(id, |it| {
            let secret = it.is_hide_env_values_set();
            it.default_value(text).required(false).hide_default_value(secret)
        });
    }
    for name in nested {
        command = command.mut_subcommand(name, |sub| set_default(sub, key, text));
    }
    command
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn parse_with(toml: &str, arguments: &[&str]) -> Result<Cli, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tillstream.toml");
        std::fs::write(&path, toml).unwrap();
        let mut all: Vec<OsString> = vec!["tillstream".into()];
        all.extend(arguments.iter().map(OsString::from));
        all.extend(["--config".into(), path.into_os_string()]);
        parse(all)
    }

    fn serve(toml: &str, arguments: &[&str]) -> cli::Serve {
        match parse_with(toml, arguments).unwrap().command {
            cli::Command::Serve(serve) => *serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_gives_defaults_and_a_flag_wins() {
        let toml = "partitions = 7\n[serve]\nhttp = \"127.0.0.1:9\"\nsandbox-decline-rate = 0.5\n";
        let found = serve(toml, &["serve", "--partitions", "3"]);
        assert_eq!((found.partitions, found.http.port(), found.sandbox_decline_rate), (3, 9, 0.5));
        assert_eq!(serve(toml, &["serve"]).partitions, 7);
    }

    #[test]
    fn options_of_nested_commands_come_from_the_file_too() {
        let cli = parse_with("api-key = \"till_x\"\n", &["keys", "list"]).unwrap();
        let cli::Command::Keys(cli::Keys { command: cli::KeysCommand::List { target, .. } }) = cli.command
        else {
            panic!("not keys list");
        };
        assert_eq!(target.api_key, "till_x");
    }

    #[test]
    fn help_shows_no_secret_of_the_file() {
        let toml = "schema-registry-user = \"ursula\"\nschema-registry-password = \"hunter2\"\n";
        let help = parse_with(toml, &["schemas", "check", "--help"]).unwrap_err().to_string();
        assert!(help.contains("ursula") && !help.contains("hunter2"), "{help}");
    }

    #[test]
    fn no_command_has_two_options_of_one_name() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_is_also_an_environment_variable_and_says_what_it_does() {
        fn check(command: &Command, seen: &mut usize) {
            for argument in command
                .get_arguments()
                .filter(|it| it.get_long().is_some_and(|it| it != "help" && it != "version"))
            {
                let name = argument.get_env().unwrap_or_else(|| panic!("--{} has none", argument.get_id()));
                assert!(name.to_string_lossy().starts_with("TILLSTREAM_"), "{name:?}");
                assert!(argument.get_help().is_some(), "--{} has no help", argument.get_id());
                *seen += 1;
            }
            command.get_subcommands().for_each(|it| check(it, seen));
        }
        let mut seen = 0;
        check(&Cli::command(), &mut seen);
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn a_key_that_names_no_option_is_refused_by_name() {
        for toml in ["partitons = 7\n", "[serve]\npartitons = 7\n", "[servee]\npartitions = 7\n"] {
            let error = parse_with(toml, &["serve"]).unwrap_err().to_string();
            assert!(error.contains("partitons") || error.contains("servee"), "{error}");
        }
        assert!(parse_with("partitions = [1]\n", &["serve"]).unwrap_err().to_string().contains("TS0724"));
        assert!(parse_with("partitions = 0\n", &["serve"]).is_err());
    }
}
