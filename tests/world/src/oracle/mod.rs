//! The oracle: what must be true, by a simple sequential model that knows nothing of tasks, batches or stages.
//!
//! [`Seen`] reads what the log has committed, step by step, and holds every row ever committed against what must hold at
//! every moment. Once everything has come to rest, the models go through the inputs one by one ([`stock`], [`walk`], [`orders`]) and
//! say what the outputs, the tables and the provider's books must be ([`tables`], [`analytics`]).

mod analytics;
mod orders;
mod price;
mod seen;
mod stock;
mod stored;
pub(crate) mod tables;
mod walk;

pub use seen::Seen;

use crate::house::Outside;

/// What does not hold, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// What a check found.
pub type Checked = Result<(), Violation>;

/// Fails with a sentence unless it holds.
pub(crate) fn expect(holds: bool, sentence: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation(sentence())) }
}

/// Compares what there is with what the models say, all but the tables. Everything must be at rest.
///
/// # Errors
/// The first thing that does not hold.
pub fn judge(house: &Outside, seen: &Seen) -> Checked {
    let stock = stock::judge(seen)?;
    let orders = walk::judge(house, seen, &stock)?;
    analytics::judge(seen, &orders)?;
    tables::letters(seen)
}
