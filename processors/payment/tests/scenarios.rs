//! The ways to the money, and back by refund: one table per theme, one entry per scenario.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use common::TOTAL;
use common::steps::{
    AUTO, Answer, Authorization, Capture, Coded, Fire, MANUAL, Refund, Reserve, Return, Scenario, Webhook,
    check, run, scenario,
};
use tillstream_schemas::order_command::{PaymentOperation as Op, PaymentOutcome as Out};
use tillstream_schemas::order_event::OrderEventPayload;
use tillstream_schemas::order_state::PaymentStatus as At;

const WAYS_TO_THE_MONEY: &[Scenario] = &[
    scenario(
        "captured at once",
        AUTO,
        &[Answer(Out::Captured)],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize],
        &["payment.captured"],
    ),
    scenario(
        "repeated answers and a repeated start change nothing",
        AUTO,
        &[
            Answer(Out::Captured),
            Answer(Out::Captured),
            Authorization(Out::Captured),
            Webhook(Out::Captured),
            Reserve,
        ],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize],
        &["payment.captured"],
    ),
    scenario(
        "declined",
        AUTO,
        &[Coded(Out::Declined, "card_declined")],
        At::Failed,
        (0, 0, 0),
        &[Op::Authorize],
        &["payment.failed"],
    ),
    scenario(
        "an unknown outcome is asked again and charged once",
        AUTO,
        &[Answer(Out::Unknown), Fire, Answer(Out::Captured), Answer(Out::Captured)],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize],
        &["payment.captured"],
    ),
    scenario(
        "a final answer ends the wait for a retry",
        AUTO,
        &[Answer(Out::Unknown), Answer(Out::Captured), Fire],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize],
        &["payment.captured"],
    ),
    scenario(
        "the customer authenticates, told by webhook",
        AUTO,
        &[Answer(Out::RequiresAction), Answer(Out::RequiresAction), Webhook(Out::Captured)],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize],
        &["payment.action_required", "payment.captured"],
    ),
    scenario(
        "the customer authenticates, told under the authorization's key",
        MANUAL,
        &[Answer(Out::RequiresAction), Authorization(Out::Authorized), Authorization(Out::Authorized)],
        At::Authorized,
        (TOTAL, 0, 0),
        &[Op::Authorize],
        &["payment.action_required", "payment.authorized"],
    ),
    scenario(
        "the customer fails to authenticate",
        AUTO,
        &[Answer(Out::RequiresAction), Authorization(Out::Declined), Webhook(Out::Declined)],
        At::Failed,
        (0, 0, 0),
        &[Op::Authorize],
        &["payment.action_required", "payment.failed"],
    ),
    scenario(
        "the webhook comes before the answer",
        AUTO,
        &[Webhook(Out::Captured), Authorization(Out::Captured)],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize],
        &["payment.captured"],
    ),
    scenario(
        "a provider that only authorizes is asked to capture",
        AUTO,
        &[Answer(Out::Authorized), Answer(Out::Captured)],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize, Op::Capture],
        &["payment.authorized", "payment.captured"],
    ),
    scenario(
        "an automatic capture that is declined fails and gives up",
        AUTO,
        &[Answer(Out::Authorized), Coded(Out::Declined, "expired_card"), Answer(Out::Cancelled)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Capture, Op::Cancel],
        &["payment.authorized", "payment.failed", "payment.cancelled"],
    ),
];

#[test]
fn the_ways_to_the_money() {
    check(WAYS_TO_THE_MONEY);
}

const MANUAL_CAPTURE: &[Scenario] = &[
    scenario(
        "all of it",
        MANUAL,
        &[Answer(Out::Authorized), Capture(None), Answer(Out::Captured)],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize, Op::Capture],
        &["payment.authorized", "payment.captured"],
    ),
    scenario(
        "a part of it releases the rest",
        MANUAL,
        &[Answer(Out::Authorized), Capture(Some(300)), Answer(Out::Captured)],
        At::Captured,
        (0, 300, 0),
        &[Op::Authorize, Op::Capture],
        &["payment.authorized", "payment.captured"],
    ),
    scenario(
        "a declined capture may be asked for again, under another key",
        MANUAL,
        &[
            Answer(Out::Authorized),
            Capture(None),
            Coded(Out::Declined, "x"),
            Capture(None),
            Answer(Out::Captured),
        ],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize, Op::Capture, Op::Capture],
        &["payment.authorized", "payment.failed", "payment.captured"],
    ),
    scenario(
        "captured already, says the provider",
        MANUAL,
        &[Answer(Out::Authorized), Capture(None), Coded(Out::Declined, "already_captured")],
        At::Captured,
        (0, TOTAL, 0),
        &[Op::Authorize, Op::Capture],
        &["payment.authorized", "payment.captured"],
    ),
    scenario(
        "an authorization that runs out",
        MANUAL,
        &[Answer(Out::Authorized), Webhook(Out::Cancelled), Capture(None)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize],
        &["payment.authorized", "payment.cancelled", "command.refused"],
    ),
];

#[test]
fn manual_capture() {
    check(MANUAL_CAPTURE);
    let world = run(MANUAL, &[Answer(Out::Authorized), Capture(None), Answer(Out::Captured)]);
    assert!(matches!(world.events.last().unwrap(), OrderEventPayload::PaymentCaptured(it) if !it.confirms));
    let world = run(AUTO, &[Answer(Out::Captured)]);
    assert!(matches!(world.events.last().unwrap(), OrderEventPayload::PaymentCaptured(it) if it.confirms));
}

const REFUNDS: &[Scenario] = &[
    scenario(
        "all that is left",
        AUTO,
        &[Answer(Out::Captured), Refund("r1", None), Answer(Out::Refunded), Answer(Out::Refunded)],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund],
        &["payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "two in a row go one by one",
        AUTO,
        &[
            Answer(Out::Captured),
            Refund("r1", Some(300)),
            Refund("r2", None),
            Answer(Out::Refunded),
            Answer(Out::Refunded),
        ],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund, Op::Refund],
        &[
            "payment.captured",
            "payment.refund_requested",
            "payment.refund_requested",
            "payment.refunded",
            "payment.refunded",
        ],
    ),
    scenario(
        "a repeated id is one refund",
        AUTO,
        &[Answer(Out::Captured), Refund("r1", Some(300)), Refund("r1", Some(300)), Answer(Out::Refunded)],
        At::PartiallyRefunded,
        (0, TOTAL, 300),
        &[Op::Authorize, Op::Refund],
        &["payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "a declined refund frees its amount for the next",
        AUTO,
        &[
            Answer(Out::Captured),
            Refund("r1", None),
            Coded(Out::Declined, "x"),
            Refund("r2", None),
            Answer(Out::Refunded),
        ],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund, Op::Refund],
        &[
            "payment.captured",
            "payment.refund_requested",
            "payment.refund_failed",
            "payment.refund_requested",
            "payment.refunded",
        ],
    ),
    scenario(
        "a return is refunded, capped at what is left",
        AUTO,
        &[
            Answer(Out::Captured),
            Refund("r1", Some(900)),
            Answer(Out::Refunded),
            Return("t1", 500),
            Answer(Out::Refunded),
        ],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund, Op::Refund],
        &[
            "payment.captured",
            "payment.refund_requested",
            "payment.refunded",
            "payment.refund_requested",
            "payment.refunded",
        ],
    ),
    scenario(
        "a return with nothing left is no refund",
        AUTO,
        &[Answer(Out::Captured), Refund("r1", None), Return("t1", 500), Answer(Out::Refunded)],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund],
        &["payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
];

#[test]
fn refunds_queue_and_never_exceed_what_was_captured() {
    check(REFUNDS);
}
