//! What becomes of goods, scenario by scenario.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use proptest::prelude::*;
use tillstream_fulfillment::Fulfillment;
use tillstream_schemas::Text;
use tillstream_schemas::item::ItemCommandPayload;
use tillstream_schemas::order_command::{
    CancelOrder, CaptureMode, CreateShipment, DeliverShipment, IssueCredit, OrderCommandPayload as Command,
    PaymentOperation, ReturnLine, ReturnOrder, ShipmentLine,
};
use tillstream_schemas::order_event::{
    OrderCancelled, OrderEventPayload as Event, OrderRejected, PaymentAuthorized, PaymentCaptured,
    PaymentFailed, RuleRef,
};
use tillstream_schemas::order_state::{FulfillmentState, LineKind, PricedLine, PricedOrder};
use tillstream_stage::facts::NoCatalog;
use tillstream_stage::rule::{Parcel, RuleAnswer, RuleCall, Verdict};
use tillstream_stage::{Decision, Facts, OrderInput, OrderStage, StageError};

const NOW: i64 = 1_700_000_000_000;

fn line(sku: &str, kind: LineKind, quantity: i64, unit_price_minor: i64, discount_minor: i64) -> PricedLine {
    PricedLine {
        sku: sku.into(),
        kind,
        quantity,
        unit_price_minor,
        gross_minor: quantity * unit_price_minor,
        discount_minor,
        tax_rate_bp: 0,
        tax_minor: 0,
        product_version: None,
        category: None,
    }
}

/// 5 × A in two lines (500 − 1 paid), 2 × B (20), a fee and a shipping charge.
fn order() -> PricedOrder {
    PricedOrder {
        currency: "GBP".into(),
        country: "GB".into(),
        lines: vec![
            line("A", LineKind::Goods, 3, 100, 1),
            line("A", LineKind::Goods, 2, 100, 0),
            line("B", LineKind::Goods, 2, 10, 0),
            line("WRAP", LineKind::Fee, 1, 7, 0),
            line("SHIPPING", LineKind::Shipping, 1, 50, 0),
        ],
        ..PricedOrder::default()
    }
}

struct World {
    state: FulfillmentState,
    order: Option<PricedOrder>,
    verdict: Option<Verdict>,
    events: Vec<Event>,
    items: Vec<(Text, i64)>,
}

impl World {
    fn new() -> Self {
        let (events, items) = (Vec::new(), Vec::new());
        Self { state: FulfillmentState::default(), order: Some(order()), verdict: None, events, items }
    }

    fn confirmed() -> Self {
        let mut world = Self::new();
        world.event(captured(true));
        world
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            now_ms: NOW,
            tenant: "demo",
            order_id: "ord_1",
            input_id: "cmd_1",
            verdict: self.verdict.as_ref(),
            order: self.order.as_ref(),
            catalog: &NoCatalog,
            holds: &[],
        }
    }

    fn decide(&self, input: OrderInput<'_>) -> Result<Decision<FulfillmentState>, StageError> {
        Fulfillment::decide(&self.state, input, &self.facts())
    }

    fn take(&mut self, decision: Decision<FulfillmentState>) {
        assert!(decision.payment_requests.is_empty() && decision.timers.is_empty());
        if let Some(state) = decision.state {
            assert_ne!(state, self.state, "an unchanged state is not written");
            self.state = state;
        }
        for (sku, command) in decision.item_commands {
            let ItemCommandPayload::ReceiveStock(it) = command else { panic!("{command:?}") };
            assert_eq!((it.order_id.as_str(), it.location), ("ord_1", None));
            self.items.push((sku, it.quantity));
        }
        for event in decision.events {
            let handed_back = self.decide(OrderInput::Event(&event)).unwrap();
            self.events.push(event);
            self.take(handed_back);
        }
    }

    fn event(&mut self, event: Event) {
        let decision = self.decide(OrderInput::Event(&event)).unwrap();
        self.take(decision);
    }

    fn command(&mut self, command: &Command) {
        let decision = self.decide(OrderInput::Command(command)).unwrap();
        self.take(decision);
    }

    fn cancel(&mut self) {
        self.command(&Command::CancelOrder(CancelOrder { reason: None }));
    }

    fn ship(&mut self, id: &str, lines: &[(&str, i64)]) {
        self.command(&ship(id, lines));
    }

    fn deliver(&mut self, id: &str) {
        let command = DeliverShipment { shipment_id: id.into(), delivered_at_ms: Some(NOW - 5) };
        self.command(&Command::DeliverShipment(command));
    }

    fn give_back(&mut self, id: &str, lines: &[(&str, i64, Option<i64>, bool)]) {
        self.command(&give_back(id, lines));
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.events.iter().map(Event::kind).collect()
    }

    fn last_code(&self) -> Option<&str> {
        match self.events.last()? {
            Event::CommandRefused(it) => Some(&it.code),
            _ => None,
        }
    }

    fn amounts(&self) -> Vec<i64> {
        let amount = |it: &Event| match it {
            Event::OrderReturned(it) => Some(it.amount_minor),
            _ => None,
        };
        self.events.iter().filter_map(amount).collect()
    }
}

fn captured(confirms: bool) -> Event {
    PaymentCaptured {
        payment_id: "pay_1".into(),
        amount_minor: 576,
        provider_ref: None,
        confirms,
        rule: None,
    }
    .into()
}

fn authorized(capture: CaptureMode) -> Event {
    PaymentAuthorized {
        payment_id: "pay_1".into(),
        amount_minor: 576,
        capture,
        provider_ref: None,
        rule: None,
        review: None,
    }
    .into()
}

/// The money of an order that somebody is to look at.
fn looked_at() -> Event {
    let Event::PaymentAuthorized(it) = authorized(CaptureMode::Manual) else { unreachable!("as made above") };
    PaymentAuthorized { review: Some("odd".into()), ..it }.into()
}

fn cancelled() -> Event {
    OrderCancelled { code: "requested".into(), message: "m".into() }.into()
}

fn rejected() -> Event {
    let (code, message) = ("out_of_stock".into(), "m".into());
    OrderRejected { code, message, skus: Vec::new(), placed_at_ms: 0, rule: None }.into()
}

fn failed(operation: PaymentOperation) -> Event {
    let (payment_id, code, message) = ("pay_1".into(), "card_declined".into(), "m".into());
    PaymentFailed { payment_id, operation, code, message, rule: None }.into()
}

fn ship(id: &str, lines: &[(&str, i64)]) -> Command {
    Command::CreateShipment(CreateShipment {
        shipment_id: id.into(),
        lines: lines
            .iter()
            .map(|(sku, quantity)| ShipmentLine { sku: (*sku).into(), quantity: *quantity })
            .collect(),
        carrier: Some("merchant's own".into()),
        tracking: Some("T1".into()),
    })
}

fn give_back(id: &str, lines: &[(&str, i64, Option<i64>, bool)]) -> Command {
    let line = |(sku, quantity, amount_minor, restock): &(&str, i64, Option<i64>, bool)| ReturnLine {
        sku: (*sku).into(),
        quantity: *quantity,
        amount_minor: *amount_minor,
        restock: *restock,
    };
    Command::ReturnOrder(ReturnOrder {
        return_id: id.into(),
        lines: lines.iter().map(line).collect(),
        returned_at_ms: 9,
        reason: None,
    })
}

#[test]
fn it_opens_with_the_confirmation_and_closes_with_the_end() {
    let cases: [(&[Event], bool, bool); 11] = [
        (&[captured(true)], true, false),
        (&[captured(false)], false, false),
        (&[authorized(CaptureMode::Manual)], true, false),
        (&[authorized(CaptureMode::Automatic)], false, false),
        (&[looked_at()], false, false),
        (&[looked_at(), captured(true)], true, false),
        (&[captured(true), cancelled()], false, true),
        (&[cancelled(), captured(true)], false, true),
        (&[rejected(), authorized(CaptureMode::Manual)], false, true),
        (&[failed(PaymentOperation::Authorize)], false, true),
        (&[authorized(CaptureMode::Manual), failed(PaymentOperation::Capture)], true, false),
    ];
    for (events, open, closed) in cases {
        let mut world = World::new();
        for event in events {
            world.event(event.clone());
        }
        assert_eq!((world.state.open, world.state.closed), (open, closed), "{events:?}");
    }
}

#[test]
fn a_cancel_is_taken_until_something_shipped() {
    let mut unpaid = World::new();
    unpaid.cancel();
    assert!(matches!(&unpaid.events[..], [Event::OrderCancelled(it)] if it.code == "requested"));
    assert!(unpaid.state.closed);
    unpaid.cancel();
    assert_eq!(unpaid.last_code(), Some("already_ended"));

    let mut paid = World::confirmed();
    paid.cancel();
    assert_eq!(paid.kinds(), ["order.cancelled"]);
    paid.ship("s1", &[]);
    assert_eq!(paid.last_code(), Some("already_ended"));

    let mut shipped = World::confirmed();
    shipped.ship("s1", &[("B", 1)]);
    shipped.cancel();
    assert_eq!(shipped.last_code(), Some("already_shipped"));

    let mut rejected_by_pricing = World::new();
    rejected_by_pricing.order = Some(PricedOrder::default());
    rejected_by_pricing.event(rejected());
    rejected_by_pricing.cancel();
    assert_eq!(rejected_by_pricing.last_code(), Some("already_ended"));

    for order in [None, Some(PricedOrder::default())] {
        let mut nothing = World::new();
        nothing.order = order;
        nothing.cancel();
        assert_eq!(nothing.last_code(), Some("not_cancellable"));
    }
}

#[test]
fn everything_left_ships_when_no_lines_are_named() {
    let mut world = World::confirmed();
    world.ship("s1", &[("A", 1), ("A", 1)]);
    world.ship("s2", &[]);
    let shipped: Vec<(bool, Vec<(&str, i64)>)> = world
        .events
        .iter()
        .map(|it| match it {
            Event::ShipmentShipped(it) => {
                (it.all_shipped, it.lines.iter().map(|it| (it.sku.as_str(), it.quantity)).collect())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shipped, [(false, vec![("A", 2)]), (true, vec![("A", 3), ("B", 2)])]);
    assert_eq!(world.state.shipments[0].shipped_at_ms, NOW);
    world.ship("s3", &[]);
    assert_eq!(world.last_code(), Some("nothing_to_ship"));
}

#[test]
fn a_shipment_is_refused_with_its_reason() {
    let cases: [(&[(&str, i64)], &str); 5] = [
        (&[("A", 6)], "quantity_exceeds_ordered"),
        (&[("A", 3), ("A", 3)], "quantity_exceeds_ordered"),
        (&[("A", 0)], "quantity_not_positive"),
        (&[("WRAP", 1)], "quantity_exceeds_ordered"),
        (&[("other", 1)], "quantity_exceeds_ordered"),
    ];
    for (lines, code) in cases {
        let mut world = World::confirmed();
        world.ship("s1", lines);
        assert_eq!(world.last_code(), Some(code), "{lines:?}");
        assert!(world.state.shipments.is_empty());
    }
    let mut unpaid = World::new();
    unpaid.ship("s1", &[]);
    assert_eq!(unpaid.last_code(), Some("not_confirmed"));
}

#[test]
fn the_order_is_completed_when_all_of_it_has_arrived() {
    let mut world = World::confirmed();
    world.ship("s1", &[("A", 5)]);
    world.deliver("s1");
    assert_eq!(world.kinds(), ["shipment.shipped", "shipment.delivered"]);
    world.ship("s2", &[("B", 1)]);
    world.ship("s3", &[]);
    world.deliver("s3");
    assert!(!world.state.completed);
    world.deliver("s2");
    assert!(matches!(world.events.last().unwrap(), Event::OrderCompleted(it) if it.shipments == 3));
    assert_eq!(world.state.shipments[1].delivered_at_ms, Some(NOW - 5));
    world.deliver("s2");
    assert_eq!(world.last_code(), Some("already_delivered"));
    world.deliver("s9");
    assert_eq!(world.last_code(), Some("unknown_shipment"));
}

#[test]
fn a_repeated_shipment_changes_nothing() {
    let mut world = World::confirmed();
    world.ship("s1", &[("A", 1)]);
    let decision = world.decide(OrderInput::Command(&ship("s1", &[("A", 1)]))).unwrap();
    assert_eq!(decision, Decision::none());
}

#[test]
fn a_return_is_worth_its_share_and_restocks_goods_only() {
    let mut world = World::confirmed();
    world.give_back("r1", &[("A", 1, None, true), ("WRAP", 1, None, true), ("B", 1, Some(3), false)]);
    // A: 499 paid for five, so 99.8 → 100 for the first.
    assert_eq!(world.amounts(), [100 + 7 + 3]);
    assert_eq!(world.items, [(Text::from("A"), 1)]);
    let Event::OrderReturned(event) = &world.events[0] else { panic!() };
    let lines: Vec<_> = event.lines.iter().map(|it| (it.amount_minor, it.restock)).collect();
    assert_eq!(lines, [(Some(100), true), (Some(7), false), (Some(3), false)]);
    assert_eq!(event.returned_at_ms, 9);
    world.give_back("r2", &[("A", 1, None, true), ("A", 3, None, true)]);
    assert_eq!(world.amounts(), [110, 399]);
    world.give_back("r3", &[("A", 1, None, true)]);
    assert_eq!(world.last_code(), Some("quantity_exceeds_ordered"));
    let units = world.state.returned.iter().find(|it| it.sku == "A").unwrap().quantity;
    assert_eq!(units, 5);
}

#[test]
fn a_return_is_refused_whole_with_its_reason() {
    type Lines = &'static [(&'static str, i64, Option<i64>, bool)];
    let cases: [(Lines, &str); 5] = [
        (&[("A", 1, None, true), ("A", 5, None, true)], "quantity_exceeds_ordered"),
        (&[("A", 1, None, true), ("other", 1, Some(5), true)], "quantity_exceeds_ordered"),
        (&[("A", 0, None, true)], "quantity_not_positive"),
        (&[("A", i64::MAX, None, true)], "quantity_exceeds_ordered"),
        (&[("A", 1, Some(-1), true)], "amount_negative"),
    ];
    for (lines, code) in cases {
        let mut world = World::confirmed();
        world.give_back("r1", lines);
        assert_eq!(world.last_code(), Some(code), "{lines:?}");
        assert!(world.items.is_empty() && world.state.returned.is_empty());
    }
    let mut unpaid = World::new();
    unpaid.give_back("r1", &[("A", 1, None, true)]);
    assert_eq!(unpaid.last_code(), Some("not_returnable"));
}

#[test]
fn amounts_out_of_range_are_an_error_not_a_wrong_sum() {
    let world = World::confirmed();
    let command = give_back("r1", &[("A", 1, Some(i64::MAX), false), ("B", 1, Some(i64::MAX), false)]);
    let error = world.decide(OrderInput::Command(&command)).unwrap_err();
    assert!(matches!(error, StageError::Overflow { .. }));
}

#[test]
fn a_credit_restocks_and_says_its_amount() {
    let line =
        |sku: &str, restock| ReturnLine { sku: sku.into(), quantity: 2, amount_minor: Some(30), restock };
    let command = Command::IssueCredit(IssueCredit {
        customer: Some("c-1".into()),
        currency: "GBP".into(),
        country: "GB".into(),
        lines: vec![line("A", true), line("B", false)],
        returned_at_ms: 7,
        reason: None,
        metadata: Default::default(),
    });
    let mut world = World::new();
    world.order = None;
    world.command(&command);
    assert_eq!(world.items, [(Text::from("A"), 2)]);
    assert!(matches!(&world.events[..], [Event::CreditIssued(it)]
        if it.amount_minor == 60 && it.lines.len() == 2 && it.returned_at_ms == 7));
    assert_eq!(world.state, FulfillmentState::default());
}

fn verdict(answer: RuleAnswer) -> Option<Verdict> {
    let rule = RuleRef { name: "carriers".into(), version: "1".into(), digest: "d".into(), also: Vec::new() };
    Some(Verdict::new(rule, answer))
}

#[test]
fn the_ship_rule_chooses_the_carrier_or_refuses() {
    let mut world = World::confirmed();
    let call =
        Fulfillment::rule_call(&world.state, OrderInput::Command(&ship("s1", &[("B", 2)])), &world.facts());
    let Some(RuleCall::Ship(input)) = call else { panic!("{call:?}") };
    let lines: Vec<_> = input.lines.iter().map(|it| (it.goods.sku.as_str(), it.goods.quantity)).collect();
    assert_eq!(lines, [("B", 2)]);
    assert_eq!((input.order.country.as_str(), input.carrier.as_deref()), ("GB", Some("merchant's own")));
    let too_many = ship("s1", &[("B", 3)]);
    assert_eq!(Fulfillment::rule_call(&world.state, OrderInput::Command(&too_many), &world.facts()), None);

    world.verdict = verdict(RuleAnswer::Refuse { code: "embargo".into(), message: "No.".into() });
    world.ship("s1", &[]);
    assert_eq!(world.last_code(), Some("embargo"));
    assert!(matches!(world.events.last().unwrap(), Event::CommandRefused(it)
        if it.rule.as_ref().is_some_and(|it| it.name == "carriers")));

    let parcel = Parcel {
        carrier: Some("post".into()),
        promised_at_ms: Some(NOW + 1),
        contents: vec![(0, 5), (1, 2)],
        ..Parcel::default()
    };
    world.verdict = verdict(RuleAnswer::Split(vec![parcel]));
    world.ship("s1", &[]);
    assert!(matches!(world.events.last().unwrap(), Event::ShipmentShipped(it)
        if it.carrier.as_deref() == Some("post") && it.rule.is_some() && it.promised_at_ms == Some(NOW + 1)));
    assert_eq!(world.state.shipments[0].carrier.as_deref(), Some("post"));
    assert_eq!(world.state.shipments[0].rule, world.verdict.as_ref().map(|it| it.rule.clone()));
}

fn parcel(location: &str, contents: &[(u32, i64)]) -> Parcel {
    Parcel { location: Some(location.into()), contents: contents.to_vec(), ..Parcel::default() }
}

#[test]
fn the_ship_rule_splits_a_shipment_and_every_part_is_a_shipment() {
    let mut world = World::confirmed();
    world.verdict =
        verdict(RuleAnswer::Split(vec![parcel("north", &[(0, 3)]), parcel("south", &[(0, 2), (1, 2)])]));
    world.ship("s1", &[]);
    let shipped: Vec<_> = world
        .events
        .iter()
        .filter_map(|it| match it {
            Event::ShipmentShipped(it) => {
                let units: i64 = it.lines.iter().map(|it| it.quantity).sum();
                Some((it.location.as_deref(), units, it.all_shipped, it.tracking.is_some()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(shipped, [(Some("north"), 3, false, true), (Some("south"), 4, true, false)]);
    let ids: Vec<_> = world.state.shipments.iter().map(|it| it.shipment_id.clone()).collect();
    assert_eq!(ids[0], "s1");
    assert_ne!(ids[0], ids[1]);
    world.ship("s1", &[]);
    assert_eq!(world.state.shipments.len(), 2, "a repeat ships nothing");
    for id in &ids {
        world.deliver(id);
    }
    assert!(matches!(world.events.last().unwrap(), Event::OrderCompleted(it) if it.shipments == 2));
}

#[test]
fn a_split_that_does_not_hold_what_is_shipped_is_passed_over() {
    for parcels in [vec![parcel("north", &[(0, 6), (1, 2)])], vec![parcel("north", &[(0, 5)])], vec![]] {
        let mut world = World::confirmed();
        world.verdict = verdict(RuleAnswer::Split(parcels));
        world.ship("s1", &[]);
        assert!(matches!(world.events.last().unwrap(), Event::ShipmentShipped(it)
            if it.all_shipped && it.rule.is_none() && it.location.is_none()));
    }
}

proptest! {
    #[test]
    fn never_more_than_ordered_ships_or_comes_back(
        acts in prop::collection::vec((0u8..5, prop::sample::select(vec!["A", "B", "WRAP"]), 0i64..5), 0..40),
    ) {
        let mut world = World::confirmed();
        for (index, (act, sku, quantity)) in acts.iter().enumerate() {
            match act {
                0 => world.ship(&format!("s{index}"), &[(sku, *quantity)]),
                1 => world.ship(&format!("s{index}"), &[]),
                2 => world.deliver(&format!("s{}", index.saturating_sub(1))),
                3 => world.cancel(),
                _ => world.give_back(&format!("r{index}"), &[(sku, *quantity, None, true)]),
            }
        }
        for (sku, goods, lines, paid) in [("A", 5, 5, 499), ("B", 2, 2, 20), ("WRAP", 0, 1, 7)] {
            let shipped: i64 = world.state.shipments.iter().flat_map(|it| &it.lines)
                .filter(|it| it.sku == sku).map(|it| it.quantity).sum();
            let back = world.state.returned.iter().filter(|it| it.sku == sku);
            let (returned, amount) = back.fold((0, 0), |sum, it| (sum.0 + it.quantity, sum.1 + it.amount_minor.unwrap()));
            prop_assert!(shipped <= goods && returned <= lines && amount <= paid);
            prop_assert!(returned < lines || amount == paid, "all of it back is all that was paid");
            let restocked: i64 = world.items.iter().filter(|it| it.0 == sku).map(|it| it.1).sum();
            prop_assert_eq!(restocked, if goods > 0 { returned } else { 0 });
        }
        prop_assert!(!world.state.closed || world.state.shipments.is_empty(), "cancelled or shipped, never both");
        let completed = world.kinds().iter().filter(|it| **it == "order.completed").count();
        prop_assert_eq!(completed, usize::from(world.state.completed));
    }
}
