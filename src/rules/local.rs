//! What an author does here, on the engine that the pipeline has.

use super::{RulesError, read};
use crate::output::line;
use serde_json::json;
use std::path::Path;
use tillstream_rule_host::{
    ArtifactKey, Limits, Module, Pool, Refusal, RuleEngine, RuleHostError, Run, digest, dry_run,
};
use tillstream_stage::rule::RuleCall;

fn load(path: &Path) -> Result<Module, RulesError> {
    let bytes = read(path)?;
    let engine = RuleEngine::new(Pool::OnDemand).map_err(RuleHostError::from)?;
    let digest = digest(&bytes);
    let code = engine.compile(&bytes)?;
    // The code never leaves this process, so neither does its seal.
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| RulesError::Host(RuleHostError::Randomness(error.to_string())))?;
    let key = ArtifactKey::new(random);
    key.open(&engine, &digest, &key.seal(&engine, &digest, &code))
        .map_err(|error| RulesError::Refused(Refusal::Start(error.to_string())))
}

/// `rules validate`
pub(super) fn validate(path: &Path) -> Result<(), RulesError> {
    let module = load(path)?;
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

/// `rules run`
pub(super) fn run(path: &Path, input: &Path, settings: &str) -> Result<bool, RulesError> {
    let what = input.display().to_string();
    let call: RuleCall =
        serde_json::from_slice(&read(input)?).map_err(|error| RulesError::Json { what, error })?;
    let _: serde_json::Map<String, serde_json::Value> = serde_json::from_str(settings)
        .map_err(|error| RulesError::Json { what: "--settings".to_owned(), error })?;
    let run = load(path)?.run("ord_local", &call, settings, u64::MAX);
    let answer = match &run.result {
        Ok((answer, review)) => json!({ "answer": answer, "review": review }),
        Err(fault) => json!({ "fault": fault.outcome(), "message": fault.to_string() }),
    };
    line(format_args!("{answer:#}"));
    show(&run, &Limits::of(call.lines()));
    Ok(run.result.is_ok())
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
    for text in run.log.lines() {
        line(format_args!("log: {text}"));
    }
}
