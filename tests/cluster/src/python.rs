//! Other people's clients: a Python environment with confluent-kafka and fastavro, and kcat where it is installed.

use crate::command::{Done, run};
use std::process::Command;
use tillstream_e2e::root;

/// The environment's interpreter, made once by `ops/dev/python.sh`.
pub fn python() -> String {
    let output = Command::new(root().join("ops/dev/python.sh")).output().expect("the script starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("a path is text");
    text.lines().last().expect("it prints a path").to_owned()
}

/// Runs one of the scripts in `tests/cluster/python`.
pub fn script(name: &str, arguments: &[&str]) -> Done {
    let path = root().join("tests/cluster/python").join(name);
    run(Command::new("timeout").arg("120").arg(python()).arg(path).args(arguments))
}

/// Whether a program is on the path.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|it| it.join(program).exists())
}
