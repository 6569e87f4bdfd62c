#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! All lines or none, and everything back on every way out.

mod driver;

use driver::{Hold, NOW, Run, authorized, cancelled, captured, failed, line};
use proptest::prelude::*;
use tillstream_reservation::{HOLD_MS, Reservation};
use tillstream_schemas::Text;
use tillstream_schemas::item::ItemCommandPayload;
use tillstream_schemas::order_command::{CaptureMode, OrderCommandPayload, PaymentOperation, StockAnswer};
use tillstream_schemas::order_event::{
    OrderEventPayload, OrderRejected, OrderReturned, PaymentAuthorized, RuleRef,
};
use tillstream_schemas::order_state::{
    HoldStatus, LineKind, PricedOrder, ReservationPhase, ReservationState,
};
use tillstream_stage::facts::{Facts, NoCatalog};
use tillstream_stage::rule::{RuleAnswer, RuleCall, Verdict};
use tillstream_stage::{Decision, OrderInput, OrderStage, TimerName};

const SHELVES: [(&str, i64); 3] = [("A", 10), ("B", 10), ("C", 10)];

fn three() -> Run {
    Run::goods(&[("A", 1), ("B", 2), ("C", 3)], &SHELVES)
}

fn verdict(answer: RuleAnswer) -> Verdict {
    let rule = RuleRef { name: "r".into(), version: "1".into(), digest: "d".into(), also: Vec::new() };
    Verdict::new(rule, answer)
}

#[test]
fn every_distinct_sku_of_goods_is_asked_for_once() {
    let lines = vec![
        line("B", 1, LineKind::Goods),
        line("A", 2, LineKind::Goods),
        line("WRAP", 1, LineKind::Fee),
        line("B", 4, LineKind::Goods),
        line("SHIPPING", 1, LineKind::Shipping),
    ];
    let mut run = Run::new(lines, &SHELVES);
    run.price();
    let asked: Vec<_> = run
        .commands
        .iter()
        .map(|(sku, command)| match command {
            ItemCommandPayload::ReserveStock(it) => (sku.as_str(), it.quantity, it.expires_at_ms),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [("B", 5, NOW + HOLD_MS), ("A", 2, NOW + HOLD_MS)]);
    assert_eq!((run.timer, run.state.phase), (Some(NOW + HOLD_MS), ReservationPhase::Waiting));
    run.price();
    assert_eq!(run.commands.len(), 2, "asked once");
}

#[test]
fn the_last_answer_says_that_the_order_is_reserved() {
    let mut run = three();
    run.price();
    run.drain();
    assert_eq!(run.said(), ["order.priced", "order.reserved"]);
    let OrderEventPayload::OrderReserved(event) = &run.events[1] else { panic!("reserved") };
    assert_eq!((event.holds.len(), event.expires_at_ms), (3, NOW + HOLD_MS));
    assert_eq!((event.holds[2].quantity, event.holds[2].allocations[0].quantity), (3, 3));
    assert_eq!((run.state.phase, run.timer), (ReservationPhase::Held, Some(NOW + HOLD_MS)));
}

#[test]
fn an_order_without_goods_is_reserved_at_once_and_still_expires_unpaid() {
    let mut run = Run::new(vec![line("WRAP", 1, LineKind::Fee)], &[]);
    run.price();
    assert_eq!(run.said(), ["order.priced", "order.reserved"]);
    assert_eq!((run.state.phase, run.commands.len()), (ReservationPhase::Held, 0));
    run.fire();
    assert_eq!((run.count("order.cancelled"), run.state.phase), (1, ReservationPhase::Released));
}

#[test]
fn one_refusal_gives_everything_back_without_waiting_for_the_other_answers() {
    let mut run = Run::goods(&[("A", 1), ("B", 2), ("C", 3)], &[("A", 10), ("B", 1), ("C", 10)]);
    run.price();
    run.stock("A");
    run.stock("B");
    let answers = std::mem::take(&mut run.undelivered);
    answers.into_iter().for_each(|it| run.answer(it));
    assert_eq!(run.said(), ["order.priced", "order.rejected"]);
    let event = run.rejection();
    assert_eq!((event.code.as_str(), event.placed_at_ms), ("out_of_stock", 77));
    assert_eq!(event.skus, ["B"]);
    let statuses: Vec<_> = run.state.holds.iter().map(|it| it.status).collect();
    assert_eq!(statuses, [HoldStatus::Released, HoldStatus::Refused, HoldStatus::Released]);
    run.drain();
    run.assert_given_back(&[("A", 10), ("B", 1), ("C", 10)]);
    assert_eq!(run.count("order.rejected"), 1);
}

#[test]
fn payment_makes_the_holds_sales_once() {
    let confirming: [OrderEventPayload; 2] = [captured(true).into(), authorized(CaptureMode::Manual).into()];
    for event in confirming {
        let mut run = three();
        run.price();
        run.drain();
        run.event(event.clone());
        run.event(event);
        run.event(captured(true));
        run.drain();
        assert_eq!(
            run.commands.iter().filter(|it| matches!(it.1, ItemCommandPayload::CommitStock(_))).count(),
            3
        );
        assert!(run.shelves.values().all(|it| matches!(it.hold, Some((Hold::Sold, _)))));
        assert_eq!((run.state.phase, run.timer), (ReservationPhase::Committed, None));
    }
}

#[test]
fn goods_of_an_order_that_somebody_looks_at_stay_held_without_an_end() {
    let mut run = three();
    run.price();
    run.drain();
    let looked_at = PaymentAuthorized { review: Some("odd".into()), ..authorized(CaptureMode::Manual) };
    run.event(looked_at);
    run.drain();
    assert_eq!((run.state.phase, run.timer), (ReservationPhase::Held, None));
    assert!(run.shelves.values().all(|it| matches!(it.hold, Some((Hold::Open, _)))));
    run.event(captured(true));
    run.drain();
    assert_eq!(run.state.phase, ReservationPhase::Committed);
    assert!(run.shelves.values().all(|it| matches!(it.hold, Some((Hold::Sold, _)))));
}

#[test]
fn what_does_not_confirm_or_end_the_order_leaves_the_holds_alone() {
    let returned =
        OrderReturned { return_id: "ret_1".into(), lines: Vec::new(), amount_minor: 1, returned_at_ms: 1 };
    let events: [OrderEventPayload; 4] = [
        captured(false).into(),
        authorized(CaptureMode::Automatic).into(),
        failed(PaymentOperation::Refund).into(),
        returned.into(),
    ];
    for event in events {
        let mut run = three();
        run.price();
        run.drain();
        let before = run.state.clone();
        run.event(event.clone());
        assert_eq!((&run.state, run.commands.len()), (&before, 3), "{event:?}");
    }
}

/// How far the order got before it ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reached {
    Asked,
    PartlyHeld,
    Held,
    Paid,
}

fn reach(reached: Reached) -> Run {
    let mut run = three();
    run.price();
    if reached == Reached::PartlyHeld {
        run.stock("A");
        let answer = run.undelivered.remove(0);
        run.answer(answer);
    } else if reached != Reached::Asked {
        run.drain();
    }
    if reached == Reached::Paid {
        run.event(captured(true));
        run.stock("B");
    }
    run
}

#[test]
fn every_way_out_gives_everything_back_from_wherever_the_order_was() {
    let rejected = OrderRejected {
        code: "declined_by_rule".into(),
        message: "no".into(),
        skus: Vec::new(),
        placed_at_ms: 77,
        rule: None,
    };
    type WayOut = (&'static str, Box<dyn Fn(&mut Run)>);
    let ways: [WayOut; 4] = [
        ("cancelled", Box::new(|run| run.event(cancelled()))),
        ("declined", Box::new(|run| run.event(failed(PaymentOperation::Authorize)))),
        ("rejected", Box::new(move |run| run.event(rejected.clone()))),
        ("expired", Box::new(Run::fire)),
    ];
    for reached in [Reached::Asked, Reached::PartlyHeld, Reached::Held, Reached::Paid] {
        for (name, end) in &ways {
            let mut run = reach(reached);
            end(&mut run);
            if (reached, *name) == (Reached::Paid, "expired") {
                assert_eq!(run.state.phase, ReservationPhase::Committed, "a paid order has no expiry");
                continue;
            }
            assert_eq!(run.state.phase, ReservationPhase::Released, "{name} {reached:?}");
            end(&mut run);
            run.drain();
            run.assert_given_back(&SHELVES);
        }
    }
}

#[test]
fn an_unpaid_order_is_cancelled_when_its_hold_expires() {
    let mut run = reach(Reached::Held);
    run.fire();
    let Some(OrderEventPayload::OrderCancelled(event)) = run.events.last() else { panic!("cancelled") };
    assert_eq!(event.code, "hold_expired");
}

#[test]
fn a_hold_that_is_confirmed_after_the_order_died_is_given_back_again() {
    let mut run = reach(Reached::Asked);
    run.event(cancelled());
    let before = run.commands.len();
    run.stock("A");
    let answer = run.undelivered.remove(0);
    assert_eq!(answer.refused, None);
    run.answer(answer.clone());
    run.answer(answer);
    let again = &run.commands[before..];
    assert!(again.iter().all(|(sku, it)| sku == "A" && matches!(it, ItemCommandPayload::ReleaseStock(_))));
    assert_eq!(again.len(), 2);
    run.drain();
    run.assert_given_back(&SHELVES);
}

#[test]
fn a_payment_that_comes_after_the_end_sells_nothing() {
    let mut run = reach(Reached::Held);
    run.event(cancelled());
    run.event(captured(true));
    run.drain();
    run.assert_given_back(&SHELVES);
    assert_eq!(run.state.phase, ReservationPhase::Released);
}

#[test]
fn a_refusal_for_another_reason_keeps_its_reason() {
    let mut run = reach(Reached::Asked);
    run.answer(StockAnswer {
        sku: "A".into(),
        quantity: 1,
        refused: Some("hold_expired".into()),
        available: 0,
        allocations: Vec::new(),
    });
    assert_eq!(run.rejection().code, "hold_expired");
}

#[test]
fn a_rule_ranks_the_locations_and_signs_the_reservation() {
    let mut run = three();
    let wanted = [&["shop", "main"][..], &["main"], &[]];
    let placements = wanted.map(|it| it.iter().map(|it| Text::from(*it)).collect()).to_vec();
    run.verdict = Some(verdict(RuleAnswer::Place(placements)));
    run.price();
    for ((_, command), wanted) in run.commands.iter().zip(wanted) {
        let ItemCommandPayload::ReserveStock(it) = command else { panic!("{command:?}") };
        assert!(it.locations.iter().all(|it| it.quantity == 0));
        assert_eq!(it.locations.iter().map(|it| it.location.as_str()).collect::<Vec<_>>(), wanted);
    }
    let rule = run.verdict.take().map(|it| it.rule);
    run.drain();
    let Some(OrderEventPayload::OrderReserved(event)) = run.events.last() else { panic!("reserved") };
    assert_eq!(event.rule, rule);
}

#[test]
fn a_rule_may_refuse_before_anything_is_asked() {
    let mut run = three();
    run.verdict = Some(verdict(RuleAnswer::Refuse { code: "embargo".into(), message: "no".into() }));
    run.price();
    assert_eq!((run.rejection().code.as_str(), run.commands.len(), run.timer), ("embargo", 0, None));
    assert_eq!(run.rejection().rule, run.verdict.as_ref().map(|it| it.rule.clone()));
    run.price();
    assert_eq!(run.count("order.rejected"), 1);
}

fn facts(order: &PricedOrder) -> Facts<'_> {
    Facts {
        now_ms: NOW,
        tenant: "demo",
        order_id: "ord_1",
        input_id: "cmd_1",
        verdict: None,
        order: Some(order),
        catalog: &NoCatalog,
        holds: &[],
    }
}

#[test]
fn the_allocate_rule_is_asked_once_about_goods_only() {
    let mut run = Run::new(
        vec![line("A", 1, LineKind::Goods), line("WRAP", 1, LineKind::Fee), line("A", 2, LineKind::Goods)],
        &SHELVES,
    );
    let order = run.order.clone();
    let event = OrderEventPayload::from(run.priced.clone());
    let call =
        |state: &ReservationState| Reservation::rule_call(state, OrderInput::Event(&event), &facts(&order));
    let Some(RuleCall::Allocate(input)) = call(&run.state) else { panic!("asked") };
    let lines: Vec<_> = input.lines.iter().map(|it| (it.sku.as_str(), it.quantity)).collect();
    assert_eq!(lines, [("A", 3)]);
    run.price();
    assert_eq!(call(&run.state), None);
    let fee = Run::new(vec![line("WRAP", 1, LineKind::Fee)], &[]);
    let event = OrderEventPayload::from(fee.priced.clone());
    assert_eq!(Reservation::rule_call(&fee.state, OrderInput::Event(&event), &facts(&order)), None);
}

#[test]
fn before_pricing_nothing_concerns_reservation() {
    let answer = OrderCommandPayload::StockAnswer(StockAnswer {
        sku: "A".into(),
        quantity: 1,
        refused: None,
        available: 0,
        allocations: Vec::new(),
    });
    let cancelled = OrderEventPayload::from(cancelled());
    let captured = OrderEventPayload::from(captured(true));
    for input in [
        OrderInput::Command(&answer),
        OrderInput::Event(&cancelled),
        OrderInput::Event(&captured),
        OrderInput::Timer(TimerName::HoldExpiry),
    ] {
        let decision =
            Reservation::decide(&ReservationState::default(), input, &facts(&PricedOrder::default()))
                .unwrap();
        assert_eq!(decision, Decision::none(), "{input:?}");
    }
}

/// What may happen next. Numbers pick among what is there.
#[derive(Clone, Debug)]
enum Step {
    Stock(usize),
    Answer(usize),
    AnswerAgain(usize),
    Redrive(usize),
    Delay(usize),
    Pay(bool),
    Decline,
    Cancel,
    Expire,
    PriceAgain,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..3).prop_map(Step::Stock),
        8 => (0usize..9).prop_map(Step::Answer),
        2 => (0usize..9).prop_map(Step::AnswerAgain),
        1 => (0usize..3).prop_map(Step::Redrive),
        1 => (0usize..3).prop_map(Step::Delay),
        2 => any::<bool>().prop_map(Step::Pay),
        1 => Just(Step::Decline),
        1 => Just(Step::Cancel),
        1 => Just(Step::Expire),
        1 => Just(Step::PriceAgain),
    ]
}

fn dead(run: &Run) -> bool {
    run.count("order.cancelled") + run.count("order.rejected") + run.count("payment.failed") > 0
}

fn step(run: &mut Run, step: &Step) {
    let sku_of = |index: usize| ["A", "B", "C"][index];
    let held = run.state.phase == ReservationPhase::Held;
    match step {
        Step::Stock(index) => run.stock(sku_of(*index)),
        Step::Answer(index) if !run.undelivered.is_empty() => {
            let index = index % run.undelivered.len();
            let answer = run.undelivered.remove(index);
            run.answer(answer);
        }
        Step::AnswerAgain(index) if !run.answers.is_empty() => {
            run.answer(run.answers[index % run.answers.len()].clone());
        }
        Step::Redrive(index) => {
            let (sku, command) = run.commands[*index].clone();
            run.shelves.get_mut(&sku).expect("a shelf").queue.push_back(command);
        }
        Step::Delay(index) => {
            let queue = &mut run.shelves.get_mut(sku_of(*index)).expect("a shelf").queue;
            if let Some(command) = queue.pop_front() {
                queue.push_back(command);
            }
        }
        Step::Pay(automatic) if held => {
            run.event(if *automatic {
                OrderEventPayload::from(captured(true))
            } else {
                authorized(CaptureMode::Manual).into()
            });
        }
        Step::Decline if held => run.event(failed(PaymentOperation::Authorize)),
        Step::Cancel if !dead(run) => run.event(cancelled()),
        Step::Expire => run.fire(),
        Step::PriceAgain => run.price(),
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_interleaving_ends_with_all_lines_or_none(
        shelves in prop::array::uniform3(0i64..5),
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let shelves = [("A", shelves[0]), ("B", shelves[1]), ("C", shelves[2])];
        let mut run = Run::goods(&[("A", 1), ("B", 1), ("C", 1), ("A", 1)], &shelves);
        run.price();
        for it in &steps {
            step(&mut run, it);
        }
        run.drain();
        prop_assert!(run.count("order.reserved") <= 1);
        prop_assert!(run.count("order.rejected") + run.count("order.cancelled") <= 1, "{:?}", run.said());
        if dead(&run) {
            prop_assert_eq!(run.state.phase, ReservationPhase::Released);
            run.assert_given_back(&shelves);
        } else {
            let paid = run.state.phase == ReservationPhase::Committed;
            let expected = if paid { Hold::Sold } else { Hold::Open };
            prop_assert!(run.shelves.values().all(|it| it.hold.is_some_and(|it| it.0 == expected)), "{:?}", run.shelves);
            prop_assert_eq!(run.timer.is_some(), !paid);
            prop_assert_eq!(run.count("order.reserved"), 1);
        }
    }
}
