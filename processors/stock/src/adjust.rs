//! Adjustments and returns: units that come from outside or leave for it, each counted once by its command's id.

use crate::levels::{self, Book, LevelError, MAIN};
use crate::stock::{self, ADJUSTMENT_KEPT_MS, StockDecision, StockFacts};
use tillstream_schemas::Text;
use tillstream_schemas::item::{
    AdjustStock, AdjustmentRefused, AdjustmentState, HoldPhase, HoldState, ItemCommand, ItemEventPayload,
    ReceiveStock, StockAdjusted,
};
use tillstream_schemas::order_command::Allocation;
use tillstream_stage::StageError;
use tillstream_stage::task::Outcome;

/// A merchant's adjustment. A refused one leaves no row: its id may be tried again when there is stock.
pub(crate) fn adjust(
    facts: StockFacts<'_>,
    asked: &AdjustStock,
    command: &ItemCommand,
    now_ms: i64,
) -> StockDecision {
    match facts.adjustment {
        Some(done) if done.fingerprint == asked.fingerprint => {
            return StockDecision::nothing(Outcome::Duplicate);
        }
        Some(_) => return refused("conflict", "this adjustment id was used with another body".into()),
        None => {}
    }
    let booked = stock::change(facts, command, |stock| {
        levels::book(stock, &asked.location, asked.delta, Book::Received)
    });
    let (stock, on_hand) = match booked {
        Ok(booked) => booked,
        Err(LevelError::Overflow) => return refused("overflow", "the number of units is too large".into()),
        Err(LevelError::Negative) => {
            let message =
                format!("{} cannot change by {}: fewer units are available", asked.location, asked.delta);
            return refused("would_be_negative", message.into());
        }
    };
    let mut decision = StockDecision::nothing(Outcome::Applied);
    decision.stock = Some(stock);
    decision.adjustment = Some(AdjustmentState {
        fingerprint: asked.fingerprint.clone(),
        delta: asked.delta,
        reason: asked.reason.clone(),
        location: asked.location.clone(),
        applied_at_ms: now_ms,
    });
    decision.forget_adjustment_at_ms = Some(now_ms + ADJUSTMENT_KEPT_MS);
    decision.events.push(ItemEventPayload::StockAdjusted(StockAdjusted {
        delta: asked.delta,
        reason: asked.reason.clone(),
        location: asked.location.clone(),
        on_hand,
    }));
    decision
}

fn refused(code: &'static str, message: Text) -> StockDecision {
    let mut decision = StockDecision::nothing(Outcome::Refused);
    let event = AdjustmentRefused { code: Text::const_new(code), message };
    decision.events.push(ItemEventPayload::AdjustmentRefused(event));
    decision
}

/// Goods that came back.
///
/// Units of a sale that stands undo that much of it: `sold` falls, and the hold keeps only the rest, so that giving the
/// sale back later cannot bring the same units back twice. All other units (a credit without an order, a sale that was
/// given back already) are new to us: `received` grows. Either way `received − sold = Σ on hand` stays true.
pub(crate) fn receive(
    facts: StockFacts<'_>,
    asked: &ReceiveStock,
    command: &ItemCommand,
    now_ms: i64,
) -> Result<StockDecision, StageError> {
    if facts.adjustment.is_some() {
        return Ok(StockDecision::nothing(Outcome::Duplicate));
    }
    if facts.product.is_some_and(|it| !it.stocked) {
        return Ok(StockDecision::nothing(Outcome::Ignored));
    }
    if !(1..=levels::UNITS_MAX).contains(&asked.quantity) {
        let what = format!("{} units cannot come back", asked.quantity);
        return Err(StageError::Invariant { stage: "stock", what });
    }
    let sale = facts.hold.filter(|it| it.phase == HoldPhase::Committed);
    let (back, rest) = match sale {
        Some(sale) => undo(&sale.allocations, asked.quantity),
        None => (Vec::new(), Vec::new()),
    };
    let undone: i64 = back.iter().map(|it| it.quantity).sum();
    let elsewhere = match (&asked.location, back.first()) {
        (Some(location), _) => location.clone(),
        (None, Some(first)) => first.location.clone(),
        (None, None) => Text::const_new(MAIN),
    };
    let (stock, ()) = stock::change(facts, command, |stock| {
        for part in &back {
            let location = asked.location.as_ref().unwrap_or(&part.location);
            levels::book(stock, location, part.quantity, Book::Sold)?;
        }
        if asked.quantity > undone {
            levels::book(stock, &elsewhere, asked.quantity - undone, Book::Received)?;
        }
        Ok(())
    })?;
    let mut decision = StockDecision::nothing(Outcome::Applied);
    decision.stock = Some(stock);
    decision.hold = sale.filter(|_| undone > 0).map(|sale| HoldState {
        quantity: sale.quantity - undone,
        phase: HoldPhase::Committed,
        allocations: rest,
        expires_at_ms: sale.expires_at_ms,
    });
    decision.adjustment = Some(AdjustmentState {
        fingerprint: asked.return_id.clone(),
        delta: asked.quantity,
        reason: Text::const_new("returned"),
        location: elsewhere,
        applied_at_ms: now_ms,
    });
    decision.forget_adjustment_at_ms = Some(now_ms + ADJUSTMENT_KEPT_MS);
    Ok(decision)
}

/// Splits a sale's allocations into what comes back (at most `quantity` units) and what stays sold.
fn undo(sold: &[Allocation], quantity: i64) -> (Vec<Allocation>, Vec<Allocation>) {
    let (mut back, mut rest) = (Vec::new(), Vec::new());
    let mut left = quantity;
    for part in sold {
        let taken = part.quantity.min(left);
        left -= taken;
        for (units, into) in [(taken, &mut back), (part.quantity - taken, &mut rest)] {
            if units > 0 {
                into.push(Allocation { location: part.location.clone(), quantity: units });
            }
        }
    }
    (back, rest)
}
