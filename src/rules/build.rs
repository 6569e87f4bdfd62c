//! From a project to what is uploaded: a component from Rust; JavaScript is only packed.

use super::{RulesError, flags, javascript, read};
use crate::output::line;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use wit_component::ComponentEncoder;

/// What rules are compiled for: a target without a system beneath it.
const TARGET: &str = "wasm32-unknown-unknown";

/// Compiles the project in release, wraps the module into a component, and says where it is. With `names`, the module
/// keeps the names of its functions; a source has them anyway.
pub(super) fn build(project: &Path, out: Option<&Path>, names: bool) -> Result<PathBuf, RulesError> {
    if javascript::is_project(project) {
        return javascript::pack(project, out);
    }
    let metadata = metadata(project)?;
    let package = Package::of(project, &metadata)?;
    let folders = flags::folder_names(&metadata, &sysroot(project)?);
    let mut cargo = command("cargo", project);
    cargo.args(["build", "--release", "--target", TARGET, "--config", &flags::setting(TARGET, &folders)]);
    if names {
        cargo.args(["--config", "profile.release.strip=\"debuginfo\""]);
    }
    // Flags for this machine's programs are none for a rule, and would stand in for the setting above.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = cargo.status().map_err(|error| no_cargo(&error))?;
    if !status.success() {
        let text = format!("cargo failed; if the target is missing: rustup target add {TARGET}");
        return Err(RulesError::Build(text));
    }
    let file = format!("{}.wasm", package.name.replace('-', "_"));
    let module = read(&package.target_dir.join(TARGET).join("release").join(file))?;
    let component = component(&module)?;
    let out =
        out.map_or_else(|| package.target_dir.join(format!("{}.wasm", package.name)), Path::to_path_buf);
    std::fs::write(&out, &component).map_err(|error| RulesError::File { path: out.clone(), error })?;
    line(format_args!("{}: {} bytes", out.display(), component.len()));
    Ok(out)
}

/// A component from a core module that carries its world, as the SDK's macros make it.
fn component(module: &[u8]) -> Result<Vec<u8>, RulesError> {
    let failed = |error: String| RulesError::Build(error);
    let encoder = ComponentEncoder::default().module(module).map_err(|error| failed(format!("{error:#}")))?;
    encoder.validate(true).encode().map_err(|error| failed(format!("{error:#}")))
}

struct Package {
    name: String,
    target_dir: PathBuf,
}

impl Package {
    /// The package in a folder, and where cargo builds it.
    fn of(project: &Path, metadata: &Value) -> Result<Self, RulesError> {
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
        Ok(Self { name: name.to_owned(), target_dir: target_dir.into() })
    }
}

/// The project and everything it is made of.
fn metadata(project: &Path) -> Result<Value, RulesError> {
    let mut cargo = command("cargo", project);
    cargo.args(["metadata", "--format-version", "1", "--filter-platform", TARGET]);
    serde_json::from_slice(&output(cargo)?)
        .map_err(|error| RulesError::Json { what: "cargo metadata".to_owned(), error })
}

/// The compiler's own folder.
fn sysroot(project: &Path) -> Result<PathBuf, RulesError> {
    let mut rustc = command("rustc", project);
    rustc.args(["--print", "sysroot"]);
    Ok(String::from_utf8_lossy(&output(rustc)?).trim_end().into())
}

fn command(program: &str, project: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(project);
    command
}

fn output(mut command: Command) -> Result<Vec<u8>, RulesError> {
    let output = command.output().map_err(|error| no_cargo(&error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(RulesError::Build(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn no_cargo(error: &std::io::Error) -> RulesError {
    RulesError::Build(format!("cargo cannot be run: {error}"))
}
