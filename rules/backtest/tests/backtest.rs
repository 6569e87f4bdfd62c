//! Backtests over a real log, with rules that are functions: what is counted, what a stop and a restart keep.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use support::{Ask, Empty, Gate, World, order, spec};
use tillstream_rule_backtest::{BacktestError, Spec, Status, recent_questions};
use tillstream_stage::rule::{Hook, RuleCall};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_with_nothing_to_say_changes_no_order_of_the_past() {
    let world = World::start(Ask::Pass).await;
    world.history(&(0..200).map(order).collect::<Vec<_>>()).await;
    let view = world.run(spec("bt_1")).await;
    assert_eq!((view.report.orders, view.report.compared, view.report.changed), (200, 200, 0));
    let money = view.report.money["GBP"];
    assert_eq!(money.before, money.after);
    assert_eq!((money.before.orders, view.progress), (200, 1.0));
    assert_eq!((view.report.duration_ns.max, view.report.fuel.max), (700, 300), "what the rule says it used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_different_is_what_a_sum_by_hand_says() {
    let world = World::start(Ask::TenOffTheFirstLine).await;
    let orders: Vec<_> = (0..300).map(order).collect();
    world.history(&orders).await;
    let view = world.run(spec("bt_1")).await;
    // Lines cost (1 + n % 50) a piece: ten off is at most what the line has.
    let off: i64 = (0..300_i64).map(|n| 10.min((1 + n % 50) * (1 + n % 3))).sum();
    let money = view.report.money["GBP"];
    assert_eq!(money.after.discount_minor - money.before.discount_minor, off);
    assert_eq!(money.margin_difference_minor, -off);
    assert_eq!((view.report.changed, view.report.largest_differences.len()), (300, 50));
    assert!(view.report.largest_differences.iter().all(|it| it.size_minor() == 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_and_weigh_what_the_order_was_worth() {
    let world = World::start(Ask::RefuseOver(100)).await;
    world.history(&(0..300).map(order).collect::<Vec<_>>()).await;
    let view = world.run(spec("bt_1")).await;
    let refused = (0..300_i64).filter(|n| (1 + n % 50) * (1 + n % 3) > 100).count() as u64;
    assert!(refused > 0);
    assert_eq!((view.report.refused_before, view.report.refused_after), (0, refused));
    assert_eq!(view.report.changed, refused);
    let money = view.report.money["GBP"];
    assert_eq!(money.after.orders, 300 - refused);
    assert_eq!(money.margin_difference_minor, 0, "the orders that stay cost the same");
    assert_eq!(view.report.largest_differences[0].refusal.as_deref(), Some("too_large"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_orders_of_the_tenant_and_of_the_time_asked_for_are_looked_at() {
    let world = World::start(Ask::Pass).await;
    let mut orders: Vec<_> = (0..100).map(order).collect();
    orders.extend((0..50).map(|n| support::Past { tenant: "other", ..order(n) }));
    world.history(&orders).await;
    let mut asked = spec("bt_1");
    (asked.from_ms, asked.to_ms) = (Some(20_000), Some(70_000));
    assert_eq!(world.run(asked).await.report.orders, 50, "one order a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_and_commands_without_an_outcome_are_told_apart_from_orders() {
    let world = World::start(Ask::Pass).await;
    let lost = support::Past { has_event: false, ..order(1_000) };
    let mut orders: Vec<_> = (0..100).map(order).collect();
    orders.insert(50, lost);
    // A repeat long after: it has no event of its own.
    orders.push(support::Past { has_event: false, ..order(3) });
    world.history(&orders).await;
    world.garbage().await;
    let view = world.run(spec("bt_1")).await;
    assert_eq!((view.report.orders, view.report.without_outcome), (100, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_that_was_stopped_goes_on_where_it_was_and_counts_no_order_twice() {
    let gate = Gate::closed_after(1_000);
    let world = World::start(Ask::Gated(gate.clone())).await;
    world.history(&(0..6_000).map(order).collect::<Vec<_>>()).await;
    let begun = world.begin(spec("bt_1")).await.unwrap();
    assert_eq!(begun.status, Status::Running);
    gate.reached().await;
    let another = world.begin(spec("bt_2")).await;
    assert!(matches!(another, Err(BacktestError::TooMany(_))), "one per tenant");
    world.backtests.cancel("demo", "r", "bt_1").unwrap();
    gate.open();
    let stopped = world.backtests.get("demo", "r", "bt_1").unwrap();
    assert_eq!(stopped.status, Status::Cancelled);
    assert!(stopped.report.orders < 6_000, "{}", stopped.report.orders);
    world.backtests.resume("demo", "r", "bt_1").await.unwrap();
    let done = world.ended("bt_1").await;
    assert_eq!((done.status, done.report.orders, done.report.compared), (Status::Done, 6_000, 6_000));
    assert_eq!(done.report.money["GBP"].before.orders, 6_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sees_that_one_has_ended_may_begin_the_next() {
    let world = World::start(Ask::Pass).await;
    world.history(&(0..20).map(order).collect::<Vec<_>>()).await;
    for n in 0..50 {
        // Begins it, and waits until its end is seen.
        world.run(spec(&format!("bt_{n}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_when_the_process_ended_goes_on_in_the_next_one() {
    let gate = Gate::closed_after(2_500);
    let world = World::start(Ask::Gated(gate.clone())).await;
    world.history(&(0..6_000).map(order).collect::<Vec<_>>()).await;
    world.begin(spec("bt_1")).await.unwrap();
    gate.reached().await;
    // As a crash leaves it: the file says that it runs.
    let again = world.reopened(Ask::Pass).await;
    assert_eq!(again.get("demo", "r", "bt_1").unwrap().status, Status::Interrupted);
    again.go_on().await;
    let done = support::ended(&again, "bt_1").await;
    assert_eq!((done.status, done.report.orders), (Status::Done, 6_000));
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_cannot_be_asked_begins_nothing() {
    let world = World::start(Ask::NotThere).await;
    let refused = world.begin(spec("bt_1")).await;
    assert!(matches!(refused, Err(BacktestError::NotPossible(_))));
    assert!(world.backtests.list("demo", "r").is_empty());
    assert!(matches!(world.backtests.get("demo", "other", "bt_1"), Err(BacktestError::Unknown(_))));
}

fn at(hook: Hook) -> Spec {
    Spec { hook, ..spec("bt_1") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_measure_hook_what_is_said_is_compared_with_the_dimensions_of_the_past() {
    let world = World::start(Ask::Measure("gold")).await;
    world.history(&(0..300).map(order).collect::<Vec<_>>()).await;
    let report = world.run(at(Hook::Measure)).await.report;
    assert_eq!((report.compared, report.changed), (300, 200), "every third was gold before");
    let money = report.money["GBP"];
    assert_eq!((money.before, money.margin_difference_minor), (money.after, 0), "no money moves");
    let named = &report.largest_differences[0];
    assert_eq!(named.answer_before, None);
    assert_eq!(named.answer_after.as_deref(), Some(r#"{"dimensions":[["tier","gold"]]}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_risk_hook_a_declined_order_loses_its_total() {
    let world = World::start(Ask::DeclineOver(100)).await;
    world.history(&(0..300).map(order).collect::<Vec<_>>()).await;
    let report = world.run(at(Hook::Risk)).await.report;
    let totals = (0..300_i64).map(|n| (1 + n % 50) * (1 + n % 3));
    let (kept, declined): (Vec<i64>, Vec<i64>) = totals.partition(|it| *it <= 100);
    assert_eq!(
        (report.compared, report.changed, report.refused_after),
        (300, declined.len() as u64, declined.len() as u64)
    );
    let money = report.money["GBP"];
    assert_eq!(money.after.total_minor, kept.iter().sum::<i64>());
    assert_eq!(money.before.total_minor, kept.iter().chain(&declined).sum::<i64>());
    assert_eq!(report.largest_differences[0].size_minor(), *declined.iter().max().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_allocate_hook_other_places_are_changes_and_at_the_ship_hook_nothing_begins() {
    let world = World::start(Ask::Place("north")).await;
    world.history(&(0..50).map(order).collect::<Vec<_>>()).await;
    let report = world.run(at(Hook::Allocate)).await.report;
    assert_eq!((report.compared, report.changed, report.refused_after), (50, 50, 0));
    let said = report.largest_differences[0].answer_after.as_deref();
    assert_eq!(said, Some(r#"{"place":[["north"]]}"#));
    let refused = world.begin(Spec { id: "bt_2".to_owned(), ..at(Hook::Ship) }).await;
    let Err(BacktestError::NotPossible(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("where the goods were held"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_orders_of_the_log_are_questions_for_every_hook_that_they_tell_enough_about() {
    let world = World::start(Ask::Pass).await;
    let mut orders: Vec<_> = (0..400).map(order).collect();
    orders.extend((0..50).map(|n| support::Past { tenant: "other", ..order(1_000 + n) }));
    world.history(&orders).await;
    let ask = |hook| recent_questions(world.log(), &Empty, "demo", hook, 20);
    for hook in [Hook::Price, Hook::Allocate, Hook::Risk, Hook::Measure] {
        let found = ask(hook).await.unwrap();
        let ids: Vec<&str> = found.iter().map(|it| it.0.as_str()).collect();
        let newest: Vec<String> = (380..400).rev().map(|n| format!("ord_demo_{n}")).collect();
        assert_eq!(ids, newest, "{hook:?}: the newest first, of the tenant alone");
        assert!(found.iter().all(|it| it.1.hook() == hook));
    }
    let RuleCall::Risk(risk) = &ask(Hook::Risk).await.unwrap()[0].1 else { panic!() };
    assert_eq!((risk.total_minor, risk.units, risk.lines, risk.method.as_str()), (50, 1, 1, "pm_card_visa"));
    assert!(ask(Hook::Ship).await.unwrap().is_empty());
    assert!(recent_questions(world.log(), &Empty, "nobody", Hook::Price, 20).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_a_folder_show_each_others_backtests_and_only_one_runs_each() {
    let gate = Gate::closed_after(1_000);
    let world = World::start(Ask::Gated(gate.clone())).await;
    world.history(&(0..6_000).map(order).collect::<Vec<_>>()).await;
    let beside = world.beside(Ask::Pass).await;
    world.begin(spec("bt_1")).await.unwrap();
    gate.reached().await;
    assert_eq!(beside.get("demo", "r", "bt_1").unwrap().status, Status::Running);
    assert_eq!(beside.list("demo", "r").len(), 1);
    beside.go_on().await;
    assert!(matches!(beside.resume("demo", "r", "bt_1").await, Err(BacktestError::TooMany(_))));
    assert!(matches!(beside.cancel("demo", "r", "bt_1"), Err(BacktestError::TooMany(_))));
    assert!(matches!(beside.get("demo", "r", "../bt_1"), Err(BacktestError::Unknown(_))));
    assert!(matches!(beside.get("other", "r", "bt_1"), Err(BacktestError::Unknown(_))));

    world.backtests.cancel("demo", "r", "bt_1").unwrap();
    gate.open();
    assert_eq!(beside.get("demo", "r", "bt_1").unwrap().status, Status::Cancelled);
    beside.resume("demo", "r", "bt_1").await.unwrap();
    let done = support::ended(&beside, "bt_1").await;
    assert_eq!((done.status, done.report.orders), (Status::Done, 6_000), "no order twice, none left out");
    // Its end is written down a moment after the process that ran it knows of it.
    let shown = support::ended(&world.backtests, "bt_1").await;
    assert_eq!((shown.status, shown.report.orders), (Status::Done, 6_000));
}
