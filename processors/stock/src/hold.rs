//! Holds: an order's units, from asked for to sold or given back. One row per SKU and order.

use crate::levels::{self, Book, LevelError};
use crate::stock::{StockDecision, StockFacts};
use tillstream_schemas::Text;
use tillstream_schemas::item::{HoldPhase, HoldState, ItemCommand, ReleaseStock, ReserveStock, StockState};
use tillstream_schemas::order_command::{Allocation, StockAnswer};
use tillstream_stage::StageError;
use tillstream_stage::task::Outcome;

/// There is not enough for all units.
const OUT_OF_STOCK: &str = "out_of_stock";
/// The order gave this hold back already.
const HOLD_RELEASED: &str = "hold_released";
/// The request came after its hold would have ended.
const HOLD_EXPIRED: &str = "hold_expired";

/// All units or none.
pub(crate) fn reserve(
    facts: StockFacts<'_>,
    asked: &ReserveStock,
    command: &ItemCommand,
    now_ms: i64,
) -> Result<StockDecision, StageError> {
    if !(1..=levels::UNITS_MAX).contains(&asked.quantity) {
        let what = format!("{} units cannot be reserved", asked.quantity);
        return Err(StageError::Invariant { stage: "stock", what });
    }
    if let Some(hold) = facts.hold {
        let mut decision = StockDecision::nothing(Outcome::Duplicate);
        decision.answer = Some(repeated(hold, facts.stock, asked, command));
        return Ok(decision);
    }
    let allocations = match facts.stock {
        _ if now_ms > asked.expires_at_ms => return Ok(refused(facts, asked, command, HOLD_EXPIRED)),
        Some(stock) => levels::allocate(stock, asked.quantity, &asked.locations),
        None => None,
    };
    let (Some(allocations), Some(stock)) = (allocations, facts.stock) else {
        return Ok(refused(facts, asked, command, OUT_OF_STOCK));
    };
    let mut stock = stock.clone();
    levels::reserve(&mut stock, &allocations, 1)?;
    let mut decision = StockDecision::nothing(Outcome::Applied);
    decision.stock = Some(stock);
    decision.answer = Some(held(asked, command, &allocations));
    decision.hold = Some(HoldState {
        quantity: asked.quantity,
        phase: HoldPhase::Open,
        allocations,
        expires_at_ms: asked.expires_at_ms,
    });
    Ok(decision)
}

/// A refusal leaves a row, so that a repeat is refused too, though stock (or the clock) has changed since.
/// A row of quantity 0 was refused because it came too late.
fn refused(
    facts: StockFacts<'_>,
    asked: &ReserveStock,
    command: &ItemCommand,
    code: &'static str,
) -> StockDecision {
    let mut decision = StockDecision::nothing(Outcome::Refused);
    decision.answer = Some(refusal(facts.stock, asked, command, code));
    decision.hold = Some(HoldState {
        quantity: if code == HOLD_EXPIRED { 0 } else { asked.quantity },
        phase: HoldPhase::Refused,
        allocations: Vec::new(),
        expires_at_ms: asked.expires_at_ms,
    });
    decision
}

/// The answer that a hold which was judged before stands for.
fn repeated(
    hold: &HoldState,
    stock: Option<&StockState>,
    asked: &ReserveStock,
    command: &ItemCommand,
) -> StockAnswer {
    match hold.phase {
        HoldPhase::Open | HoldPhase::Committed => held(asked, command, &hold.allocations),
        HoldPhase::Released => refusal(stock, asked, command, HOLD_RELEASED),
        HoldPhase::Refused if hold.quantity == 0 => refusal(stock, asked, command, HOLD_EXPIRED),
        HoldPhase::Refused => refusal(stock, asked, command, OUT_OF_STOCK),
    }
}

fn held(asked: &ReserveStock, command: &ItemCommand, allocations: &[Allocation]) -> StockAnswer {
    StockAnswer {
        sku: command.sku.clone(),
        quantity: asked.quantity,
        refused: None,
        available: 0,
        allocations: allocations.to_vec(),
    }
}

fn refusal(
    stock: Option<&StockState>,
    asked: &ReserveStock,
    command: &ItemCommand,
    code: &'static str,
) -> StockAnswer {
    StockAnswer {
        sku: command.sku.clone(),
        quantity: asked.quantity,
        refused: Some(Text::const_new(code)),
        available: stock.map_or(0, levels::available),
        allocations: Vec::new(),
    }
}

/// Gives a hold or a sale back, and leaves a tombstone that refuses the hold's id from now on. A release that
/// overtakes its (redriven) reserve wins: it leaves the tombstone first.
pub(crate) fn release(facts: StockFacts<'_>, asked: &ReleaseStock) -> Result<StockDecision, StageError> {
    let mut decision = StockDecision::nothing(Outcome::Applied);
    let tombstone = |hold: Option<&HoldState>| HoldState {
        quantity: hold.map_or(0, |it| it.quantity),
        phase: HoldPhase::Released,
        allocations: Vec::new(),
        expires_at_ms: hold.map_or(asked.expires_at_ms, |it| it.expires_at_ms.max(asked.expires_at_ms)),
    };
    match facts.hold {
        None => {}
        Some(HoldState { phase: HoldPhase::Released | HoldPhase::Refused, .. }) => {
            return Ok(StockDecision::nothing(Outcome::Duplicate));
        }
        Some(hold) => {
            let mut stock = known(facts)?;
            give_back(&mut stock, hold)?;
            decision.stock = Some(stock);
        }
    }
    decision.hold = Some(tombstone(facts.hold));
    Ok(decision)
}

fn give_back(stock: &mut StockState, hold: &HoldState) -> Result<(), LevelError> {
    if hold.phase == HoldPhase::Open {
        return levels::reserve(stock, &hold.allocations, -1);
    }
    for allocation in &hold.allocations {
        levels::book(stock, &allocation.location, allocation.quantity, Book::Sold)?;
    }
    Ok(())
}

/// A hold becomes a sale. What is not held (any more) cannot be sold: that is passed over.
pub(crate) fn commit(facts: StockFacts<'_>) -> Result<StockDecision, StageError> {
    let hold = match facts.hold {
        Some(hold) if hold.phase == HoldPhase::Open => hold,
        Some(HoldState { phase: HoldPhase::Committed, .. }) => {
            return Ok(StockDecision::nothing(Outcome::Duplicate));
        }
        _ => return Ok(StockDecision::nothing(Outcome::Ignored)),
    };
    let mut stock = known(facts)?;
    levels::reserve(&mut stock, &hold.allocations, -1)?;
    for allocation in &hold.allocations {
        levels::book(&mut stock, &allocation.location, -allocation.quantity, Book::Sold)?;
    }
    let mut decision = StockDecision::nothing(Outcome::Applied);
    decision.stock = Some(stock);
    decision.hold = Some(HoldState { phase: HoldPhase::Committed, ..hold.clone() });
    Ok(decision)
}

/// The sums, which a standing hold proves to be there.
fn known(facts: StockFacts<'_>) -> Result<StockState, StageError> {
    facts.stock.cloned().ok_or_else(|| StageError::Invariant {
        stage: "stock",
        what: "a hold without a stock row".to_owned(),
    })
}
