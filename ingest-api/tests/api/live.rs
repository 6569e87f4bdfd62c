//! Streams over the real hub, on the store in memory: what the order task would write, and how a client reads it.

use crate::harness::{Api, NOW_MS, Tasks};
use crate::store::MemoryStore;
use axum::body::Body;
use futures::future::BoxFuture;
use http::Method;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tillstream_ingest_api::Bounds;
use tillstream_ingest_api::ports::{OrderEvents, OrderEventsHub, PlacedEvent, TenantEvents};
use tillstream_log::{Headers, Log, NewRecord, TopicPartition};
use tillstream_runtime::{Subscription, Subscriptions, TenantEvent, TenantFeed};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload, OrderReturned};
use tillstream_schemas::order_state::{OrderState, OrderStatus};
use tillstream_schemas::{Topic, codec};
use tillstream_stage::partition::partition_of;
use tillstream_stage::{Table, ids};
use tokio::sync::watch;

/// What a live reader may lag behind before its feed is lost.
pub const CAPACITY: usize = 8;

struct Live(Arc<Subscriptions>);
struct One(Option<Subscription>);
struct All(TenantFeed);

impl OrderEvents for One {
    fn next(&mut self) -> BoxFuture<'_, Option<Arc<OrderEvent>>> {
        Box::pin(async move { self.0.as_mut()?.next().await.map(|it| it.event) })
    }
}

fn placed(it: TenantEvent) -> PlacedEvent {
    PlacedEvent { partition: it.partition, offset: it.offset, event: it.event }
}

impl TenantEvents for All {
    fn from_offsets(&self) -> Vec<u64> {
        self.0.from_offsets().to_vec()
    }

    fn positions(&self) -> Vec<u64> {
        self.0.positions()
    }

    fn try_next(&mut self) -> Option<PlacedEvent> {
        self.0.try_next().map(placed)
    }

    fn next(&mut self) -> BoxFuture<'_, Option<PlacedEvent>> {
        Box::pin(async move { self.0.next().await.map(placed) })
    }
}

impl OrderEventsHub for Live {
    fn subscribe(&self, key: &str) -> Box<dyn OrderEvents> {
        Box::new(One(self.0.subscribe(key).ok()))
    }

    fn subscribe_tenant(&self, tenant: &str) -> Option<Box<dyn TenantEvents>> {
        let feed = self.0.subscribe_tenant(tenant).ok()?;
        Some(Box::new(All(feed)))
    }
}

/// A process whose hub follows the store.
pub struct Process {
    pub api: Api,
    pub hub: Arc<Subscriptions>,
    _stop: watch::Sender<bool>,
}

pub async fn process(store: &Arc<MemoryStore>) -> Process {
    process_with(store, Bounds::default(), false).await
}

pub async fn process_with(store: &Arc<MemoryStore>, bounds: Bounds, rows_follow: bool) -> Process {
    let hub = Subscriptions::new(store.clone(), CAPACITY);
    let (stop, stopping) = watch::channel(false);
    let follower = hub.clone();
    tokio::spawn(async move { follower.run_follower(stopping).await });
    let live = Arc::new(Live(hub.clone()));
    let api = Api::with_hub(store.clone(), Arc::new(Tasks::default()), live, bounds, rows_follow).await;
    Process { api, hub, _stop: stop }
}

/// An order id that looks like one.
pub fn order_id(n: u32) -> String {
    format!("ord_{n:020}")
}

fn event(tenant: &str, order: &str, version: i64) -> OrderEvent {
    let returned = OrderReturned {
        return_id: "ret_1".into(),
        lines: Vec::new(),
        amount_minor: version,
        returned_at_ms: 0,
    };
    OrderEvent {
        id: format!("evt_{order}_{version}").into(),
        tenant: tenant.into(),
        order_id: order.into(),
        version,
        at_ms: NOW_MS,
        command_id: "cmd_1".into(),
        traceparent: None,
        status: "confirmed".into(),
        payload: OrderEventPayload::OrderReturned(returned),
    }
}

/// Writes an event to the log as the order task does.
pub async fn log_event(store: &MemoryStore, tenant: &str, order: &str, version: i64) {
    log_record(store, &event(tenant, order, version)).await;
}

/// Writes any event.
pub async fn log_record(store: &MemoryStore, event: &OrderEvent) {
    let key = ids::key(&event.tenant, &event.order_id);
    let partition = partition_of(key.as_bytes(), store.partitions(Topic::OrderEvents));
    let record = NewRecord {
        to: TopicPartition::new(Topic::OrderEvents, partition),
        key: key.as_bytes().to_vec().into(),
        value: codec::encode(event).unwrap().into(),
        headers: Headers::new(),
    };
    store.append(vec![record]).await.unwrap();
}

/// Writes the row of an order that has had so many events.
pub fn put_row(store: &MemoryStore, tenant: &str, order: &str, version: i64) {
    let mut row = OrderState {
        tenant: tenant.into(),
        order_id: order.into(),
        accepted_at_ms: NOW_MS,
        ..OrderState::default()
    };
    row.view.version = version;
    row.view.status = OrderStatus::Confirmed;
    row.view.timeline = (1..=version)
        .map(|it| {
            let event = event(tenant, order, it);
            tillstream_order_view::entry(&event.payload, &event.id, NOW_MS, it, OrderStatus::Confirmed)
        })
        .collect();
    store.put(Table::Order, &ids::key(tenant, order), &row);
}

/// One commit of the order task: the row, then the event.
pub async fn happen(store: &MemoryStore, tenant: &str, order: &str, version: i64) {
    put_row(store, tenant, order, version);
    log_event(store, tenant, order, version).await;
}

/// One block of an event stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    pub id: String,
    pub event: String,
    pub data: serde_json::Value,
}

/// Reads an event stream.
pub struct Reader {
    body: Body,
    buffer: String,
}

impl Reader {
    pub async fn open(api: &Api, path: &str, last_event_id: Option<&str>) -> Self {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last_event_id.map(|it| ("last-event-id", it)));
        let response = api.open(Method::GET, path, &headers, "").await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), buffer: String::new() }
    }

    /// The next block; heartbeats have an id and nothing else. `None` at the end.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((text, rest)) = self.buffer.split_once("\n\n") {
                let block = parse(text);
                self.buffer = rest.to_owned();
                return Some(block);
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await.expect("a frame")?;
            let data = frame.unwrap().into_data().unwrap();
            self.buffer.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Block {
        loop {
            let block = self.block().await.expect("the stream goes on");
            if !block.event.is_empty() {
                return block;
            }
        }
    }

    /// The versions of the next events.
    pub async fn versions(&mut self, count: usize) -> Vec<i64> {
        let mut versions = Vec::new();
        for _ in 0..count {
            versions.push(self.event().await.data["version"].as_i64().unwrap());
        }
        versions
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("id", value)) => block.id = value.into(),
            Some(("event", value)) => block.event = value.into(),
            Some(("data", value)) => block.data = serde_json::from_str(value).unwrap(),
            _ => assert!(line.starts_with(':') || line.starts_with("retry: "), "{line}"),
        }
    }
    block
}
