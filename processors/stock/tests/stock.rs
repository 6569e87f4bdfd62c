#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
//! What commands do to one SKU: scenarios, and what stays true whatever comes in whatever order.

mod item;

use item::{Item, NOW, adjust, at, commit, product, receive, release, reserve, reserve_at, upsert};
use proptest::prelude::*;
use tillstream_schemas::item::{HoldPhase, ItemCommandPayload, ItemEventPayload, LowStock, ReceiveStock};
use tillstream_stage::task::Outcome;
use tillstream_stock::{ADJUSTMENT_KEPT_MS, UNITS_MAX};

fn with_stock(levels: &[(&str, i64)]) -> Item {
    let mut item = Item::default();
    for (index, (location, units)) in levels.iter().enumerate() {
        let id = format!("seed{index}");
        assert_eq!(item.apply(&id, adjust(location, *units, "f")).outcome, Outcome::Applied);
    }
    item
}

fn refused(item: &mut Item, id: &str, payload: ItemCommandPayload) -> Option<String> {
    item.apply(id, payload).answer.expect("an answer").refused.map(Into::into)
}

#[test]
fn a_hold_becomes_a_sale_and_a_cancelled_sale_becomes_stock() {
    let mut item = with_stock(&[("main", 10)]);
    let held = item.apply("r", reserve("o1", 4));
    assert_eq!(held.answer.unwrap().allocations, [at("main", 4)]);
    assert_eq!(item.levels(), (10, 4, 6));
    item.apply("c", commit("o1"));
    assert_eq!((item.levels(), item.stock().sold), ((6, 0, 6), 4));
    item.apply("x", release("o1"));
    assert_eq!((item.levels(), item.stock().sold), ((10, 0, 10), 0));
}

#[test]
fn all_units_or_none() {
    let mut item = with_stock(&[("main", 3), ("shop", 2)]);
    let answer = item.apply("r1", reserve("o1", 6)).answer.unwrap();
    assert_eq!((answer.refused.as_deref(), answer.available), (Some("out_of_stock"), 5));
    assert_eq!(item.levels(), (5, 0, 5));
    assert_eq!(refused(&mut item, "r2", reserve("o2", 5)), None);
    assert_eq!(item.levels(), (5, 5, 0));
    assert_eq!(refused(&mut Item::default(), "r", reserve("o1", 1)), Some("out_of_stock".into()));
}

#[test]
fn locations_are_chosen_by_preference_then_main_then_most_available_then_name() {
    type Case =
        (&'static [(&'static str, i64)], i64, &'static [&'static str], &'static [(&'static str, i64)]);
    let cases: [Case; 8] = [
        (&[("a", 9), ("main", 5)], 5, &[], &[("main", 5)]),
        (&[("a", 9), ("main", 5)], 6, &[], &[("a", 6)]),
        (&[("a", 9), ("main", 5)], 12, &[], &[("main", 5), ("a", 7)]),
        (&[("a", 2), ("b", 4), ("c", 4)], 7, &[], &[("b", 4), ("c", 3)]),
        (&[("a", 9), ("main", 5)], 5, &["a"], &[("a", 5)]),
        (&[("a", 2), ("b", 9), ("main", 5)], 4, &["a", "b"], &[("b", 4)]),
        (&[("a", 2), ("b", 3), ("main", 5)], 9, &["b", "nowhere", "a"], &[("b", 3), ("a", 2), ("main", 4)]),
        (&[("a", 5), ("b", 5)], 5, &["nowhere"], &[("a", 5)]),
    ];
    for (levels, quantity, preferred, expected) in cases {
        let answer = with_stock(levels).apply("r", reserve_at("o", quantity, preferred)).answer.unwrap();
        let expected: Vec<_> = expected.iter().map(|(name, units)| at(name, *units)).collect();
        assert_eq!(answer.allocations, expected, "{levels:?} {quantity} {preferred:?}");
    }
}

#[test]
fn a_repeated_reserve_gets_the_first_answer_whatever_happened_since() {
    let mut item = with_stock(&[("main", 5)]);
    let first = item.apply("r", reserve("o1", 3)).answer;
    assert_eq!(item.apply("r", reserve("o1", 3)).answer, first, "open");
    item.apply("c", commit("o1"));
    assert_eq!(item.apply("r", reserve("o1", 3)).answer, first, "sold");
    item.apply("x", release("o1"));
    assert_eq!(refused(&mut item, "r", reserve("o1", 3)), Some("hold_released".into()));

    assert_eq!(refused(&mut item, "r2", reserve("o2", 9)), Some("out_of_stock".into()));
    item.apply("more", adjust("main", 100, "f"));
    assert_eq!(refused(&mut item, "r2", reserve("o2", 9)), Some("out_of_stock".into()));
    assert_eq!(item.levels(), (105, 0, 105));
}

#[test]
fn a_reserve_that_comes_too_late_is_refused_even_if_the_clock_goes_back() {
    let mut item = with_stock(&[("main", 5)]);
    item.now_ms = NOW + 1_000_000_000;
    assert_eq!(refused(&mut item, "r", reserve("o1", 1)), Some("hold_expired".into()));
    item.now_ms = NOW;
    assert_eq!(refused(&mut item, "r", reserve("o1", 1)), Some("hold_expired".into()));
    assert_eq!(item.levels(), (5, 0, 5));
}

#[test]
fn a_release_that_overtakes_its_reserve_wins() {
    let mut item = with_stock(&[("main", 5)]);
    assert_eq!(item.apply("x", release("o1")).outcome, Outcome::Applied);
    assert_eq!(refused(&mut item, "r", reserve("o1", 1)), Some("hold_released".into()));
    assert_eq!(item.apply("x", release("o1")).outcome, Outcome::Duplicate);
    assert_eq!(item.levels(), (5, 0, 5));
}

#[test]
fn only_an_open_hold_can_be_sold() {
    let mut item = with_stock(&[("main", 5)]);
    assert_eq!(item.apply("c", commit("o1")).outcome, Outcome::Ignored, "missing");
    item.apply("r", reserve("o1", 9));
    assert_eq!(item.apply("c", commit("o1")).outcome, Outcome::Ignored, "refused");
    assert_eq!(item.apply("x", release("o1")).outcome, Outcome::Duplicate, "refused");
    item.apply("r", reserve("o2", 2));
    item.apply("c", commit("o2"));
    assert_eq!(item.apply("c", commit("o2")).outcome, Outcome::Duplicate, "sold");
    item.apply("x", release("o2"));
    assert_eq!(item.apply("c", commit("o2")).outcome, Outcome::Ignored, "released");
    assert_eq!(item.levels(), (5, 0, 5));
}

#[test]
fn returned_units_of_a_sale_undo_the_sale_where_it_was_sold_from() {
    let mut item = with_stock(&[("main", 2), ("shop", 3)]);
    item.apply("r", reserve("o1", 5));
    item.apply("c", commit("o1"));
    item.apply("ret1", receive("o1", 3));
    let stock = item.stock();
    assert_eq!((stock.sold, stock.received), (2, 5));
    let places: Vec<_> = stock.locations.iter().map(|it| (it.location.as_str(), it.on_hand)).collect();
    assert_eq!(places, [("main", 2), ("shop", 1)]);
    // Giving the sale back now brings the other two units, not five.
    item.apply("x", release("o1"));
    assert_eq!((item.levels(), item.stock().sold), ((5, 0, 5), 0));
}

#[test]
fn returned_units_without_a_sale_are_new_and_counted_once() {
    let mut item = with_stock(&[("main", 2)]);
    item.apply("ret1", receive("crd_1", 4));
    assert_eq!(item.apply("ret1", receive("crd_1", 4)).outcome, Outcome::Duplicate);
    assert_eq!((item.levels(), item.stock().received), ((6, 0, 6), 6));
    let shop = ReceiveStock {
        order_id: "crd_2".into(),
        return_id: "ret_2".into(),
        quantity: 1,
        location: Some("shop".into()),
    };
    item.apply("ret2", ItemCommandPayload::ReceiveStock(shop));
    assert_eq!(item.stock().locations[1].location, "shop");
}

#[test]
fn what_holds_no_stock_takes_none_back() {
    let mut item = Item { product: Some(product(false)), ..Item::default() };
    let decision = item.apply("ret1", receive("crd_1", 4));
    assert_eq!((decision.outcome, decision.stock, decision.adjustment), (Outcome::Ignored, None, None));
}

#[test]
fn an_adjustment_counts_once_and_its_id_is_bound_to_its_body() {
    let mut item = with_stock(&[("main", 5)]);
    let first = item.apply("a1", adjust("main", -2, "f1"));
    assert_eq!(first.forget_adjustment_at_ms, Some(NOW + ADJUSTMENT_KEPT_MS));
    let [ItemEventPayload::StockAdjusted(event)] = first.events.as_slice() else { panic!("one event") };
    assert_eq!((event.delta, event.on_hand), (-2, 3));
    assert_eq!(item.apply("a1", adjust("main", -2, "f1")).outcome, Outcome::Duplicate);
    assert_eq!(refusal(&mut item, "a1", adjust("main", -1, "f2")), "conflict");
    assert_eq!(item.levels(), (3, 0, 3));
}

fn refusal(item: &mut Item, id: &str, payload: ItemCommandPayload) -> String {
    let decision = item.apply(id, payload);
    assert_eq!((decision.outcome, decision.stock, decision.adjustment), (Outcome::Refused, None, None));
    let [ItemEventPayload::AdjustmentRefused(event)] = decision.events.as_slice() else {
        panic!("one event")
    };
    event.code.to_string()
}

#[test]
fn an_adjustment_takes_neither_what_is_held_nor_what_is_not_there() {
    let mut item = with_stock(&[("main", 5), ("shop", 1)]);
    item.apply("r", reserve("o1", 3));
    for (id, location, delta, code) in [
        ("a", "main", -3, "would_be_negative"),
        ("b", "shop", -2, "would_be_negative"),
        ("c", "nowhere", -1, "would_be_negative"),
        ("d", "main", i64::MIN, "overflow"),
        ("e", "main", i64::MAX, "overflow"),
        ("f", "main", UNITS_MAX, "overflow"),
    ] {
        assert_eq!(refusal(&mut item, id, adjust(location, delta, "f")), code, "{location} {delta}");
    }
    assert_eq!(item.apply("g", adjust("main", -2, "f")).outcome, Outcome::Applied);
    assert_eq!(item.apply("a", adjust("main", 1, "f")).outcome, Outcome::Applied, "a refused id is free");
}

#[test]
fn units_that_cannot_be_are_dead_lettered() {
    let mut item = with_stock(&[("main", 5)]);
    for payload in [reserve("o1", 0), reserve("o1", -1), receive("o1", 0), receive("o1", i64::MAX)] {
        assert!(item.try_apply("bad", payload.clone()).is_err(), "{payload:?}");
    }
    assert!(item.try_apply("much", receive("crd_1", UNITS_MAX)).is_err());
    assert_eq!(item.levels(), (5, 0, 5));
}

#[test]
fn low_stock_is_said_once_when_it_falls_below_and_again_after_it_was_back() {
    let mut item = Item::default();
    let mut low = |id: &str, payload: ItemCommandPayload| -> Option<i64> {
        let events = item.apply(id, payload).events;
        events.into_iter().find_map(|it| match it {
            ItemEventPayload::LowStock(LowStock { available, threshold: _ }) => Some(available),
            _ => None,
        })
    };
    assert_eq!(low("p1", upsert(Some(5))), None, "it never had stock");
    assert_eq!(low("a1", adjust("main", 4, "f")), None, "still below");
    assert_eq!(low("a2", adjust("main", 4, "f")), None);
    assert_eq!(low("r1", reserve("o1", 3)), None, "at the threshold");
    assert_eq!(low("r2", reserve("o2", 1)), Some(4));
    assert_eq!(low("r3", reserve("o3", 1)), None, "said already");
    assert_eq!(low("c1", commit("o1")), None);
    assert_eq!(low("x1", release("o3")), None, "still below");
    assert_eq!(low("x2", release("o2")), None, "back");
    assert_eq!(low("r4", reserve("o4", 5)), Some(0));
    assert_eq!(low("p2", upsert(None)), None);
    assert_eq!(low("p3", upsert(Some(1))), Some(0), "the threshold rose above what is there");
}

#[test]
fn the_threshold_is_copied_only_when_it_changes() {
    let mut item = Item::default();
    assert_eq!(item.apply("p1", upsert(None)).stock, None);
    assert_eq!(item.apply("p2", upsert(Some(3))).stock.unwrap().low_stock_threshold, Some(3));
    assert_eq!(item.apply("p3", upsert(Some(3))).stock, None);
    assert_eq!(item.apply("p4", upsert(None)).stock.unwrap().low_stock_threshold, None);
}

/// Commands of few orders, ids and locations, so that repeats, overtaking and conflicts are common.
fn any_command() -> impl Strategy<Value = (String, ItemCommandPayload)> {
    let order_id = prop::sample::select(vec!["o1", "o2", "o3", "o4"]);
    let location = prop::sample::select(vec!["main", "shop", "depot"]);
    prop_oneof![
        4 => (order_id.clone(), 1i64..8, prop::collection::vec(location.clone(), 0..2))
            .prop_map(|(id, units, at)| (format!("r{id}"), reserve_at(id, units, &at))),
        2 => order_id.clone().prop_map(|id| (format!("x{id}"), release(id))),
        2 => order_id.clone().prop_map(|id| (format!("c{id}"), commit(id))),
        2 => (order_id, 0..3, 1i64..6).prop_map(|(id, n, units)| (format!("ret{id}{n}"), receive(id, units))),
        4 => (location, 0..12, -9i64..16)
            .prop_map(|(at, n, delta)| (format!("a{n}"), adjust(at, delta, &format!("{at}{delta}")))),
        1 => prop::option::of(0i64..10).prop_map(|it| ("p".to_owned(), upsert(it))),
    ]
}

proptest! {
    #[test]
    fn the_audit_holds_and_nothing_is_negative_after_any_commands(
        commands in prop::collection::vec(any_command(), 1..120),
    ) {
        let mut item = Item::default();
        for (id, payload) in commands {
            item.apply(&id, payload);
            let stock = item.stock();
            let level = item.levels();
            prop_assert_eq!(stock.received - stock.sold, level.0);
            prop_assert!(stock.sold >= 0);
            for it in &stock.locations {
                prop_assert!(0 <= it.reserved && it.reserved <= it.on_hand, "{:?}", it);
                prop_assert_eq!(it.reserved, item.allocated(HoldPhase::Open, &it.location));
            }
            prop_assert_eq!(stock.sold, item.held(HoldPhase::Committed));
            let low = stock.low_stock_threshold.is_some_and(|it| level.2 < it);
            prop_assert_eq!(stock.low, low);
        }
    }

    #[test]
    fn a_command_given_twice_changes_nothing_the_second_time_and_answers_the_same(
        commands in prop::collection::vec(any_command(), 1..60),
    ) {
        let mut item = Item::default();
        for (id, payload) in commands {
            let first = item.apply(&id, payload.clone());
            let second = item.apply(&id, payload);
            prop_assert_eq!((second.stock, second.hold, second.adjustment), (None, None, None));
            if first.outcome != Outcome::Refused {
                prop_assert!(second.events.is_empty());
            }
            let said = |it: tillstream_schemas::order_command::StockAnswer| (it.refused, it.allocations);
            prop_assert_eq!(second.answer.map(said), first.answer.map(said));
        }
    }

    #[test]
    fn deliveries_and_returns_add_up_in_any_order_with_any_repeats(
        picks in prop::collection::vec(0usize..8, 0..40),
        first in Just((0usize..8).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut item = Item::default();
        for n in first.into_iter().chain(picks) {
            let units = n as i64 + 1;
            let payload = if n % 2 == 0 { adjust("main", units, "f") } else { receive("crd_1", units) };
            item.apply(&format!("id{n}"), payload);
        }
        prop_assert_eq!(item.levels(), (36, 0, 36));
        prop_assert_eq!(item.stock().received, 36);
    }
}
