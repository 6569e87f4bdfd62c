//! Asking for holds, and giving them back.

use crate::HOLD_MS;
use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::item::{ItemCommandPayload, ReleaseStock, ReserveStock};
use tillstream_schemas::order_command::Allocation;
use tillstream_schemas::order_event::{HeldLine, OrderPriced, OrderRejected, OrderReserved};
use tillstream_schemas::order_state::{HoldLine, HoldStatus, LineKind, ReservationPhase, ReservationState};
use tillstream_stage::rule::{AllocateInput, GoodsLine, RuleAnswer, RuleOrder, Verdict};
use tillstream_stage::{Decision, Facts, TimerChange, TimerName};

/// Distinct SKUs of goods with their units, in the order of their first lines.
fn goods(priced: &OrderPriced) -> Vec<(&Text, i64)> {
    let mut goods: Vec<(&Text, i64)> = Vec::with_capacity(priced.lines.len());
    let mut index_of = BTreeMap::new();
    for line in priced.lines.iter().filter(|it| it.kind == LineKind::Goods) {
        let index = *index_of.entry(&line.sku).or_insert(goods.len());
        match goods.get_mut(index) {
            // Pricing bounds a line's quantity so that no sum over an order can overflow.
            Some((_, quantity)) => *quantity += line.quantity,
            None => goods.push((&line.sku, line.quantity)),
        }
    }
    goods
}

/// What the allocate hook is asked; `None` for an order without goods.
pub(crate) fn rule_input(priced: &OrderPriced, facts: &Facts<'_>) -> Option<AllocateInput> {
    let category_of = |sku: &Text| priced.lines.iter().find(|it| it.sku == *sku)?.category.clone();
    let line =
        |(sku, quantity): (&Text, i64)| GoodsLine { sku: sku.clone(), quantity, category: category_of(sku) };
    let lines: Vec<_> = goods(priced).into_iter().map(line).collect();
    let order = RuleOrder::from(facts.order.filter(|_| !lines.is_empty())?);
    Some(AllocateInput { order, lines })
}

/// Asks stock for everything the order needs; an order without goods has it all at once.
pub(crate) fn ask(priced: &OrderPriced, facts: &Facts<'_>) -> Decision<ReservationState> {
    let mut state = ReservationState { expires_at_ms: facts.now_ms + HOLD_MS, ..ReservationState::default() };
    let goods = goods(priced);
    let placements = match facts.verdict {
        Some(Verdict { rule, answer: RuleAnswer::Refuse { code, message }, .. }) => {
            state.phase = ReservationPhase::Released;
            state.rule = Some(rule.clone());
            return Decision::state(state).event(OrderRejected {
                code: code.clone(),
                message: message.clone(),
                skus: Vec::new(),
                placed_at_ms: priced.placed_at_ms,
                rule: Some(rule.clone()),
            });
        }
        // A verdict that does not fit the goods says nothing about them.
        Some(Verdict { rule, answer: RuleAnswer::Place(placements), .. })
            if placements.len() == goods.len() && placements.iter().any(|it| !it.is_empty()) =>
        {
            state.rule = Some(rule.clone());
            placements.as_slice()
        }
        _ => &[],
    };
    if let Some(verdict) = facts.verdict.filter(|it| it.review.is_some()) {
        state.rule = Some(verdict.rule.clone());
        state.review.clone_from(&verdict.review);
    }
    let mut decision = Decision::none();
    for (index, (sku, quantity)) in goods.into_iter().enumerate() {
        let wanted = placements.get(index).map_or(&[][..], Vec::as_slice);
        let command = ReserveStock {
            order_id: Text::from(facts.order_id),
            quantity,
            expires_at_ms: state.expires_at_ms,
            locations: wanted.iter().map(|it| Allocation { location: it.clone(), quantity: 0 }).collect(),
        };
        decision.item_commands.push((sku.clone(), ItemCommandPayload::ReserveStock(command)));
        let status = HoldStatus::Asked;
        state.holds.push(HoldLine { sku: sku.clone(), quantity, status, allocations: Vec::new() });
    }
    if state.holds.is_empty() {
        state.phase = ReservationPhase::Held;
        decision.events.push(reserved(&state).into());
    }
    // Also without goods: an order that nobody pays must end some time.
    decision.timers.push(TimerChange { name: TimerName::HoldExpiry, due_ms: Some(state.expires_at_ms) });
    decision.state = Some(state);
    decision
}

/// Everything is held.
pub(crate) fn reserved(state: &ReservationState) -> OrderReserved {
    OrderReserved {
        holds: state
            .holds
            .iter()
            .map(|it| HeldLine {
                sku: it.sku.clone(),
                quantity: it.quantity,
                allocations: it.allocations.clone(),
            })
            .collect(),
        expires_at_ms: state.expires_at_ms,
        rule: state.rule.clone(),
        review: state.review.clone(),
    }
}

/// The command that gives one SKU back.
pub(crate) fn release(sku: &Text, expires_at_ms: i64, order_id: &str) -> (Text, ItemCommandPayload) {
    let command = ReleaseStock { order_id: Text::from(order_id), expires_at_ms };
    (sku.clone(), ItemCommandPayload::ReleaseStock(command))
}

/// Ends the reservation; answers the commands that give back every SKU that is, or may yet be, held or sold.
///
/// An unanswered SKU is released too: its release stands behind its reserve in the same partition.
pub(crate) fn give_back(state: &mut ReservationState, order_id: &str) -> Vec<(Text, ItemCommandPayload)> {
    state.phase = ReservationPhase::Released;
    let mut commands = Vec::with_capacity(state.holds.len());
    for hold in &mut state.holds {
        if !matches!(hold.status, HoldStatus::Refused | HoldStatus::Released) {
            hold.status = HoldStatus::Released;
            commands.push(release(&hold.sku, state.expires_at_ms, order_id));
        }
    }
    commands
}
