//! Filling the tables from the changelogs: after a truncation, a restore from an older copy, or a lost database.

use crate::changelog::{self, Change};
use crate::halt::Halt;
use crate::ports::{ClusterPorts, changelog_of};
use std::collections::BTreeMap;
use tillstream_log::LogError;
use tillstream_log::broker::BrokerError;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tillstream_state::row_store::{Checkpoint, RowWrite, StateKey};

/// Changes gathered before they are written, so that a key that changed often is written less often.
const GATHER: usize = 8_000;

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildProgress {
    /// The task whose tables are being filled.
    pub task: TaskId,
    /// Tasks done before it.
    pub tasks_done: u32,
    /// Tasks in all.
    pub tasks: u32,
    /// The changelog offset reached.
    pub offset: u64,
    /// Where the changelog ends.
    pub end: u64,
    /// Rows and timers written so far, of all tasks.
    pub written: u64,
}

/// Empties every table and fills it from the changelogs. Nobody may be working on the deployment. A rebuild that is cut
/// short leaves the keyspace marked, and is begun again.
///
/// # Errors
/// The broker's or the database's; [`Halt::ForeignRecord`].
pub async fn rebuild(ports: &ClusterPorts, mut told: impl FnMut(RebuildProgress)) -> Result<u64, LogError> {
    let nodes = ports.rows.incarnations().await?;
    ports.rows.set_rebuilding(true).await?;
    ports.rows.truncate().await?;
    let tasks: Vec<TaskId> = TaskKind::ALL
        .into_iter()
        .filter(|kind| kind.changelog().is_some())
        .flat_map(|kind| (0..ports.settings.partitions).map(move |partition| TaskId { kind, partition }))
        .collect();
    let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
    let mut written = 0;
    let mut checkpoints = Vec::new();
    for (done, task) in tasks.iter().enumerate() {
        let tasks_done = u32::try_from(done).unwrap_or(u32::MAX);
        let shown = |offset, end, written| RebuildProgress {
            task: *task,
            tasks_done,
            tasks: count,
            offset,
            end,
            written,
        };
        let filled =
            fill(ports, *task, written, |offset, end, written| told(shown(offset, end, written))).await?;
        written = filled.0;
        if let Some(checkpoint) = filled.1 {
            checkpoints.push((*task, checkpoint));
        }
    }
    until_durable(ports, &nodes).await?;
    for (task, checkpoint) in checkpoints {
        let timestamp = changelog::timestamp(checkpoint.generation, checkpoint.offset);
        ports.rows.put_checkpoint(task, checkpoint, timestamp).await?;
    }
    // A crash that loses them would be taken for an emptied database.
    until_durable(ports, &nodes).await?;
    ports.rows.set_rebuilding(false).await?;
    Ok(written)
}

/// Waits until everything written since `nodes` was asked for is on the database's disks: a checkpoint promises rows on
/// disk, not in a node's memory.
pub(crate) async fn until_durable(
    ports: &ClusterPorts,
    nodes: &BTreeMap<String, Option<i64>>,
) -> Result<(), LogError> {
    ports.clock.sleep(ports.settings.durable_after).await;
    if ports.rows.incarnations().await? == *nodes {
        return Ok(());
    }
    let detail =
        "a node of the database has restarted, come or gone, and may have lost rows: run the command again";
    Err(LogError::Unavailable(detail.to_owned()))
}

async fn fill(
    ports: &ClusterPorts,
    task: TaskId,
    mut written: u64,
    mut told: impl FnMut(u64, u64, u64),
) -> Result<(u64, Option<Checkpoint>), LogError> {
    let Some(changelog) = changelog_of(task) else { return Ok((written, None)) };
    let unavailable = |error: BrokerError| error.into_log_error();
    let (start, end) = ports.broker.bounds(changelog).await.map_err(unavailable)?;
    let mut replay = ports.broker.replay(changelog, start).map_err(unavailable)?;
    let mut gathered: BTreeMap<StateKey, RowWrite> = BTreeMap::new();
    let mut checkpoint = Checkpoint { generation: 1, offset: 0, timers_from_ms: i64::MAX };
    loop {
        let records = replay.next().await.map_err(unavailable)?;
        let ended = records.is_empty();
        for record in records {
            let offset = record.offset;
            checkpoint.offset = offset + 1;
            let change = changelog::read(record).map_err(|detail| Halt::ForeignRecord {
                changelog,
                offset,
                detail,
            })?;
            match change {
                Change::Incarnation(generation) => checkpoint.generation = generation,
                Change::State(key, value) => {
                    if let (StateKey::Timer(timer), Some(_)) = (&key, &value) {
                        checkpoint.timers_from_ms = checkpoint.timers_from_ms.min(timer.due_ms);
                    }
                    let timestamp = changelog::timestamp(checkpoint.generation, offset);
                    gathered.insert(key.clone(), RowWrite { key, value, timestamp });
                }
            }
        }
        if gathered.len() >= GATHER || (ended && !gathered.is_empty()) {
            let writes: Vec<RowWrite> = std::mem::take(&mut gathered).into_values().collect();
            ports.rows.write(task, &writes).await?;
            written += writes.len() as u64;
        }
        told(checkpoint.offset, end, written);
        if ended {
            break;
        }
    }
    checkpoint.timers_from_ms = checkpoint.timers_from_ms.min(ports.clock.now_ms());
    let has_begun = checkpoint.offset > 0;
    // The last records may be compacted away; what they said is in the tables all the same.
    checkpoint.offset = checkpoint.offset.max(end);
    Ok((written, has_begun.then_some(checkpoint)))
}
