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
/// A database that is older than the log is noticed within so long, s.
const NOTICED_WITHIN_S: u32 = 20;
/// More than the first commits on a changelog that was made anew can write: its end stays below the checkpoint.
const FAR_OFFSET: u64 = 120;
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
            Operator::Peace => {
                self.heal();
                self.notes = vec![self.note()];
                return Ok(());
            }
            Operator::Note => {
                let note = self.note();
                self.notes.push(note);
                return Ok(());
            }
            Operator::Restore { noticed } => {
                let Some(backup) = self.backup.clone() else { return Ok(()) };
                self.stop_all().await?;
                let told = *noticed && self.is_told();
                self.house.rows.faults().restore(&backup);
                self.expected_halts = vec![OLDER, TRUNCATED];
                if told {
                    return self.expect_notice().await;
                }
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
            Operator::RecreateUnder { kind } => {
                return self.recreate_under(KINDS[usize::from(*kind) % 3]).await;
            }
            Operator::Adopt if self.cut.is_empty() => return Ok(()),
            Operator::Adopt => {
                self.outcome.repairs += 1;
                self.stop_all().await?;
                for task in std::mem::take(&mut self.cut) {
                    self.adopt(task).await?;
                }
                self.expected_halts.clear();
            }
        }
        self.start_all().await;
        Ok(())
    }

    /// What every task has committed: transactions of its changelog, and its offset.
    fn note(&self) -> Vec<(u64, u64)> {
        let tasks =
            KINDS.into_iter().flat_map(|kind| (0..PARTITIONS).map(move |it| TaskId { kind, partition: it }));
        let committed = tasks.map(|task| {
            let input = TopicPartition::new(task.kind.input(), task.partition);
            let place = self.house.broker.group_offset(&self.house.settings.group(task.kind), input);
            (self.seen.stored.transactions(task), place.map_or(0, |it| it.offset))
        });
        committed.collect()
    }

    /// Whether the log must know of more than the copy has: a task has changed rows after the copy was taken, and has committed
    /// once more when those were durable for long.
    fn is_told(&self) -> bool {
        let [before, then] = &self.notes[..] else { return false };
        let now = self.note();
        let tasks = before.iter().zip(then).zip(&now);
        let mut tasks = tasks.map(|((before, then), now)| then.0 > before.0 && now.1 > then.1);
        tasks.any(|it| it)
    }

    /// A start on an older copy halts, and is repaired.
    async fn expect_notice(&mut self) -> Checked {
        let repairs = self.outcome.repairs;
        self.start_all().await;
        for _ in 0..NOTICED_WITHIN_S {
            self.until(self.house.now_ns() + 1_000_000_000).await?;
            if self.outcome.repairs > repairs {
                return Ok(());
            }
        }
        Err(Violation("nobody has noticed that the database is older than the log".to_owned()))
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

    /// The changelog is made anew under tasks that run, at a moment when nothing of it is lost: a commit on it would be.
    async fn recreate_under(&mut self, kind: TaskKind) -> Checked {
        self.heal();
        for _ in 0..TRIES {
            self.until(self.house.now_ns() + 500_000_000).await?;
            self.look().await?;
            let checkpoints = self.house.rows.checkpoints();
            let far = |it: u32| {
                checkpoints.get(&TaskId { kind, partition: it }).is_some_and(|it| it.offset >= FAR_OFFSET)
            };
            let open = !self.house.broker.open_transactions().is_empty() || !self.unfinished().is_empty();
            if !open && (0..PARTITIONS).all(far) && self.seen.tables_hold(&self.house) {
                self.recreate(kind);
                break;
            }
        }
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
