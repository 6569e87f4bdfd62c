//! The `tillstream` binary: wiring and command line only.
fn main() {}
