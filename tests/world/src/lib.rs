//! The whole pipeline in a world that one seed decides.
//!
//! Real tasks, the real runtime and the real cluster protocol run on a simulated broker, database, clock and payment
//! provider ([`tillstream_simulation`]), as several processes on one thread. A [`Plan`] says what clients do, what goes
//! wrong and what operators do; [`run`] lets it happen; the [`oracle`] holds everything that was committed against an
//! independent, sequential model.

mod call;
mod client;
mod course;
mod embedded;
mod faults;
mod history;
mod house;
mod operator;
pub mod oracle;
pub mod plan;
mod process;
pub mod provider;
mod rules;
mod shrink;
pub mod tuning;
mod workload;

pub use history::{Outcome, run};
pub use plan::Plan;
pub use shrink::shrink;
pub use workload::Size;

/// The kinds of task that run here: all but those that send webhooks.
pub(crate) const KINDS: [tillstream_stage::task::TaskKind; 4] = {
    use tillstream_stage::task::TaskKind::{Analytics, Effects, Item, Order};
    [Order, Item, Analytics, Effects]
};
