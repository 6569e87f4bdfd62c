//! The look finds what it looks for: a sound end has no problems, each spoilt one has.

use super::*;
use serde_json::json;

struct World {
    book: BTreeMap<String, Placed>,
    received: BTreeMap<String, i64>,
    records: BTreeMap<Topic, Vec<Value>>,
    orders: BTreeMap<String, Value>,
    stock: BTreeMap<String, Value>,
    windows: BTreeMap<String, Value>,
    payments: Vec<Value>,
}

impl World {
    /// One order of two lamps for 500, confirmed and paid.
    fn sound() -> Self {
        let event = |version: i64, status: &str, payload: Value| json!({"id": format!("evt_{version}"), "order_id": "ord_1", "version": version, "status": status, "payload": payload});
        let events = vec![
            event(1, "pending", json!({"kind": "OrderPriced"})),
            event(2, "pending", json!({"kind": "OrderReserved"})),
            event(3, "confirmed", json!({"kind": "PaymentCaptured", "amount_minor": 500, "confirms": true})),
        ];
        let requests = vec![
            json!({"id": "eff_1", "order_id": "ord_1", "payload": {"request_key": "key_1", "attempt": 1}}),
        ];
        let sums = json!({"orders": 1, "placed": 1, "priced": 1, "units": 2, "gross": 500});
        let deltas = vec![
            json!({"id": "d1", "windows": [{"minute_start_ms": 60_000, "currency": "GBP", "sums": sums}]}),
        ];
        let ledger = json!([{"posting": 1, "amount_minor": 500}, {"posting": 1, "amount_minor": -500}]);
        let order = json!({
            "order": {"currency": "GBP", "total_minor": 500}, "view": {"status": "confirmed", "version": 3},
            "payment": {"captured_minor": 500, "refunded_minor": 0, "pending": null, "refunds": [], "ledger": ledger},
            "fulfillment": null,
        });
        let placed = Placed { units: [("lamp".to_owned(), 2)].into(), gross: 500, currency: "GBP" };
        Self {
            book: [("ord_1".to_owned(), placed)].into(),
            received: [("lamp".to_owned(), 10)].into(),
            records: [
                (Topic::OrderEvents, events),
                (Topic::EffectRequests, requests),
                (Topic::AnalyticsDeltas, deltas),
            ]
            .into(),
            orders: [("ord_1".to_owned(), order)].into(),
            stock: [("lamp".to_owned(), json!({"locations": [{"on_hand": 8, "reserved": 0}]}))].into(),
            windows: [("w".to_owned(), json!({"currency": "GBP", "sums": sums}))].into(),
            payments: vec![
                json!({"order_id": "ord_1", "captured_minor": 500, "refunded_minor": 0, "charges": [{}]}),
            ],
        }
    }

    fn look(self) -> Vec<String> {
        let seen = Seen {
            book: &self.book,
            received: &self.received,
            tag: "t",
            minute_ms: 60_000,
            records: self.records,
            orders: self.orders,
            stock: self.stock,
            holds: BTreeMap::new(),
            windows: self.windows,
            payments: self.payments,
        };
        let mut findings = Findings::default();
        orders::check(&seen, &mut findings);
        books::check(&seen, &mut findings);
        stock::check(&seen, &mut findings);
        findings.problems
    }

    fn order(&mut self) -> &mut Value {
        self.orders.get_mut("ord_1").expect("the one order")
    }

    fn events(&mut self) -> &mut Vec<Value> {
        self.records.get_mut(&Topic::OrderEvents).expect("its events")
    }
}

#[test]
fn a_sound_end_has_no_problems() {
    assert_eq!(World::sound().look(), Vec::<String>::new());
}

#[test]
fn what_is_spoilt_is_found() {
    type Spoil = fn(&mut World);
    let cases: [(&str, Spoil); 11] = [
        ("priced 2 times", |it| {
            let priced = it.events()[0].clone();
            it.events().push(priced);
        }),
        ("priced 0 times", |it| drop(it.events().remove(0))),
        ("has no row", |it| it.orders.clear()),
        ("still pending", |it| it.order()["view"]["status"] = json!("pending")),
        ("no client placed it", |it| it.events().push(json!({"order_id": "ord_2", "payload": {}}))),
        ("a request stands twice", |it| {
            let requests = it.records.get_mut(&Topic::EffectRequests).expect("its requests");
            requests.push(requests[0].clone());
        }),
        ("charged more than once", |it| it.payments[0]["charges"] = json!([{}, {}])),
        ("the provider says", |it| it.payments[0]["captured_minor"] = json!(1_000)),
        ("the ledger sums to", |it| it.order()["payment"]["ledger"][0]["amount_minor"] = json!(499)),
        ("10 received, but 7 on hand", |it| {
            it.stock.insert("lamp".to_owned(), json!({"locations": [{"on_hand": 7, "reserved": 0}]}));
        }),
        ("windows come to", |it| it.windows.clear()),
    ];
    for (expected, spoil) in cases {
        let mut world = World::sound();
        spoil(&mut world);
        let problems = world.look();
        assert!(problems.iter().any(|it| it.contains(expected)), "{expected}: {problems:?}");
    }
}
