//! Properties over random interleavings: queues are delivered in any order (each in its own order), messages come
//! twice, calls go wrong, and merchants cancel, capture, refund, ship and return at any moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod world;

use proptest::prelude::*;
use std::sync::Arc;
use tillstream_order_view::{Past, as_of};
use tillstream_schemas::Topic;
use tillstream_schemas::order_command::{
    CancelOrder, CaptureMode, CapturePayment, CreateShipment, DeliverShipment, IssueCredit,
    OrderCommandPayload as Payload, RefundOrder, ReturnLine, ReturnOrder, ShipmentLine,
};
use tillstream_schemas::order_event::RuleRef;
use tillstream_schemas::order_state::{OrderState, OrderStatus, PaymentStatus, Refund, RefundStatus};
use tillstream_stage::rule::{Hook, Hooks, RuleAnswer, RuleCall, RuleHost, RuleOutcome, Verdict};
use world::commands::{command, line, place};
use world::provider::Fault;
use world::{Delivery, World};

const SKUS: [&str; 4] = ["A", "B", "C", "D"];
const METHODS: [&str; 4] =
    ["pm_card_visa", "pm_card_chargeDeclined", "pm_card_authenticationRequired", "pm_sandbox_timeout"];
const REPEATED: [Topic; 3] = [Topic::OrderCommands, Topic::ItemCommands, Topic::EffectRequests];

#[derive(Clone, Debug)]
enum Action {
    Place { order: u8, lines: Vec<(u8, i64)>, method: u8, manual: bool, body: u8 },
    Cancel { order: u8, id: u8 },
    Capture { order: u8, id: u8, amount: Option<i64> },
    Refund { order: u8, id: u8, amount: Option<i64> },
    Return { order: u8, id: u8, sku: u8, restock: bool },
    Credit { id: u8, sku: u8 },
    Ship { order: u8, id: u8, sku: Option<u8> },
    Arrive { order: u8, id: u8 },
    Authenticate { order: u8, succeeds: bool },
    Adjust { id: u8, sku: u8, delta: i64 },
    Fault(Fault),
    Deliver { queue: u8, records: usize },
    Settle,
    Repeat { topic: u8, records: usize },
    Wait { ms: i64 },
}

fn action() -> impl Strategy<Value = Action> {
    let order = 0..4_u8;
    let id = 0..3_u8;
    let amount = || prop_oneof![Just(None), (1..40_i64).prop_map(Some)];
    let sku = 0..SKUS.len() as u8;
    let lines = prop::collection::vec((sku.clone(), 1..4_i64), 1..4);
    let fault = prop_oneof![Just(Fault::Unavailable), Just(Fault::ReplyLost), Just(Fault::RequestLost)];
    let ms = prop_oneof![Just(0), Just(250), Just(5_000), Just(61_000), Just(901_000)];
    prop_oneof![
        6 => (order.clone(), lines, 0..6_u8, any::<bool>(), 0..8_u8).prop_map(|(order, lines, method, manual, body)| {
            Action::Place { order, lines, method, manual, body }
        }),
        2 => (order.clone(), id.clone()).prop_map(|(order, id)| Action::Cancel { order, id }),
        4 => (order.clone(), id.clone(), amount()).prop_map(|(order, id, amount)| Action::Capture { order, id, amount }),
        4 => (order.clone(), id.clone(), amount()).prop_map(|(order, id, amount)| Action::Refund { order, id, amount }),
        3 => (order.clone(), id.clone(), sku.clone(), any::<bool>())
            .prop_map(|(order, id, sku, restock)| Action::Return { order, id, sku, restock }),
        1 => (id.clone(), sku.clone()).prop_map(|(id, sku)| Action::Credit { id, sku }),
        5 => (order.clone(), id.clone(), prop::option::of(sku.clone()))
            .prop_map(|(order, id, sku)| Action::Ship { order, id, sku }),
        4 => (order.clone(), id.clone()).prop_map(|(order, id)| Action::Arrive { order, id }),
        2 => (order, any::<bool>()).prop_map(|(order, succeeds)| Action::Authenticate { order, succeeds }),
        2 => (id, sku, -5..10_i64).prop_map(|(id, sku, delta)| Action::Adjust { id, sku, delta }),
        2 => fault.prop_map(Action::Fault),
        30 => (any::<u8>(), 1..6_usize).prop_map(|(queue, records)| Action::Deliver { queue, records }),
        5 => Just(Action::Settle),
        3 => (0..3_u8, 1..4_usize).prop_map(|(topic, records)| Action::Repeat { topic, records }),
        3 => ms.prop_map(|ms| Action::Wait { ms }),
    ]
}

/// A risk rule that wants somebody to look at one of the orders.
struct Reviewer;

impl RuleHost for Reviewer {
    fn call(&self, _tenant: &str, order_id: &str, call: &RuleCall) -> RuleOutcome {
        let odd = matches!(call, RuleCall::Risk(_)) && order_id == "o3";
        let rule = RuleRef { name: "odd".into(), version: "1".into(), digest: "0".into(), also: Vec::new() };
        let verdict = Verdict { review: Some("odd".into()), ..Verdict::new(rule, RuleAnswer::Pass) };
        RuleOutcome { verdict: odd.then_some(verdict), ..RuleOutcome::default() }
    }

    fn hooks(&self, _tenant: &str) -> Hooks {
        Hooks::NONE.with(Hook::Risk)
    }
}

fn send(world: &mut World, order: u8, id: &str, body: &str, payload: Payload) {
    let now_ms = world.now_ms;
    world.send(&command(now_ms, id, &format!("o{order}"), body, payload));
}

impl Action {
    fn run(&self, world: &mut World) {
        match self {
            Self::Place { order, lines, method, manual, body } => {
                let capture = if *manual { CaptureMode::Manual } else { CaptureMode::Automatic };
                let lines =
                    lines.iter().map(|(sku, quantity)| line(SKUS[*sku as usize], *quantity, Some(10)));
                let method = METHODS.get(*method as usize).unwrap_or(&METHODS[0]);
                let order_placed = place(world.now_ms, method, capture, lines.collect());
                // Mostly one body, so that a repeat is a repeat; at times another, which is a conflict.
                let body = format!("b{}", body / 7);
                let payload = Payload::PlaceOrder(Box::new(order_placed));
                send(world, *order, &format!("place-{order}"), &body, payload);
            }
            Self::Cancel { order, id } => {
                let payload = Payload::CancelOrder(CancelOrder { reason: None });
                send(world, *order, &format!("cancel-{order}-{id}"), "b", payload);
            }
            Self::Capture { order, id, amount } => {
                let payload = Payload::CapturePayment(CapturePayment { amount_minor: *amount });
                send(world, *order, &format!("capture-{order}-{id}"), &format!("{amount:?}"), payload);
            }
            Self::Refund { order, id, amount } => {
                let refund_id = format!("refund-{order}-{id}");
                let payload = Payload::RefundOrder(RefundOrder {
                    refund_id: refund_id.as_str().into(),
                    amount_minor: *amount,
                    reason: None,
                    refunded_at_ms: None,
                });
                send(world, *order, &refund_id, &format!("{amount:?}"), payload);
            }
            Self::Deliver { queue, records } => {
                let waiting = world.waiting();
                if !waiting.is_empty() {
                    let (topic, partition) = waiting[*queue as usize % waiting.len()];
                    world.deliver(topic, partition, *records);
                }
            }
            Self::Authenticate { order, succeeds } => world.authenticate(&format!("o{order}"), *succeeds),
            Self::Settle => world.settle(),
            Self::Fault(fault) => world.provider.faults.push(*fault),
            Self::Repeat { topic, records } => world.repeat(REPEATED[*topic as usize], *records),
            Self::Wait { ms } => world.wait(*ms),
            Self::Adjust { id, sku, delta } => {
                if *delta != 0 {
                    world.adjust(&format!("adj-{id}-{sku}"), SKUS[*sku as usize], "main", *delta);
                }
            }
            _ => self.run_goods(world),
        }
    }

    fn run_goods(&self, world: &mut World) {
        let returned_at_ms = world.now_ms;
        match self {
            Self::Return { order, id, sku, restock } => {
                let return_id = format!("return-{order}-{id}");
                let line = ReturnLine {
                    sku: SKUS[*sku as usize].into(),
                    quantity: 1,
                    amount_minor: None,
                    restock: *restock,
                };
                let payload = Payload::ReturnOrder(ReturnOrder {
                    return_id: return_id.as_str().into(),
                    lines: vec![line],
                    returned_at_ms,
                    reason: None,
                });
                send(world, *order, &return_id, &format!("{sku}{restock}"), payload);
            }
            Self::Credit { id, sku } => {
                let line = ReturnLine {
                    sku: SKUS[*sku as usize].into(),
                    quantity: 2,
                    amount_minor: Some(15),
                    restock: true,
                };
                let payload = Payload::IssueCredit(IssueCredit {
                    customer: None,
                    currency: "GBP".into(),
                    country: "".into(),
                    lines: vec![line],
                    returned_at_ms,
                    reason: None,
                    metadata: Default::default(),
                });
                let now_ms = world.now_ms;
                world.send(&command(
                    now_ms,
                    &format!("credit-{id}"),
                    &format!("crd{id}"),
                    &sku.to_string(),
                    payload,
                ));
            }
            Self::Ship { order, id, sku } => {
                let shipment_id = format!("ship-{order}-{id}");
                let lines = sku.iter().map(|it| ShipmentLine { sku: SKUS[*it as usize].into(), quantity: 1 });
                let payload = Payload::CreateShipment(CreateShipment {
                    shipment_id: shipment_id.as_str().into(),
                    lines: lines.collect(),
                    carrier: None,
                    tracking: None,
                });
                send(world, *order, &shipment_id, &format!("{sku:?}"), payload);
            }
            Self::Arrive { order, id } => {
                let payload = Payload::DeliverShipment(DeliverShipment {
                    shipment_id: format!("ship-{order}-{id}").into(),
                    delivered_at_ms: None,
                });
                send(world, *order, &format!("deliver-{order}-{id}"), "b", payload);
            }
            _ => unreachable!("handled above"),
        }
    }
}

/// Runs the actions a millisecond apart, and keeps every order as it was after each.
fn run_watched(actions: &[Action]) -> (World, Vec<(i64, Arc<OrderState>)>) {
    let mut world = stocked(2, Delivery { batch: 3, twice: false });
    let mut seen = Vec::new();
    for action in actions {
        world.now_ms += 1;
        action.run(&mut world);
        let now_ms = world.now_ms;
        seen.extend(world.all_orders().into_iter().filter(|it| it.credit.is_none()).map(|it| (now_ms, it)));
    }
    world.now_ms += 1;
    world.finish();
    (world, seen)
}

fn run(partitions: u32, delivery: Delivery, actions: &[Action]) -> World {
    let mut world = stocked(partitions, delivery);
    for action in actions {
        action.run(&mut world);
    }
    world.finish();
    world
}

fn stocked(partitions: u32, delivery: Delivery) -> World {
    let mut world = World::new(partitions, delivery).with_rules(Box::new(Reviewer));
    for (index, sku) in SKUS.iter().enumerate() {
        world.adjust(&format!("stock-{sku}"), sku, "main", 4 * index as i64);
        world.adjust(&format!("stock-{sku}-north"), sku, "north", 3);
    }
    world.settle();
    world
}

/// What the past must tell exactly. A hold or a capture that is only asked for leaves no event.
fn told_of(order: &OrderState) -> impl PartialEq + std::fmt::Debug + use<> {
    let payment = order.payment.clone().unwrap_or_default();
    let settled = |it: &Refund| matches!(it.status, RefundStatus::Succeeded | RefundStatus::Failed);
    let refunds: Vec<_> = payment.refunds.iter().map(|it| (it.refund_id.clone(), settled(it))).collect();
    let shipments = order.fulfillment.clone().unwrap_or_default().shipments;
    let money = (payment.captured_minor, payment.refunded_minor, refunds);
    let phase = order.reservation.as_ref().map(|it| it.phase);
    (order.view.clone(), order.order.clone(), phase, money, shipments)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_ends_consistent(
        partitions in 1..4_u32,
        batch in 1..8_usize,
        twice in prop::bool::weighted(0.3),
        actions in prop::collection::vec(action(), 1..120),
    ) {
        let world = run(partitions, Delivery { batch, twice }, &actions);
        world.audit();
        for order in world.all_orders() {
            if order.credit.is_some() {
                continue;
            }
            let waits = order.view.stage == "review";
            prop_assert!(order.view.status != OrderStatus::Pending || waits, "still pending: {:?}", order);
            prop_assert!(!waits || order.fulfillment.as_ref().is_none_or(|it| it.shipments.is_empty()));
            prop_assert!(order.timers.is_empty());
            if let Some(payment) = &order.payment {
                prop_assert!(payment.pending.is_none(), "in flight: {:?}", payment);
                let unsettled = matches!(
                    payment.status,
                    PaymentStatus::Authorizing
                        | PaymentStatus::RequiresAction
                        | PaymentStatus::Capturing
                        | PaymentStatus::Cancelling
                );
                prop_assert!(!unsettled, "{:?}", payment);
            }
        }
    }

    #[test]
    fn an_order_as_of_a_past_time_is_what_it_was_then(
        actions in prop::collection::vec(action(), 1..80),
    ) {
        let (world, seen) = run_watched(&actions);
        for (time_ms, then) in seen {
            let now = world.all_orders().into_iter().find(|it| it.order_id == then.order_id).unwrap();
            let Past::Known { row, .. } = as_of(&now, time_ms) else {
                panic!("{} is not known at {time_ms}", then.order_id);
            };
            prop_assert_eq!(told_of(&row), told_of(&then));
            prop_assert_eq!(as_of(&now, then.accepted_at_ms - 1), Past::NotYet);
        }
    }

    #[test]
    fn the_same_interleaving_writes_the_same_records(
        batch in 1..8_usize,
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let delivery = Delivery { batch, twice: false };
        let (first, second) = (run(2, delivery, &actions), run(2, delivery, &actions));
        prop_assert_eq!(first.history, second.history);
    }
}
