//! The item task: catalog and stock, over the rows of one SKU. Key: `tenant/sku`.

use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_schemas::item::{
    AdjustmentState, HoldState, ItemCommand, ItemCommandPayload as Payload, ItemEvent, ItemEventPayload,
    ProductState, StockLevelChanged, StockState,
};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload, StockAnswer};
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::{derived_id, key, key_of_part, output_id};
use tillstream_stage::stage::{StageName, TimerName};
use tillstream_stage::task::{KeyTimer, Outcome, Output, Task, TaskContext, TaskError, TaskInput, TaskKind};
use tillstream_stage::{Key, RowKey, Table};
use tillstream_stock::stock::{ADJUSTMENT_KEPT_MS, StockDecision, StockFacts};

/// A row of the item task.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemRow {
    /// [`Table::Product`].
    Product(Arc<ProductState>),
    /// [`Table::Stock`].
    Stock(Arc<StockState>),
    /// [`Table::Hold`].
    Hold(Arc<HoldState>),
    /// [`Table::Adjustment`].
    Adjustment(Arc<AdjustmentState>),
}

/// A SKU's level after a command: the last one of a batch is published.
#[derive(Clone, Debug)]
pub struct LevelChange {
    tenant: Text,
    sku: Text,
    command_id: Text,
    traceparent: Option<Text>,
    level: StockLevelChanged,
}

type Context<'a> = TaskContext<'a, ItemRow, LevelChange>;

/// Products and stock.
#[derive(Clone, Copy, Debug, Default)]
pub struct ItemTask;

/// The row of a product. Key: `tenant/sku`.
pub fn product_row(tenant: &str, sku: &str) -> RowKey {
    RowKey::new(Table::Product, key(tenant, sku))
}

/// The row of a SKU's stock. Key: `tenant/sku`.
pub fn stock_row(tenant: &str, sku: &str) -> RowKey {
    RowKey::new(Table::Stock, key(tenant, sku))
}

/// The row of an order's hold on a SKU. Key: `tenant/sku/order_id`.
pub fn hold_row(tenant: &str, sku: &str, order_id: &str) -> RowKey {
    RowKey::new(Table::Hold, key_of_part(tenant, sku, order_id))
}

/// The row of an applied adjustment or receipt. Key: `tenant/sku/command_id`.
pub fn adjustment_row(tenant: &str, sku: &str, command_id: &str) -> RowKey {
    RowKey::new(Table::Adjustment, key_of_part(tenant, sku, command_id))
}

/// The keys of the rows a command reads.
#[derive(Default)]
struct RowKeys {
    product: Option<RowKey>,
    stock: Option<RowKey>,
    hold: Option<RowKey>,
    adjustment: Option<RowKey>,
}

impl RowKeys {
    fn of(command: &ItemCommand) -> Self {
        let (tenant, sku) = (command.tenant.as_str(), command.sku.as_str());
        let order_id = match &command.payload {
            Payload::ReserveStock(it) => Some(&it.order_id),
            Payload::ReleaseStock(it) => Some(&it.order_id),
            Payload::CommitStock(it) => Some(&it.order_id),
            Payload::ReceiveStock(it) => Some(&it.order_id),
            Payload::UpsertProduct(_) | Payload::RemoveProduct(_) | Payload::AdjustStock(_) => None,
        };
        let reads_product = matches!(
            command.payload,
            Payload::UpsertProduct(_) | Payload::RemoveProduct(_) | Payload::ReceiveStock(_)
        );
        let reads_adjustment = matches!(command.payload, Payload::AdjustStock(_) | Payload::ReceiveStock(_));
        Self {
            product: reads_product.then(|| product_row(tenant, sku)),
            stock: Some(stock_row(tenant, sku)),
            hold: order_id.map(|order_id| hold_row(tenant, sku, order_id)),
            adjustment: reads_adjustment.then(|| adjustment_row(tenant, sku, &command.id)),
        }
    }
}

fn handle_command(command: &ItemCommand, context: &mut Context<'_>) -> Result<Outcome, TaskError> {
    let keys = RowKeys::of(command);
    let rows = context.rows;
    let row = |key: &Option<RowKey>| key.as_ref().and_then(|it| rows.get(it));
    let product = match row(&keys.product) {
        Some(ItemRow::Product(it)) => Some(it.as_ref()),
        _ => None,
    };
    let facts = StockFacts {
        stock: match row(&keys.stock) {
            Some(ItemRow::Stock(it)) => Some(it),
            _ => None,
        },
        hold: match row(&keys.hold) {
            Some(ItemRow::Hold(it)) => Some(it),
            _ => None,
        },
        adjustment: match row(&keys.adjustment) {
            Some(ItemRow::Adjustment(it)) => Some(it),
            _ => None,
        },
        product,
    };
    let mut outcome = Outcome::Ignored;
    if matches!(command.payload, Payload::UpsertProduct(_) | Payload::RemoveProduct(_)) {
        outcome = decide_product(command, product, context)?;
        if outcome == Outcome::Duplicate {
            return Ok(outcome);
        }
    }
    let begun = context.meter.begin();
    let decision = tillstream_stock::stock::decide(facts, command, context.now_ms)
        .map_err(|error| TaskError::Stage { stage: StageName::Stock, error })?;
    context.meter.end(StageName::Stock, begun, decision.outcome);
    if decision.outcome != Outcome::Ignored {
        outcome = decision.outcome;
    }
    let level_before = facts.stock.map(tillstream_stock::level);
    write(command, keys, decision, level_before, context)?;
    Ok(outcome)
}

fn decide_product(
    command: &ItemCommand,
    product: Option<&ProductState>,
    context: &mut Context<'_>,
) -> Result<Outcome, TaskError> {
    let begun = context.meter.begin();
    let decided = tillstream_stock::catalog::decide(product, command, context.now_ms);
    let outcome = if decided.is_some() { Outcome::Applied } else { Outcome::Duplicate };
    context.meter.end(StageName::Catalog, begun, outcome);
    let Some(product) = decided else { return Ok(outcome) };
    let row = product_row(&command.tenant, &command.sku);
    context.outputs.push(Output {
        topic: Topic::Products,
        key: row.key.clone(),
        value: codec::encode(&product)?,
        id: output_id("evt_", &command.id, 0),
        kind: "catalog.product_changed",
        traceparent: command.traceparent.clone(),
    });
    context.changes.push((row, Some(ItemRow::Product(Arc::new(product)))));
    Ok(outcome)
}

fn write(
    command: &ItemCommand,
    keys: RowKeys,
    decision: StockDecision,
    level_before: Option<StockLevelChanged>,
    context: &mut Context<'_>,
) -> Result<(), TaskError> {
    for payload in decision.events {
        context.outputs.push(item_event(command, payload, context.now_ms)?);
    }
    if let (Some(answer), Payload::ReserveStock(asked)) = (decision.answer, &command.payload) {
        context.outputs.push(answer_to(command, &asked.order_id, answer, context.now_ms)?);
    }
    if let (Some(row), Some(key)) = (decision.stock, keys.stock) {
        let level = tillstream_stock::level(&row);
        let moved = level_before
            .is_none_or(|before| before.on_hand != level.on_hand || before.reserved != level.reserved);
        if moved {
            context.folds.push(LevelChange {
                tenant: command.tenant.clone(),
                sku: command.sku.clone(),
                command_id: command.id.clone(),
                traceparent: command.traceparent.clone(),
                level,
            });
        }
        context.changes.push((key, Some(ItemRow::Stock(Arc::new(row)))));
    }
    if let (Some(row), Some(key)) = (decision.hold, keys.hold) {
        context.changes.push((key, Some(ItemRow::Hold(Arc::new(row)))));
    }
    if let (Some(row), Some(key)) = (decision.adjustment, keys.adjustment) {
        if decision.forget_adjustment_at_ms.is_some() {
            context.timers.push(KeyTimer {
                key: key.key.clone(),
                name: TimerName::ForgetAdjustment,
                was_due_ms: None,
                due_ms: decision.forget_adjustment_at_ms,
            });
        }
        context.changes.push((key, Some(ItemRow::Adjustment(Arc::new(row)))));
    }
    Ok(())
}

/// A command has at most one event of a kind, but a refused adjustment may come again and be applied: so an
/// event's id derives from command and kind.
fn item_event(command: &ItemCommand, payload: ItemEventPayload, now_ms: i64) -> Result<Output, TaskError> {
    let event = ItemEvent {
        id: derived_id("evt_", &[&command.id, payload.kind()]),
        tenant: command.tenant.clone(),
        sku: command.sku.clone(),
        at_ms: now_ms,
        command_id: command.id.clone(),
        payload,
    };
    event_output(event, command.traceparent.clone())
}

fn event_output(event: ItemEvent, traceparent: Option<Text>) -> Result<Output, TaskError> {
    Ok(Output {
        topic: Topic::ItemEvents,
        key: key(&event.tenant, &event.sku),
        value: codec::encode(&event)?,
        kind: event.payload.kind(),
        id: event.id,
        traceparent,
    })
}

fn answer_to(
    command: &ItemCommand,
    order_id: &Text,
    answer: StockAnswer,
    now_ms: i64,
) -> Result<Output, TaskError> {
    let answer = OrderCommand {
        id: output_id("cmd_", &command.id, 0),
        tenant: command.tenant.clone(),
        order_id: order_id.clone(),
        accepted_at_ms: now_ms,
        traceparent: command.traceparent.clone(),
        fingerprint: Text::default(),
        payload: OrderCommandPayload::StockAnswer(answer),
    };
    Ok(Output {
        topic: Topic::OrderCommands,
        key: key(&answer.tenant, &answer.order_id),
        value: codec::encode(&answer)?,
        id: answer.id,
        kind: "",
        traceparent: answer.traceparent,
    })
}

/// Forgets an applied adjustment once its id's time is over.
fn forget(key: &Key, due_ms: i64, context: &mut Context<'_>) -> Outcome {
    let row = RowKey::new(Table::Adjustment, key.clone());
    match context.rows.get(&row) {
        Some(ItemRow::Adjustment(it)) if it.applied_at_ms + ADJUSTMENT_KEPT_MS == due_ms => {
            context.changes.push((row, None));
            Outcome::Applied
        }
        _ => Outcome::Ignored,
    }
}

impl Task for ItemTask {
    type Command = Arc<ItemCommand>;
    type Row = ItemRow;
    type Fold = LevelChange;
    type Scratch = BTreeMap<Key, LevelChange>;

    fn kind(&self) -> TaskKind {
        TaskKind::Item
    }

    fn decode(&self, value: &[u8]) -> Result<Self::Command, TaskError> {
        Ok(Arc::new(codec::decode::<ItemCommand>(value)?))
    }

    fn key_of(&self, command: &Self::Command) -> Key {
        key(&command.tenant, &command.sku)
    }

    fn accepted_at_ms(&self, command: &Self::Command) -> i64 {
        command.accepted_at_ms
    }

    fn traceparent<'c>(&self, command: &'c Self::Command) -> Option<&'c str> {
        command.traceparent.as_deref()
    }

    fn read_set(&self, input: &TaskInput<Self::Command>, keys: &mut Vec<RowKey>) {
        match input {
            TaskInput::Command(command) => {
                let RowKeys { product, stock, hold, adjustment } = RowKeys::of(command);
                keys.extend([product, stock, hold, adjustment].into_iter().flatten());
            }
            TaskInput::Timer { key, .. } => keys.push(RowKey::new(Table::Adjustment, key.clone())),
        }
    }

    fn products(&self, _input: &TaskInput<Self::Command>, _products: &mut Vec<(Text, Text)>) {}

    fn decode_row(&self, table: Table, bytes: &[u8]) -> Result<Self::Row, TaskError> {
        Ok(match table {
            Table::Product => ItemRow::Product(Arc::new(codec::decode(bytes)?)),
            Table::Hold => ItemRow::Hold(Arc::new(codec::decode(bytes)?)),
            Table::Adjustment => ItemRow::Adjustment(Arc::new(codec::decode(bytes)?)),
            _ => ItemRow::Stock(Arc::new(codec::decode(bytes)?)),
        })
    }

    fn encode_row(&self, row: &Self::Row, out: &mut Vec<u8>) -> Result<(), TaskError> {
        match row {
            ItemRow::Product(row) => codec::encode_into(row.as_ref(), out)?,
            ItemRow::Stock(row) => codec::encode_into(row.as_ref(), out)?,
            ItemRow::Hold(row) => codec::encode_into(row.as_ref(), out)?,
            ItemRow::Adjustment(row) => codec::encode_into(row.as_ref(), out)?,
        }
        Ok(())
    }

    fn handle(
        &self,
        input: &TaskInput<Self::Command>,
        context: &mut Context<'_>,
    ) -> Result<Outcome, TaskError> {
        match input {
            TaskInput::Command(command) => handle_command(command, context),
            TaskInput::Timer { key, name: TimerName::ForgetAdjustment, due_ms } => {
                Ok(forget(key, *due_ms, context))
            }
            TaskInput::Timer { .. } => Ok(Outcome::Ignored),
        }
    }

    fn fold(&self, scratch: &mut Self::Scratch, fold: Self::Fold) {
        scratch.insert(key(&fold.tenant, &fold.sku), fold);
    }

    fn finish(
        &self,
        scratch: Self::Scratch,
        batch_id: &str,
        context: &mut Context<'_>,
    ) -> Result<(), TaskError> {
        for (key, change) in scratch {
            let event = ItemEvent {
                id: derived_id("evt_", &[batch_id, &key]),
                tenant: change.tenant,
                sku: change.sku,
                at_ms: context.now_ms,
                command_id: change.command_id,
                payload: ItemEventPayload::StockLevelChanged(change.level),
            };
            context.outputs.push(event_output(event, change.traceparent)?);
        }
        Ok(())
    }
}
