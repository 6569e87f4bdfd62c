//! What an author does here, on the engine that the pipeline has.

use super::input::{Input, outcome};
use super::javascript::module;
use super::{RulesError, cache, profile};
use crate::output::line;
use serde_json::{Map, Value};
use std::path::Path;
use tillstream_rule_host::{Limits, Module, Pool, RuleEngine, RuleHostError, Run, Source, dry_run};

/// A module from a file, checked and compiled as an upload is. Compiled engines are kept in the folder `cache`.
pub(super) fn load(path: &Path, pool: Pool, cache: Option<&Path>) -> Result<Module, RulesError> {
    let bytes = module(path)?;
    let engine = RuleEngine::new(pool).map_err(RuleHostError::from)?;
    Ok(match Source::read(&bytes)? {
        Some(source) => cache::engine_of(&engine, &source, &bytes, cache)?.with_source(&source)?,
        None => cache::module(&engine, &bytes)?,
    })
}

/// `rules validate`
pub(super) fn validate(path: &Path, cache: Option<&Path>) -> Result<(), RulesError> {
    let module = load(path, Pool::OnDemand, cache)?;
    let samples =
        dry_run(&module, "{}").map_err(|(hook, lines, fault)| RulesError::Sample { hook, lines, fault })?;
    let hooks: Vec<_> = module.hooks().iter().map(|it| it.as_str()).collect();
    line(format_args!("good: {}", hooks.join(", ")));
    for it in samples {
        let (hook, lines) = (it.hook.as_str(), it.lines);
        line(format_args!(
            "  {hook:<8} {lines:>3} lines  {:>9} fuel  {:>8} bytes",
            it.run.fuel, it.run.memory_bytes
        ));
    }
    Ok(())
}

/// Settings from the command line, in place of those beside the input.
pub(super) fn settings(text: &str) -> Result<Map<String, Value>, RulesError> {
    serde_json::from_str(text).map_err(|error| RulesError::Json { what: "--settings".to_owned(), error })
}

/// `rules run`; whether there was an answer.
pub(super) fn run(
    path: &Path,
    input: &Path,
    settings_text: Option<&str>,
    profile_out: Option<&Path>,
    cache: Option<&Path>,
) -> Result<bool, RulesError> {
    let mut input = Input::read(input)?;
    if let Some(text) = settings_text {
        input.settings = settings(text)?;
    }
    ask(path, &input, profile_out, cache).map(|it| it.result.is_ok())
}

/// Asks a module, and shows what it said and what that cost.
pub(super) fn ask(
    path: &Path,
    input: &Input,
    profile_out: Option<&Path>,
    cache: Option<&Path>,
) -> Result<Run, RulesError> {
    let settings = input.settings_text();
    let run = match profile_out {
        None => load(path, Pool::OnDemand, cache)?.run(&input.order_id, &input.call, &settings, u64::MAX),
        // Its frames are the engine's own: they say nothing of the rule.
        Some(_) if Source::read(&module(path)?)?.is_some() => return Err(RulesError::NoProfile),
        Some(out) => {
            let (run, stacks) =
                load(path, Pool::Traced, cache)?.profile(&input.order_id, &input.call, &settings);
            std::fs::write(out, profile::collapsed(&stacks))
                .map_err(|error| RulesError::File { path: out.to_path_buf(), error })?;
            run
        }
    };
    line(format_args!("{:#}", outcome(&run)));
    show(&run, &Limits::of(input.call.lines()));
    Ok(run)
}

fn show(run: &Run, limits: &Limits) {
    let share = |used: u64, of: u64| used as f64 * 100.0 / of as f64;
    for (name, used, of) in [
        ("fuel", run.fuel, limits.fuel),
        ("memory", run.memory_bytes as u64, limits.memory_bytes as u64),
        ("input", run.input_bytes as u64, limits.input_bytes as u64),
        ("output", run.output_bytes as u64, limits.output_bytes as u64),
        ("log", run.log.len() as u64, limits.log_bytes as u64),
    ] {
        line(format_args!("{name:<7} {used:>10} of {of:>10}  {:>6.2} %", share(used, of)));
    }
}
