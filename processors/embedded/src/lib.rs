//! Log and state on one fjall database with a group-commit thread.
//!
//! - [`EmbeddedStore`] implements all traits of log and state; [`EmbeddedSettings`] says how it is set up.
//! - `committer` is the only writer: one atomic batch and one sync for all requests that wait.
//! - `batch` is the stored form of records, `layout` the keys; both are part of the format, which `dir` names.
//! - `partition` holds ends and newest batches in memory, so that tasks at the tail never touch the disk.

mod batch;
mod clock;
mod committer;
#[doc(hidden)]
pub mod damage;
mod dir;
mod disk;
mod error;
mod high_water;
mod layout;
mod partition;
mod queue;
mod read;
mod retention;
mod settings;
mod shared;
mod store;
mod tables;

pub use error::StoreError;
pub use retention::RetentionReport;
pub use settings::{EmbeddedSettings, FreeSpace};
pub use store::EmbeddedStore;
