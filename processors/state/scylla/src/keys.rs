//! API keys that earlier versions kept here.

use crate::ScyllaStore;
use futures::future::BoxFuture;
use scylla::response::query_result::QueryRowsResult;
use tillstream_log::LogError;
use tillstream_schemas::Text;
use tillstream_state::{Keys, StoredKey};

impl Keys for ScyllaStore {
    fn list_keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, LogError>> {
        Box::pin(async move {
            let mut found = self.fetch("reading the API keys", &self.statements.keys, &(), keys).await?;
            found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
            Ok(found)
        })
    }
}

fn keys(page: &QueryRowsResult, found: &mut Vec<StoredKey>) -> Result<(), String> {
    type Columns<'a> = (&'a str, &'a str, &'a [u8], &'a str, i64, Option<i64>);
    for row in page.rows::<Columns<'_>>().map_err(|it| it.to_string())? {
        let (id, tenant, hash, name, created_at_ms, revoked_at_ms) = row.map_err(|it| it.to_string())?;
        let hash = hash.try_into().map_err(|_| format!("the hash of {id} has {} bytes", hash.len()))?;
        let (id, tenant, name) = (Text::from(id), Text::from(tenant), Text::from(name));
        found.push(StoredKey { id, tenant, hash, name, created_at_ms, revoked_at_ms });
    }
    Ok(())
}
