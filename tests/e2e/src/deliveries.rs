//! What a receiver of webhooks may hold the sender to.

use crate::receiver::Received;
use std::collections::{BTreeMap, BTreeSet};

/// What is about orders.
pub fn of_orders(received: &[Received]) -> Vec<Received> {
    received.iter().filter(|it| it.body["data"]["order_id"].is_string()).cloned().collect()
}

/// The events of each order that were taken, in the order in which each was first taken.
pub fn taken(received: &[Received]) -> BTreeMap<String, Vec<String>> {
    let mut orders = BTreeMap::<String, Vec<String>>::new();
    for it in received.iter().filter(|it| it.taken) {
        let order = it.body["data"]["order_id"].as_str().expect("it is text");
        let event = it.body["data"]["id"].as_str().expect("it is text").to_owned();
        let events = orders.entry(order.to_owned()).or_default();
        if !events.contains(&event) {
            events.push(event);
        }
    }
    orders
}

/// No event came before its predecessor was taken, and an event always came under the same message id.
pub fn assert_in_order(received: &[Received]) {
    let mut accepted = BTreeMap::<String, BTreeSet<i64>>::new();
    let mut ids = BTreeMap::<String, String>::new();
    for it in received {
        let data = &it.body["data"];
        let order = data["order_id"].as_str().expect("it is text").to_owned();
        let version = data["version"].as_i64().expect("it is a number");
        let before = accepted.entry(order.clone()).or_default();
        assert!(
            (1..version).all(|it| before.contains(&it)),
            "{order}: {version} came too early, after {before:?}"
        );
        if it.taken {
            before.insert(version);
        }
        let event = data["id"].as_str().expect("it is text").to_owned();
        assert_eq!(*ids.entry(event).or_insert_with(|| it.id.clone()), it.id);
    }
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len(), ids.len(), "two events under one id");
}
