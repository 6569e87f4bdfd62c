//! The exactly-once protocol over a simulated broker and database: a test for each rule that fails without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod commits;
mod durability;
mod halts;
mod histories;
mod mutants;
mod support;
mod takeover;
mod tasks;
mod timers;
mod write_behind;
