//! What becomes of the money of an order that ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod common;

use common::TOTAL;
use common::steps::{
    AUTO, Answer, Cancel, Capture, Coded, Fire, MANUAL, Refund, Scenario, Webhook, check, scenario,
};
use tillstream_schemas::order_command::{PaymentOperation as Op, PaymentOutcome as Out};
use tillstream_schemas::order_state::PaymentStatus as At;

const DEAD_ORDERS: &[Scenario] = &[
    scenario(
        "captured: refunded",
        AUTO,
        &[Answer(Out::Captured), Cancel, Cancel, Answer(Out::Refunded)],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund],
        &["payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "in flight: the late capture is refunded",
        AUTO,
        &[Cancel, Answer(Out::Captured), Answer(Out::Refunded)],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund],
        &["payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "in flight: the late authorization is given up and never said",
        MANUAL,
        &[Cancel, Answer(Out::Authorized), Answer(Out::Cancelled)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Cancel],
        &["payment.cancelled"],
    ),
    scenario(
        "in flight: declined leaves nothing to do",
        AUTO,
        &[Cancel, Answer(Out::Declined)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize],
        &["payment.cancelled"],
    ),
    scenario(
        "in flight: what did not happen is not asked again",
        AUTO,
        &[Cancel, Answer(Out::Unavailable), Fire],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize],
        &["payment.cancelled"],
    ),
    scenario(
        "waiting for a retry: dropped",
        AUTO,
        &[Answer(Out::Unavailable), Cancel, Fire],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize],
        &["payment.cancelled"],
    ),
    scenario(
        "waiting for a retry, but it may have happened: asked again, then refunded",
        AUTO,
        &[
            Answer(Out::Unknown),
            Cancel,
            Answer(Out::Unavailable),
            Fire,
            Answer(Out::Captured),
            Answer(Out::Refunded),
        ],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Refund],
        &["payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "the customer is still to act: cancelled at the provider",
        AUTO,
        &[Answer(Out::RequiresAction), Cancel, Answer(Out::Cancelled)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Cancel],
        &["payment.action_required", "payment.cancelled"],
    ),
    scenario(
        "in flight: an action nobody needs any more",
        AUTO,
        &[Cancel, Answer(Out::RequiresAction), Answer(Out::Cancelled)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Cancel],
        &["payment.cancelled"],
    ),
    scenario(
        "authorized: given up",
        MANUAL,
        &[Answer(Out::Authorized), Cancel, Answer(Out::Unknown), Fire, Answer(Out::Cancelled)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Cancel],
        &["payment.authorized", "payment.cancelled"],
    ),
];

#[test]
fn a_dead_order_gives_everything_back() {
    check(DEAD_ORDERS);
}

const RACES: &[Scenario] = &[
    scenario(
        "the capture wins",
        MANUAL,
        &[Answer(Out::Authorized), Capture(Some(400)), Cancel, Answer(Out::Captured), Answer(Out::Refunded)],
        At::Refunded,
        (0, 400, 400),
        &[Op::Authorize, Op::Capture, Op::Refund],
        &["payment.authorized", "payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "the capture is declined",
        MANUAL,
        &[Answer(Out::Authorized), Capture(None), Cancel, Answer(Out::Declined), Answer(Out::Cancelled)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Capture, Op::Cancel],
        &["payment.authorized", "payment.cancelled"],
    ),
    scenario(
        "the capture never reached the provider",
        MANUAL,
        &[Answer(Out::Authorized), Capture(None), Answer(Out::Unavailable), Cancel, Answer(Out::Cancelled)],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Capture, Op::Cancel],
        &["payment.authorized", "payment.cancelled"],
    ),
    scenario(
        "the customer authenticates while the cancel is under way: declined, so refunded",
        AUTO,
        &[
            Answer(Out::RequiresAction),
            Cancel,
            Coded(Out::Declined, "already_captured"),
            Answer(Out::Refunded),
        ],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Cancel, Op::Refund],
        &["payment.action_required", "payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "the same, told by webhook first: the refund waits for the cancel's answer",
        AUTO,
        &[
            Answer(Out::RequiresAction),
            Cancel,
            Webhook(Out::Captured),
            Coded(Out::Declined, "already_captured"),
            Answer(Out::Refunded),
        ],
        At::Refunded,
        (0, TOTAL, TOTAL),
        &[Op::Authorize, Op::Cancel, Op::Refund],
        &["payment.action_required", "payment.captured", "payment.refund_requested", "payment.refunded"],
    ),
    scenario(
        "nothing to cancel any more",
        AUTO,
        &[Answer(Out::RequiresAction), Cancel, Coded(Out::Declined, "already_cancelled")],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Cancel],
        &["payment.action_required", "payment.cancelled"],
    ),
    scenario(
        "the provider does not know the payment: there is nothing to cancel",
        AUTO,
        &[Answer(Out::RequiresAction), Cancel, Coded(Out::Declined, "resource_missing")],
        At::Cancelled,
        (0, 0, 0),
        &[Op::Authorize, Op::Cancel],
        &["payment.action_required", "payment.cancelled"],
    ),
    scenario(
        "a refund under way counts, and what it leaves goes back too",
        AUTO,
        &[
            Answer(Out::Captured),
            Refund("r1", Some(300)),
            Cancel,
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
];

#[test]
fn a_cancel_that_races_a_capture_ends_refunded_or_voided() {
    check(RACES);
}
