//! What the hooks behind pricing are asked about an order of the past: made by the stages that ask them, from the command
//! and the event that priced it.

use tillstream_analytics::fold::measure_call;
use tillstream_payment::Payment;
use tillstream_pricing::priced_order;
use tillstream_reservation::Reservation;
use tillstream_schemas::order_command::PlaceOrder;
use tillstream_schemas::order_event::{OrderEventPayload, OrderPriced, OrderReserved};
use tillstream_schemas::order_state::{PaymentState, ReservationState};
use tillstream_stage::facts::NoCatalog;
use tillstream_stage::rule::{Hook, RuleCall};
use tillstream_stage::{Facts, OrderInput, OrderStage};

/// The hooks that a backtest can ask, in the order an order meets them.
pub const HOOKS: [Hook; 4] = [Hook::Price, Hook::Allocate, Hook::Risk, Hook::Measure];

/// Why the others cannot be asked.
pub(crate) const NO_SHIP: &str = "a backtest cannot ask the ship hook: what it was asked depends on where the goods were held and on \
     what had left before, which the events that price an order do not tell; put the version in shadow instead";

/// What a hook behind pricing would be asked; `None` when it would be asked nothing, as about an order without goods.
pub(crate) fn question(
    hook: Hook,
    (tenant, order_id): (&str, &str),
    placed: &PlaceOrder,
    priced: &OrderPriced,
) -> Option<RuleCall> {
    let order = priced_order(placed, priced);
    let facts = Facts {
        now_ms: placed.placed_at_ms,
        tenant,
        order_id,
        input_id: "",
        verdict: None,
        order: Some(&order),
        holds: &[],
        catalog: &NoCatalog,
    };
    match hook {
        Hook::Allocate => {
            let event = OrderEventPayload::OrderPriced(priced.clone());
            Reservation::rule_call(&ReservationState::default(), OrderInput::Event(&event), &facts)
        }
        Hook::Risk => {
            let holds = Vec::new();
            let reserved = OrderReserved { holds, expires_at_ms: 0, rule: None, review: None };
            let event = OrderEventPayload::OrderReserved(reserved);
            Payment::rule_call(&PaymentState::default(), OrderInput::Event(&event), &facts)
        }
        Hook::Measure => Some(measure_call(&order)),
        Hook::Price | Hook::Ship => None,
    }
}
