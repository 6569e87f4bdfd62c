//! A hook's question as a rule in JavaScript sees it: names in camel case, attributes as an object, settings as an object.

use crate::bindings::exports::tillstream::rules as hooks;
use crate::bindings::tillstream::rules::types;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Order<'a> {
    id: &'a str,
    placed_at: i64,
    currency: &'a str,
    customer: Option<Customer<'a>>,
    destination: Destination<'a>,
    metadata: Attributes<'a>,
    settings: &'a RawValue,
}

#[derive(Serialize)]
struct Customer<'a> {
    id: &'a str,
    attributes: Attributes<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination<'a> {
    country: &'a str,
    region: Option<&'a str>,
    city: Option<&'a str>,
    postal_code: Option<&'a str>,
}

/// Every name stands once.
struct Attributes<'a>(&'a [types::Attribute]);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for it in self.0 {
            map.serialize_entry(&it.name, &it.value)?;
        }
        map.end()
    }
}

/// A JSON text without settings.
const NONE: &str = "{}";

fn order(it: &types::Order) -> Order<'_> {
    // The host has read them: what is no JSON is no settings.
    let settings = serde_json::from_str(&it.settings).or_else(|_| serde_json::from_str(NONE));
    Order {
        id: &it.id,
        placed_at: it.placed_at,
        currency: &it.currency,
        customer: it
            .customer
            .as_ref()
            .map(|it| Customer { id: &it.id, attributes: Attributes(&it.attributes) }),
        destination: Destination {
            country: &it.destination.country,
            region: it.destination.region.as_deref(),
            city: it.destination.city.as_deref(),
            postal_code: it.destination.postal_code.as_deref(),
        },
        metadata: Attributes(&it.metadata),
        settings: settings.unwrap_or(RawValue::NULL),
    }
}

#[derive(Serialize)]
pub struct Lines<'a, L> {
    order: Order<'a>,
    lines: Vec<L>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceLine<'a> {
    sku: &'a str,
    quantity: i64,
    unit_price: i64,
    discount: i64,
    tax_rate: &'a str,
    category: Option<&'a str>,
}

pub fn price(it: &hooks::price::Request) -> Lines<'_, PriceLine<'_>> {
    let lines = it.lines.iter().map(|it| PriceLine {
        sku: &it.sku,
        quantity: it.quantity,
        unit_price: it.unit_price,
        discount: it.discount,
        tax_rate: &it.tax_rate,
        category: it.category.as_deref(),
    });
    Lines { order: order(&it.order), lines: lines.collect() }
}

#[derive(Serialize)]
pub struct GoodsLine<'a> {
    sku: &'a str,
    quantity: i64,
    category: Option<&'a str>,
}

pub fn allocate(it: &hooks::allocate::Request) -> Lines<'_, GoodsLine<'_>> {
    let lines = it.lines.iter();
    let lines =
        lines.map(|it| GoodsLine { sku: &it.sku, quantity: it.quantity, category: it.category.as_deref() });
    Lines { order: order(&it.order), lines: lines.collect() }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Risk<'a> {
    order: Order<'a>,
    total: i64,
    units: i64,
    lines: u32,
    payment_method: &'a str,
}

pub fn risk(it: &hooks::risk::Request) -> Risk<'_> {
    Risk {
        order: order(&it.order),
        total: it.total,
        units: it.units,
        lines: it.lines,
        payment_method: &it.payment_method,
    }
}

#[derive(Serialize)]
struct Held<'a> {
    location: &'a str,
    quantity: i64,
}

#[derive(Serialize)]
pub struct ShipLine<'a> {
    sku: &'a str,
    quantity: i64,
    category: Option<&'a str>,
    held: Vec<Held<'a>>,
}

#[derive(Serialize)]
pub struct Ship<'a> {
    order: Order<'a>,
    lines: Vec<ShipLine<'a>>,
    carrier: Option<&'a str>,
}

pub fn ship(it: &hooks::ship::Request) -> Ship<'_> {
    let lines = it.lines.iter().map(|it| ShipLine {
        sku: &it.sku,
        quantity: it.quantity,
        category: it.category.as_deref(),
        held: it.held.iter().map(|it| Held { location: &it.location, quantity: it.quantity }).collect(),
    });
    Ship { order: order(&it.order), lines: lines.collect(), carrier: it.carrier.as_deref() }
}

#[derive(Serialize)]
pub struct MeasureLine<'a> {
    sku: &'a str,
    quantity: i64,
    gross: i64,
    discount: i64,
    category: Option<&'a str>,
}

#[derive(Serialize)]
pub struct Measure<'a> {
    order: Order<'a>,
    total: i64,
    lines: Vec<MeasureLine<'a>>,
}

pub fn measure(it: &hooks::measure::Request) -> Measure<'_> {
    let lines = it.lines.iter().map(|it| MeasureLine {
        sku: &it.sku,
        quantity: it.quantity,
        gross: it.gross,
        discount: it.discount,
        category: it.category.as_deref(),
    });
    Measure { order: order(&it.order), total: it.total, lines: lines.collect() }
}
