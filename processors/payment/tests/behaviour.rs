//! Refusals, retries, late answers, and the risk rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use common::steps::{AUTO, Answer, Cancel, Capture, Fire, MANUAL, Refund, Return, Step, Webhook, run};
use common::{TOTAL, World, answer_to};
use tillstream_payment::{Payment, retry};
use tillstream_schemas::order_command::{PaymentOperation as Op, PaymentOutcome as Out};
use tillstream_schemas::order_event::{OrderEventPayload, OrderReserved, RuleRef};
use tillstream_schemas::order_state::{PaymentStatus as At, PricedOrder, RefundStatus};
use tillstream_stage::facts::NoCatalog;
use tillstream_stage::rule::{RuleAnswer, RuleCall, Verdict};
use tillstream_stage::{Facts, OrderInput, OrderStage};

#[test]
fn a_capture_command_is_refused_with_its_reason() {
    let cases: [(&[Step], &str); 6] = [
        (&[Capture(None)], "not_authorized"),
        (&[Answer(Out::RequiresAction), Capture(None)], "not_authorized"),
        (&[Answer(Out::Authorized), Capture(Some(TOTAL + 1))], "amount_exceeds_authorized"),
        (&[Answer(Out::Authorized), Capture(Some(0))], "amount_not_positive"),
        (&[Answer(Out::Authorized), Capture(None), Capture(None)], "not_authorized"),
        (&[Answer(Out::Authorized), Cancel, Capture(None)], "not_authorized"),
    ];
    for (steps, code) in cases {
        assert_eq!(run(MANUAL, steps).refusals(), [code], "{steps:?}");
    }
}

#[test]
fn a_refund_command_is_refused_with_its_reason() {
    let cases: [(&[Step], &str); 5] = [
        (&[Refund("r1", None)], "nothing_captured"),
        (&[Answer(Out::Captured), Refund("r1", Some(TOTAL + 1))], "amount_exceeds_captured"),
        (
            &[Answer(Out::Captured), Refund("r1", Some(600)), Refund("r2", Some(600))],
            "amount_exceeds_captured",
        ),
        (&[Answer(Out::Captured), Refund("r1", None), Refund("r2", None)], "amount_exceeds_captured"),
        (&[Answer(Out::Captured), Refund("r1", Some(0))], "amount_not_positive"),
    ];
    for (steps, code) in cases {
        assert_eq!(run(AUTO, steps).refusals(), [code], "{steps:?}");
    }
}

#[test]
fn refunds_stand_in_the_window_they_name() {
    let world =
        run(AUTO, &[Answer(Out::Captured), Return("t1", 400), Answer(Out::Refunded), Refund("r1", None)]);
    let refunds = &world.state.refunds;
    assert_eq!((refunds[0].refunded_at_ms, refunds[0].return_id.as_deref()), (99, Some("t1")));
    assert_eq!((refunds[1].refunded_at_ms, refunds[1].return_id.as_deref()), (77, None));
    assert_eq!(refunds[1].status, RefundStatus::Pending);
    assert_eq!(world.requests.last().unwrap().refund_id.as_deref(), Some("r1"));
}

#[test]
fn no_event_of_an_unwinding_payment_confirms() {
    let steps: &[&[Step]] =
        &[&[Cancel, Answer(Out::Captured)], &[Answer(Out::Declined), Webhook(Out::Captured)]];
    for steps in steps {
        let world = run(AUTO, steps);
        let captured = world.events.iter().find_map(|it| match it {
            OrderEventPayload::PaymentCaptured(it) => Some(it.confirms),
            _ => None,
        });
        assert_eq!(captured, Some(false), "{steps:?}");
        assert_eq!(world.operations(), [Op::Authorize, Op::Refund], "{steps:?}");
    }
}

#[test]
fn a_refund_that_the_unwinding_cannot_get_is_said_once() {
    let world = run(AUTO, &[Answer(Out::Captured), Cancel, Answer(Out::Declined), Cancel]);
    assert_eq!(world.kinds(), ["payment.captured", "payment.refund_requested", "payment.refund_failed"]);
    assert_eq!((world.state.captured_minor, world.state.refunded_minor), (TOTAL, 0));
    assert_eq!(world.state.pending, None);
}

#[test]
fn the_backoff_doubles_up_to_its_maximum() {
    let waits: Vec<i64> = (1..=10).map(retry::backoff_ms).collect();
    assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
    assert_eq!(retry::backoff_ms(i32::MAX), 30_000);
}

#[test]
fn an_unreachable_provider_is_given_up_after_eight_attempts() {
    let mut world = run(AUTO, &[]);
    for attempt in 1..=8 {
        assert_eq!(world.requests.last().unwrap().attempt, attempt);
        assert_eq!(world.state.status, At::Authorizing);
        world.answer(Out::Unavailable, Some("connect"));
        world.answer(Out::Unavailable, Some("connect"));
        if attempt < 8 {
            assert_eq!(world.timer_ms, Some(world.now_ms + retry::backoff_ms(attempt)));
        }
        world.fire();
    }
    assert_eq!(world.requests.len(), 8);
    assert!(world.requests.iter().all(|it| it.request_key == world.requests[0].request_key));
    assert!(world.requests.iter().all(|it| it.first_asked_at_ms == world.requests[0].first_asked_at_ms));
    assert_eq!(world.state.status, At::Failed);
    assert_eq!(world.state.failure_code.as_deref(), Some("provider_unavailable"));
}

#[test]
fn an_open_breaker_does_not_count_as_an_attempt() {
    let mut world = run(AUTO, &[]);
    for _ in 0..20 {
        world.answer(Out::Unavailable, Some("breaker_open"));
        world.fire();
        assert_eq!(world.requests.last().unwrap().attempt, 1);
    }
    world.answer(Out::Captured, None);
    assert_eq!(world.state.status, At::Captured);
}

#[test]
fn what_may_have_happened_is_never_given_up() {
    let mut world = run(AUTO, &[Answer(Out::Unknown)]);
    for _ in 0..20 {
        world.fire();
        world.answer(Out::Unavailable, None);
    }
    assert_eq!(world.state.status, At::Authorizing);
    assert_eq!(world.timer_ms, Some(world.now_ms + retry::BACKOFF_MAX_MS));
    assert_eq!(world.operations(), [Op::Authorize]);
}

#[test]
fn money_that_goes_back_is_never_given_up() {
    let refund: &[Step] = &[Answer(Out::Captured), Refund("r1", None)];
    let unwinding: &[Step] = &[Answer(Out::Captured), Cancel];
    for steps in [refund, unwinding] {
        let mut world = run(AUTO, steps);
        for _ in 0..12 {
            world.answer(Out::Unavailable, None);
            world.fire();
        }
        assert_eq!(world.requests.last().unwrap().attempt, 13, "{steps:?}");
        world.answer(Out::Refunded, None);
        assert_eq!(world.state.status, At::Refunded, "{steps:?}");
    }
}

#[test]
fn a_capture_given_up_that_happened_after_all_is_taken_in() {
    let mut world = run(MANUAL, &[Answer(Out::Authorized), Capture(None)]);
    let late = answer_to(world.requests.last().unwrap(), Out::Captured, None);
    for _ in 0..8 {
        world.answer(Out::Unavailable, None);
        world.fire();
    }
    assert_eq!(world.state.status, At::Authorized);
    world.result(late);
    assert_eq!(world.state.status, At::Captured);
}

/// Repeats of "unavailable" that are taken for the answer to a later attempt, which then turns out to have happened.
#[test]
fn what_was_given_up_too_soon_is_found_again() {
    for (late, last) in [(Out::Unknown, Out::Cancelled), (Out::RequiresAction, Out::Cancelled)] {
        let mut world = run(AUTO, &[Answer(Out::Unavailable), Fire]);
        world.answer(Out::Unavailable, None);
        world.cancelled();
        assert_eq!(world.state.status, At::Cancelled);
        let retried = world.requests[1].clone();
        world.result(answer_to(&retried, late, None));
        assert_eq!(world.operations(), [Op::Authorize, Op::Cancel], "{late:?}");
        world.answer(last, None);
        assert_eq!((world.state.status, &world.state.pending), (At::Cancelled, &None));
    }

    let mut capture = run(MANUAL, &[Answer(Out::Authorized), Capture(None)]);
    let asked = capture.requests[1].clone();
    for _ in 0..8 {
        capture.answer(Out::Unavailable, None);
        capture.fire();
    }
    capture.result(answer_to(&asked, Out::Unknown, None));
    assert_eq!(capture.requests.last().unwrap().request_key, asked.request_key);
    capture.answer(Out::Captured, None);
    assert_eq!((capture.state.status, capture.state.captured_minor), (At::Captured, TOTAL));
}

#[test]
fn answers_for_another_request_or_payment_are_ignored() {
    let mut world = run(AUTO, &[]);
    let before = world.state.clone();
    let mut stale = answer_to(&world.requests[0], Out::Captured, None);
    stale.request_key = "key_other".into();
    world.result(stale);
    let mut foreign = answer_to(&world.requests[0], Out::Captured, None);
    foreign.payment_id = "pay_other".into();
    world.result(foreign);
    assert_eq!(world.state, before);
    assert!(world.events.is_empty());
}

#[test]
fn nothing_to_pay_confirms_without_a_request() {
    let mut world = World::new(MANUAL, 0);
    world.reserved();
    assert_eq!(world.state.status, At::NotNeeded);
    assert!(world.requests.is_empty());
    assert!(matches!(&world.events[..], [OrderEventPayload::PaymentCaptured(it)]
        if it.confirms && it.amount_minor == 0 && it.payment_id.is_empty()));
    world.cancelled();
    world.webhook("", Out::Captured);
    assert!(world.requests.is_empty());
}

#[test]
fn a_dead_order_never_starts_to_pay() {
    let mut world = World::new(AUTO, TOTAL);
    world.cancelled();
    world.reserved();
    assert!(world.requests.is_empty() && world.events.is_empty());
}

fn verdict(answer: RuleAnswer) -> Verdict {
    let rule = RuleRef { name: "fraud".into(), version: "3".into(), digest: "d".into(), also: Vec::new() };
    Verdict::new(rule, answer)
}

#[test]
fn the_risk_rule_refuses_or_stands_in_the_events() {
    let mut refused = World::new(AUTO, TOTAL);
    refused.verdict = Some(verdict(RuleAnswer::Refuse { code: "too_risky".into(), message: "No.".into() }));
    refused.reserved();
    assert!(refused.requests.is_empty());
    assert!(matches!(&refused.events[..], [OrderEventPayload::PaymentFailed(it)]
        if it.code == "too_risky" && it.message == "No." && it.rule.is_some() && it.operation == Op::Authorize));

    for (capture, outcome) in [(AUTO, Out::Captured), (MANUAL, Out::Authorized)] {
        let mut approved = World::new(capture, TOTAL);
        approved.verdict = Some(verdict(RuleAnswer::Approve));
        approved.reserved();
        approved.verdict = None;
        approved.answer(outcome, None);
        let rule = match approved.events.last().unwrap() {
            OrderEventPayload::PaymentCaptured(it) => it.rule.clone(),
            OrderEventPayload::PaymentAuthorized(it) => it.rule.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(rule.unwrap().name, "fraud");
    }
}

#[test]
fn an_order_that_is_to_be_looked_at_is_only_authorized_until_somebody_captures_it() {
    let mut world = World::new(AUTO, TOTAL);
    world.verdict = Some(Verdict { review: Some("five cards today".into()), ..verdict(RuleAnswer::Approve) });
    world.reserved();
    world.verdict = None;
    assert_eq!(world.requests.last().unwrap().capture, MANUAL);
    world.answer(Out::Authorized, None);
    let OrderEventPayload::PaymentAuthorized(it) = world.events.last().unwrap() else { panic!("authorized") };
    assert_eq!((it.capture, it.review.as_deref()), (MANUAL, Some("five cards today")));
    assert_eq!(it.rule.as_ref().unwrap().name, "fraud");
    assert!(!it.confirms(), "it is not confirmed before somebody has looked");
    assert_eq!(world.state.status, At::Authorized);
    world.capture(None);
    world.answer(Out::Captured, None);
    let OrderEventPayload::PaymentCaptured(it) = world.events.last().unwrap() else { panic!("captured") };
    assert!(it.confirms, "to capture is to approve");
}

#[test]
fn a_review_outlasts_a_capture_that_fails_and_ends_with_its_authorization() {
    for capture in [AUTO, MANUAL] {
        let mut world = World::new(capture, TOTAL);
        world.verdict = Some(Verdict { review: Some("odd".into()), ..verdict(RuleAnswer::Pass) });
        world.reserved();
        world.verdict = None;
        world.answer(Out::Authorized, None);
        world.capture(None);
        world.answer(Out::Declined, Some("insufficient_funds"));
        assert_eq!(world.state.status, At::Authorized, "{capture:?}: it may be captured again");
        world.webhook("", Out::Cancelled);
        assert!(
            matches!(world.events.last().unwrap(), OrderEventPayload::PaymentFailed(it)
            if it.operation == Op::Authorize),
            "{capture:?}: {:?}",
            world.kinds()
        );
    }
}

#[test]
fn the_risk_rule_is_asked_once_per_payment() {
    let reserved = OrderEventPayload::OrderReserved(OrderReserved {
        holds: Vec::new(),
        expires_at_ms: 0,
        rule: None,
        review: None,
    });
    let order = PricedOrder { total_minor: TOTAL, ..PricedOrder::default() };
    let facts = Facts {
        now_ms: 0,
        tenant: "demo",
        order_id: "ord_1",
        input_id: "cmd_1",
        verdict: None,
        order: Some(&order),
        catalog: &NoCatalog,
        holds: &[],
    };
    let fresh = World::new(AUTO, TOTAL).state;
    let call = Payment::rule_call(&fresh, OrderInput::Event(&reserved), &facts);
    assert!(matches!(call, Some(RuleCall::Risk(it)) if it.total_minor == TOTAL));
    let begun = run(AUTO, &[]).state;
    assert_eq!(Payment::rule_call(&begun, OrderInput::Event(&reserved), &facts), None);
}
