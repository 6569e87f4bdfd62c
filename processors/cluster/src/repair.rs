//! What an operator decides where log and state do not fit together any more.

use crate::changelog::{self, Tag};
use crate::ports::{ClusterPorts, changelog_of, input_of};
use crate::rebuild::until_durable;
use tillstream_log::LogError;
use tillstream_log::broker::{BrokerError, GroupOffset, ProduceRecord, TransactionalProducer};
use tillstream_stage::{RowKey, Table};
use tillstream_state::TaskId;
use tillstream_state::row_store::{Checkpoint, ShardPlace};

const PAGE_ROWS: usize = 1_000;
const TIMERS_MAX: usize = 1_000_000;

/// Where a task is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the first record the topic holds.
    Earliest,
    /// With what comes from now on.
    Latest,
    /// Here.
    Offset(u64),
}

/// What was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedOffset {
    /// Where the task stood; `None`: nowhere.
    pub before: Option<u64>,
    /// Where it goes on.
    pub offset: u64,
    /// What the topic holds.
    pub start: u64,
    /// One past the last record.
    pub end: u64,
}

/// Sets the place from which a task goes on. Commands it has handled before are recognised as repeats by their ids;
/// what lies between is given up. Nobody may be in the group.
///
/// # Errors
/// [`LogError::OutOfRange`] for an offset the topic does not have; the broker's.
pub async fn accept_offsets(
    ports: &ClusterPorts,
    task: TaskId,
    from: From,
) -> Result<AcceptedOffset, LogError> {
    let input = input_of(task);
    let unavailable = |error: BrokerError| error.into_log_error();
    let group = ports.settings.group(task.kind);
    let (start, end) = ports.broker.bounds(input).await.map_err(unavailable)?;
    let found = ports.broker.group_offsets(&group, &[input]).await.map_err(unavailable)?;
    let before = found.into_iter().next().flatten();
    let offset = match from {
        From::Earliest => start,
        From::Latest => end,
        From::Offset(asked) if (start..=end).contains(&asked) => asked,
        From::Offset(asked) => return Err(LogError::OutOfRange { partition: input, start, end, asked }),
    };
    // What was said about the database stays said.
    let metadata = before.as_ref().map(|it| it.metadata.clone()).unwrap_or_default();
    let place = GroupOffset { offset, metadata };
    ports.broker.set_group_offset(&group, input, place).await.map_err(unavailable)?;
    Ok(AcceptedOffset { before: before.map(|it| it.offset), offset, start, end })
}

/// Writes a task's changelog anew from its tables, as a new incarnation, and tells how many records. What the tables had
/// not taken when the changelog was lost is lost with it. A task that has never worked has no changelog to lose: for it
/// nothing is written, since a changelog without an offset would halt its first start.
///
/// # Errors
/// The broker's or the database's.
pub async fn adopt_changelog(ports: &ClusterPorts, task: TaskId) -> Result<u64, LogError> {
    let Some(to) = changelog_of(task) else { return Ok(0) };
    let unavailable = |error: BrokerError| error.into_log_error();
    let nodes = ports.rows.incarnations().await?;
    let before = ports.rows.checkpoint(task).await?;
    let group = ports.settings.group(task.kind);
    let place = ports.broker.group_offsets(&group, &[input_of(task)]).await.map_err(unavailable)?;
    let place = place.into_iter().flatten().next();
    if place.is_none() && before.is_none() && holds_nothing(ports, task).await? {
        return Ok(0);
    }
    let told = place.and_then(|it| Tag::decode(&it.metadata));
    // Above every generation that rows may have been written in.
    let known = [before.map(|it| it.generation), told.map(|it| it.generation), Some(1)];
    let generation = known.into_iter().flatten().fold(1, u32::max) + 1;
    let producer = ports.broker.producer(&ports.settings.transactional_id(task)).map_err(unavailable)?;
    producer.init().await.map_err(unavailable)?;
    let mut written = write(&*producer, vec![changelog::incarnation(to, generation)]).await?;
    let mut count = 0;
    for table in Table::ALL.into_iter().filter(|it| it.kind() == task.kind) {
        let mut from: Option<ShardPlace> = None;
        loop {
            let page = ports.rows.shard_page(table, task.partition, from.as_ref(), PAGE_ROWS).await?;
            let record = |(key, row): (_, tillstream_state::row_store::StoredRow)| {
                changelog::row(to, &RowKey::new(table, key), Some(row.value))
            };
            let records: Vec<ProduceRecord> = page.rows.into_iter().map(record).collect();
            count += records.len() as u64;
            if !records.is_empty() {
                written = write(&*producer, records).await?;
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    let timers = ports.rows.timers(task, 0, i64::MAX, TIMERS_MAX).await?;
    let timers_from_ms = timers.first().map_or(ports.clock.now_ms(), |(it, _)| it.due_ms);
    for part in timers.chunks(PAGE_ROWS) {
        let records: Vec<ProduceRecord> = part.iter().map(|(it, _)| changelog::timer(to, it, true)).collect();
        count += records.len() as u64;
        written = write(&*producer, records).await?;
    }
    until_durable(ports, &nodes).await?;
    let checkpoint = Checkpoint { generation, offset: written, timers_from_ms };
    ports.rows.put_checkpoint(task, checkpoint, changelog::timestamp(generation, written)).await?;
    // A crash that loses it would be taken for a changelog that was cut.
    until_durable(ports, &nodes).await?;
    Ok(count)
}

/// Whether the tables have neither a row nor a timer of the task.
async fn holds_nothing(ports: &ClusterPorts, task: TaskId) -> Result<bool, LogError> {
    for table in Table::ALL.into_iter().filter(|it| it.kind() == task.kind) {
        let mut from: Option<ShardPlace> = None;
        loop {
            let page = ports.rows.shard_page(table, task.partition, from.as_ref(), 1).await?;
            if !page.rows.is_empty() {
                return Ok(false);
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(ports.rows.timers(task, 0, i64::MAX, 1).await?.is_empty())
}

/// One transaction; tells one past its last offset.
async fn write(producer: &dyn TransactionalProducer, records: Vec<ProduceRecord>) -> Result<u64, LogError> {
    let unavailable = |error: BrokerError| error.into_log_error();
    producer.begin().await.map_err(unavailable)?;
    producer.produce(records).await.map_err(unavailable)?;
    let offsets = producer.drain().await.map_err(unavailable)?;
    producer.commit().await.map_err(unavailable)?;
    Ok(offsets.into_iter().max().map_or(0, |it| it + 1))
}
