//! Stock: what is there, who holds it, and what a command does to both.

use crate::levels::{self, LevelError};
use crate::{adjust, hold};
use tillstream_schemas::item::{
    AdjustmentState, HoldState, ItemCommand, ItemCommandPayload, ItemEventPayload, LowStock, ProductState,
    StockLevelChanged, StockState, UpsertProduct,
};
use tillstream_schemas::order_command::StockAnswer;
use tillstream_stage::StageError;
use tillstream_stage::task::Outcome;

/// How long an applied adjustment's id is remembered, ms: 30 days, as long as an Idempotency-Key.
pub const ADJUSTMENT_KEPT_MS: i64 = 30 * 86_400_000;

/// The rows a command needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct StockFacts<'a> {
    /// The SKU's sums.
    pub stock: Option<&'a StockState>,
    /// The order's hold on the SKU: for `ReserveStock`, `ReleaseStock`, `CommitStock` and `ReceiveStock`.
    pub hold: Option<&'a HoldState>,
    /// The row of the command's own id: for `AdjustStock` and `ReceiveStock`.
    pub adjustment: Option<&'a AdjustmentState>,
    /// The product.
    pub product: Option<&'a ProductState>,
}

/// What is to be written and said. `None` and empty: unchanged, nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct StockDecision {
    /// The SKU's new sums: the level has changed, unless only the threshold did.
    pub stock: Option<StockState>,
    /// The order's new hold.
    pub hold: Option<HoldState>,
    /// The row of the command's own id.
    pub adjustment: Option<AdjustmentState>,
    /// The answer to the order's `ReserveStock`; a repeat gets the same one.
    pub answer: Option<StockAnswer>,
    /// Alerts and adjustments. `StockLevelChanged` is not among them: the task folds that over a batch.
    pub events: Vec<ItemEventPayload>,
    /// When the row of the command's own id may be forgotten, ms since the epoch.
    pub forget_adjustment_at_ms: Option<i64>,
    /// What became of the command.
    pub outcome: Outcome,
}

impl StockDecision {
    pub(crate) fn nothing(outcome: Outcome) -> Self {
        Self {
            stock: None,
            hold: None,
            adjustment: None,
            answer: None,
            events: Vec::new(),
            forget_adjustment_at_ms: None,
            outcome,
        }
    }
}

/// Decides one command of one SKU.
///
/// # Errors
/// [`StageError`] when rows contradict each other, or numbers leave the range that validation promises. Too little
/// stock is a decision, not an error.
pub fn decide(
    facts: StockFacts<'_>,
    command: &ItemCommand,
    now_ms: i64,
) -> Result<StockDecision, StageError> {
    let mut decision = match &command.payload {
        ItemCommandPayload::UpsertProduct(upsert) => threshold(facts, upsert, command),
        ItemCommandPayload::RemoveProduct(_) => StockDecision::nothing(Outcome::Ignored),
        ItemCommandPayload::ReserveStock(reserve) => hold::reserve(facts, reserve, command, now_ms)?,
        ItemCommandPayload::ReleaseStock(release) => hold::release(facts, release)?,
        ItemCommandPayload::CommitStock(_) => hold::commit(facts)?,
        ItemCommandPayload::ReceiveStock(receive) => adjust::receive(facts, receive, command, now_ms)?,
        ItemCommandPayload::AdjustStock(adjust) => adjust::adjust(facts, adjust, command, now_ms),
    };
    if let Some(stock) = &mut decision.stock {
        stock.version += 1;
        decision.events.extend(alert(stock).map(ItemEventPayload::LowStock));
    }
    Ok(decision)
}

/// The level of a SKU, summed over its locations.
pub fn level(stock: &StockState) -> StockLevelChanged {
    let on_hand = stock.locations.iter().map(|it| it.on_hand).sum();
    let available = levels::available(stock);
    StockLevelChanged { on_hand, reserved: on_hand - available, available, version: stock.version }
}

/// Copies the product's threshold to where every change of stock can see it.
fn threshold(facts: StockFacts<'_>, upsert: &UpsertProduct, command: &ItemCommand) -> StockDecision {
    let mut decision = StockDecision::nothing(Outcome::Ignored);
    if facts.stock.and_then(|it| it.low_stock_threshold) == upsert.low_stock_threshold {
        return decision;
    }
    let mut stock = facts.stock.cloned().unwrap_or_else(|| levels::empty(command));
    stock.low_stock_threshold = upsert.low_stock_threshold;
    // A product that never had stock is low, but nothing fell: no alert before its first delivery.
    stock.low |= facts.stock.is_none();
    decision.stock = Some(stock);
    decision.outcome = Outcome::Applied;
    decision
}

/// Keeps the row's `low` mark: raised once when available falls below the threshold, lowered when it is back at it.
fn alert(stock: &mut StockState) -> Option<LowStock> {
    let available = levels::available(stock);
    let below = stock.low_stock_threshold.filter(|threshold| available < *threshold);
    let was_low = std::mem::replace(&mut stock.low, below.is_some());
    below.filter(|_| !was_low).map(|threshold| LowStock { available, threshold })
}

/// Applies a change to a copy of the sums. A row that is not there is an empty one.
pub(crate) fn change<T>(
    facts: StockFacts<'_>,
    command: &ItemCommand,
    change: impl FnOnce(&mut StockState) -> Result<T, LevelError>,
) -> Result<(StockState, T), LevelError> {
    let mut stock = facts.stock.cloned().unwrap_or_else(|| levels::empty(command));
    let value = change(&mut stock)?;
    Ok((stock, value))
}
