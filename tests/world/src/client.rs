//! The clients, and what the door makes of their calls: records, appended until the broker has taken them.
//!
//! A client's call is a body under an Idempotency-Key; the door's own code reads it and writes the command
//! ([`tillstream_ingest_api::bare`]). What no door lets through is written here.

use crate::call::{Call, Sender};
use crate::house::House;
use crate::plan::Client as Asked;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tillstream_ingest_api::bare;
use tillstream_log::{Headers, Log, NewRecord, Record, TopicPartition};
use tillstream_runtime::Clock;
use tillstream_schemas::item::{ItemCommand, ItemCommandPayload, ReserveStock};
use tillstream_schemas::order_command::{
    CancelOrder, CaptureMode, OrderCommand, OrderCommandPayload as Payload, PaymentInstruction,
    PaymentResult, PlaceOrder,
};
use tillstream_schemas::{Text, Topic, codec};
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

/// The clients and the door.
pub struct Clients {
    log: Arc<SimLog>,
    /// What was called, so that it can be called again.
    called: BTreeMap<u32, Call>,
    /// Appends that are under way.
    waiting: Arc<AtomicUsize>,
}

fn order_command(now_ms: i64, order: u32, id: Text, payload: Payload) -> OrderCommand {
    OrderCommand {
        id,
        tenant: tenant_of(order),
        order_id: order_id(order),
        accepted_at_ms: now_ms,
        traceparent: None,
        fingerprint: Text::default(),
        payload,
    }
}

/// An order without a currency or lines: no stage can take it.
fn unplaceable(now_ms: i64) -> PlaceOrder {
    PlaceOrder {
        customer: None,
        currency: Text::default(),
        country: Text::const_new("GB"),
        placed_at_ms: now_ms,
        lines: Vec::new(),
        discounts: Vec::new(),
        shipping: None,
        payment: PaymentInstruction {
            method: Text::const_new("pm_card_visa"),
            capture: CaptureMode::Automatic,
        },
        metadata: Default::default(),
        ship_to: None,
        note: None,
    }
}

impl Clients {
    /// Nothing sent yet.
    pub fn new(house: &House) -> Self {
        let log = Arc::new(house.broker.client("door").log());
        Self { log, called: BTreeMap::new(), waiting: Arc::default() }
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
            Asked::Again { step: of, altered } => self.again(house, step, *of, *altered),
            Asked::Malformed { items, salt } => {
                let topic = if *items { Topic::ItemCommands } else { Topic::OrderCommands };
                let mut value = salt.to_be_bytes().to_vec();
                value.extend_from_slice(b"not avro");
                let key = key(&tenant_name((salt % 2) as u8), "broken");
                self.append(house, record(topic, &key, value), 0);
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
                if let Some(call) = Call::of(asked, step, now_ms) {
                    self.call(house, &call, step);
                    self.called.insert(step, call);
                }
            }
        }
    }

    /// The door takes a call, or refuses it.
    fn call(&self, house: &House, call: &Call, step: u32) {
        // A door's trace is random; here the step decides.
        let traceparent = format!("00-{:032x}-{:016x}-01", step + 1, step + 1);
        let by = Sender { traceparent: &traceparent, now_ms: house.clock.now_ms() };
        if let Some((topic, written)) = call.written(&by) {
            self.append(house, record(topic, &written.key, written.value), 0);
        }
    }

    fn again(&self, house: &House, step: u32, of: u32, altered: bool) {
        let Some(call) = self.called.get(&of) else { return };
        match altered {
            true => self.call(house, &call.altered(), step),
            false => self.call(house, call, step),
        }
    }

    /// Validation at the door would never let these through.
    fn poison(&self, house: &House, step: u32, items: bool, now_ms: i64) {
        let id = derived_id("bad_", &[&step.to_string()]);
        if items {
            let command = ItemCommand {
                id: id.clone(),
                tenant: tenant_name(0),
                sku: sku_name(0),
                accepted_at_ms: now_ms,
                traceparent: None,
                payload: ItemCommandPayload::ReserveStock(ReserveStock {
                    order_id: id,
                    quantity: 0,
                    expires_at_ms: now_ms,
                    locations: Vec::new(),
                }),
            };
            let value = codec::encode(&command).unwrap_or_default();
            self.append(house, record(Topic::ItemCommands, &key(&command.tenant, &command.sku), value), 0);
        } else {
            let payload = Payload::PlaceOrder(Box::new(unplaceable(now_ms)));
            self.append(house, order_record(&order_command(now_ms, u32::MAX - step, id, payload)), 0);
        }
    }

    /// The provider's webhook, as the door writes it: every copy has the same id.
    fn webhook(&self, house: &House, order: u32, result: &PaymentResult, copies: u8, late_ms: u32) {
        let id = output_id("cmd_", &result.payment_id, result.outcome as u32);
        let command = order_command(house.clock.now_ms(), order, id, Payload::PaymentResult(result.clone()));
        for copy in 0..u64::from(copies) {
            let delay_ms = copy * u64::from(late_ms) / u64::from(copies.max(1));
            self.append(house, order_record(&command), delay_ms);
        }
    }

    /// Back to where they came from, by the door's redrive.
    fn redrive(&self, house: &House) {
        for topic in [Topic::OrderCommandsDlq, Topic::ItemCommandsDlq] {
            for partition in 0..crate::house::PARTITIONS {
                let at = TopicPartition::new(topic, partition);
                for letter in house.broker.committed_from(at, 0).0 {
                    let StoredRecord { offset, timestamp_ms, key, value, headers } =
                        Arc::unwrap_or_clone(letter);
                    let letter =
                        Record { offset, timestamp_ms, key, value: value.unwrap_or_default(), headers };
                    if let Ok(record) = bare::redriven(&*self.log, at, letter) {
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

fn order_record(command: &OrderCommand) -> NewRecord {
    let key = key(&command.tenant, &command.order_id);
    record(Topic::OrderCommands, &key, codec::encode(command).unwrap_or_default())
}

fn record(topic: Topic, key: &str, value: Vec<u8>) -> NewRecord {
    NewRecord {
        to: TopicPartition::new(topic, partition_of(key.as_bytes(), crate::house::PARTITIONS)),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        headers: Headers::new(),
    }
}
