//! Engines compiled on the author's machine. Compiling one takes seconds, and every command would do it anew; an author's
//! own modules are compiled in no time and change with every build, so they are not kept.

use super::RulesError;
use crate::output::error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tillstream_rule_host::{
    ArtifactCache, ArtifactError, ArtifactKey, Module, Refusal, RuleEngine, RuleHostError, Source, digest,
};

/// Where compiled engines are kept: in the folder that was named, or among the user's caches.
pub(super) fn folder(named: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|it| it.is_absolute());
    named.or_else(|| {
        let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(caches.join("tillstream").join("rules"))
    })
}

/// The engine that a source asks for, from the folder or compiled; without a folder that can be used, compiled.
pub(super) fn engine_of(
    engine: &RuleEngine,
    source: &Source<'_>,
    bytes: &[u8],
    folder: Option<&Path>,
) -> Result<Module, RulesError> {
    let digest = source.engine_digest();
    let cache = folder.and_then(|it| match ArtifactCache::open(it) {
        Ok(cache) => Some(cache),
        Err(why) => {
            error(format_args!("{why}; the engine is compiled for this once"));
            None
        }
    });
    let Some(cache) = cache else { return compiled(engine, digest, bytes) };
    if let Some(module) = cache.get(engine, digest) {
        return Ok(module);
    }
    opened(cache.put(engine, digest, &engine.compile(bytes)?))
}

/// An author's own module, compiled.
pub(super) fn module(engine: &RuleEngine, bytes: &[u8]) -> Result<Module, RulesError> {
    compiled(engine, &digest(bytes), bytes)
}

fn compiled(engine: &RuleEngine, digest: &str, bytes: &[u8]) -> Result<Module, RulesError> {
    let code = engine.compile(bytes)?;
    // The code never leaves this process, so neither does its seal.
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| RulesError::Host(RuleHostError::Randomness(error.to_string())))?;
    let key = ArtifactKey::new(random);
    opened(key.open(engine, digest, &key.seal(engine, digest, &code)))
}

fn opened(module: Result<Module, ArtifactError>) -> Result<Module, RulesError> {
    module.map_err(|error| RulesError::Refused(Refusal::Start(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_named_one_or_among_the_users_caches_or_none() {
        let found = |named: Option<&str>, variables: &[(&str, &str)]| {
            let variable =
                |name: &str| variables.iter().find(|it| it.0 == name).map(|it| OsString::from(it.1));
            folder(named.map(PathBuf::from), variable)
        };
        let (home, caches) = (("HOME", "/home/a"), ("XDG_CACHE_HOME", "/var/a"));
        assert_eq!(found(Some("here"), &[home, caches]), Some("here".into()));
        assert_eq!(found(None, &[home, caches]), Some("/var/a/tillstream/rules".into()));
        assert_eq!(found(None, &[home]), Some("/home/a/.cache/tillstream/rules".into()));
        assert_eq!(
            found(None, &[home, ("XDG_CACHE_HOME", "a")]),
            Some("/home/a/.cache/tillstream/rules".into()),
            "one that depends on where the command runs is none"
        );
        assert_eq!(found(None, &[("HOME", "")]), None);
    }
}
