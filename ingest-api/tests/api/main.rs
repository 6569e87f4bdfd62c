//! The API, call by call, without a pipeline behind it: rows are written as the tasks would write them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod analytics;
mod backtests;
mod bulk;
#[path = "../../../tests/bad_input/cases.rs"]
mod cases;
mod catalog;
mod contract;
mod dead_letters;
mod door;
mod harness;
mod hostile;
mod isolation;
mod keys;
mod live;
mod operations;
mod orders;
mod past;
mod rules;
mod sockets;
mod store;
mod streams;
mod webhooks;
