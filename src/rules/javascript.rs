//! Rules in JavaScript: a project is one module, `index.js`, and what is uploaded is its source.

use super::{RulesError, read};
use crate::output::line;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tillstream_rule_host::with_engine;

/// The rule itself.
const INDEX: &str = "index.js";
/// A JSON schema of its settings, where there is one.
const SCHEMA: &str = "settings.schema.json";

/// Whether a folder holds a rule in JavaScript.
pub(super) fn is_project(project: &Path) -> bool {
    project.join(INDEX).exists()
}

/// Packs a project into one source, and says where it is.
pub(super) fn pack(project: &Path, out: Option<&Path>) -> Result<PathBuf, RulesError> {
    let schema = project.join(SCHEMA);
    let schema = if schema.exists() { Some(text(&schema)?) } else { None };
    let packed = with_engine(&text(&project.join(INDEX))?, schema.as_deref());
    let out = match out {
        Some(out) => out.to_path_buf(),
        None => project.join("target").join(format!("{}.js", name(project)?)),
    };
    let failed = |error| RulesError::File { path: out.clone(), error };
    std::fs::create_dir_all(out.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    std::fs::write(&out, &packed).map_err(failed)?;
    line(format_args!("{}: {} bytes", out.display(), packed.len()));
    Ok(out)
}

/// The name that a project gives itself.
fn name(project: &Path) -> Result<String, RulesError> {
    let path = project.join("package.json");
    let package: Value = serde_json::from_slice(&read(&path)?)
        .map_err(|error| RulesError::Json { what: path.display().to_string(), error })?;
    let name = package["name"].as_str().filter(|it| super::project::is_package_name(it));
    name.map(str::to_owned)
        .ok_or_else(|| RulesError::Name(package["name"].as_str().unwrap_or_default().to_owned()))
}

/// A rule from a file, as an upload takes it: a component, or a source with its first line.
pub(super) fn module(path: &Path) -> Result<Vec<u8>, RulesError> {
    if path.extension().is_some_and(|it| it == "js") {
        return Ok(with_engine(&text(path)?, None).into_bytes());
    }
    read(path)
}

/// What the body of an upload is called.
pub(super) fn media_type(module: &[u8]) -> &'static str {
    if module.starts_with(b"\0asm") { "application/wasm" } else { "text/javascript" }
}

fn text(path: &Path) -> Result<String, RulesError> {
    let failed = |error| RulesError::File { path: path.to_path_buf(), error };
    std::fs::read_to_string(path).map_err(failed)
}
