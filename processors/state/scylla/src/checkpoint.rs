//! Checkpoints, and the marks that tell a table which was truncated.
//!
//! Marks are written once per task and process, and never again while this process knows of them: a checkpoint that
//! marked every time would cover up a table that was truncated under a running task.

use crate::fetch::{self, Fault};
use crate::schema::{MARK_BUCKET, MARK_HOUR, MARK_KEY};
use crate::{ScyllaStore, error};
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use std::collections::BTreeMap;
use tillstream_log::LogError;
use tillstream_stage::Table;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tillstream_state::row_store::Checkpoint;

fn tables_of(task: TaskId) -> impl Iterator<Item = Table> {
    Table::ALL.into_iter().filter(move |it| it.kind() == task.kind)
}

impl ScyllaStore {
    pub(crate) async fn read_checkpoint(&self, task: TaskId) -> Result<Option<Checkpoint>, LogError> {
        let doing = "reading a checkpoint";
        let values = (task.kind.as_str(), task.partition.cast_signed());
        let found = self.fetch(doing, &self.statements.checkpoint, &values, checkpoints).await?;
        let Some((generation, offset, timers_from_ms)) = found.into_iter().next() else {
            // Whoever emptied the tables took the marks along.
            self.marked.lock().remove(&task);
            return Ok(None);
        };
        let broken = |_| error::unreadable(doing, format!("generation {generation}, offset {offset}"));
        Ok(Some(Checkpoint {
            generation: u32::try_from(generation).map_err(broken)?,
            offset: u64::try_from(offset).map_err(broken)?,
            timers_from_ms,
        }))
    }

    pub(crate) async fn write_checkpoint(
        &self,
        task: TaskId,
        checkpoint: Checkpoint,
        timestamp: i64,
    ) -> Result<(), LogError> {
        if !self.marked.lock().contains(&task) {
            self.mark(task, timestamp).await?;
            self.marked.lock().insert(task);
        }
        let doing = "writing a checkpoint";
        let offset = i64::try_from(checkpoint.offset).map_err(|it| error::unreadable(doing, it))?;
        let (kind, shard) = (task.kind.as_str(), task.partition.cast_signed());
        let values =
            (kind, shard, i64::from(checkpoint.generation), offset, checkpoint.timers_from_ms, timestamp);
        self.put(doing, &self.statements.put_checkpoint, values).await
    }

    pub(crate) async fn write_flushed(
        &self,
        task: TaskId,
        input_offset: u64,
        timestamp: i64,
    ) -> Result<(), LogError> {
        let doing = "noting what is flushed";
        let offset = i64::try_from(input_offset).map_err(|it| error::unreadable(doing, it))?;
        let values = (task.kind.as_str(), task.partition.cast_signed(), offset, timestamp);
        self.put(doing, &self.statements.put_flushed, values).await
    }

    pub(crate) async fn read_flushed(&self, kind: TaskKind) -> Result<BTreeMap<u32, u64>, LogError> {
        let doing = "reading what is flushed";
        let found = self.fetch(doing, &self.statements.flushed, &(kind.as_str(),), flushed).await?;
        Ok(found.into_iter().collect())
    }

    async fn mark(&self, task: TaskId, timestamp: i64) -> Result<(), LogError> {
        let (kind, shard) = (task.kind.as_str(), task.partition.cast_signed());
        let (doing, nothing) = ("marking a table", &[][..] as &[u8]);
        let rows = tables_of(task).map(|table| {
            let values = (shard, MARK_BUCKET, MARK_KEY, nothing, timestamp);
            self.put(doing, &self.statements.of(table).put, values)
        });
        self.each(rows).await?;
        let values = (kind, shard, MARK_HOUR, MARK_HOUR, MARK_KEY, MARK_KEY, nothing, timestamp);
        self.put(doing, &self.statements.put_timer, values).await?;
        self.put(doing, &self.statements.put_hour, (kind, shard, MARK_HOUR, timestamp)).await
    }

    pub(crate) async fn put(
        &self,
        doing: &'static str,
        statement: &PreparedStatement,
        values: impl SerializeRow + Sync,
    ) -> Result<(), LogError> {
        self.run(doing, statement, &values).await.map(drop)
    }

    pub(crate) async fn read_marks(&self, task: TaskId) -> Result<Vec<Table>, LogError> {
        let shard = task.partition.cast_signed();
        let doing = "reading the tables' marks";
        let reads = tables_of(task).map(async |table| {
            let values = (shard, MARK_BUCKET, vec![MARK_KEY]);
            let found = self.fetch(doing, &self.statements.of(table).get, &values, fetch::rows).await?;
            Ok::<_, Fault>((!found.is_empty()).then_some(table))
        });
        let mut marked: Vec<Table> = self.each(reads).await?.into_iter().flatten().collect();
        let values = (task.kind.as_str(), shard, MARK_HOUR, MARK_HOUR, MARK_HOUR, 1);
        let timers = self.fetch(doing, &self.statements.timers, &values, count).await?;
        let hours = self.hours(task, MARK_HOUR, MARK_HOUR).await?;
        if timers.is_empty() || hours.is_empty() {
            // Lost timers are lost state, too, and no table of rows can be named for them.
            marked.clear();
        }
        let mut known = self.marked.lock();
        match !marked.is_empty() && marked.len() == tables_of(task).count() {
            true => known.insert(task),
            false => known.remove(&task),
        };
        Ok(marked)
    }
}

fn count(page: &QueryRowsResult, found: &mut Vec<()>) -> Result<(), String> {
    found.extend(std::iter::repeat_n((), page.rows_num()));
    Ok(())
}

fn flushed(page: &QueryRowsResult, found: &mut Vec<(u32, u64)>) -> Result<(), String> {
    for row in page.rows::<(i32, i64)>().map_err(|it| it.to_string())? {
        let (shard, offset) = row.map_err(|it| it.to_string())?;
        let shard = u32::try_from(shard).map_err(|it| it.to_string())?;
        found.push((shard, u64::try_from(offset).map_err(|it| it.to_string())?));
    }
    Ok(())
}

fn checkpoints(page: &QueryRowsResult, found: &mut Vec<(i64, i64, i64)>) -> Result<(), String> {
    for row in page.rows::<(i64, i64, i64)>().map_err(|it| it.to_string())? {
        found.push(row.map_err(|it| it.to_string())?);
    }
    Ok(())
}
