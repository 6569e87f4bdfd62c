//! Writes, grouped by the database's partitions.

use crate::place::Place;
use crate::{ScyllaStore, error};
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use std::collections::BTreeMap;
use tillstream_log::LogError;
use tillstream_stage::task::TaskKind;
use tillstream_state::TaskId;
use tillstream_state::row_store::{RowWrite, StateKey};

/// Rows of a batch.
const BATCH_ROWS: usize = 100;
/// Bytes of a batch: below the 50 KiB above which Cassandra may refuse one by its default.
const BATCH_BYTES: usize = 48_000;
/// What a row adds to its key and value, about.
const ROW_BYTES: usize = 64;

/// The values of one write.
enum Values<'a> {
    PutRow((i32, i32, &'a str, &'a [u8], i64)),
    DeleteRow((i64, i32, i32, &'a str)),
    PutTimer((&'static str, i32, i64, i64, &'a str, &'static str, &'a [u8], i64)),
    DeleteTimer((i64, &'static str, i32, i64, i64, &'a str, &'static str)),
    PutHour((&'static str, i32, i64, i64)),
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::PutRow(values) => values.serialize(context, writer),
            Self::DeleteRow(values) => values.serialize(context, writer),
            Self::PutTimer(values) => values.serialize(context, writer),
            Self::DeleteTimer(values) => values.serialize(context, writer),
            Self::PutHour(values) => values.serialize(context, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// One request: writes of one place, the hour's note beside them.
struct Request<'a> {
    statements: Vec<&'a PreparedStatement>,
    values: Vec<Values<'a>>,
    bytes: usize,
}

impl Request<'_> {
    fn takes(&self, bytes: usize) -> bool {
        self.values.is_empty() || (self.values.len() < BATCH_ROWS && self.bytes + bytes <= BATCH_BYTES)
    }
}

impl ScyllaStore {
    pub(crate) async fn write_all(&self, task: TaskId, writes: &[RowWrite]) -> Result<(), LogError> {
        self.each(self.requests(task, writes).into_iter().map(|it| self.send(it))).await.map(|_| ())
    }

    /// Groups the writes; those of one place stay in their order.
    fn requests<'a>(&'a self, task: TaskId, writes: &'a [RowWrite]) -> Vec<Request<'a>> {
        let mut placed: Vec<(Place, usize)> =
            writes.iter().enumerate().map(|(at, write)| (self.layout.of(task, &write.key), at)).collect();
        placed.sort_unstable();
        let mut requests: Vec<Request<'a>> = Vec::new();
        let mut open: Option<Place> = None;
        // When each hour's newest timer was set.
        let mut hours: BTreeMap<(TaskKind, i32, i64), i64> = BTreeMap::new();
        for (place, at) in placed {
            let write = &writes[at];
            let (statement, values) = self.bind(place, write);
            if let (Place::Timers { kind, shard, hour }, Some(_)) = (place, &write.value) {
                let newest = hours.entry((kind, shard, hour)).or_insert(write.timestamp);
                *newest = write.timestamp.max(*newest);
            }
            let bytes = size_of_write(write);
            match requests.last_mut() {
                Some(last) if open == Some(place) && last.takes(bytes) => {
                    last.statements.push(statement);
                    last.values.push(values);
                    last.bytes += bytes;
                }
                _ => requests.push(Request { statements: vec![statement], values: vec![values], bytes }),
            }
            open = Some(place);
        }
        // Every time: what this process noted before may have been truncated or restored away since.
        requests.extend(hours.into_iter().map(|((kind, shard, hour), timestamp)| Request {
            statements: vec![&self.statements.put_hour],
            values: vec![Values::PutHour((kind.as_str(), shard, hour, timestamp))],
            bytes: ROW_BYTES,
        }));
        requests
    }

    fn bind<'a>(&'a self, place: Place, write: &'a RowWrite) -> (&'a PreparedStatement, Values<'a>) {
        let timestamp = write.timestamp;
        match (&write.key, place) {
            (StateKey::Row(row), Place::Rows { table, shard, bucket }) => {
                let statements = self.statements.of(table);
                match &write.value {
                    Some(value) => {
                        (&statements.put, Values::PutRow((shard, bucket, &row.key, value, timestamp)))
                    }
                    None => (&statements.delete, Values::DeleteRow((timestamp, shard, bucket, &row.key))),
                }
            }
            (StateKey::Row(row), Place::Timers { .. }) => self.bind(self.layout.of_row(row), write),
            (StateKey::Timer(timer), place) => {
                let (kind, shard, hour) = match place {
                    Place::Timers { kind, shard, hour } => (kind, shard, hour),
                    Place::Rows { table, shard, .. } => (table.kind(), shard, timer.due_ms),
                };
                let (kind, name, key) = (kind.as_str(), timer.name.as_str(), timer.key.as_str());
                let due = timer.due_ms;
                match &write.value {
                    Some(value) => (
                        &self.statements.put_timer,
                        Values::PutTimer((kind, shard, hour, due, key, name, value, timestamp)),
                    ),
                    None => (
                        &self.statements.delete_timer,
                        Values::DeleteTimer((timestamp, kind, shard, hour, due, key, name)),
                    ),
                }
            }
        }
    }

    async fn send(&self, request: Request<'_>) -> Result<(), LogError> {
        let doing = "writing rows";
        let (statements, values) = match (request.statements.as_slice(), request.values.as_slice()) {
            ([statement], [values]) => return self.run(doing, statement, values).await.map(drop),
            several => several,
        };
        let mut batch = Batch::new(BatchType::Unlogged);
        for statement in statements {
            batch.append_statement((*statement).clone());
        }
        batch.set_is_idempotent(true);
        let _permit = self.writes.acquire().await;
        let session = self.link.session();
        let mut sent = session.batch(&batch, values).await;
        if let Err(error) = &sent
            && let Some(session) = self.link.instead(&session, error).await
        {
            sent = session.batch(&batch, values).await;
        }
        sent.map(drop).map_err(|it| error::of_request(doing, &it))
    }
}

fn size_of_write(write: &RowWrite) -> usize {
    let key = match &write.key {
        StateKey::Row(row) => row.key.len(),
        StateKey::Timer(timer) => timer.key.len() + timer.name.as_str().len(),
    };
    ROW_BYTES + key + write.value.as_ref().map_or(0, |it| it.len())
}
