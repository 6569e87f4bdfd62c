//! A disk that has not written everything yet.
//!
//! [`trace`] is what was seen of the calls that change files, [`model`] what a loss of power can leave of them.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a call that the model does not know must stop the test"
)]

pub mod model;
pub mod trace;

pub use model::{Disk, Left};
