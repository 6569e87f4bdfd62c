//! Timers of a task, hour by hour.

use crate::fetch::Fault;
use crate::place::HOUR_MS;
use crate::{ScyllaStore, limit_of};
use scylla::response::query_result::QueryRowsResult;
use tillstream_log::LogError;
use tillstream_stage::{Key, TimerName};
use tillstream_state::{TaskId, Timer};

/// Hours that are read without asking first which of them ever had a timer.
const FEW_HOURS: i64 = 24;
/// Hours read at once.
const HOURS: usize = 8;

impl ScyllaStore {
    pub(crate) async fn timers_due(
        &self,
        task: TaskId,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> Result<Vec<(Timer, i64)>, LogError> {
        let from_ms = from_ms.max(0);
        let mut found = Vec::new();
        if until_ms < from_ms {
            return Ok(found);
        }
        let (first, last) = (from_ms / HOUR_MS, until_ms / HOUR_MS);
        let hours = match last - first < FEW_HOURS {
            true => (first..=last).collect(),
            false => self.hours(task, first, last).await?,
        };
        for hours in hours.chunks(HOURS) {
            if found.len() >= limit {
                break;
            }
            let left = limit - found.len();
            let reads = hours.iter().map(|hour| self.hour(task, *hour, from_ms, until_ms, left));
            found.extend(self.each(reads).await?.into_iter().flatten());
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Which hours ever had a timer, in order.
    pub(crate) async fn hours(&self, task: TaskId, first: i64, last: i64) -> Result<Vec<i64>, LogError> {
        let values = (task.kind.as_str(), task.partition.cast_signed(), first, last);
        Ok(self.fetch("reading the timers' hours", &self.statements.hours, &values, hours).await?)
    }

    /// The timers of an hour. Where the database gives up for all the deleted timers before the living, the time is
    /// halved.
    async fn hour(
        &self,
        task: TaskId,
        hour: i64,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> Result<Vec<(Timer, i64)>, LogError> {
        let start_ms = hour.saturating_mul(HOUR_MS);
        let mut found = Vec::new();
        let mut open = vec![(from_ms.max(start_ms), until_ms.min(start_ms.saturating_add(HOUR_MS - 1)))];
        while let Some((from_ms, until_ms)) = open.pop() {
            if found.len() >= limit {
                break;
            }
            match self.timers_between(task, hour, from_ms, until_ms, limit - found.len()).await {
                Ok(timers) => found.extend(timers),
                Err(Fault::TooMuch(_)) if until_ms > from_ms => {
                    let middle_ms = from_ms + (until_ms - from_ms) / 2;
                    open.push((middle_ms + 1, until_ms));
                    open.push((from_ms, middle_ms));
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(found)
    }

    async fn timers_between(
        &self,
        task: TaskId,
        hour: i64,
        from_ms: i64,
        until_ms: i64,
        limit: usize,
    ) -> Result<Vec<(Timer, i64)>, Fault> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (kind, shard) = (task.kind.as_str(), task.partition.cast_signed());
        let values = (kind, shard, hour, from_ms, until_ms, limit_of(limit));
        self.fetch("reading timers", &self.statements.timers, &values, timers).await
    }
}

fn hours(page: &QueryRowsResult, found: &mut Vec<i64>) -> Result<(), String> {
    for row in page.rows::<(i64,)>().map_err(|it| it.to_string())? {
        found.push(row.map_err(|it| it.to_string())?.0);
    }
    Ok(())
}

fn timers(page: &QueryRowsResult, found: &mut Vec<(Timer, i64)>) -> Result<(), String> {
    for row in page.rows::<(i64, &str, &str, Option<i64>)>().map_err(|it| it.to_string())? {
        let (due_ms, key, name, timestamp) = row.map_err(|it| it.to_string())?;
        let name = TimerName::parse(name).ok_or_else(|| format!("`{name}` is no timer"))?;
        if let Some(timestamp) = timestamp {
            found.push((Timer { due_ms, key: Key::from(key), name }, timestamp));
        }
    }
    Ok(())
}
