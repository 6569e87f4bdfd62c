//! Which section of the row belongs to which stage, and which inputs concern it.

use tillstream_fulfillment::Fulfillment;
use tillstream_payment::Payment;
use tillstream_pricing::Pricing;
use tillstream_reservation::Reservation;
use tillstream_schemas::order_command::OrderCommandPayload as Command;
use tillstream_schemas::order_event::OrderEventPayload as Event;
use tillstream_schemas::order_state::OrderState;
use tillstream_stage::stage::{OrderInput, OrderStage, StageName, TimerName};

/// A stage's place in the order row.
pub(super) trait Section: OrderStage {
    /// Its section, if it has decided before.
    fn section(state: &OrderState) -> Option<&Self::State>;
    /// Replaces it.
    fn set_section(state: &mut OrderState, section: Self::State);
}

macro_rules! section {
    ($($stage:ident in $field:ident,)*) => {$(
        impl Section for $stage {
            fn section(state: &OrderState) -> Option<&Self::State> {
                state.$field.as_ref()
            }
            fn set_section(state: &mut OrderState, section: Self::State) {
                state.$field = Some(section);
            }
        }
    )*};
}

section! {
    Pricing in order,
    Reservation in reservation,
    Payment in payment,
    Fulfillment in fulfillment,
}

/// Whether an input can concern an order stage at all. It spares the call, and the section it would build;
/// a stage still judges by its state. `processors/README.md` has the same table for people.
pub(crate) fn concerns(stage: StageName, input: OrderInput<'_>) -> bool {
    match stage {
        StageName::Pricing => matches!(input, OrderInput::Command(Command::PlaceOrder(_))),
        StageName::Reservation => match input {
            OrderInput::Command(command) => matches!(command, Command::StockAnswer(_)),
            OrderInput::Event(event) => matches!(
                event,
                Event::OrderPriced(_)
                    | Event::OrderRejected(_)
                    | Event::OrderCancelled(_)
                    | Event::PaymentAuthorized(_)
                    | Event::PaymentCaptured(_)
                    | Event::PaymentFailed(_)
            ),
            OrderInput::Timer(name) => name == TimerName::HoldExpiry,
        },
        StageName::Payment => match input {
            OrderInput::Command(command) => matches!(
                command,
                Command::CapturePayment(_) | Command::RefundOrder(_) | Command::PaymentResult(_)
            ),
            OrderInput::Event(event) => matches!(
                event,
                Event::OrderReserved(_)
                    | Event::OrderRejected(_)
                    | Event::OrderCancelled(_)
                    | Event::OrderReturned(_)
                    | Event::PaymentFailed(_)
            ),
            OrderInput::Timer(name) => name == TimerName::PaymentRetry,
        },
        StageName::Fulfillment => match input {
            OrderInput::Command(command) => matches!(
                command,
                Command::CancelOrder(_)
                    | Command::ReturnOrder(_)
                    | Command::IssueCredit(_)
                    | Command::CreateShipment(_)
                    | Command::DeliverShipment(_)
            ),
            OrderInput::Event(event) => matches!(
                event,
                Event::OrderRejected(_)
                    | Event::OrderCancelled(_)
                    | Event::PaymentAuthorized(_)
                    | Event::PaymentCaptured(_)
                    | Event::PaymentFailed(_)
            ),
            OrderInput::Timer(_) => false,
        },
        StageName::OrderView => matches!(input, OrderInput::Event(_)),
        StageName::Catalog | StageName::Stock | StageName::Analytics | StageName::Effects => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{STAGES, takes};
    use tillstream_schemas::Text;
    use tillstream_schemas::order_command::*;
    use tillstream_schemas::order_event::*;
    use tillstream_stage::task::TaskKind;

    fn commands() -> Vec<(&'static str, Command)> {
        let text = Text::default;
        let place = PlaceOrder {
            customer: None,
            currency: text(),
            country: text(),
            placed_at_ms: 0,
            lines: Vec::new(),
            discounts: Vec::new(),
            shipping: None,
            payment: PaymentInstruction::default(),
            metadata: Default::default(),
            ship_to: None,
            note: None,
        };
        let refund =
            RefundOrder { refund_id: text(), amount_minor: None, reason: None, refunded_at_ms: None };
        let back = ReturnOrder { return_id: text(), lines: Vec::new(), returned_at_ms: 0, reason: None };
        let credit = IssueCredit {
            customer: None,
            currency: text(),
            country: text(),
            lines: Vec::new(),
            returned_at_ms: 0,
            reason: None,
            metadata: Default::default(),
        };
        let ship = CreateShipment { shipment_id: text(), lines: Vec::new(), carrier: None, tracking: None };
        let deliver = DeliverShipment { shipment_id: text(), delivered_at_ms: None };
        let answer =
            StockAnswer { sku: text(), quantity: 1, refused: None, available: 0, allocations: Vec::new() };
        let result = PaymentResult {
            payment_id: text(),
            request_key: text(),
            operation: PaymentOperation::Authorize,
            outcome: PaymentOutcome::Captured,
            amount_minor: 0,
            provider_ref: None,
            code: None,
            message: None,
        };
        vec![
            ("PlaceOrder", Command::PlaceOrder(Box::new(place))),
            ("CancelOrder", Command::CancelOrder(CancelOrder { reason: None })),
            ("CapturePayment", Command::CapturePayment(CapturePayment { amount_minor: None })),
            ("RefundOrder", Command::RefundOrder(refund)),
            ("ReturnOrder", Command::ReturnOrder(back)),
            ("IssueCredit", Command::IssueCredit(credit)),
            ("CreateShipment", Command::CreateShipment(ship)),
            ("DeliverShipment", Command::DeliverShipment(deliver)),
            ("StockAnswer", Command::StockAnswer(answer)),
            ("PaymentResult", Command::PaymentResult(result)),
        ]
    }

    /// Events with the fields that decide whether a stage listens; the others it never listens to.
    fn events() -> Vec<Event> {
        let text = Text::default;
        let rejected =
            OrderRejected { code: text(), message: text(), skus: Vec::new(), placed_at_ms: 0, rule: None };
        let priced = OrderPriced {
            customer: None,
            currency: text(),
            country: text(),
            placed_at_ms: 0,
            lines: Vec::new(),
            gross_minor: 0,
            discount_minor: 0,
            tax_minor: 0,
            total_minor: 0,
            rule: None,
            review: None,
            dimensions: Default::default(),
        };
        let authorized = PaymentAuthorized {
            payment_id: text(),
            amount_minor: 0,
            capture: CaptureMode::Manual,
            provider_ref: None,
            rule: None,
            review: None,
        };
        let captured = PaymentCaptured {
            payment_id: text(),
            amount_minor: 0,
            provider_ref: None,
            confirms: true,
            rule: None,
        };
        let failed = PaymentFailed {
            payment_id: text(),
            operation: PaymentOperation::Authorize,
            code: text(),
            message: text(),
            rule: None,
        };
        let returned =
            OrderReturned { return_id: text(), lines: Vec::new(), amount_minor: 0, returned_at_ms: 0 };
        let refunded =
            PaymentRefunded { refund_id: text(), amount_minor: 0, refunded_at_ms: 0, return_id: None };
        vec![
            priced.into(),
            rejected.into(),
            OrderReserved { holds: Vec::new(), expires_at_ms: 0, rule: None, review: None }.into(),
            authorized.into(),
            PaymentActionRequired { payment_id: text(), action: text() }.into(),
            captured.into(),
            failed.into(),
            PaymentCancelled { payment_id: text(), amount_minor: 0 }.into(),
            RefundRequested { refund_id: text(), amount_minor: 0, reason: None }.into(),
            refunded.into(),
            RefundFailed { refund_id: text(), code: text(), message: text() }.into(),
            OrderCancelled { code: text(), message: text() }.into(),
            ShipmentDelivered { shipment_id: text(), delivered_at_ms: 0 }.into(),
            OrderCompleted { shipments: 1 }.into(),
            returned.into(),
            CommandConflicted { command_id: text() }.into(),
        ]
    }

    #[test]
    fn the_table_says_what_concerns_a_stage() {
        let timers = [
            ("timer HoldExpiry", TimerName::HoldExpiry),
            ("timer PaymentRetry", TimerName::PaymentRetry),
            ("timer ForgetAdjustment", TimerName::ForgetAdjustment),
        ];
        let (commands, events) = (commands(), events());
        for row in STAGES.iter().filter(|it| it.task == TaskKind::Order && it.stage != StageName::OrderView) {
            for (name, command) in &commands {
                let concerned = concerns(row.stage, OrderInput::Command(command));
                assert_eq!(concerned, takes(row.stage, name), "{} and {name}", row.stage.as_str());
            }
            for event in &events {
                let concerned = concerns(row.stage, OrderInput::Event(event));
                assert_eq!(
                    concerned,
                    takes(row.stage, event.kind()),
                    "{} and {}",
                    row.stage.as_str(),
                    event.kind()
                );
            }
            for (label, name) in timers {
                let concerned = concerns(row.stage, OrderInput::Timer(name));
                assert_eq!(concerned, takes(row.stage, label), "{} and {label}", row.stage.as_str());
            }
        }
    }
}
