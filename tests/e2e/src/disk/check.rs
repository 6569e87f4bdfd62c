//! What must hold of a data dir after any crash, looked at through the store itself, with no task running.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tillstream_effects::sandbox::{SandboxProvider, SandboxSettings};
use tillstream_embedded::{EmbeddedSettings, EmbeddedStore};
use tillstream_log::{Log, ReadLimit, Record, TopicPartition};
use tillstream_schemas::order_event::{OrderEvent, OrderEventPayload};
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Topic, codec};
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table};
use tillstream_state::{State, TaskId};

const PAGE: ReadLimit = ReadLimit { records_max: 1_000, bytes_max: 8 << 20 };

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Commands in the log.
    pub commands: usize,
    /// Events in the log.
    pub events: usize,
    /// Orders with a row.
    pub rows: usize,
    /// Charges that the sandbox's ledger has.
    pub charges: usize,
}

/// Opens the store and the sandbox's ledger of a server's data dir and checks them. `acknowledged` are ids of orders
/// that a client was told of.
///
/// # Errors
/// The store does not open, or holds less, or other, than it must.
pub async fn check(data_dir: &Path, acknowledged: &BTreeSet<String>) -> Result<Found, String> {
    let settings =
        EmbeddedSettings { retention_every_ms: 0, cache_bytes: 1 << 20, ..EmbeddedSettings::new(data_dir) };
    let store = EmbeddedStore::open(settings).map_err(|error| error.to_string())?;
    let partitions = store.partitions(Topic::OrderCommands);
    for kind in TaskKind::ALL {
        for partition in 0..partitions {
            let task = TaskId { kind, partition };
            let end = at_end(&store, kind.input(), partition)?;
            let committed = store.committed_now(task);
            if committed > end {
                return Err(format!("{task} has committed {committed} of {end} records"));
            }
        }
    }
    let mut found = Found::default();
    let commands = check_commands(&store, partitions, acknowledged, &mut found).await?;
    let captured = check_events(&store, partitions, &commands, &mut found).await?;
    found.charges = check_ledger(&data_dir.join("sandbox"), &captured)?;
    store.close().await.map_err(|error| error.to_string())?;
    Ok(found)
}

fn at_end(store: &EmbeddedStore, topic: Topic, partition: u32) -> Result<u64, String> {
    store.end_offset(TopicPartition::new(topic, partition)).map_err(|error| error.to_string())
}

async fn records(store: &EmbeddedStore, topic: Topic, partition: u32) -> Result<Vec<Record>, String> {
    let from = TopicPartition::new(topic, partition);
    let end = at_end(store, topic, partition)?;
    let mut all = Vec::new();
    let mut offset = 0;
    while offset < end {
        let page = store.read(from, offset, PAGE).await.map_err(|error| format!("{from}: {error}"))?;
        offset = page.last().ok_or_else(|| format!("{from} ends at {offset}, not at {end}"))?.offset + 1;
        all.extend(page);
    }
    Ok(all)
}

/// Every acknowledged order has its command; every command the task has committed has its row, and no other has one.
/// Answers each order's row.
async fn check_commands(
    store: &Arc<EmbeddedStore>,
    partitions: u32,
    acknowledged: &BTreeSet<String>,
    found: &mut Found,
) -> Result<BTreeMap<String, Option<OrderState>>, String> {
    let mut orders: BTreeMap<String, Option<OrderState>> = BTreeMap::new();
    for partition in 0..partitions {
        let committed = store.committed_now(TaskId { kind: TaskKind::Order, partition });
        for record in records(store, Topic::OrderCommands, partition).await? {
            found.commands += 1;
            let key = String::from_utf8(record.key.to_vec()).map_err(|error| error.to_string())?;
            let order = key.rsplit('/').next().unwrap_or_default().to_owned();
            if orders.contains_key(&order) {
                continue;
            }
            let row = RowKey::new(Table::Order, Key::from(key.as_str()));
            let rows = store.get_many(&[row]).await.map_err(|error| error.to_string())?;
            let row = rows.into_iter().flatten().next();
            if row.is_some() != (record.offset < committed) {
                let is = if row.is_some() { "has" } else { "has no" };
                return Err(format!(
                    "{order} {is} row: its command is {} of partition {partition}, {committed} are committed",
                    record.offset
                ));
            }
            found.rows += usize::from(row.is_some());
            let row = row.map(|it| codec::decode(&it)).transpose().map_err(|error| error.to_string())?;
            orders.insert(order, row);
        }
    }
    match acknowledged.iter().find(|it| !orders.contains_key(*it)) {
        Some(lost) => Err(format!("{lost} was acknowledged and is gone")),
        None => Ok(orders),
    }
}

/// No event stands twice, and each order's events in the log are those its row tells of: rows and outputs are one step.
/// Answers what was captured, by payment.
async fn check_events(
    store: &EmbeddedStore,
    partitions: u32,
    orders: &BTreeMap<String, Option<OrderState>>,
    found: &mut Found,
) -> Result<BTreeMap<String, i64>, String> {
    let mut ids: BTreeSet<String> = BTreeSet::new();
    let mut of_order: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut captured = BTreeMap::new();
    for partition in 0..partitions {
        for record in records(store, Topic::OrderEvents, partition).await? {
            found.events += 1;
            let event: OrderEvent = codec::decode(&record.value).map_err(|error| error.to_string())?;
            if !ids.insert(event.id.to_string()) {
                return Err(format!("event {} stands twice", event.id));
            }
            of_order.entry(event.order_id.to_string()).or_default().insert(event.id.to_string());
            if let OrderEventPayload::PaymentCaptured(it) = &event.payload {
                captured.insert(it.payment_id.to_string(), it.amount_minor);
            }
        }
    }
    for (order, row) in orders {
        let in_log = of_order.remove(order).unwrap_or_default();
        let in_row = row.iter().flat_map(|it| &it.view.timeline).map(|it| it.event_id.to_string()).collect();
        if in_log != in_row {
            return Err(format!("{order}: its events in the log are {in_log:?}, in its row {in_row:?}"));
        }
    }
    match of_order.keys().next() {
        Some(order) => Err(format!("{order} has events, but no command")),
        None => Ok(captured),
    }
}

/// The ledger opens, and has every charge that the log knows of, once.
fn check_ledger(dir: &Path, captured: &BTreeMap<String, i64>) -> Result<usize, String> {
    if !dir.exists() && captured.is_empty() {
        return Ok(0);
    }
    let ledger = SandboxProvider::open(SandboxSettings::new(dir)).map_err(|error| error.to_string())?;
    let mut charges = 0;
    let mut missing = captured.clone();
    for payment in ledger.payments() {
        let (id, payment) = payment.map_err(|error| error.to_string())?;
        if payment.charges.len() > 1 {
            return Err(format!("{id} was charged {} times", payment.charges.len()));
        }
        charges += payment.charges.len();
        if let Some(amount) = missing.remove(id.as_str())
            && amount != payment.captured_minor
        {
            return Err(format!(
                "{id}: {amount} is captured in the log, {} in the ledger",
                payment.captured_minor
            ));
        }
    }
    match missing.keys().next() {
        Some(id) => Err(format!("{id} is captured in the log, and the ledger knows nothing of it")),
        None => Ok(charges),
    }
}
