//! A hook's question as a rule in JavaScript sees it: names in camel case, attributes as an object, settings as an object. The
//! fields of each object stand in the order that `quickjs.c` has its layout for.

use crate::bindings::exports::tillstream::rules as hooks;
use crate::bindings::tillstream::rules::types;
use crate::quickjs::{Value, array, attributes, json, null, number, object, string};

fn option(it: &Option<String>) -> Value {
    it.as_deref().map_or_else(null, string)
}

/// Every name stands once.
fn named(it: &[types::Attribute]) -> Value {
    attributes(it.iter().map(|it| (it.name.as_str(), string(&it.value))))
}

fn order(it: &types::Order) -> Value {
    let customer =
        |it: &types::Customer| object([("id", string(&it.id)), ("attributes", named(&it.attributes))]);
    let place = &it.destination;
    object([
        ("id", string(&it.id)),
        ("placedAt", number(it.placed_at)),
        ("currency", string(&it.currency)),
        ("customer", it.customer.as_ref().map_or_else(null, customer)),
        (
            "destination",
            object([
                ("country", string(&place.country)),
                ("region", option(&place.region)),
                ("city", option(&place.city)),
                ("postalCode", option(&place.postal_code)),
            ]),
        ),
        ("metadata", named(&it.metadata)),
        ("settings", json(&it.settings)),
    ])
}

pub fn price(it: &hooks::price::Request) -> Value {
    let line = |it: &hooks::price::Line| {
        object([
            ("sku", string(&it.sku)),
            ("quantity", number(it.quantity)),
            ("unitPrice", number(it.unit_price)),
            ("discount", number(it.discount)),
            ("taxRate", string(&it.tax_rate)),
            ("category", option(&it.category)),
        ])
    };
    object([("order", order(&it.order)), ("lines", array(it.lines.iter().map(line)))])
}

pub fn allocate(it: &hooks::allocate::Request) -> Value {
    let line = |it: &hooks::allocate::Line| {
        object([
            ("sku", string(&it.sku)),
            ("quantity", number(it.quantity)),
            ("category", option(&it.category)),
        ])
    };
    object([("order", order(&it.order)), ("lines", array(it.lines.iter().map(line)))])
}

pub fn risk(it: &hooks::risk::Request) -> Value {
    object([
        ("order", order(&it.order)),
        ("total", number(it.total)),
        ("units", number(it.units)),
        ("lines", number(it.lines.into())),
        ("paymentMethod", string(&it.payment_method)),
    ])
}

pub fn ship(it: &hooks::ship::Request) -> Value {
    let held = |it: &hooks::ship::Held| {
        object([("location", string(&it.location)), ("quantity", number(it.quantity))])
    };
    let line = |it: &hooks::ship::Line| {
        object([
            ("sku", string(&it.sku)),
            ("quantity", number(it.quantity)),
            ("category", option(&it.category)),
            ("held", array(it.held.iter().map(held))),
        ])
    };
    object([
        ("order", order(&it.order)),
        ("lines", array(it.lines.iter().map(line))),
        ("carrier", option(&it.carrier)),
    ])
}

pub fn measure(it: &hooks::measure::Request) -> Value {
    let line = |it: &hooks::measure::Line| {
        object([
            ("sku", string(&it.sku)),
            ("quantity", number(it.quantity)),
            ("gross", number(it.gross)),
            ("discount", number(it.discount)),
            ("category", option(&it.category)),
        ])
    };
    object([
        ("order", order(&it.order)),
        ("total", number(it.total)),
        ("lines", array(it.lines.iter().map(line))),
    ])
}
