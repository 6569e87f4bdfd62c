//! Keyspace and tables.
//!
//! A table per [`Table`], named as it is (`"order"` must be quoted in CQL), and those of [`OTHERS`]. No TTL, no index, no
//! lightweight transaction on a table of state. Rows compress as the database does by default, which is LZ4.
//!
//! A task's *mark* lies in each of its tables, where no row is ([`MARK_BUCKET`], [`MARK_HOUR`]): who truncates a table
//! takes its mark away.

use crate::error;
use crate::settings::ScyllaSettings;
use scylla::client::session::Session;
use scylla::statement::unprepared::Statement;
use std::collections::BTreeSet;
use std::time::Duration;
use tillstream_log::LogError;
use tillstream_stage::Table;

/// The bucket of marks.
pub(crate) const MARK_BUCKET: i32 = -1;
/// The hour of marks.
pub(crate) const MARK_HOUR: i64 = -1;
/// The key of marks.
pub(crate) const MARK_KEY: &str = "mark";

/// A change of the schema waits for the nodes to agree, and several processes may start at once.
const CREATE: Duration = Duration::from_secs(60);

/// Tables beside those of rows: name, columns and key, and whether a rebuild empties it.
const OTHERS: [(&str, &str, bool); 6] = [
    (
        "timers",
        "kind text, shard int, due_hour bigint, due bigint, key text, name text, value blob, \
         PRIMARY KEY ((kind, shard, due_hour), due, key, name)",
        true,
    ),
    // Which hours ever had a timer, so that a far-reaching read asks for those alone. `SELECT DISTINCT` on `timers` would
    // walk over the deleted timers of every task.
    (
        "timer_hours",
        "kind text, shard int, due_hour bigint, value blob, PRIMARY KEY ((kind, shard), due_hour)",
        true,
    ),
    (
        "checkpoints",
        "kind text, shard int, generation bigint, \"offset\" bigint, timers_from_ms bigint, \
         PRIMARY KEY ((kind, shard))",
        true,
    ),
    ("flushed", "kind text, shard int, input_offset bigint, PRIMARY KEY (kind, shard)", true),
    (
        "deployment",
        "id int PRIMARY KEY, name text, cluster_id text, partitions int, buckets int, rebuilding boolean",
        false,
    ),
    (
        "api_keys",
        "id text PRIMARY KEY, tenant text, hash blob, name text, created_at_ms bigint, revoked_at_ms bigint",
        false,
    ),
];

/// Columns and key of a table of rows.
const ROWS: &str = "shard int, bucket int, key text, value blob, PRIMARY KEY ((shard, bucket), key)";

fn tables() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    Table::ALL.into_iter().map(|table| (table.name(), ROWS, true)).chain(OTHERS)
}

/// The names of what a rebuild empties.
pub(crate) fn emptied() -> impl Iterator<Item = &'static str> {
    tables().filter(|(_, _, state)| *state).map(|(name, _, _)| name)
}

/// Creates what is missing, if that is allowed; changes nothing that is there.
pub(crate) async fn create(session: &Session, settings: &ScyllaSettings) -> Result<(), LogError> {
    if !settings.create_schema {
        return Ok(());
    }
    let keyspace = &settings.keyspace;
    let run = async |doing: &str, statement: String| {
        let mut statement = Statement::new(statement);
        statement.set_request_timeout(Some(CREATE));
        session.query_unpaged(statement, ()).await.map_err(|it| error::of_request(doing, &it))
    };
    let names = async |column: &str, table: &str| -> Result<BTreeSet<String>, LogError> {
        let doing = "reading the schema";
        let statement =
            format!("SELECT {column} FROM system_schema.{table} WHERE keyspace_name = '{keyspace}'");
        let rows =
            run(doing, statement).await?.into_rows_result().map_err(|it| error::unreadable(doing, it))?;
        let rows = rows.rows::<(String,)>().map_err(|it| error::unreadable(doing, it))?;
        rows.map(|row| row.map(|(name,)| name).map_err(|it| error::unreadable(doing, it))).collect()
    };
    // Asked first: a user without the right to create can use what is there.
    if names("keyspace_name", "keyspaces").await?.is_empty() {
        let (class, factor) = (settings.replication.class.name(), settings.replication.factor);
        let statement = format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
             {{'class': '{class}', 'replication_factor': {factor}}}"
        );
        run("creating the keyspace", statement).await?;
        tracing::info!(keyspace, class, factor, "created the keyspace");
    }
    let there = names("table_name", "tables").await?;
    for (name, columns, _) in tables().filter(|(name, _, _)| !there.contains(*name)) {
        let statement = format!("CREATE TABLE IF NOT EXISTS {keyspace}.\"{name}\" ({columns})");
        run("creating a table", statement).await?;
    }
    Ok(())
}
