//! From a Rust project to a component.

use super::{RulesError, read};
use crate::output::line;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use wit_component::ComponentEncoder;

/// What rules are compiled for: a target without a system beneath it.
const TARGET: &str = "wasm32-unknown-unknown";

/// Compiles the project in release, and wraps the module into a component.
pub(super) fn build(project: &Path, out: Option<&Path>) -> Result<(), RulesError> {
    let (name, target_dir) = describe(project)?;
    let status = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET])
        .current_dir(project)
        .status()
        .map_err(|error| RulesError::Build(format!("cargo cannot be run: {error}")))?;
    if !status.success() {
        let text = format!("cargo failed; if the target is missing: rustup target add {TARGET}");
        return Err(RulesError::Build(text));
    }
    let file = format!("{}.wasm", name.replace('-', "_"));
    let module = read(&target_dir.join(TARGET).join("release").join(file))?;
    let component = component(&module)?;
    let out = out.map_or_else(|| target_dir.join(format!("{name}.wasm")), Path::to_path_buf);
    std::fs::write(&out, &component).map_err(|error| RulesError::File { path: out.clone(), error })?;
    line(format_args!("{}: {} bytes", out.display(), component.len()));
    Ok(())
}

/// A component from a core module that carries its world, as the SDK's macros make it.
fn component(module: &[u8]) -> Result<Vec<u8>, RulesError> {
    let failed = |error: String| RulesError::Build(error);
    let encoder = ComponentEncoder::default().module(module).map_err(|error| failed(format!("{error:#}")))?;
    encoder.validate(true).encode().map_err(|error| failed(format!("{error:#}")))
}

/// The package's name, and where cargo builds it.
fn describe(project: &Path) -> Result<(String, PathBuf), RulesError> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(project)
        .output()
        .map_err(|error| RulesError::Build(format!("cargo cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(RulesError::Build(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| RulesError::Json { what: "cargo metadata".to_owned(), error })?;
    let manifest = project.join("Cargo.toml");
    let manifest = manifest.canonicalize().map_err(|error| RulesError::File { path: manifest, error })?;
    let packages = metadata["packages"].as_array();
    let package = packages
        .into_iter()
        .flatten()
        .find(|it| it["manifest_path"].as_str().map(Path::new) == Some(&manifest));
    let name = package.and_then(|it| it["name"].as_str());
    let name = name.ok_or_else(|| RulesError::Build(format!("{} is no package", project.display())))?;
    let target_dir = metadata["target_directory"].as_str().unwrap_or("target");
    Ok((name.to_owned(), target_dir.into()))
}
