//! Load generator and benchmarks.
//!
//! - [`generator`]: a deterministic workload, as commands for the log and as bodies for HTTP.
//! - [`drain`]: N orders that stand in the log before the tasks start; the whole chain in this process.
//! - [`load`]: posts against a real `tillstream serve`, beside [`bare`], the least that a durable door does; [`latency`]: from sending to confirmed at a steady rate.
//! - [`cluster`]: the same on a real broker and database, beside the comparison program.
//! - [`process`]: CPU and memory as the kernel counts them; [`server`]: the server under test as a child.

pub mod bare;
pub mod client;
pub mod cluster;
pub mod drain;
pub mod error;
pub mod generator;
pub mod latency;
pub mod load;
pub mod process;
pub mod report;
pub mod rule;
pub mod server;

pub use error::BenchError;
