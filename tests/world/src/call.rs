//! What clients call: bodies as they send them, under an Idempotency-Key.

use crate::client::{order_id, sku_name, tenant_name, tenant_of};
use crate::plan::{COUNTRIES, Client as Asked, METHODS, Place};
use serde_json::{Value, json};
use tillstream_ingest_api::bare::{Act, Sent, Written};
use tillstream_ingest_api::moment::to_rfc3339;
use tillstream_schemas::{Text, Topic};

/// Which call.
#[derive(Clone, Debug)]
enum Route {
    Order,
    Act(Act, Text),
    Adjustment(Text),
    Product(Text),
}

/// A call that may be made again.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    route: Route,
    tenant: Text,
    idempotency_key: String,
    body: Value,
}

/// A call as it is made.
pub(crate) struct Sender<'a> {
    pub(crate) traceparent: &'a str,
    pub(crate) now_ms: i64,
}

/// The name of a tax class.
fn class_name(class: u8) -> Option<&'static str> {
    match class {
        1 => Some("standard"),
        2 => Some("reduced"),
        _ => None,
    }
}

/// Leaves out what nobody says.
fn said(mut body: Value) -> Value {
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, it| !it.is_null());
    }
    body
}

fn order(place: &Place, now_ms: i64) -> Value {
    let line = |(sku, quantity, unit_price, discount): &(u8, i64, Option<i64>, i64)| {
        let discount = (*discount != 0).then_some(*discount);
        said(json!({
            "sku": sku_name(*sku).as_str(), "quantity": quantity, "unit_price": unit_price, "discount": discount,
        }))
    };
    let off = match (place.discount_minor, place.discount_bp) {
        (Some(amount), _) => Some(json!([{ "code": "OFF", "amount": amount }])),
        (None, Some(rate_bp)) => Some(json!([{ "code": "OFF", "rate_bp": rate_bp }])),
        (None, None) => None,
    };
    let placed_at = (place.age_ms != 0).then(|| to_rfc3339(now_ms - place.age_ms));
    let shipping = place.shipping_minor.map(|amount| json!({ "amount": amount, "tax_class": "standard" }));
    said(json!({
        "customer": "c-1",
        "currency": "GBP",
        "country": COUNTRIES[usize::from(place.country) % COUNTRIES.len()],
        "placed_at": placed_at,
        "lines": place.lines.iter().map(line).collect::<Vec<_>>(),
        "discounts": off,
        "shipping": shipping,
        "payment": {
            "method": METHODS[usize::from(place.method) % METHODS.len()],
            "capture": if place.manual { "manual" } else { "automatic" },
        },
    }))
}

impl Call {
    /// The call of a step; `None` for what is no call of a client.
    pub(crate) fn of(asked: &Asked, step: u32, now_ms: i64) -> Option<Self> {
        let act = |order: u32, act: Act, body: Value| Self {
            route: Route::Act(act, order_id(order)),
            tenant: tenant_of(order),
            idempotency_key: format!("step-{step}"),
            body: said(body),
        };
        Some(match asked {
            Asked::Place(place) => Self {
                route: Route::Order,
                tenant: tenant_of(place.order),
                idempotency_key: format!("key-{}", place.order),
                body: order(place, now_ms),
            },
            Asked::Cancel { order } => act(*order, Act::Cancel, json!({})),
            Asked::Capture { order, amount_minor } => {
                act(*order, Act::Capture, json!({ "amount": amount_minor }))
            }
            Asked::Refund { order, amount_minor } => {
                act(*order, Act::Refund, json!({ "amount": amount_minor }))
            }
            Asked::Ship { order, line } => {
                let lines = line
                    .map(|(sku, quantity)| json!([{ "sku": sku_name(sku).as_str(), "quantity": quantity }]));
                act(*order, Act::Ship, json!({ "lines": lines }))
            }
            Asked::Deliver { order, shipped_by } => {
                let shipment_id = Self::shipment_id(*order, *shipped_by)?;
                act(*order, Act::Deliver { shipment_id }, json!({}))
            }
            Asked::Return { order, sku, quantity, restock } => {
                let line =
                    json!({ "sku": sku_name(*sku).as_str(), "quantity": quantity, "restock": restock });
                act(*order, Act::Return, json!({ "lines": [line] }))
            }
            Asked::Adjust { tenant, sku, delta, location } => Self {
                route: Route::Adjustment(sku_name(*sku)),
                tenant: tenant_name(*tenant),
                idempotency_key: format!("step-{step}"),
                body: json!({
                    "delta": delta, "reason": "received", "location": if *location == 0 { "main" } else { "shop" },
                }),
            },
            Asked::Product { tenant, sku, price_minor, class, active } => Self {
                route: Route::Product(sku_name(*sku)),
                tenant: tenant_name(*tenant),
                idempotency_key: String::new(),
                body: said(json!({
                    "name": sku_name(*sku).as_str(),
                    "tax_class": class_name(*class),
                    "active": active,
                    "stocked": *sku != crate::workload::SKUS - 1,
                    "prices": { "GBP": price_minor },
                    "low_stock_threshold": 5,
                })),
            },
            _ => return None,
        })
    }

    /// The id that a client was given for the shipment of a step.
    fn shipment_id(order: u32, step: u32) -> Option<Text> {
        let call = Self::of(&Asked::Ship { order, line: None }, step, 0)?;
        let Route::Act(act, order_id) = &call.route else { return None };
        let sent = call.sent(b"{}", &Sender { traceparent: "", now_ms: 0 }).act(act, order_id);
        sent.ok().map(|(_, shipment_id)| shipment_id)
    }

    /// The same call with another body.
    pub(crate) fn altered(&self) -> Self {
        let mut call = self.clone();
        let body = &mut call.body;
        match &self.route {
            Route::Order => body["note"] = "altered".into(),
            Route::Act(Act::Cancel | Act::Refund | Act::Return, _) => body["reason"] = "altered".into(),
            Route::Act(Act::Capture, _) => body["amount"] = 3_333.into(),
            Route::Act(Act::Ship, _) => body["tracking"] = "altered".into(),
            Route::Act(Act::Deliver { .. }, _) => body["delivered_at"] = "2026-01-01T00:00:00Z".into(),
            Route::Adjustment(_) => body["reason"] = "altered".into(),
            Route::Product(_) => body["description"] = "altered".into(),
        }
        call
    }

    fn sent<'a>(&'a self, body: &'a [u8], by: &Sender<'a>) -> Sent<'a> {
        Sent {
            tenant: &self.tenant,
            idempotency_key: &self.idempotency_key,
            body,
            traceparent: by.traceparent,
            now_ms: by.now_ms,
        }
    }

    /// What the door writes, and where to; `None` when it refuses the body.
    pub(crate) fn written(&self, by: &Sender<'_>) -> Option<(Topic, Written)> {
        let body = self.body.to_string();
        let sent = self.sent(body.as_bytes(), by);
        let (topic, written) = match &self.route {
            Route::Order => (Topic::OrderCommands, sent.order()),
            Route::Act(act, order_id) => {
                (Topic::OrderCommands, sent.act(act, order_id).map(|(written, _)| written))
            }
            Route::Adjustment(sku) => (Topic::ItemCommands, sent.adjustment(sku)),
            Route::Product(sku) => (Topic::ItemCommands, sent.product(sku)),
        };
        written.ok().map(|it| (topic, it))
    }
}
