//! The `tillstream` binary: wiring and command line only.

mod cli;
mod client;
mod cluster;
mod commands;
mod config;
mod import;
mod keys;
mod log;
mod output;
mod rules;
mod sandbox;
mod schemas;
mod serve;
mod state;

use cli::{Cli, Command, LogFormat};
use config::ConfigError;
use log::{LogEnd, log_to};
use std::io::Stderr;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// The allocator: the pipeline allocates small and short, on several threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit codes: 0 done, 1 failed, 2 wrong use.
fn main() -> ExitCode {
    let cli = match config::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(ConfigError::Usage(error)) => {
            // `--help` and `--version` come as errors that are none.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        Err(error) => {
            output::error(format_args!("tillstream: {error}"));
            return ExitCode::from(2);
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(format_args!("tillstream: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Command::Serve(options) = &cli.command {
        let _log = log_to_stderr(options.log_format, &options.log)?;
        serve::run(options)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Sandbox(options) = &cli.command {
        let _log = log_to_stderr(options.log_format, &options.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(sandbox::run(options))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::CompileRule = &cli.command {
        tillstream_rule_host::compile_child()?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        match cli.command {
            Command::Serve(_) | Command::Sandbox(_) | Command::CompileRule => {}
            Command::Rules(it) => {
                let good = rules::run(it).await?;
                return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Command::Topics(cli::Topics {
                command:
                    cli::TopicsCommand::Create { partitions, replication_factor, retention_hours, broker },
            }) => {
                return Ok(
                    state::create_topics(&broker, partitions, replication_factor, retention_hours).await?
                );
            }
            Command::Topics(it) => commands::topics(it.command).await?,
            Command::State(it) => return Ok(state::run(it.command).await?),
            Command::Dlq(it) => commands::dlq(it.command).await?,
            Command::Keys(it) => keys::run(it.command).await?,
            Command::Schemas(it) => return Ok(schemas::run(it.command).await?),
            Command::Import(it) => return import(it).await,
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn import(options: cli::Import) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let report = options.report.unwrap_or_else(|| {
        let name = options.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        format!("{name}.report.ndjson").into()
    });
    let settings = import::Settings {
        client: client::Client::new(&options.target.url, &options.target.api_key)?,
        file: options.file,
        stock_per_sku: options.stock_per_sku,
        currency: options.currency,
        report,
        settle_timeout: Duration::from_secs(options.settle_seconds),
    };
    let report = import::run(&settings).await?;
    import::summarize(&report, &settings);
    Ok(if report.clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Standard output is for what a command answers; the log goes to standard error.
fn log_to_stderr(format: LogFormat, filter: &str) -> Result<LogEnd<Stderr>, Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_new(filter)?;
    let (writer, end) = log_to(std::io::stderr())?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(end)
}
