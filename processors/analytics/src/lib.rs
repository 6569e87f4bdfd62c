//! Analytics: pure folding of order events into deltas, and of deltas into event-time windows.
//!
//! Three steps, each a pure function of its arguments:
//!
//! 1. [`fold::contribution`] says what one order event means for one minute window; [`fold::BatchFold`]
//!    sums that over a batch of the order task and gives one [`AnalyticsDelta`] per tenant.
//! 2. [`windows::TenantChanges`] sums the deltas of a batch of the analytics task per row: minute, hour and
//!    day windows, top products, late corrections, the watermark.
//! 3. [`windows`] and [`top`] add such a change to the row that is there.
//!
//! [`keys`] builds the row keys; queries use it too.
//!
//! [`AnalyticsDelta`]: tillstream_schemas::analytics::AnalyticsDelta

pub mod fold;
pub mod keys;
pub mod sums;
pub mod top;
pub mod watermark;
pub mod windows;
