//! Compiles one rule from standard input, within bounds: what `tillstream compile-rule` does, for the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    match tillstream_rule_host::compile_child() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
