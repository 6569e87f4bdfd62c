//! A broker, a database, a disk and a clock in memory, decided by one seed, with faults on demand.
//!
//! [`SimBroker`] keeps Kafka's semantics behind [`tillstream_log::broker::Broker`] and [`tillstream_log::Log`],
//! [`SimRows`] those of a CQL database behind [`tillstream_state::row_store::RowStore`]. Nothing here starts a thread,
//! reads a wall clock or draws a number that the seed does not decide: on a current-thread runtime with tokio's time
//! paused and [`SimClock`] the same seed gives the same history.

pub mod broker;
mod clock;
pub mod disk;
pub mod rows;

pub use broker::{SimBroker, SimSettings};
pub use clock::SimClock;
pub use rows::{RowSettings, SimRows};
