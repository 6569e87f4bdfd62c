//! The clients and the door: commands as records, appended until the broker has taken them.

use crate::house::House;
use crate::plan::{COUNTRIES, Client as Asked, METHODS, Place};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_log::headers::{self, FIRST_ORIGIN, REDRIVE_COUNT, REDRIVEN_FROM, header};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_schemas::codec;
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::item::{AdjustStock, ItemCommand, ItemCommandPayload, ReserveStock, UpsertProduct};
use tillstream_schemas::order_command::{
    CancelOrder, CaptureMode, CapturePayment, CreateShipment, DeliverShipment, Discount, OrderCommand,
    OrderCommandPayload as Payload, OrderLine, PaymentInstruction, PaymentResult, PlaceOrder, RefundOrder,
    ReturnLine, ReturnOrder, ShipmentLine, ShippingCharge,
};
use tillstream_schemas::{Text, Topic};
use tillstream_simulation::broker::{SimLog, StoredRecord};
use tillstream_stage::ids::{client_id, derived_id, key, output_id};
use tillstream_stage::partition::partition_of;

/// How long the door waits before it tries an append again, ms.
const AGAIN_MS: u64 = 150;

/// A tenant's name.
pub fn tenant_name(tenant: u8) -> Text {
    format!("t{tenant}").into()
}

/// A SKU's name; the last is a fee.
pub fn sku_name(sku: u8) -> Text {
    format!("sku-{sku}").into()
}

/// The tenant of an order.
pub fn tenant_of(order: u32) -> Text {
    tenant_name((order % u32::from(crate::workload::TENANTS)) as u8)
}

/// The id of an order, as the door makes it.
pub fn order_id(order: u32) -> Text {
    client_id("ord_", &[&tenant_of(order), "POST /v1/orders", &format!("key-{order}")])
}

fn shipment_id(order: u32, step: u32) -> Text {
    client_id("shp_", &[&tenant_of(order), &order_id(order), &format!("step-{step}")])
}

/// What was sent, so that it can be sent again.
#[derive(Clone)]
enum Sent {
    Order(OrderCommand),
    Item(ItemCommand),
}

/// The clients and the door.
pub struct Clients {
    log: Arc<SimLog>,
    sent: BTreeMap<u32, Sent>,
    /// Appends that are under way.
    waiting: Arc<AtomicUsize>,
}

/// A fingerprint of a body.
fn fingerprint(payload: &impl std::fmt::Debug) -> Text {
    derived_id("fpr_", &[&format!("{payload:?}")])
}

fn order_command(now_ms: i64, order: u32, id: Text, payload: Payload) -> OrderCommand {
    OrderCommand {
        id,
        tenant: tenant_of(order),
        order_id: order_id(order),
        accepted_at_ms: now_ms,
        traceparent: None,
        fingerprint: fingerprint(&payload),
        payload,
    }
}

fn placed(place: &Place, now_ms: i64) -> PlaceOrder {
    let line = |(sku, quantity, unit_price_minor, discount_minor): &(u8, i64, Option<i64>, i64)| OrderLine {
        sku: sku_name(*sku),
        quantity: *quantity,
        unit_price_minor: *unit_price_minor,
        discount_minor: *discount_minor,
    };
    let discount = (place.discount_minor.is_some() || place.discount_bp.is_some()).then(|| Discount {
        code: Text::const_new("OFF"),
        amount_minor: place.discount_minor,
        rate_bp: place.discount_bp.filter(|_| place.discount_minor.is_none()),
    });
    PlaceOrder {
        customer: Some(Text::const_new("c-1")),
        currency: Text::const_new("GBP"),
        country: Text::const_new(COUNTRIES[usize::from(place.country) % COUNTRIES.len()]),
        placed_at_ms: now_ms - place.age_ms,
        lines: place.lines.iter().map(line).collect(),
        discounts: discount.into_iter().collect(),
        shipping: place.shipping_minor.map(|amount_minor| ShippingCharge {
            amount_minor,
            tax_class: Some(Text::const_new("standard")),
        }),
        payment: PaymentInstruction {
            method: Text::const_new(METHODS[usize::from(place.method) % METHODS.len()]),
            capture: if place.manual { CaptureMode::Manual } else { CaptureMode::Automatic },
        },
        metadata: Default::default(),
        ship_to: None,
        note: None,
    }
}

/// The name of a tax class.
pub fn class_name(class: u8) -> Option<Text> {
    match class {
        1 => Some(Text::const_new("standard")),
        2 => Some(Text::const_new("reduced")),
        _ => None,
    }
}

impl Clients {
    /// Nothing sent yet.
    pub fn new(house: &House) -> Self {
        let log = Arc::new(house.broker.client("door").log());
        Self { log, sent: BTreeMap::new(), waiting: Arc::default() }
    }

    /// Whether every append has been taken.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Does what a client does in a step.
    pub fn act(&mut self, house: &House, step: u32, asked: &Asked) {
        let now_ms = house.clock.now_ms();
        match asked {
            Asked::Rule { version } => house.rules.activate(*version),
            Asked::Act { order, agrees, copies, late_ms } => {
                if let Some(result) = house.provider.act(&order_id(*order), *agrees) {
                    self.webhook(house, *order, &result, *copies, *late_ms);
                }
            }
            Asked::Again { step, altered } => self.again(house, *step, *altered, now_ms),
            Asked::Malformed { items, salt } => {
                let topic = if *items { Topic::ItemCommands } else { Topic::OrderCommands };
                let mut value = salt.to_be_bytes().to_vec();
                value.extend_from_slice(b"not avro");
                let key = key(&tenant_name((salt % 2) as u8), "broken");
                self.append(house, record(topic, &key, value, None), 0);
            }
            Asked::Poison { items } => self.poison(house, step, *items, now_ms),
            Asked::Misplaced { order } => {
                let id = client_id(
                    "cmd_",
                    &[&tenant_of(*order), &order_id(*order), "misplaced", &step.to_string()],
                );
                let command =
                    order_command(now_ms, *order, id, Payload::CancelOrder(CancelOrder { reason: None }));
                let mut record = order_record(&command);
                record.to.partition = (record.to.partition + 1) % crate::house::PARTITIONS;
                self.append(house, record, 0);
            }
            Asked::Redrive => self.redrive(house),
            _ => {
                if let Some(sent) = self.command(now_ms, step, asked) {
                    self.send(house, &sent);
                    self.sent.insert(step, sent);
                }
            }
        }
    }

    fn command(&self, now_ms: i64, step: u32, asked: &Asked) -> Option<Sent> {
        let id = |prefix: &str, order: u32| {
            client_id(prefix, &[&tenant_of(order), &order_id(order), &format!("step-{step}")])
        };
        let of = |order: u32, payload: Payload| {
            Some(Sent::Order(order_command(now_ms, order, id("cmd_", order), payload)))
        };
        match asked {
            Asked::Place(place) => {
                let payload = Payload::PlaceOrder(Box::new(placed(place, now_ms)));
                Some(Sent::Order(order_command(now_ms, place.order, order_id(place.order), payload)))
            }
            Asked::Cancel { order } => of(*order, Payload::CancelOrder(CancelOrder { reason: None })),
            Asked::Capture { order, amount_minor } => {
                of(*order, Payload::CapturePayment(CapturePayment { amount_minor: *amount_minor }))
            }
            Asked::Refund { order, amount_minor } => {
                let payload = RefundOrder {
                    refund_id: id("rfd_", *order),
                    amount_minor: *amount_minor,
                    reason: None,
                    refunded_at_ms: None,
                };
                of(*order, Payload::RefundOrder(payload))
            }
            Asked::Ship { order, line } => {
                let lines = line
                    .iter()
                    .map(|(sku, quantity)| ShipmentLine { sku: sku_name(*sku), quantity: *quantity });
                let payload = CreateShipment {
                    shipment_id: shipment_id(*order, step),
                    lines: lines.collect(),
                    carrier: None,
                    tracking: None,
                };
                of(*order, Payload::CreateShipment(payload))
            }
            Asked::Deliver { order, shipped_by } => {
                let shipment_id = shipment_id(*order, *shipped_by);
                of(*order, Payload::DeliverShipment(DeliverShipment { shipment_id, delivered_at_ms: None }))
            }
            Asked::Return { order, sku, quantity, restock } => {
                let line = ReturnLine {
                    sku: sku_name(*sku),
                    quantity: *quantity,
                    amount_minor: None,
                    restock: *restock,
                };
                let payload = ReturnOrder {
                    return_id: id("ret_", *order),
                    lines: vec![line],
                    returned_at_ms: now_ms,
                    reason: None,
                };
                of(*order, Payload::ReturnOrder(payload))
            }
            _ => item_sent(now_ms, step, asked),
        }
    }

    fn send(&self, house: &House, sent: &Sent) {
        let record = match sent {
            Sent::Order(command) => order_record(command),
            Sent::Item(command) => {
                let key = key(&command.tenant, &command.sku);
                record(Topic::ItemCommands, &key, codec::encode(command).unwrap_or_default(), None)
            }
        };
        self.append(house, record, 0);
    }

    fn again(&self, house: &House, step: u32, altered: bool, now_ms: i64) {
        let Some(mut sent) = self.sent.get(&step).cloned() else { return };
        match &mut sent {
            Sent::Order(command) => {
                command.accepted_at_ms = now_ms;
                if altered {
                    command.fingerprint = derived_id("fpr_", &[&command.fingerprint, "altered"]);
                }
            }
            Sent::Item(command) => {
                command.accepted_at_ms = now_ms;
                if let (true, ItemCommandPayload::AdjustStock(adjust)) = (altered, &mut command.payload) {
                    adjust.delta += 1;
                    adjust.fingerprint = derived_id("fpr_", &[&adjust.fingerprint, "altered"]);
                }
            }
        }
        self.send(house, &sent);
    }

    /// Validation at the door would never let these through.
    fn poison(&self, house: &House, step: u32, items: bool, now_ms: i64) {
        let id = derived_id("bad_", &[&step.to_string()]);
        let sent = if items {
            let payload = ItemCommandPayload::ReserveStock(ReserveStock {
                order_id: id.clone(),
                quantity: 0,
                expires_at_ms: now_ms,
                locations: Vec::new(),
            });
            Sent::Item(item_command(now_ms, 0, 0, id, payload))
        } else {
            let place = Place {
                order: u32::MAX - step,
                lines: Vec::new(),
                discount_minor: None,
                discount_bp: None,
                shipping_minor: None,
                method: 0,
                manual: false,
                country: 0,
                age_ms: 0,
            };
            let order = PlaceOrder { currency: Text::default(), ..placed(&place, now_ms) };
            Sent::Order(order_command(now_ms, place.order, id, Payload::PlaceOrder(Box::new(order))))
        };
        self.send(house, &sent);
    }

    /// The provider's webhook, as the door writes it: every copy has the same id.
    fn webhook(&self, house: &House, order: u32, result: &PaymentResult, copies: u8, late_ms: u32) {
        let id = output_id("cmd_", &result.payment_id, result.outcome as u32);
        let mut command =
            order_command(house.clock.now_ms(), order, id, Payload::PaymentResult(result.clone()));
        command.fingerprint = Text::default();
        for copy in 0..u64::from(copies) {
            let delay_ms = copy * u64::from(late_ms) / u64::from(copies.max(1));
            self.append(house, order_record(&command), delay_ms);
        }
    }

    /// Back to where they came from, as the door's redrive does it.
    fn redrive(&self, house: &House) {
        for topic in [Topic::OrderCommandsDlq, Topic::ItemCommandsDlq] {
            for partition in 0..crate::house::PARTITIONS {
                let at = TopicPartition::new(topic, partition);
                for letter in house.broker.committed_from(at, 0).0 {
                    if let Some(record) = redriven(at, &letter) {
                        self.append(house, record, 0);
                    }
                }
            }
        }
    }

    /// Appends until the broker says yes: a lost yes is a record twice.
    fn append(&self, house: &House, record: NewRecord, delay_ms: u64) {
        let (log, clock, waiting) = (self.log.clone(), house.clock.clone(), self.waiting.clone());
        waiting.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            if delay_ms > 0 {
                clock.sleep(Duration::from_millis(delay_ms)).await;
            }
            while log.append(vec![record.clone()]).await.is_err() {
                clock.sleep(Duration::from_millis(AGAIN_MS)).await;
            }
            waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn item_command(now_ms: i64, tenant: u8, sku: u8, id: Text, payload: ItemCommandPayload) -> ItemCommand {
    ItemCommand {
        id,
        tenant: tenant_name(tenant),
        sku: sku_name(sku),
        accepted_at_ms: now_ms,
        traceparent: None,
        payload,
    }
}

/// The command to an item that a step asks for.
fn item_sent(now_ms: i64, step: u32, asked: &Asked) -> Option<Sent> {
    match asked {
        Asked::Adjust { tenant, sku, delta, location } => {
            let id = client_id("adj_", &[&tenant_name(*tenant), &sku_name(*sku), &step.to_string()]);
            let mut adjust = AdjustStock {
                delta: *delta,
                reason: Text::const_new("received"),
                location: Text::const_new(if *location == 0 { "main" } else { "shop" }),
                fingerprint: Text::default(),
            };
            adjust.fingerprint = fingerprint(&adjust);
            Some(Sent::Item(item_command(now_ms, *tenant, *sku, id, ItemCommandPayload::AdjustStock(adjust))))
        }
        Asked::Product { tenant, sku, price_minor, class, active } => {
            let id = client_id("prd_", &[&tenant_name(*tenant), &sku_name(*sku), &step.to_string()]);
            let upsert = UpsertProduct {
                name: sku_name(*sku),
                description: None,
                category: None,
                tax_class: class_name(*class),
                active: *active,
                stocked: *sku != crate::workload::SKUS - 1,
                prices: [(Text::const_new("GBP"), *price_minor)].into(),
                image_urls: Vec::new(),
                low_stock_threshold: Some(5),
                metadata: Default::default(),
            };
            let payload = ItemCommandPayload::UpsertProduct(Box::new(upsert));
            Some(Sent::Item(item_command(now_ms, *tenant, *sku, id, payload)))
        }
        _ => None,
    }
}

fn order_record(command: &OrderCommand) -> NewRecord {
    let key = key(&command.tenant, &command.order_id);
    record(Topic::OrderCommands, &key, codec::encode(command).unwrap_or_default(), None)
}

fn record(topic: Topic, key: &str, value: Vec<u8>, headers: Option<Headers>) -> NewRecord {
    NewRecord {
        to: TopicPartition::new(topic, partition_of(key.as_bytes(), crate::house::PARTITIONS)),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        headers: headers.unwrap_or_default(),
    }
}

fn redriven(at: TopicPartition, stored: &StoredRecord) -> Option<NewRecord> {
    let letter: DeadLetter = codec::decode(stored.value.as_deref()?).ok()?;
    let source = Topic::parse(&letter.topic).filter(|it| it.dlq() == Some(at.topic))?;
    let origin = format!("{}/{}/{}", letter.topic, letter.partition, letter.offset);
    let first = headers::find(&stored.headers, FIRST_ORIGIN).map_or(origin, str::to_owned);
    let count: u32 =
        headers::find(&stored.headers, REDRIVE_COUNT).and_then(|it| it.parse().ok()).unwrap_or(0);
    let headers = [
        header(REDRIVE_COUNT, (count + 1).to_string()),
        header(FIRST_ORIGIN, first),
        header(REDRIVEN_FROM, format!("{}/{}/{}", at.topic, at.partition, stored.offset)),
    ];
    let key = String::from_utf8(letter.key).ok()?;
    Some(record(source, &key, letter.value, Some(headers.into_iter().collect())))
}
