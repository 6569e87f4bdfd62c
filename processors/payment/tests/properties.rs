//! Whatever order the world's answers, faults, cancels and timers come in, the books balance and agree with the provider's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use common::{TOTAL, World, answer_to};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tillstream_schemas::Text;
use tillstream_schemas::effects::PaymentRequest;
use tillstream_schemas::order_command::{
    CaptureMode, PaymentOperation as Op, PaymentOutcome as Out, PaymentResult,
};
use tillstream_schemas::order_state::PaymentStatus;

/// How the provider answers one call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// It happens, the answer is lost.
    Lost,
    /// It does not happen.
    Unavailable,
    Breaker,
    Declined,
}

#[derive(Clone, Debug)]
enum Act {
    /// The provider takes the oldest request.
    Perform(Fault),
    /// An answer under way arrives, any of them.
    Deliver(usize),
    /// An answer that came before comes again.
    Repeat(usize),
    Fire,
    Cancel,
    Capture(Option<i64>),
    Refund(Option<i64>),
    Return(i64),
    Authenticate(bool),
    /// The provider is away for this many attempts.
    Outage(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let fault = prop_oneof![
        5 => Just(Fault::None),
        2 => Just(Fault::Lost),
        2 => Just(Fault::Unavailable),
        1 => Just(Fault::Breaker),
        1 => Just(Fault::Declined),
    ];
    let amount = prop_oneof![Just(None), (1i64..TOTAL + 50).prop_map(Some)];
    prop_oneof![
        8 => fault.prop_map(Act::Perform),
        8 => any::<usize>().prop_map(Act::Deliver),
        2 => any::<usize>().prop_map(Act::Repeat),
        4 => Just(Act::Fire),
        1 => Just(Act::Cancel),
        2 => amount.clone().prop_map(Act::Capture),
        2 => amount.prop_map(Act::Refund),
        1 => (1i64..TOTAL + 50).prop_map(Act::Return),
        2 => any::<bool>().prop_map(Act::Authenticate),
        1 => (1u8..9).prop_map(Act::Outage),
    ]
}

/// A provider with its own books: one charge, idempotent by key.
#[derive(Default)]
struct Provider {
    asks_action: bool,
    action_open: bool,
    authorized: i64,
    captured: i64,
    captures: u32,
    refunded: i64,
    ended: bool,
    charge: Option<PaymentRequest>,
    answers: BTreeMap<Text, PaymentResult>,
}

impl Provider {
    fn perform(&mut self, request: &PaymentRequest, decline: bool) -> PaymentResult {
        if let Some(answer) = self.answers.get(&request.request_key) {
            return answer.clone();
        }
        let (outcome, code) = if decline && matches!(request.operation, Op::Authorize | Op::Capture) {
            (Out::Declined, Some("card_declined"))
        } else {
            self.apply(request)
        };
        let mut answer = answer_to(request, outcome, code);
        if outcome == Out::Declined && code == Some("already_captured") {
            answer.amount_minor = self.captured;
        }
        self.answers.insert(request.request_key.clone(), answer.clone());
        answer
    }

    fn apply(&mut self, request: &PaymentRequest) -> (Out, Option<&'static str>) {
        match request.operation {
            Op::Authorize => {
                self.charge = Some(request.clone());
                if self.asks_action {
                    self.action_open = true;
                    return (Out::RequiresAction, None);
                }
                (self.take(), None)
            }
            Op::Capture if self.captured > 0 => (Out::Declined, Some("already_captured")),
            Op::Capture if self.authorized == 0 => (Out::Declined, Some("not_authorized")),
            Op::Capture => {
                self.captured = request.amount_minor;
                self.captures += 1;
                self.authorized = 0;
                (Out::Captured, None)
            }
            Op::Cancel if self.captured > 0 => (Out::Declined, Some("already_captured")),
            Op::Cancel if self.ended => (Out::Declined, Some("already_cancelled")),
            Op::Cancel => {
                self.authorized = 0;
                self.action_open = false;
                self.ended = true;
                (Out::Cancelled, None)
            }
            Op::Refund if self.refunded + request.amount_minor > self.captured => {
                (Out::Declined, Some("too_much"))
            }
            Op::Refund => {
                self.refunded += request.amount_minor;
                (Out::Refunded, None)
            }
        }
    }

    fn take(&mut self) -> Out {
        let charge = self.charge.as_ref().unwrap();
        if charge.capture == CaptureMode::Automatic {
            self.captured = charge.amount_minor;
            self.captures += 1;
            Out::Captured
        } else {
            self.authorized = charge.amount_minor;
            Out::Authorized
        }
    }

    /// The customer acts; a webhook tells of it.
    fn authenticate(&mut self, succeeds: bool, keyed: bool) -> Option<PaymentResult> {
        if !std::mem::take(&mut self.action_open) {
            return None;
        }
        let outcome = if succeeds { self.take() } else { Out::Declined };
        self.ended |= !succeeds;
        let mut webhook = answer_to(self.charge.as_ref().unwrap(), outcome, None);
        if !keyed {
            webhook.request_key = Text::default();
        }
        Some(webhook)
    }
}

struct Run {
    world: World,
    provider: Provider,
    performed: usize,
    under_way: Vec<PaymentResult>,
    delivered: Vec<PaymentResult>,
    commands: u32,
    dead: bool,
}

impl Run {
    fn new(capture: CaptureMode, asks_action: bool) -> Self {
        let mut world = World::new(capture, TOTAL);
        world.reserved();
        let provider = Provider { asks_action, ..Provider::default() };
        let (under_way, delivered) = (Vec::new(), Vec::new());
        Self { world, provider, performed: 0, under_way, delivered, commands: 0, dead: false }
    }

    fn perform(&mut self, fault: Fault) {
        let Some(request) = self.world.requests.get(self.performed).cloned() else { return };
        self.performed += 1;
        let answer = match fault {
            Fault::None => self.provider.perform(&request, false),
            Fault::Declined => self.provider.perform(&request, true),
            Fault::Lost => {
                self.provider.perform(&request, false);
                answer_to(&request, Out::Unknown, None)
            }
            Fault::Unavailable => answer_to(&request, Out::Unavailable, None),
            Fault::Breaker => answer_to(&request, Out::Unavailable, Some("breaker_open")),
        };
        self.under_way.push(answer);
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Perform(fault) => self.perform(fault),
            Act::Deliver(index) if !self.under_way.is_empty() => {
                let answer = self.under_way.remove(index % self.under_way.len());
                self.world.result(answer.clone());
                self.delivered.push(answer);
            }
            Act::Repeat(index) if !self.delivered.is_empty() => {
                let answer = self.delivered[index % self.delivered.len()].clone();
                self.world.result(answer);
            }
            Act::Deliver(_) | Act::Repeat(_) => {}
            Act::Fire => self.world.fire(),
            Act::Outage(attempts) => {
                for _ in 0..attempts {
                    self.perform(Fault::Unavailable);
                    self.act(&Act::Deliver(0));
                    self.world.fire();
                }
            }
            Act::Cancel => {
                self.dead = true;
                self.world.cancelled();
            }
            Act::Capture(amount) => self.world.capture(amount),
            Act::Refund(amount) => {
                self.commands += 1;
                self.world.refund(&format!("rfd_{}", self.commands), amount);
            }
            Act::Return(amount) => {
                self.commands += 1;
                self.world.returned(&format!("ret_{}", self.commands), amount);
            }
            Act::Authenticate(succeeds) => {
                let keyed = self.performed.is_multiple_of(2);
                self.under_way.extend(self.provider.authenticate(succeeds, keyed));
            }
        }
    }

    /// Everything that is under way arrives, and nothing fails any more.
    fn calm(&mut self) {
        for _ in 0..200 {
            self.perform(Fault::None);
            self.act(&Act::Deliver(0));
            self.world.fire();
        }
        assert!(self.under_way.is_empty() && self.performed == self.world.requests.len(), "it comes to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_ends_with_both_books_equal(
        manual in any::<bool>(),
        asks_action in prop_oneof![3 => Just(false), 1 => Just(true)],
        acts in prop::collection::vec(act(), 0..80),
    ) {
        let capture = if manual { CaptureMode::Manual } else { CaptureMode::Automatic };
        let mut run = Run::new(capture, asks_action);
        for act in &acts {
            run.act(act);
        }
        run.calm();
        let (state, provider) = (&run.world.state, &run.provider);
        prop_assert!(provider.captures <= 1, "charged once");
        prop_assert_eq!(state.captured_minor, provider.captured);
        prop_assert_eq!(state.refunded_minor, provider.refunded);
        prop_assert_eq!(state.authorized_minor, provider.authorized);
        prop_assert_eq!(&state.pending, &None);
        let authorizations = run.world.operations().iter().filter(|it| **it == Op::Authorize).count();
        prop_assert_eq!(authorizations, 1);
        if run.dead || state.unwinding {
            prop_assert!(state.unwinding);
            prop_assert_eq!(state.authorized_minor, 0, "voided");
            prop_assert_eq!(state.refunded_minor, state.captured_minor, "fully refunded");
            let ended = [PaymentStatus::Cancelled, PaymentStatus::Failed, PaymentStatus::Refunded];
            prop_assert!(ended.contains(&state.status), "{:?}", state);
            prop_assert!(!provider.action_open, "nobody can pay any more");
        }
    }
}
