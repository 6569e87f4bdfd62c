//! `tillstream import`: real order history in, with a report of what became of every row.
//!
//! Every call carries an idempotency key made from the file's own numbers, so an import that was cut short is
//! simply run again: what was done answers as it did, and the rest follows.

mod plan;
mod report;
mod rows;
mod run;

pub use run::{ImportError, Settings, run};
