//! The prepared statements.

use crate::error;
use futures::{StreamExt, TryStreamExt};
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, Statement};
use std::time::Duration;
use tillstream_log::LogError;
use tillstream_stage::Table;

/// Rows per page of an answer.
pub(crate) const PAGE_ROWS: i32 = 500;
/// Keys per page of an answer that has nothing else.
const KEYS_PAGE_ROWS: i32 = 5_000;
/// Statements prepared at once.
const AT_ONCE: usize = 8;
/// Emptying a table takes a snapshot first.
const TRUNCATE: Duration = Duration::from_secs(60);

/// Those of a table of rows.
pub(crate) struct RowStatements {
    /// shard, bucket, key, value, timestamp
    pub(crate) put: PreparedStatement,
    /// timestamp, shard, bucket, key
    pub(crate) delete: PreparedStatement,
    /// shard, bucket, keys
    pub(crate) get: PreparedStatement,
    /// shard, bucket, first key, limit
    pub(crate) from: PreparedStatement,
    /// shard, bucket, first key, limit: keys alone
    pub(crate) keys_from: PreparedStatement,
    /// shard, bucket, first key, key behind the last, limit
    pub(crate) between: PreparedStatement,
}

/// All.
pub(crate) struct Statements {
    rows: Vec<RowStatements>,
    /// kind, shard, hour, due, key, name, value, timestamp
    pub(crate) put_timer: PreparedStatement,
    /// timestamp, kind, shard, hour, due, key, name
    pub(crate) delete_timer: PreparedStatement,
    /// kind, shard, hour, first due, last due, limit
    pub(crate) timers: PreparedStatement,
    /// kind, shard, hour, timestamp
    pub(crate) put_hour: PreparedStatement,
    /// kind, shard, first hour, last hour
    pub(crate) hours: PreparedStatement,
    /// kind, shard, generation, offset, timers from, timestamp
    pub(crate) put_checkpoint: PreparedStatement,
    /// kind, shard
    pub(crate) checkpoint: PreparedStatement,
    /// kind, shard, offset, timestamp
    pub(crate) put_flushed: PreparedStatement,
    /// kind
    pub(crate) flushed: PreparedStatement,
    /// name, cluster, partitions, buckets, rebuilding
    pub(crate) claim: PreparedStatement,
    pub(crate) deployment: PreparedStatement,
    /// rebuilding
    pub(crate) rebuilding: PreparedStatement,
    /// id, tenant, hash, name, created, revoked
    pub(crate) keys: PreparedStatement,
    /// Of one node.
    pub(crate) incarnation: PreparedStatement,
    pub(crate) truncate: Vec<PreparedStatement>,
}

impl Statements {
    /// Of a table.
    pub(crate) fn of(&self, table: Table) -> &RowStatements {
        // Their numbers go from 1, in the order of `Table::ALL`.
        &self.rows[table as usize - 1]
    }

    /// Prepares all.
    pub(crate) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, LogError> {
        let rows = Table::ALL
            .map(|table| RowStatements::prepare(session, format!("{keyspace}.\"{}\"", table.name())));
        let rows = futures::stream::iter(rows).buffered(AT_ONCE).try_collect().await?;
        let truncate = crate::schema::emptied().map(|name| async move {
            let statement = idempotent(session, format!("TRUNCATE {keyspace}.\"{name}\""));
            statement.await.map(|mut it| {
                it.set_request_timeout(Some(TRUNCATE));
                it
            })
        });
        let truncate = futures::stream::iter(truncate).buffered(AT_ONCE).try_collect().await?;
        let one = |text: &str| idempotent(session, text.replace("KS.", &format!("{keyspace}.")));
        let serial = async |text: &str| {
            let mut statement = prepared(session, text.replace("KS.", &format!("{keyspace}."))).await?;
            statement.set_is_idempotent(false);
            Ok::<_, LogError>(statement)
        };
        let mut deployment =
            one("SELECT name, cluster_id, partitions, buckets, rebuilding FROM KS.deployment WHERE id = 0")
                .await?;
        deployment.set_consistency(Consistency::Serial);
        let mut incarnation = one("SELECT gossip_generation FROM system.local WHERE key = 'local'").await?;
        incarnation.set_consistency(Consistency::One);
        Ok(Self {
            rows,
            put_timer: one("INSERT INTO KS.timers (kind, shard, due_hour, due, key, name, value) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?")
            .await?,
            delete_timer: one("DELETE FROM KS.timers USING TIMESTAMP ? WHERE kind = ? AND shard = ? \
                 AND due_hour = ? AND due = ? AND key = ? AND name = ?")
            .await?,
            timers: one(
                "SELECT due, key, name, writetime(value) FROM KS.timers WHERE kind = ? AND shard = ? \
                 AND due_hour = ? AND due >= ? AND due <= ? LIMIT ?",
            )
            .await?,
            put_hour: one("INSERT INTO KS.timer_hours (kind, shard, due_hour, value) VALUES (?, ?, ?, 0x) \
                 USING TIMESTAMP ?")
            .await?,
            hours: one("SELECT due_hour FROM KS.timer_hours WHERE kind = ? AND shard = ? AND due_hour >= ? \
                 AND due_hour <= ?")
            .await?,
            put_checkpoint: one(
                "INSERT INTO KS.checkpoints (kind, shard, generation, \"offset\", timers_from_ms) \
                 VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            checkpoint: one("SELECT generation, \"offset\", timers_from_ms FROM KS.checkpoints \
                 WHERE kind = ? AND shard = ?")
            .await?,
            put_flushed: one(
                "INSERT INTO KS.flushed (kind, shard, input_offset) VALUES (?, ?, ?) USING TIMESTAMP ?",
            )
            .await?,
            flushed: one("SELECT shard, input_offset FROM KS.flushed WHERE kind = ?").await?,
            claim: serial(
                "INSERT INTO KS.deployment (id, name, cluster_id, partitions, buckets, rebuilding) \
                 VALUES (0, ?, ?, ?, ?, ?) IF NOT EXISTS",
            )
            .await?,
            deployment,
            rebuilding: serial("UPDATE KS.deployment SET rebuilding = ? WHERE id = 0 IF EXISTS").await?,
            keys: one("SELECT id, tenant, hash, name, created_at_ms, revoked_at_ms FROM KS.api_keys").await?,
            incarnation,
            truncate,
        })
    }
}

impl RowStatements {
    async fn prepare(session: &Session, table: String) -> Result<Self, LogError> {
        let place = "WHERE shard = ? AND bucket = ?";
        let select = format!("SELECT key, value, writetime(value) FROM {table} {place}");
        Ok(Self {
            put: idempotent(
                session,
                format!(
                    "INSERT INTO {table} (shard, bucket, key, value) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
                ),
            )
            .await?,
            delete: idempotent(session, format!("DELETE FROM {table} USING TIMESTAMP ? {place} AND key = ?"))
                .await?,
            get: idempotent(session, format!("{select} AND key IN ?")).await?,
            from: idempotent(session, format!("{select} AND key >= ? LIMIT ?")).await?,
            keys_from: idempotent(session, format!("SELECT key FROM {table} {place} AND key >= ? LIMIT ?"))
                .await
                .map(|mut it| {
                    it.set_page_size(KEYS_PAGE_ROWS);
                    it
                })?,
            between: idempotent(session, format!("{select} AND key >= ? AND key < ? LIMIT ?")).await?,
        })
    }
}

/// May be sent twice: every write names its timestamp, or writes the same.
async fn idempotent(session: &Session, text: String) -> Result<PreparedStatement, LogError> {
    let mut statement = prepared(session, text).await?;
    statement.set_is_idempotent(true);
    Ok(statement)
}

async fn prepared(session: &Session, text: String) -> Result<PreparedStatement, LogError> {
    let statement = Statement::new(text.as_str()).with_page_size(PAGE_ROWS);
    session.prepare(statement).await.map_err(|it| error::of_prepare(&format!("preparing `{text}`"), &it))
}
