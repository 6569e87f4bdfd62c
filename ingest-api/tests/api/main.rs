//! The API, call by call, without a pipeline behind it: rows are written as the tasks would write them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod analytics;
mod bulk;
mod catalog;
mod dead_letters;
mod harness;
mod hostile;
mod operations;
mod orders;
mod store;
mod webhooks;
