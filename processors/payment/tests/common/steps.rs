//! Scenarios as lists of steps.

use super::{TOTAL, World};
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation as Op, PaymentOutcome as Out};
use tillstream_schemas::order_state::PaymentStatus as At;

pub const AUTO: CaptureMode = CaptureMode::Automatic;
pub const MANUAL: CaptureMode = CaptureMode::Manual;

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Answer(Out),
    Coded(Out, &'static str),
    /// A webhook without a key.
    Webhook(Out),
    /// The answer under the authorization's key, out of turn.
    Authorization(Out),
    Capture(Option<i64>),
    Refund(&'static str, Option<i64>),
    Return(&'static str, i64),
    Cancel,
    Reserve,
    Fire,
}
pub use Step::{Answer, Authorization, Cancel, Capture, Coded, Fire, Refund, Reserve, Return, Webhook};

/// A reserved order that went through these steps.
pub fn run(capture: CaptureMode, steps: &[Step]) -> World {
    let mut world = World::new(capture, TOTAL);
    world.reserved();
    let key = world.requests[0].request_key.clone();
    for step in steps {
        match *step {
            Answer(outcome) => world.answer(outcome, None),
            Coded(outcome, code) => world.answer(outcome, Some(code)),
            Webhook(outcome) => world.webhook("", outcome),
            Authorization(outcome) => world.webhook(&key, outcome),
            Capture(amount) => world.capture(amount),
            Refund(id, amount) => world.refund(id, amount),
            Return(id, amount) => world.returned(id, amount),
            Cancel => world.cancelled(),
            Reserve => world.reserved(),
            Fire => world.fire(),
        }
    }
    world
}

pub struct Scenario {
    name: &'static str,
    capture: CaptureMode,
    steps: &'static [Step],
    status: At,
    /// Authorized, captured, refunded.
    money: (i64, i64, i64),
    operations: &'static [Op],
    events: &'static [&'static str],
}

pub fn check(scenarios: &[Scenario]) {
    for it in scenarios {
        let world = run(it.capture, it.steps);
        let state = &world.state;
        assert_eq!(state.status, it.status, "{}", it.name);
        let money = (state.authorized_minor, state.captured_minor, state.refunded_minor);
        assert_eq!(money, it.money, "{}", it.name);
        assert_eq!(world.operations(), it.operations, "{}", it.name);
        assert_eq!(world.kinds(), it.events, "{}", it.name);
    }
}

pub const fn scenario(
    name: &'static str,
    capture: CaptureMode,
    steps: &'static [Step],
    status: At,
    money: (i64, i64, i64),
    operations: &'static [Op],
    events: &'static [&'static str],
) -> Scenario {
    Scenario { name, capture, steps, status, money, operations, events }
}
