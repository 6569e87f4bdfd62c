//! A whole pipeline in memory: the three tasks over in-memory queues, rows and timers, and a payment provider
//! that keeps its own ledger. No I/O, no clock but the one the test sets.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod audit;
pub mod commands;
pub mod provider;
pub mod scenario;
pub mod shard;

use provider::Provider;
use shard::{Env, Shard};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tillstream_schemas::effects::EffectRequest;
use tillstream_schemas::item::{ItemCommand, ItemCommandPayload, ProductState};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload, PaymentResult};
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::facts::Catalog;
use tillstream_stage::ids::{Key, derived_id, key};
use tillstream_stage::partition::partition_of;
use tillstream_stage::rule::{NoRules, RuleHost};
use tillstream_stage::task::{Output, Task};
use tillstream_tasks::order::{OrderRow, order_row};
use tillstream_tasks::{AnalyticsTask, ItemTask, OrderTask};

/// The tenant of every test.
pub const TENANT: &str = "demo";

/// 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;

/// The topics that something reads.
pub const INPUTS: [Topic; 4] =
    [Topic::OrderCommands, Topic::ItemCommands, Topic::EffectRequests, Topic::AnalyticsDeltas];

/// Products, as pricing sees them.
#[derive(Default)]
pub struct Products(BTreeMap<(Text, Text), Arc<ProductState>>);

impl Catalog for Products {
    fn product(&self, tenant: &str, sku: &str) -> Option<Arc<ProductState>> {
        self.0.get(&(tenant.into(), sku.into())).cloned()
    }
}

/// How records are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Records in a batch, at most.
    pub batch: usize,
    /// Whether every record comes twice. (Deltas do not: they are written once by the order task's commit.)
    pub twice: bool,
}

/// The pipeline.
pub struct World {
    /// The wall clock, ms since the epoch.
    pub now_ms: i64,
    /// How records are delivered.
    pub delivery: Delivery,
    /// The payment provider.
    pub provider: Provider,
    /// Everything that was written, in order.
    pub history: Vec<Output>,
    /// The order task, per partition.
    pub orders: Vec<Shard<OrderTask>>,
    /// The item task, per partition.
    pub items: Vec<Shard<ItemTask>>,
    /// The analytics task, per partition.
    pub analytics: Vec<Shard<AnalyticsTask>>,
    products: Products,
    rules: Box<dyn RuleHost>,
    queues: BTreeMap<(Topic, u32), VecDeque<Vec<u8>>>,
    sent: BTreeMap<Topic, Vec<(Key, Vec<u8>)>>,
}

impl World {
    /// An empty pipeline.
    pub fn new(partitions: u32, delivery: Delivery) -> Self {
        Self {
            now_ms: START_MS,
            delivery,
            provider: Provider::default(),
            history: Vec::new(),
            orders: (0..partitions).map(|it| Shard::new(OrderTask, it)).collect(),
            items: (0..partitions).map(|it| Shard::new(ItemTask, it)).collect(),
            analytics: (0..partitions).map(|it| Shard::new(AnalyticsTask, it)).collect(),
            products: Products::default(),
            rules: Box::new(NoRules),
            queues: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Sets the tenant's rules.
    pub fn with_rules(mut self, rules: Box<dyn RuleHost>) -> Self {
        self.rules = rules;
        self
    }

    fn append(&mut self, topic: Topic, key: &Key, value: Vec<u8>) {
        let partition = partition_of(key.as_bytes(), self.orders.len() as u32);
        self.sent.entry(topic).or_default().push((key.clone(), value.clone()));
        self.queues.entry((topic, partition)).or_default().push_back(value);
    }

    /// Sends a command to the order task.
    pub fn send(&mut self, command: &OrderCommand) {
        let key = key(&command.tenant, &command.order_id);
        self.append(Topic::OrderCommands, &key, codec::encode(command).unwrap());
    }

    /// Sends a command to the item task.
    pub fn send_item(&mut self, id: &str, sku: &str, payload: ItemCommandPayload) {
        let command = ItemCommand {
            id: id.into(),
            tenant: TENANT.into(),
            sku: sku.into(),
            accepted_at_ms: self.now_ms,
            traceparent: None,
            payload,
        };
        let key = key(&command.tenant, &command.sku);
        self.append(Topic::ItemCommands, &key, codec::encode(&command).unwrap());
    }

    /// Sends what the provider said.
    pub fn send_result(&mut self, id: Text, order_id: &Text, result: PaymentResult) {
        let payload = OrderCommandPayload::PaymentResult(result);
        self.send(&OrderCommand {
            id,
            tenant: TENANT.into(),
            order_id: order_id.clone(),
            accepted_at_ms: self.now_ms,
            traceparent: None,
            fingerprint: Text::default(),
            payload,
        });
    }

    /// The customer finishes (or fails) what the provider asked for.
    pub fn authenticate(&mut self, order_id: &str, succeeds: bool) {
        let order_id = Text::from(order_id);
        let result = self.provider.authenticate(&order_id, succeeds);
        if let Some(result) = result {
            let id = derived_id("cmd_", &[&order_id, "webhook", &self.now_ms.to_string()]);
            self.send_result(id, &order_id, result);
        }
    }

    /// Appends the last `records` records of a topic once more.
    pub fn repeat(&mut self, topic: Topic, records: usize) {
        let all = self.sent.get(&topic).cloned().unwrap_or_default();
        for (key, value) in all.iter().skip(all.len().saturating_sub(records)) {
            self.append(topic, key, value.clone());
        }
    }

    /// Turns the waiting records of a topic round: answers arrive in the opposite order.
    pub fn reverse(&mut self, topic: Topic) {
        for ((of, _), queue) in &mut self.queues {
            if *of == topic {
                queue.make_contiguous().reverse();
            }
        }
    }

    /// Queues with something in them.
    pub fn waiting(&self) -> Vec<(Topic, u32)> {
        self.queues.iter().filter(|it| !it.1.is_empty()).map(|it| *it.0).collect()
    }

    /// Delivers at most `records` records of one queue, as one batch.
    pub fn deliver(&mut self, topic: Topic, partition: u32, records: usize) {
        let Some(queue) = self.queues.get_mut(&(topic, partition)) else { return };
        let mut batch: Vec<Vec<u8>> = queue.drain(..records.min(queue.len())).collect();
        if self.delivery.twice && topic != Topic::AnalyticsDeltas {
            batch = batch.into_iter().flat_map(|it| [it.clone(), it]).collect();
        }
        if topic == Topic::EffectRequests {
            return batch.iter().for_each(|it| self.perform(it));
        }
        let env = Env {
            now_ms: self.now_ms,
            catalog: &self.products,
            rules: self.rules.as_ref(),
            partitions: self.orders.len() as u32,
        };
        let outputs = match topic {
            Topic::OrderCommands => self.orders[partition as usize].batch(&batch, env),
            Topic::ItemCommands => self.items[partition as usize].batch(&batch, env),
            _ => self.analytics[partition as usize].batch(&batch, env),
        };
        self.write(outputs);
    }

    fn perform(&mut self, value: &[u8]) {
        let request: EffectRequest = codec::decode(value).unwrap();
        let result = self.provider.perform(&request);
        // What the executor says of two attempts at one request are two answers.
        let id = derived_id("cmd_", &[&request.id, &self.provider.calls.to_string()]);
        self.send_result(id, &request.order_id, result);
    }

    fn write(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if output.topic == Topic::Products {
                let product: ProductState = codec::decode(&output.value).unwrap();
                self.products.0.insert((product.tenant.clone(), product.sku.clone()), Arc::new(product));
            }
            if INPUTS.contains(&output.topic) {
                self.append(output.topic, &output.key, output.value.clone());
            }
            self.history.push(output);
        }
    }

    /// Fires what is due.
    pub fn fire_timers(&mut self) {
        let env = Env {
            now_ms: self.now_ms,
            catalog: &self.products,
            rules: self.rules.as_ref(),
            partitions: self.orders.len() as u32,
        };
        let mut outputs = Vec::new();
        for shard in &mut self.orders {
            outputs.extend(shard.fire(env));
        }
        for shard in &mut self.items {
            outputs.extend(shard.fire(env));
        }
        self.write(outputs);
    }

    /// Moves the clock, and fires what is due then.
    pub fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        self.fire_timers();
    }

    /// Delivers until nothing waits; time stands still.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let waiting = self.waiting();
            if waiting.is_empty() {
                return;
            }
            for (topic, partition) in waiting {
                self.deliver(topic, partition, self.delivery.batch);
            }
        }
        panic!("the pipeline never settles: {:?}", self.waiting());
    }

    /// Settles, and moves the clock from timer to timer until no order has one left.
    pub fn finish(&mut self) {
        for _ in 0..10_000 {
            self.settle();
            let next_ms = self.orders.iter().filter_map(Shard::next_timer_ms).min();
            let Some(next_ms) = next_ms else { return };
            self.now_ms = self.now_ms.max(next_ms);
            self.fire_timers();
        }
        panic!("timers never end");
    }

    /// An order's row.
    pub fn order(&self, order_id: &str) -> Option<Arc<OrderState>> {
        let row = order_row(key(TENANT, order_id));
        self.orders.iter().find_map(|shard| match shard.rows.get(&row) {
            Some(OrderRow::Order(state)) => Some(Arc::clone(state)),
            _ => None,
        })
    }

    /// Every order's row.
    pub fn all_orders(&self) -> Vec<Arc<OrderState>> {
        let rows = self.orders.iter().flat_map(|it| it.rows.values());
        rows.filter_map(|it| match it {
            OrderRow::Order(state) => Some(Arc::clone(state)),
            OrderRow::Index => None,
        })
        .collect()
    }

    /// An order's events as a consumer that dedupes by id sees them.
    pub fn events(&self, order_id: &str) -> Vec<OrderEvent> {
        let mut events: Vec<OrderEvent> = Vec::new();
        for output in self.history.iter().filter(|it| it.topic == Topic::OrderEvents) {
            let event: OrderEvent = codec::decode(&output.value).unwrap();
            assert_eq!((&event.id, event.payload.kind()), (&output.id, output.kind));
            match events.iter().find(|it| it.id == event.id) {
                Some(first) => assert_eq!(first.payload, event.payload, "one id, two facts"),
                None if event.order_id == order_id => events.push(event),
                None => {}
            }
        }
        events
    }
}

/// Only for the bound: every task's name in failures.
pub fn name_of<T: Task>(task: &T) -> &'static str {
    task.kind().as_str()
}
