//! The log and the protocol's broker, against a real one that all tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod broker;
mod log;
mod support;
mod topics;
