//! What no scenario file can say: limits, stray answers, stale timers, and rows that are forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod world;

use tillstream_schemas::item::ItemCommandPayload;
use tillstream_schemas::order_command::{
    CancelOrder, CaptureMode, OrderCommandPayload as Payload, StockAnswer,
};
use tillstream_schemas::order_state::OrderStatus;
use tillstream_schemas::{Text, Topic, codec, item::ItemCommand};
use tillstream_stage::Table;
use tillstream_tasks::order::MARKS_MAX;
use world::commands::{command, line, place};
use world::{Delivery, START_MS, World};

const CALM: Delivery = Delivery { batch: 100, twice: false };

fn shipped_order() -> World {
    let mut world = World::new(1, CALM);
    world.adjust("adj-1", "A", "main", 10);
    let order = place(START_MS, "pm_card_visa", CaptureMode::Automatic, vec![line("A", 1, Some(5))]);
    world.send(&command(START_MS, "place-o1", "o1", "b", Payload::PlaceOrder(Box::new(order))));
    world.settle();
    world
}

#[test]
fn an_order_takes_a_thousand_commands_and_no_more() {
    let mut world = shipped_order();
    let shipment = tillstream_schemas::order_command::CreateShipment {
        shipment_id: "shp-1".into(),
        lines: Vec::new(),
        carrier: None,
        tracking: None,
    };
    world.send(&command(START_MS, "shp-1", "o1", "b", Payload::CreateShipment(shipment)));
    let cancel = || Payload::CancelOrder(CancelOrder { reason: None });
    for n in 1..MARKS_MAX {
        world.send(&command(START_MS, &format!("cancel-{n}"), "o1", "b", cancel()));
    }
    world.settle();
    let before = world.order("o1").unwrap();
    assert_eq!(before.marks.len(), MARKS_MAX);
    world.send(&command(START_MS, "cancel-too-many", "o1", "b", cancel()));
    world.settle();
    assert_eq!(world.order("o1").unwrap(), before, "nothing changed");
    assert_eq!(world.refusals().last().unwrap(), "too_many_commands");
    world.send(&command(START_MS, "cancel-1", "o1", "b", cancel()));
    let said = world.history.len();
    world.settle();
    assert_eq!(world.history.len(), said, "a repeat is still known as one");
}

#[test]
fn a_hold_for_an_order_that_does_not_exist_is_given_back() {
    let mut world = World::new(1, CALM);
    let answer = |refused: Option<&str>| {
        Payload::StockAnswer(StockAnswer {
            sku: "A".into(),
            quantity: 1,
            refused: refused.map(Text::from),
            available: 0,
            allocations: Vec::new(),
        })
    };
    world.send(&command(START_MS, "cmd-1", "o9", "", answer(None)));
    world.send(&command(START_MS, "cmd-2", "o9", "", answer(Some("out_of_stock"))));
    world.settle();
    let commands: Vec<ItemCommand> = world
        .history
        .iter()
        .filter(|it| it.topic == Topic::ItemCommands)
        .map(|it| codec::decode(&it.value).unwrap())
        .collect();
    assert_eq!(commands.len(), 1, "a refusal holds nothing");
    assert!(matches!(&commands[0].payload, ItemCommandPayload::ReleaseStock(it) if it.order_id == "o9"));
    assert!(!world.knows("o9"));
}

#[test]
fn a_timer_that_was_moved_or_cleared_does_nothing() {
    let mut world = shipped_order();
    let before = world.order("o1").unwrap();
    assert!(before.timers.is_empty() && before.view.status == OrderStatus::Confirmed);
    let stale =
        (START_MS + 1, tillstream_stage::ids::key("demo", "o1"), tillstream_stage::TimerName::HoldExpiry);
    world.orders[0].timers.insert(stale);
    world.wait(2);
    assert_eq!(world.order("o1").unwrap(), before);
    assert_eq!(world.orders[0].counts.inputs["ignored"], 1);
}

#[test]
fn an_adjustment_is_forgotten_after_thirty_days_and_not_before() {
    let mut world = shipped_order();
    let remembered =
        |world: &World| world.items[0].rows.keys().filter(|it| it.table == Table::Adjustment).count();
    assert_eq!(remembered(&world), 1);
    world.wait(tillstream_stock::ADJUSTMENT_KEPT_MS - 1);
    assert_eq!(remembered(&world), 1);
    world.wait(1);
    assert_eq!(remembered(&world), 0);
    assert!(world.items[0].timers.is_empty());
}

#[test]
fn an_order_is_told_on_its_way_once_each() {
    let world = shipped_order();
    let reached: Vec<_> = world.orders[0].counts.reached.iter().map(|it| (*it.0, *it.1)).collect();
    assert_eq!(reached, [("paid", 1), ("priced", 1), ("reserved", 1)]);
}
