//! The task kinds: stages chained over one key, behind [`tillstream_stage::task::Task`].
//!
//! A task decodes its one input topic, offers every input to its stages in order, and says what to write. It
//! is pure: the runtime loads the rows it names, and commits what it leaves in the context or throws all of
//! it away. `processors/README.md` has the table of stages; [`table`] is its counterpart in code.

pub mod analytics;
pub mod item;
pub mod order;
pub mod table;

pub use analytics::AnalyticsTask;
pub use item::ItemTask;
pub use order::OrderTask;
