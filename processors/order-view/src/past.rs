//! An order as it was at a past time: its own events, replayed.
//!
//! The row keeps a timeline with one short entry per event, and facts that never change once they are there (prices,
//! shipments, refunds). An entry is unfolded into the event it was made from and goes through [`crate::apply`] again,
//! so status, stage, version and reason are exact. What a stage keeps between two events (a hold that is asked for and
//! not answered, a capture that is under way) left no event: the past shows the order as its events tell it.

mod event;
mod payment;

use crate::{apply, is_dead};
use event::unfold;
use tillstream_schemas::order_state::{
    FulfillmentState, HoldStatus, OrderState, OrderStatus, OrderView, ReservationPhase, ReservationState,
    Shipment, ShipmentStatus, TimelineEntry,
};

/// What is known of an order at a past time.
#[derive(Clone, Debug, PartialEq)]
pub enum Past {
    /// It was not accepted yet.
    NotYet,
    /// It lies in the middle of a history so long that this part is not kept.
    Forgotten,
    /// As it was.
    Known {
        /// The row, without what only the order task needs (marks, timers).
        row: Box<OrderState>,
        /// Whether `fulfillment.returned` is what had come back by then: the row adds returns up per SKU, so of several
        /// returns it cannot tell the first ones apart.
        returns_known: bool,
    },
}

/// The order as it was at `time_ms` (ms since the epoch, that moment included).
pub fn as_of(row: &OrderState, time_ms: i64) -> Past {
    if row.accepted_at_ms > time_ms {
        return Past::NotYet;
    }
    let all = &row.view.timeline;
    let told = all.iter().take_while(|it| it.at_ms <= time_ms).count();
    if told == all.len() {
        // Nothing happened since: not even what left no event can be told from now.
        let row = OrderState { marks: Vec::new(), timers: Vec::new(), ..row.clone() };
        return Past::Known { row: Box::new(row), returns_known: true };
    }
    // A very long timeline keeps its first entry and its last ones.
    if told == 1 && all[1].version > all[0].version + 1 {
        return Past::Forgotten;
    }
    let events = &all[..told];
    let returns = |entries: &[TimelineEntry]| entries.iter().filter(|it| it.kind == "order.returned").count();
    let returned = returns(events);
    let fulfillment = fulfillment(row, events, returned > 0);
    let view = replay(row, events);
    let past = OrderState {
        tenant: row.tenant.clone(),
        order_id: row.order_id.clone(),
        accepted_at_ms: row.accepted_at_ms,
        fingerprint: row.fingerprint.clone(),
        order: row.order.clone().filter(|_| told > 0),
        reservation: reservation(row, events, view.status),
        payment: payment::as_of(row, events, time_ms),
        fulfillment,
        view,
        ..OrderState::default()
    };
    Past::Known { row: Box::new(past), returns_known: returned == 0 || returned == returns(all) }
}

/// The view after these events of the row's timeline.
fn replay(row: &OrderState, events: &[TimelineEntry]) -> OrderView {
    // Before its first event an order stands where a new one does.
    let mut view =
        OrderView { stage: crate::PRICING, updated_at_ms: row.accepted_at_ms, ..OrderView::default() };
    // Rules have places in the order they came: those that had come by then are the first ones.
    let places = events.iter().flat_map(|it| &it.rules).filter_map(|it| usize::try_from(*it).ok());
    let known = places.max().map_or(0, |it| it + 1);
    view.rules = row.view.rules.iter().take(known).cloned().collect();
    for entry in events {
        if let Some(event) = unfold(row, entry, view.status) {
            apply(&mut view, &event, &entry.event_id, entry.at_ms);
        }
        // A part of a long history may be forgotten: what the entry says holds.
        view.version = entry.version;
        view.status = entry.status;
        if let Some(last) = view.timeline.last_mut() {
            last.clone_from(entry);
        }
    }
    view
}

fn reservation(row: &OrderState, events: &[TimelineEntry], status: OrderStatus) -> Option<ReservationState> {
    let now = row.reservation.as_ref()?;
    if !has(events, "order.priced") {
        return None;
    }
    // What a dead order holds does not change any more.
    if is_dead(status) {
        return Some(now.clone());
    }
    let reserved = has(events, "order.reserved");
    let (phase, hold) = match (reserved, status) {
        (false, _) => (ReservationPhase::Waiting, HoldStatus::Asked),
        (true, OrderStatus::Pending) => (ReservationPhase::Held, HoldStatus::Held),
        (true, _) => (ReservationPhase::Committed, HoldStatus::Committed),
    };
    let mut past = ReservationState { phase, ..now.clone() };
    for it in &mut past.holds {
        it.status = hold;
        if !reserved {
            it.allocations.clear();
        }
    }
    Some(past)
}

fn fulfillment(row: &OrderState, events: &[TimelineEntry], returned: bool) -> Option<FulfillmentState> {
    let now = row.fulfillment.as_ref()?;
    let about = |kind: &str, id: &str| {
        events.iter().any(|it| it.kind == kind && it.detail.as_deref().is_some_and(|detail| detail == id))
    };
    let then = |it: &Shipment| {
        let delivered = about("shipment.delivered", &it.shipment_id);
        Shipment {
            status: if delivered { ShipmentStatus::Delivered } else { ShipmentStatus::Shipped },
            delivered_at_ms: it.delivered_at_ms.filter(|_| delivered),
            ..it.clone()
        }
    };
    let left = |it: &&Shipment| about("shipment.shipped", &it.shipment_id);
    Some(FulfillmentState {
        shipments: now.shipments.iter().filter(left).map(then).collect(),
        returned: if returned { now.returned.clone() } else { Vec::new() },
        completed: has(events, "order.completed"),
        ..FulfillmentState::default()
    })
}

fn has(events: &[TimelineEntry], kind: &str) -> bool {
    events.iter().any(|it| it.kind == kind)
}
