//! The exactly-once protocol: the log is the truth.
//!
//! A task's life ([`ClusterSessions`]) fences its predecessors, reads the committed offset and the checkpoint, replays
//! the changelog's tail into memory, and then commits outputs, one changelog record per touched row, and the input
//! offset in one transaction. Rows reach the database behind the log, a flush interval later, under timestamps that make
//! a late or zombie write lose. Everything here speaks through [`tillstream_log::broker`] and
//! [`tillstream_state::row_store`]: client libraries decide nothing, and a simulation runs the same code.

mod assignment;
pub mod changelog;
mod checkpoint;
mod door;
mod filter;
mod flush;
mod halt;
mod metrics;
mod nodes;
mod open;
mod overlay;
mod ports;
mod rebuild;
mod repair;
mod session;
mod verify;

pub use assignment::{StartTask, run_member, stopped_within};
pub use door::{ClusterProgress, ClusterState, PatientState};
pub use halt::{Halt, deployment_conflict};
pub use metrics::ClusterMetrics;
pub use nodes::NodeWatch;
pub use open::ClusterSessions;
pub use ports::{ClusterPorts, ClusterSettings, Spawner, TokioSpawner};
pub use rebuild::{RebuildProgress, rebuild};
pub use repair::{AcceptedOffset, From, accept_offsets, adopt_changelog};
pub use verify::{Difference, Verified, verify};
