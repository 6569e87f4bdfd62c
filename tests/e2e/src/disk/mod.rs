//! Trouble below the process: killed inside a group commit, a disk that lost power, is full, or fails a sync.
//!
//! A tracer (`tests/e2e/tracer/disktrace.c`, built here by `cc`) runs the real binary, stops it at the calls that change
//! files, and writes down what they change (read by `tillstream_simulation::disk`), kills it there, or lets them fail.

pub mod check;

use crate::root;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where a process is cut, seen from a journal: the file that a group commit writes and syncs.
pub const POINTS: [&str; 4] = ["before-write", "in-write", "before-sync", "after-sync"];

/// The tracer, built once per run.
///
/// # Panics
/// The C compiler does not take it.
fn tracer() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = root().join("target");
        let (draft, built) =
            (target.join(format!("disktrace.{}", std::process::id())), target.join("disktrace"));
        let source = root().join("tests/e2e/tracer/disktrace.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let status = Command::new(compiler)
            .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&draft, &source])
            .status()
            .expect("a C compiler is there");
        assert!(status.success(), "{} does not compile", source.display());
        std::fs::rename(&draft, &built).expect("the target directory can be written");
        built
    })
}

/// A command under the tracer, which watches the files below `dir`. `flags` are the tracer's own.
pub(crate) fn traced(command: &Command, dir: &Path, flags: &[&str]) -> Command {
    let mut traced = Command::new(tracer());
    traced.arg("-r").arg(dir).args(flags).arg("--");
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced
}
