//! Tables by CQL.

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use std::collections::BTreeMap;
use std::time::Duration;

/// A connection to the database.
pub struct Tables {
    session: Session,
    keyspace: String,
}

impl Tables {
    /// Connects; the driver comes back by itself after a restart of the node.
    pub async fn connect(address: &str, keyspace: &str) -> Self {
        let builder = SessionBuilder::new().known_node(address).connection_timeout(Duration::from_secs(20));
        Self { session: builder.build().await.expect("the database answers"), keyspace: keyspace.to_owned() }
    }

    async fn ask(&self, statement: String) -> scylla::response::query_result::QueryRowsResult {
        let mut said = String::new();
        let answered = crate::wait_for(Duration::from_secs(60), async || {
            match self.session.query_unpaged(statement.clone(), ()).await {
                Ok(result) => Some(result),
                Err(error) => {
                    said = error.to_string();
                    None
                }
            }
        });
        let answered = answered.await.unwrap_or_else(|| panic!("{statement}: {said}"));
        answered.into_rows_result().expect("rows")
    }

    /// Every row of a table.
    pub async fn rows(&self, table: &str) -> BTreeMap<String, Vec<u8>> {
        let statement = format!("SELECT key, value, bucket FROM {}.\"{table}\"", self.keyspace);
        let result = self.ask(statement).await;
        let rows = result.rows::<(String, Option<Vec<u8>>, i32)>().expect("key, value and bucket");
        let rows = rows.map(|it| it.expect("a row can be read"));
        // Below zero lie marks, not rows.
        rows.filter(|it| it.2 >= 0).map(|(key, value, _)| (key, value.unwrap_or_default())).collect()
    }

    /// Every timer, as its changelog key.
    pub async fn timers(&self, kind: &str) -> Vec<String> {
        let statement = format!("SELECT kind, due_hour, due, name, key FROM {}.timers", self.keyspace);
        let result = self.ask(statement).await;
        let rows = result.rows::<(String, i64, i64, String, String)>().expect("timers");
        let rows = rows.map(|it| it.expect("a timer can be read"));
        let rows = rows.filter(|it| it.0 == kind && it.1 >= 0);
        rows.map(|(_, _, due, name, key)| format!("timer/{due:014}/{name}/{key}")).collect()
    }
}
