//! What operators do: they stop everything, and run the commands of `tillstream state`.

use crate::course::Course;
use crate::history::{History, STOP_MAX};
use crate::house::PARTITIONS;
use crate::oracle::{Checked, Violation};
use crate::plan::Operator;
use crate::process::{self, Spawned};
use std::sync::Arc;
use std::time::Duration;
use tillstream_cluster::{ClusterPorts, From, accept_offsets, adopt_changelog, rebuild};
use tillstream_log::{LogError, TopicPartition};
use tillstream_stage::Table;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tokio::sync::watch;

/// The database is older than the log.
const OLDER: &str = "TS0324";
/// A table was emptied.
const TRUNCATED: &str = "TS0325";
/// A changelog does not reach to the checkpoint.
const CUT: &str = "TS0323";
/// How often a repair is tried.
const TRIES: u32 = 40;

const KINDS: [TaskKind; 3] = [TaskKind::Order, TaskKind::Item, TaskKind::Analytics];

/// A repair under way, with what it runs on.
struct Tools {
    ports: ClusterPorts,
    /// Held until it is over: the watch over the nodes ends with it.
    _stop: watch::Sender<bool>,
}

impl History {
    pub(crate) async fn operate(&mut self, operator: &Operator) -> Checked {
        match operator {
            Operator::Backup => {
                self.backup = Some(self.house.rows.snapshot());
                return Ok(());
            }
            Operator::Restore => {
                let Some(backup) = self.backup.clone() else { return Ok(()) };
                self.stop_all().await?;
                self.house.rows.faults().restore(&backup);
                self.expected_halts = vec![OLDER, TRUNCATED];
            }
            Operator::Truncate { table } => {
                self.stop_all().await?;
                self.house.rows.faults().truncate_table(Table::ALL[usize::from(*table) % Table::ALL.len()]);
                self.expected_halts = vec![OLDER, TRUNCATED];
            }
            Operator::Rebuild => {
                self.stop_all().await?;
                self.rebuild().await?;
            }
            Operator::ResetOffsets { kind } => {
                self.stop_all().await?;
                self.reset_offsets(KINDS[usize::from(*kind) % 2]).await?;
            }
            Operator::RecreateChangelog { kind } => {
                self.stop_all().await?;
                self.recreate(KINDS[usize::from(*kind) % 3]);
            }
        }
        self.start_all().await;
        Ok(())
    }

    /// A worker has halted: what its error says is to be done.
    pub(crate) async fn repair(&mut self, reason: &str) -> Checked {
        self.tell(|| format!("a worker has halted: {reason}"));
        let code = self.expected_halts.iter().find(|it| reason.contains(**it)).copied();
        let Some(code) = code else {
            return Err(Violation(format!("a worker has halted: {reason}")));
        };
        self.outcome.repairs += 1;
        self.stop_all().await?;
        if code == CUT {
            for task in std::mem::take(&mut self.cut) {
                self.adopt(task).await?;
            }
        } else {
            self.rebuild().await?;
        }
        self.expected_halts.clear();
        self.start_all().await;
        Ok(())
    }

    /// Stops every worker, and waits until the groups are empty.
    async fn stop_all(&mut self) -> Checked {
        self.heal();
        for worker in 0..self.processes.len() {
            if let Some(process) = self.processes[worker].take() {
                process.stop(&self.house, STOP_MAX).await;
            }
        }
        for _ in 0..TRIES {
            let groups = crate::KINDS.into_iter().map(|kind| self.house.settings.group(kind));
            let open = !self.house.broker.open_transactions().is_empty();
            if !open && groups.into_iter().all(|it| self.house.broker.members(&it).is_empty()) {
                return self.look().await;
            }
            self.house.pass(Duration::from_secs(1)).await;
        }
        Err(Violation("members stay in their groups after they were stopped".to_owned()))
    }

    async fn start_all(&mut self) {
        for worker in 0..self.processes.len() {
            self.start(worker).await;
        }
    }

    async fn tools(&self) -> Result<Tools, LogError> {
        let (stop, stopping) = watch::channel(false);
        let spawned = Arc::new(Spawned::default());
        let ports = process::ports(&self.house, "operator", &spawned, stopping).await?;
        Ok(Tools { ports, _stop: stop })
    }

    async fn rebuild(&mut self) -> Checked {
        let tools = self.tools().await.map_err(|it| Violation(it.to_string()))?;
        let filled = rebuild(&tools.ports, |_| {}).await;
        let rows = filled.map_err(|error| Violation(format!("the rebuild failed: {error}")))?;
        self.tell(|| format!("the tables are rebuilt: {rows} rows"));
        Ok(())
    }

    async fn adopt(&mut self, task: TaskId) -> Checked {
        let tools = self.tools().await.map_err(|it| Violation(it.to_string()))?;
        let adopted = adopt_changelog(&tools.ports, task).await;
        let records =
            adopted.map_err(|error| Violation(format!("the changelog cannot be adopted: {error}")))?;
        self.tell(|| format!("the changelog of {task} is adopted: {records} records"));
        Ok(())
    }

    async fn reset_offsets(&mut self, kind: TaskKind) -> Checked {
        let tools = self.tools().await.map_err(|it| Violation(it.to_string()))?;
        for partition in 0..PARTITIONS {
            let accepted = accept_offsets(&tools.ports, TaskId { kind, partition }, From::Earliest).await;
            let accepted =
                accepted.map_err(|error| Violation(format!("an offset cannot be accepted: {error}")))?;
            let before = accepted.before.unwrap_or(0);
            self.seen.resets.entry((kind, partition)).or_default().push(before);
            self.tell(|| format!("{} {partition} goes back from {before} to 0", kind.as_str()));
        }
        self.seen.repeats = true;
        Ok(())
    }

    /// The changelog is made anew, once the tables hold all of it: what they do not hold would be lost with it.
    fn recreate(&mut self, kind: TaskKind) {
        let Some(topic) = kind.changelog() else { return };
        if !self.seen.tables_hold(&self.house) {
            self.tell(|| format!("{topic} stays: the tables do not hold all of it yet"));
            return;
        }
        self.house.broker.faults().recreate(topic);
        self.seen.recreated(topic);
        // A task that has never worked has nothing to adopt.
        let group = self.house.settings.group(kind);
        let worked = |partition: &u32| {
            let input = TopicPartition::new(kind.input(), *partition);
            self.house.broker.group_offset(&group, input).is_some()
        };
        let tasks = (0..PARTITIONS).filter(worked).map(|partition| TaskId { kind, partition });
        self.cut = tasks.collect();
        self.expected_halts = vec![CUT];
    }
}
