//! The contract of the wire: `.avsc` files, Rust types, the fast codec and the golden records hold together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod avsc;
mod by_schema;
mod codec;
mod compatibility;
mod golden;
mod hostile;
mod mirror;
mod reference;
mod values;
mod wire;
