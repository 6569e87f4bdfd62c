//! The order task: pricing → reservation → payment → fulfillment → order view, over one row.

mod admission;
mod chain;
mod emit;
pub(crate) mod wiring;

use admission::Admission;
use chain::Chain;
use std::sync::Arc;
use tillstream_analytics::fold::{BatchFold, Contribution};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload};
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::{derived_id, key};
use tillstream_stage::stage::{OrderInput, TimerName};
use tillstream_stage::task::{Outcome, Output, Task, TaskContext, TaskError, TaskInput, TaskKind};
use tillstream_stage::{Key, RowKey, Table};

/// Client commands one order may have judged, besides the one that made it.
pub const MARKS_MAX: usize = 1_000;

/// A row of the order task.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderRow {
    /// [`Table::Order`].
    Order(Arc<OrderState>),
    /// [`Table::OrderIndex`]: the key says it all.
    Index,
}

/// The context of one input.
pub(crate) type Context<'a> = TaskContext<'a, OrderRow, Contribution>;

/// Orders and credits. Key: `tenant/order_id`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrderTask;

/// The row of an order or credit.
pub fn order_row(key: Key) -> RowKey {
    RowKey::new(Table::Order, key)
}

fn current<'a>(context: &Context<'a>, key: Key) -> Option<&'a Arc<OrderState>> {
    match context.rows.get(&order_row(key)) {
        Some(OrderRow::Order(state)) => Some(state),
        _ => None,
    }
}

fn handle_command(command: &OrderCommand, context: &mut Context<'_>) -> Result<Outcome, TaskError> {
    let key = key(&command.tenant, &command.order_id);
    let state = match admission::judge(command, current(context, key).map(AsRef::as_ref)) {
        Admission::Take(state) => state,
        Admission::Duplicate => return Ok(Outcome::Duplicate),
        Admission::Ignore => return Ok(Outcome::Ignored),
        Admission::Conflict { version, status } => {
            admission::say_conflict(command, version, status, context)?;
            return Ok(Outcome::Refused);
        }
        Admission::Refuse { code, message, version, status } => {
            admission::say_refusal(command, code, message, version, status, context)?;
            return Ok(Outcome::Refused);
        }
        Admission::ReleaseStray => {
            admission::release_stray(command, context)?;
            return Ok(Outcome::Applied);
        }
    };
    let marked = admission::is_marked(&command.payload);
    let chain = Chain::new(*state, &command.id, command.traceparent.as_ref(), None, context);
    chain.run(OrderInput::Command(&command.payload), marked)
}

fn handle_timer(
    key: &Key,
    name: TimerName,
    due_ms: i64,
    context: &mut Context<'_>,
) -> Result<Outcome, TaskError> {
    let Some(state) = current(context, key.clone()) else { return Ok(Outcome::Ignored) };
    if !state.timers.iter().any(|it| it.name == name as i32 && it.due_ms == due_ms) {
        return Ok(Outcome::Ignored);
    }
    let mut state = OrderState::clone(state);
    state.timers.retain(|it| it.name != name as i32);
    let number = (name as u8).to_string();
    let input_id = derived_id("tmr_", &[key, &number, &due_ms.to_string()]);
    Chain::new(state, &input_id, None, Some(name), context).run(OrderInput::Timer(name), true)
}

impl Task for OrderTask {
    type Command = Arc<OrderCommand>;
    type Row = OrderRow;
    type Fold = Contribution;
    type Scratch = BatchFold;

    fn kind(&self) -> TaskKind {
        TaskKind::Order
    }

    fn decode(&self, value: &[u8]) -> Result<Self::Command, TaskError> {
        Ok(Arc::new(codec::decode::<OrderCommand>(value)?))
    }

    fn key_of(&self, command: &Self::Command) -> Key {
        key(&command.tenant, &command.order_id)
    }

    fn accepted_at_ms(&self, command: &Self::Command) -> i64 {
        command.accepted_at_ms
    }

    fn traceparent<'c>(&self, command: &'c Self::Command) -> Option<&'c str> {
        command.traceparent.as_deref()
    }

    fn read_set(&self, input: &TaskInput<Self::Command>, keys: &mut Vec<RowKey>) {
        keys.push(order_row(match input {
            TaskInput::Command(command) => self.key_of(command),
            TaskInput::Timer { key, .. } => key.clone(),
        }));
    }

    fn products(&self, input: &TaskInput<Self::Command>, products: &mut Vec<(Text, Text)>) {
        let TaskInput::Command(command) = input else { return };
        if let OrderCommandPayload::PlaceOrder(order) = &command.payload {
            products.extend(order.lines.iter().map(|it| (command.tenant.clone(), it.sku.clone())));
        }
    }

    fn decode_row(&self, table: Table, bytes: &[u8]) -> Result<Self::Row, TaskError> {
        match table {
            Table::OrderIndex => Ok(OrderRow::Index),
            _ => Ok(OrderRow::Order(Arc::new(codec::decode(bytes)?))),
        }
    }

    fn encode_row(&self, row: &Self::Row, out: &mut Vec<u8>) -> Result<(), TaskError> {
        match row {
            OrderRow::Order(state) => Ok(codec::encode_into(state.as_ref(), out)?),
            OrderRow::Index => Ok(()),
        }
    }

    fn handle(
        &self,
        input: &TaskInput<Self::Command>,
        context: &mut Context<'_>,
    ) -> Result<Outcome, TaskError> {
        match input {
            TaskInput::Command(command) => handle_command(command, context),
            TaskInput::Timer { key, name, due_ms } => handle_timer(key, *name, *due_ms, context),
        }
    }

    fn fold(&self, scratch: &mut Self::Scratch, fold: Self::Fold) {
        scratch.add(fold);
    }

    fn finish(
        &self,
        scratch: Self::Scratch,
        batch_id: &str,
        context: &mut Context<'_>,
    ) -> Result<(), TaskError> {
        for delta in scratch.into_deltas(batch_id, context.partition as i32, context.now_ms) {
            context.outputs.push(Output {
                topic: Topic::AnalyticsDeltas,
                key: delta.tenant.clone(),
                value: codec::encode(&delta)?,
                id: delta.id,
                kind: "",
                traceparent: None,
            });
        }
        Ok(())
    }
}
