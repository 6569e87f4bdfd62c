//! From a judged command to a durable record.

use crate::Ingest;
use crate::idempotency;
use crate::in_flight::{Claim, Judged, Landed};
use crate::overload::Strain;
use crate::problem::{Code, Problem};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::{Headers, LogError, NewRecord, TopicPartition};
use tillstream_runtime::timeout;
use tillstream_schemas::codec::{self, Wire};
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Text, Topic};
use tillstream_stage::partition::partition_of;
use tillstream_stage::task::TaskKind;
use tillstream_stage::{Key, RowKey, Table, ids};
use tillstream_state::TaskId;

/// How long a read waits for a row that may be on its way.
pub(crate) const MISS_WAIT: Duration = Duration::from_secs(1);
/// How often a row is looked at while somebody waits for it and nothing tells.
const POLL: Duration = Duration::from_millis(20);
/// A row that follows its events is looked for so often after each, [`POLL`] apart.
const LOOKS_MAX: u32 = 50;

/// A record to append, with the claim on its id (commands without an Idempotency-Key have none).
pub(crate) struct Append {
    pub claim: Option<Claim>,
    pub record: NewRecord,
}

/// What became of a command under an Idempotency-Key.
pub(crate) enum Accepted {
    /// It is durable since this call.
    Now(Landed),
    /// The same command was accepted before.
    Before,
}

/// The task that reads a topic's partition; commands go to inputs of order and item tasks only.
fn task_of(to: TopicPartition) -> TaskId {
    let kind = if to.topic == Topic::ItemCommands { TaskKind::Item } else { TaskKind::Order };
    TaskId { kind, partition: to.partition }
}

fn lag_of(task: TaskId) -> Strain {
    if task.kind == TaskKind::Item { Strain::ItemLag } else { Strain::OrderLag }
}

impl Ingest {
    /// Where a key's records go.
    pub(crate) fn place_of(&self, topic: Topic, key: &str) -> TopicPartition {
        TopicPartition::new(topic, partition_of(key.as_bytes(), self.log.partitions(topic)))
    }

    /// A record for a key.
    pub(crate) fn record(&self, topic: Topic, key: &str, value: Vec<u8>) -> NewRecord {
        NewRecord {
            to: self.place_of(topic, key),
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.into(),
            headers: Headers::new(),
        }
    }

    /// Claims an id for a body.
    pub(crate) fn claim(&self, tenant: &Text, id: &Text, fingerprint: &Text) -> Judged {
        self.in_flight.claim(tenant, id, fingerprint, |it| self.progress.has_committed(it.task, it.past))
    }

    /// What keeps a partition from taking new work, if anything does.
    pub(crate) fn strain_of(&self, to: TopicPartition) -> Option<Strain> {
        let task = task_of(to);
        self.overload.strain().or_else(|| self.lags(task, 1).then(|| lag_of(task)))
    }

    /// Refuses what begins new work (an order, a credit, a product, goods) while something is past its bound.
    ///
    /// # Errors
    /// 503.
    pub(crate) fn check_new_work(&self, to: TopicPartition) -> Result<(), Problem> {
        self.check_ready()?;
        self.strain_of(to).map_or(Ok(()), |strain| Err(self.overload.refuse(strain)))
    }

    /// Refuses what the task behind a partition cannot take. What goes on with accepted work has twice the room.
    ///
    /// # Errors
    /// 503.
    fn check_intake(&self, to: TopicPartition) -> Result<(), Problem> {
        self.check_ready()?;
        let task = task_of(to);
        if self.lags(task, 2) { Err(self.overload.refuse(lag_of(task))) } else { Ok(()) }
    }

    /// Appends all records or none, and lands their claims. It runs to its end though the caller may go away:
    /// else nobody would know whether a claimed id is in the log.
    ///
    /// # Errors
    /// The log's; then no record is there and every claim is dropped.
    pub(crate) async fn append(self: &Arc<Self>, appends: Vec<Append>) -> Result<Vec<Landed>, Problem> {
        let bytes: usize = appends.iter().map(|it| it.record.key.len() + it.record.value.len()).sum();
        let ingest = self.clone();
        let work = tokio::spawn(async move {
            let _appending = ingest.overload.begin_append(bytes as u64)?;
            ingest.append_and_land(appends).await.map_err(Problem::from)
        });
        match work.await {
            Ok(result) => result,
            Err(error) => Err(Problem::new(Code::Internal, format!("the append did not end: {error}"))),
        }
    }

    /// Appends one record.
    ///
    /// # Errors
    /// The log's.
    pub(crate) async fn append_one(self: &Arc<Self>, append: Append) -> Result<Landed, Problem> {
        let landed = self.append(vec![append]).await?;
        landed
            .first()
            .copied()
            .ok_or_else(|| Problem::new(Code::Internal, "an append of one record landed nowhere"))
    }

    async fn append_and_land(&self, appends: Vec<Append>) -> Result<Vec<Landed>, LogError> {
        let (claims, records): (Vec<_>, Vec<_>) =
            appends.into_iter().map(|it| ((it.claim, it.record.to), it.record)).unzip();
        self.log.append(records).await?;
        let mut ends: Vec<(TopicPartition, u64)> = Vec::new();
        let mut landed = Vec::with_capacity(claims.len());
        for (claim, to) in claims {
            let past = match ends.iter().find(|(it, _)| *it == to) {
                Some((_, end)) => *end,
                None => {
                    let end = self.log.end_offset(to)?;
                    self.saw_end(task_of(to), end);
                    ends.push((to, end));
                    end
                }
            };
            let place = Landed { task: task_of(to), past };
            if let Some(claim) = claim {
                claim.land(place);
            }
            landed.push(place);
        }
        Ok(landed)
    }

    /// One record under an Idempotency-Key, when nothing readable has judged its id yet.
    ///
    /// # Errors
    /// 422 when another body has the id, 503 when it cannot be taken.
    pub(crate) async fn append_claimed(
        self: &Arc<Self>,
        tenant: &Text,
        id: &Text,
        fingerprint: &Text,
        record: NewRecord,
        judge: impl AsyncFnOnce() -> Result<Option<Text>, Problem>,
    ) -> Result<Accepted, Problem> {
        self.check_intake(record.to)?;
        // The claim comes first: a row that appears between the two must not go unseen.
        let claim = match self.claim(tenant, id, fingerprint) {
            Judged::Open(claim) => claim,
            Judged::Durable => return Ok(Accepted::Before),
            Judged::Conflict => return Err(idempotency::conflict()),
        };
        match judge().await? {
            Some(known) if known == *fingerprint => Ok(Accepted::Before),
            Some(_) => Err(idempotency::conflict()),
            None => self.append_one(Append { claim: Some(claim), record }).await.map(Accepted::Now),
        }
    }

    /// One row.
    ///
    /// # Errors
    /// The store's, or the codec's.
    pub(crate) async fn row<T: Wire>(&self, table: Table, key: Key) -> Result<Option<T>, Problem> {
        let keys = [RowKey::new(table, key)];
        let mut rows = self.state.get_many(&keys).await?;
        rows.pop().flatten().map(|it| codec::decode(&it)).transpose().map_err(Problem::from)
    }

    /// Rows to judge a repeat by, as far as they can be read: a database that does not answer has no say, since the task
    /// is the judge in the end.
    ///
    /// # Errors
    /// The store's, but for [`LogError::Unavailable`].
    pub(crate) async fn readable(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, Problem> {
        match self.state.get_many(keys).await {
            Err(LogError::Unavailable(detail)) => {
                tracing::debug!(detail, "repeats are left to the task");
                Ok(vec![None; keys.len()])
            }
            other => Ok(other?),
        }
    }

    /// An order's (or credit's) row, as soon as `enough` says so; the row as it is (or `None`) when the time is over.
    /// Whoever waits for the outcome of a command passes the feed it subscribed to before it wrote the command.
    ///
    /// # Errors
    /// The store's, or the codec's.
    pub(crate) async fn await_order(
        &self,
        tenant: &str,
        order_id: &str,
        wait: Duration,
        feed: Option<Box<dyn crate::ports::OrderEvents>>,
        enough: impl Fn(&OrderState) -> bool,
    ) -> Result<Option<OrderState>, Problem> {
        let key = ids::key(tenant, order_id);
        let mut feed = Some(feed.unwrap_or_else(|| self.order_events.subscribe(&key)));
        let deadline = self.clock.deadline(wait);
        // On a cluster a row follows its events by a flush interval: after an event it is looked for a while.
        let mut looks = 0;
        loop {
            let row = self.row::<OrderState>(Table::Order, key.clone()).await?;
            if row.as_ref().is_some_and(&enough) {
                return Ok(row);
            }
            let told = async {
                match &mut feed {
                    Some(events) if looks == 0 => events.next().await.is_some(),
                    Some(events) => timeout(&*self.clock, self.clock.deadline(POLL), events.next())
                        .await
                        .is_none_or(|event| event.is_some()),
                    None => {
                        self.clock.sleep(POLL).await;
                        true
                    }
                }
            };
            match timeout(&*self.clock, deadline, told).await {
                Some(true) if self.rows_follow_the_log => looks = (looks + 1) % LOOKS_MAX,
                Some(true) => {}
                Some(false) => feed = None,
                None => return self.row(Table::Order, key).await,
            }
        }
    }

    /// Waits until a landed command's rows can be read.
    ///
    /// # Errors
    /// 503 when the time is over; the command stays accepted.
    pub(crate) async fn await_landed(&self, landed: Landed, wait: Duration) -> Result<(), Problem> {
        let waiting = self.progress.wait_committed(landed.task, landed.past);
        timeout(&*self.clock, self.clock.deadline(wait), waiting).await.ok_or_else(|| {
            let detail =
                "the change is accepted and durable, but not in force yet; repeat the call, or read it later";
            Problem::new(Code::NotInForceYet, detail).retry_after(1)
        })
    }
}
