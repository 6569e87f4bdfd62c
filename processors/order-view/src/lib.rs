//! The order view: a pure fold of an order's events into what a query reads.
//!
//! It is no `OrderStage`: an event's id is known to the chain alone, so the chain calls [`apply`] for every event, after
//! the stages have had it.

pub mod past;

pub use past::{Past, as_of};

use tillstream_schemas::Text;
use tillstream_schemas::order_command::PaymentOperation;
use tillstream_schemas::order_event::{OrderEventPayload as Event, RuleRef, RuleStep};
use tillstream_schemas::order_state::{OrderStatus, OrderView, TimelineEntry};

/// The most entries a timeline keeps. Past it the oldest but the first go: how an order began stays to be seen.
pub const TIMELINE_MAX: usize = 500;

const PRICING: Text = Text::const_new("pricing");
const RESERVATION: Text = Text::const_new("reservation");
const PAYMENT: Text = Text::const_new("payment");
const CUSTOMER_ACTION: Text = Text::const_new("customer_action");
const CAPTURE: Text = Text::const_new("capture");
const REVIEW: Text = Text::const_new("review");
const FULFILLMENT: Text = Text::const_new("fulfillment");
const DELIVERY: Text = Text::const_new("delivery");
const DONE: Text = Text::const_new("done");

/// Folds one event into the view. `event_id` is the event's deterministic id, `now_ms` the wall clock of its batch.
///
/// The version grows by one with every event. A dead order (cancelled, failed) keeps its status and its reason whatever
/// still happens to its money, and a refused or conflicting command never changes a status.
pub fn apply(view: &mut OrderView, event: &Event, event_id: &Text, now_ms: i64) {
    view.version += 1;
    view.updated_at_ms = now_ms;
    if !is_dead(view.status) {
        follow(view, event);
    }
    if view.stage.is_empty() {
        view.stage = PRICING;
    }
    if view.timeline.len() >= TIMELINE_MAX {
        view.timeline.remove(1);
    }
    let rules =
        rule_of(event).into_iter().flat_map(RuleRef::steps).map(|it| place(&mut view.rules, it)).collect();
    let entry = entry(event, event_id, now_ms, view.version, view.status);
    view.timeline.push(TimelineEntry { rules, ..entry });
}

/// Where a version of a rule stands among those that shaped the order; its first event puts it there.
fn place(rules: &mut Vec<RuleStep>, step: RuleStep) -> i32 {
    let found = rules.iter().position(|it| *it == step).unwrap_or_else(|| {
        rules.push(step);
        rules.len() - 1
    });
    i32::try_from(found).unwrap_or(i32::MAX)
}

/// The rules that shaped an event.
pub fn rule_of(event: &Event) -> Option<&RuleRef> {
    match event {
        Event::OrderPriced(it) => it.rule.as_ref(),
        Event::OrderRejected(it) => it.rule.as_ref(),
        Event::OrderReserved(it) => it.rule.as_ref(),
        Event::PaymentAuthorized(it) => it.rule.as_ref(),
        Event::PaymentCaptured(it) => it.rule.as_ref(),
        Event::PaymentFailed(it) => it.rule.as_ref(),
        Event::ShipmentShipped(it) => it.rule.as_ref(),
        Event::CommandRefused(it) => it.rule.as_ref(),
        _ => None,
    }
}

/// An event as a timeline shows it, without its rules, whose places the view knows; version and status are the order's
/// after it.
pub fn entry(event: &Event, event_id: &Text, at_ms: i64, version: i64, status: OrderStatus) -> TimelineEntry {
    TimelineEntry {
        event_id: event_id.clone(),
        kind: Text::const_new(event.kind()),
        at_ms,
        version,
        status,
        amount_minor: amount_of(event),
        detail: detail_of(event),
        rules: Vec::new(),
    }
}

/// Whether nothing changes the status any more.
fn is_dead(status: OrderStatus) -> bool {
    matches!(status, OrderStatus::Cancelled | OrderStatus::Failed)
}

/// The status and the stage of a living order.
fn follow(view: &mut OrderView, event: &Event) {
    match event {
        Event::OrderPriced(_) => view.stage = RESERVATION,
        Event::OrderReserved(_) => view.stage = PAYMENT,
        Event::OrderRejected(it) => end(view, OrderStatus::Failed, &it.code, &it.message),
        Event::OrderCancelled(it) => end(view, OrderStatus::Cancelled, &it.code, &it.message),
        Event::PaymentFailed(it) if it.operation == PaymentOperation::Authorize => {
            end(view, OrderStatus::Failed, &it.code, &it.message);
        }
        Event::PaymentActionRequired(_) => view.stage = CUSTOMER_ACTION,
        Event::PaymentAuthorized(it) if it.confirms() => {
            confirm(view);
            view.stage = CAPTURE;
        }
        Event::PaymentAuthorized(it) => view.stage = if it.review.is_some() { REVIEW } else { PAYMENT },
        Event::PaymentCaptured(it) => {
            if it.confirms {
                confirm(view);
            }
            view.stage = stage_of_goods(view.status);
        }
        // The authorization ran out: there is nothing to capture any more.
        Event::PaymentCancelled(_) if view.stage == CAPTURE => view.stage = stage_of_goods(view.status),
        Event::ShipmentShipped(it) => {
            ship(view, if it.all_shipped { OrderStatus::Shipped } else { OrderStatus::Processing });
        }
        Event::OrderCompleted(_) => ship(view, OrderStatus::Delivered),
        Event::CreditIssued(_) => {
            confirm(view);
            view.stage = DONE;
        }
        _ => {}
    }
}

fn end(view: &mut OrderView, status: OrderStatus, code: &Text, message: &Text) {
    view.status = status;
    view.stage = DONE;
    view.reason_code = Some(code.clone());
    view.reason = Some(message.clone());
}

fn confirm(view: &mut OrderView) {
    if view.status == OrderStatus::Pending {
        view.status = OrderStatus::Confirmed;
    }
}

/// Goods moved. An order whose money is still to be captured goes on waiting for that, wherever its goods are.
fn ship(view: &mut OrderView, status: OrderStatus) {
    view.status = status;
    if view.stage != CAPTURE {
        view.stage = stage_of_goods(status);
    }
}

/// What an order waits for once its money is in order.
fn stage_of_goods(status: OrderStatus) -> Text {
    match status {
        OrderStatus::Pending => PAYMENT,
        OrderStatus::Confirmed | OrderStatus::Processing => FULFILLMENT,
        OrderStatus::Shipped => DELIVERY,
        OrderStatus::Delivered | OrderStatus::Cancelled | OrderStatus::Failed => DONE,
    }
}

/// Minor units, where the event is about money.
pub fn amount_of(event: &Event) -> Option<i64> {
    match event {
        Event::OrderPriced(it) => Some(it.total_minor),
        Event::PaymentAuthorized(it) => Some(it.amount_minor),
        Event::PaymentCaptured(it) => Some(it.amount_minor),
        Event::PaymentCancelled(it) => Some(it.amount_minor),
        Event::RefundRequested(it) => Some(it.amount_minor),
        Event::PaymentRefunded(it) => Some(it.amount_minor),
        Event::OrderReturned(it) => Some(it.amount_minor),
        Event::CreditIssued(it) => Some(it.amount_minor),
        _ => None,
    }
}

/// The code or id the event is about.
pub fn detail_of(event: &Event) -> Option<Text> {
    let detail = match event {
        Event::OrderRejected(it) => &it.code,
        Event::OrderCancelled(it) => &it.code,
        Event::PaymentFailed(it) => &it.code,
        Event::CommandRefused(it) => &it.code,
        Event::CommandConflicted(it) => &it.command_id,
        Event::PaymentAuthorized(it) => &it.payment_id,
        Event::PaymentCaptured(it) => &it.payment_id,
        Event::PaymentCancelled(it) => &it.payment_id,
        Event::PaymentActionRequired(it) => &it.action,
        Event::RefundRequested(it) => &it.refund_id,
        Event::PaymentRefunded(it) => &it.refund_id,
        Event::RefundFailed(it) => &it.code,
        Event::ShipmentShipped(it) => &it.shipment_id,
        Event::ShipmentDelivered(it) => &it.shipment_id,
        Event::OrderReturned(it) => &it.return_id,
        Event::OrderPriced(_)
        | Event::OrderReserved(_)
        | Event::OrderCompleted(_)
        | Event::CreditIssued(_) => {
            return None;
        }
    };
    (!detail.is_empty()).then(|| detail.clone())
}
