//! The analytics task: deltas into windows, top products, corrections and the watermark. Key: `tenant`.
//!
//! A delta only says what to add, so a batch is summed first and every row is rewritten once, in
//! [`Task::finish`], however many deltas of the batch touched it.

use std::collections::BTreeMap;
use std::sync::Arc;
use tillstream_analytics::windows::{TenantChanges, WindowRowId, changed, corrected, touched};
use tillstream_analytics::{keys, top};
use tillstream_schemas::analytics::{
    AnalyticsDelta, CorrectionState, TopProductsState, WatermarkState, WindowState,
};
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::derived_id;
use tillstream_stage::stage::StageName;
use tillstream_stage::task::{Outcome, Output, Task, TaskContext, TaskError, TaskInput, TaskKind};
use tillstream_stage::{Key, RowKey, Table};

/// A row of the analytics task.
#[derive(Clone, Debug, PartialEq)]
pub enum AnalyticsRow {
    /// [`Table::Window`].
    Window(Arc<WindowState>),
    /// [`Table::TopProducts`].
    TopProducts(Arc<TopProductsState>),
    /// [`Table::Correction`].
    Correction(Arc<CorrectionState>),
    /// [`Table::Watermark`].
    Watermark(Arc<WatermarkState>),
}

type Context<'a> = TaskContext<'a, AnalyticsRow, Arc<AnalyticsDelta>>;

/// The deltas of a batch, per tenant, in the order in which they came.
pub type TenantDeltas = BTreeMap<Text, Vec<Arc<AnalyticsDelta>>>;

/// Windows, per tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnalyticsTask;

fn window_row(tenant: &str, id: &WindowRowId) -> RowKey {
    keys::window(tenant, id.granularity, id.start_ms, &id.currency, &id.country)
}

fn write(
    tenant: &Text,
    changes: TenantChanges,
    batch_id: &str,
    context: &mut Context<'_>,
) -> Result<(), TaskError> {
    for (id, change) in &changes.windows {
        let key = window_row(tenant, id);
        let before = match context.rows.get(&key) {
            Some(AnalyticsRow::Window(row)) => Some(row.as_ref()),
            _ => None,
        };
        let row = changed(before, tenant, id, change);
        context.outputs.push(Output {
            topic: Topic::AnalyticsWindows,
            key: key.key.clone(),
            value: codec::encode(&row)?,
            id: derived_id("win_", &[batch_id, &key.key]),
            kind: "analytics.window_changed",
            traceparent: None,
        });
        context.changes.push((key, Some(AnalyticsRow::Window(Arc::new(row)))));
    }
    for (id, change) in &changes.tops {
        let key = keys::top_products(tenant, id.granularity, id.start_ms, &id.currency);
        let before = match context.rows.get(&key) {
            Some(AnalyticsRow::TopProducts(row)) => Some(row.as_ref()),
            _ => None,
        };
        let row = top::merged(before, change);
        context.changes.push((key, Some(AnalyticsRow::TopProducts(Arc::new(row)))));
    }
    for ((minute_start_ms, currency, country), late) in &changes.corrections {
        let key = keys::correction(tenant, *minute_start_ms, currency, country);
        let before = match context.rows.get(&key) {
            Some(AnalyticsRow::Correction(row)) => Some(row.as_ref()),
            _ => None,
        };
        let row = corrected(before, late);
        context.changes.push((key, Some(AnalyticsRow::Correction(Arc::new(row)))));
    }
    let row = AnalyticsRow::Watermark(Arc::new(changes.watermark));
    context.changes.push((keys::watermark(tenant), Some(row)));
    Ok(())
}

impl Task for AnalyticsTask {
    type Command = Arc<AnalyticsDelta>;
    type Row = AnalyticsRow;
    type Fold = Arc<AnalyticsDelta>;
    type Scratch = TenantDeltas;

    fn kind(&self) -> TaskKind {
        TaskKind::Analytics
    }

    fn decode(&self, value: &[u8]) -> Result<Self::Command, TaskError> {
        Ok(Arc::new(codec::decode::<AnalyticsDelta>(value)?))
    }

    fn key_of(&self, command: &Self::Command) -> Key {
        command.tenant.clone()
    }

    fn accepted_at_ms(&self, command: &Self::Command) -> i64 {
        command.decided_at_ms
    }

    fn linked_traces<'c>(&self, command: &'c Self::Command) -> &'c [Text] {
        &command.traces
    }

    fn read_set(&self, input: &TaskInput<Self::Command>, keys: &mut Vec<RowKey>) {
        let TaskInput::Command(delta) = input else { return };
        let before = keys.len();
        keys.push(keys::watermark(&delta.tenant));
        for window in &delta.windows {
            let (currency, country) = (&window.currency, &window.country);
            keys.push(keys::correction(&delta.tenant, window.minute_start_ms, currency, country));
            for id in touched(window) {
                keys.push(window_row(&delta.tenant, &id));
                if !window.products.is_empty() {
                    keys.push(keys::top_products(&delta.tenant, id.granularity, id.start_ms, currency));
                }
            }
        }
        // Minutes share their hour and their day.
        let mut own = keys.split_off(before);
        own.sort_unstable();
        own.dedup();
        keys.append(&mut own);
    }

    fn products(&self, _input: &TaskInput<Self::Command>, _products: &mut Vec<(Text, Text)>) {}

    fn decode_row(&self, table: Table, bytes: &[u8]) -> Result<Self::Row, TaskError> {
        Ok(match table {
            Table::TopProducts => AnalyticsRow::TopProducts(Arc::new(codec::decode(bytes)?)),
            Table::Correction => AnalyticsRow::Correction(Arc::new(codec::decode(bytes)?)),
            Table::Watermark => AnalyticsRow::Watermark(Arc::new(codec::decode(bytes)?)),
            _ => AnalyticsRow::Window(Arc::new(codec::decode(bytes)?)),
        })
    }

    fn encode_row(&self, row: &Self::Row, out: &mut Vec<u8>) -> Result<(), TaskError> {
        match row {
            AnalyticsRow::Window(row) => codec::encode_into(row.as_ref(), out)?,
            AnalyticsRow::TopProducts(row) => codec::encode_into(row.as_ref(), out)?,
            AnalyticsRow::Correction(row) => codec::encode_into(row.as_ref(), out)?,
            AnalyticsRow::Watermark(row) => codec::encode_into(row.as_ref(), out)?,
        }
        Ok(())
    }

    fn handle(
        &self,
        input: &TaskInput<Self::Command>,
        context: &mut Context<'_>,
    ) -> Result<Outcome, TaskError> {
        let TaskInput::Command(delta) = input else { return Ok(Outcome::Ignored) };
        let begun = context.meter.begin();
        context.folds.push(Arc::clone(delta));
        context.meter.end(StageName::Analytics, begun, Outcome::Applied);
        Ok(Outcome::Applied)
    }

    fn fold(&self, scratch: &mut Self::Scratch, fold: Self::Fold) {
        match scratch.get_mut(&fold.tenant) {
            Some(deltas) => deltas.push(fold),
            None => {
                scratch.insert(fold.tenant.clone(), vec![fold]);
            }
        }
    }

    fn finish(
        &self,
        scratch: Self::Scratch,
        batch_id: &str,
        context: &mut Context<'_>,
    ) -> Result<(), TaskError> {
        for (tenant, deltas) in scratch {
            let watermark = match context.rows.get(&keys::watermark(&tenant)) {
                Some(AnalyticsRow::Watermark(row)) => WatermarkState::clone(row),
                _ => WatermarkState::default(),
            };
            let mut changes = TenantChanges::new(watermark);
            for delta in &deltas {
                changes.add(delta, context.now_ms);
            }
            write(&tenant, changes, batch_id, context)?;
        }
        Ok(())
    }
}
