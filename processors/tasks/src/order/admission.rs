//! Who may enter the chain: duplicates, conflicts and commands for orders that do not exist are judged here,
//! before any stage sees them.

use super::{Context, MARKS_MAX, emit};
use tillstream_schemas::Text;
use tillstream_schemas::item::{ItemCommandPayload, ReleaseStock};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload as Payload};
use tillstream_schemas::order_event::{CommandConflicted, CommandRefused, OrderEvent, OrderEventPayload};
use tillstream_schemas::order_state::{CommandMark, OrderState};
use tillstream_stage::ids::derived_id;
use tillstream_stage::task::TaskError;

/// How long a stray hold's id stays refused, ms: as long as a reservation lasts.
const STRAY_HOLD_MS: i64 = 15 * 60_000;

/// What is to be done with a command.
pub(super) enum Admission {
    /// Offer it to the stages, over this state (the command is already marked in it).
    Take(Box<OrderState>),
    /// It was judged before, with the same body.
    Duplicate,
    /// An answer nobody waits for.
    Ignore,
    /// Its id was judged before, with another body.
    Conflict {
        /// The order's version.
        version: i64,
        /// The order's status.
        status: &'static str,
    },
    /// It cannot be taken.
    Refuse {
        /// Stable code.
        code: &'static str,
        /// A sentence.
        message: &'static str,
        /// The order's version; 0 without an order.
        version: i64,
        /// The order's status; empty without an order.
        status: &'static str,
    },
    /// A hold for an order that does not exist: give it back.
    ReleaseStray,
}

/// Whether the command is a client's that changes an order, and is judged by its mark.
pub(super) fn is_marked(payload: &Payload) -> bool {
    match payload {
        Payload::CancelOrder(_)
        | Payload::CapturePayment(_)
        | Payload::RefundOrder(_)
        | Payload::ReturnOrder(_)
        | Payload::CreateShipment(_)
        | Payload::DeliverShipment(_) => true,
        Payload::PlaceOrder(_)
        | Payload::IssueCredit(_)
        | Payload::StockAnswer(_)
        | Payload::PaymentResult(_) => false,
    }
}

fn command_name(payload: &Payload) -> &'static str {
    match payload {
        Payload::PlaceOrder(_) => "place",
        Payload::CancelOrder(_) => "cancel",
        Payload::CapturePayment(_) => "capture",
        Payload::RefundOrder(_) => "refund",
        Payload::ReturnOrder(_) => "return",
        Payload::IssueCredit(_) => "credit",
        Payload::CreateShipment(_) => "shipment",
        Payload::DeliverShipment(_) => "deliver",
        Payload::StockAnswer(_) => "stock_answer",
        Payload::PaymentResult(_) => "payment_result",
    }
}

/// Judges a command against the order's row as it stands.
pub(super) fn judge(command: &OrderCommand, state: Option<&OrderState>) -> Admission {
    match state {
        None => judge_unknown(command),
        Some(state) => judge_known(command, state),
    }
}

fn judge_unknown(command: &OrderCommand) -> Admission {
    match &command.payload {
        Payload::PlaceOrder(_) | Payload::IssueCredit(_) => Admission::Take(Box::new(OrderState {
            tenant: command.tenant.clone(),
            order_id: command.order_id.clone(),
            accepted_at_ms: command.accepted_at_ms,
            fingerprint: command.fingerprint.clone(),
            ..OrderState::default()
        })),
        Payload::StockAnswer(answer) if answer.refused.is_none() => Admission::ReleaseStray,
        Payload::StockAnswer(_) | Payload::PaymentResult(_) => Admission::Ignore,
        _ => Admission::Refuse {
            code: "unknown_order",
            message: "There is no order with this id.",
            version: 0,
            status: "",
        },
    }
}

fn judge_known(command: &OrderCommand, state: &OrderState) -> Admission {
    let version = state.view.version;
    let status = state.view.status.as_str();
    match &command.payload {
        Payload::PlaceOrder(_) | Payload::IssueCredit(_) => {
            if state.fingerprint == command.fingerprint {
                Admission::Duplicate
            } else {
                Admission::Conflict { version, status }
            }
        }
        Payload::StockAnswer(_) | Payload::PaymentResult(_) => Admission::Take(Box::new(state.clone())),
        _ => {
            if let Some(mark) = state.marks.iter().find(|it| it.id == command.id) {
                return if mark.fingerprint == command.fingerprint {
                    Admission::Duplicate
                } else {
                    Admission::Conflict { version, status }
                };
            }
            let refuse = |code, message| Admission::Refuse { code, message, version, status };
            if state.credit.is_some() {
                return refuse("not_an_order", "This id is a credit's; a credit cannot be changed.");
            }
            if state.marks.len() >= MARKS_MAX {
                return refuse("too_many_commands", "This order has had 1,000 commands; it takes no more.");
            }
            let mut state = state.clone();
            let mark = CommandMark { id: command.id.clone(), fingerprint: command.fingerprint.clone() };
            state.marks.push(mark);
            Admission::Take(Box::new(state))
        }
    }
}

/// Says that an id came again with another body. The order and its version stay as they are. The event's id
/// derives from command id and body: the command id alone already names the first event of the accepted body.
pub(super) fn say_conflict(
    command: &OrderCommand,
    version: i64,
    status: &'static str,
    context: &mut Context<'_>,
) -> Result<(), TaskError> {
    let id = derived_id("evt_", &[&command.id, "conflict", &command.fingerprint]);
    let payload = CommandConflicted { command_id: command.id.clone() };
    say(command, id, payload.into(), version, status, context)
}

/// Says that a command cannot be taken. The order and its version stay as they are.
pub(super) fn say_refusal(
    command: &OrderCommand,
    code: &'static str,
    message: &'static str,
    version: i64,
    status: &'static str,
    context: &mut Context<'_>,
) -> Result<(), TaskError> {
    let id = derived_id("evt_", &[&command.id, code]);
    let payload = CommandRefused {
        command_id: command.id.clone(),
        command: command_name(&command.payload).into(),
        code: code.into(),
        message: message.into(),
        rule: None,
    };
    say(command, id, payload.into(), version, status, context)
}

fn say(
    command: &OrderCommand,
    id: Text,
    payload: OrderEventPayload,
    version: i64,
    status: &'static str,
    context: &mut Context<'_>,
) -> Result<(), TaskError> {
    let event = OrderEvent {
        id,
        tenant: command.tenant.clone(),
        order_id: command.order_id.clone(),
        version,
        at_ms: context.now_ms,
        command_id: command.id.clone(),
        traceparent: command.traceparent.clone(),
        status: status.into(),
        payload,
    };
    context.outputs.push(emit::event(event)?);
    Ok(())
}

/// Gives back what stock holds for an order that does not exist.
pub(super) fn release_stray(command: &OrderCommand, context: &mut Context<'_>) -> Result<(), TaskError> {
    let Payload::StockAnswer(answer) = &command.payload else { return Ok(()) };
    let release = ReleaseStock {
        order_id: command.order_id.clone(),
        expires_at_ms: context.now_ms.saturating_add(STRAY_HOLD_MS),
    };
    let cause = emit::Cause {
        tenant: &command.tenant,
        input_id: &command.id,
        traceparent: command.traceparent.as_ref(),
        now_ms: context.now_ms,
    };
    let payload = ItemCommandPayload::ReleaseStock(release);
    context.outputs.push(emit::item_command(&cause, 0, answer.sku.clone(), payload)?);
    Ok(())
}
