//! The pure vocabulary of the stages: facts in, decision out.
//!
//! Nothing here (and nothing in a crate that a stage lives in) reads a clock, draws a random number, does
//! I/O or iterates a `HashMap`: the same inputs give the same decision on every machine, which is what lets
//! a batch be decided again after a crash.

pub mod facts;
pub mod ids;
pub mod money;
pub mod partition;
pub mod row;
pub mod rule;
pub mod stage;
pub mod task;
pub mod time;

pub use facts::Facts;
pub use ids::Key;
pub use row::{RowKey, Table};
pub use stage::{Decision, OrderInput, OrderStage, StageError, StageName, TimerChange, TimerName};
pub use tillstream_schemas::{Text, TextMap};
