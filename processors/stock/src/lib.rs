//! Catalog and stock stage: pure functions from facts to a decision.
//!
//! The item task calls both for one SKU: [`catalog::decide`] for what the product is, [`stock::decide`] for what is
//! there of it and who holds it.

mod adjust;
pub mod catalog;
mod hold;
mod levels;
pub mod stock;

pub use levels::UNITS_MAX;
pub use stock::{ADJUSTMENT_KEPT_MS, StockDecision, StockFacts, level};
