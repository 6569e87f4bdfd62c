//! Rows by their keys, grouped by the database's partitions.

use crate::ScyllaStore;
use crate::fetch::{self, Fault};
use crate::place::Place;
use tillstream_log::LogError;
use tillstream_stage::{Key, RowKey};
use tillstream_state::row_store::StoredRow;

/// Keys of one request.
const KEYS: usize = 100;

impl ScyllaStore {
    pub(crate) async fn get_all(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, LogError> {
        let mut placed: Vec<(Place, &str, usize)> = keys
            .iter()
            .enumerate()
            .map(|(at, key)| (self.layout.of_row(key), key.key.as_str(), at))
            .collect();
        placed.sort_unstable();
        let groups: Vec<_> =
            placed.chunk_by(|a, b| a.0 == b.0).flat_map(|group| group.chunks(KEYS)).collect();
        let answers = self.each(groups.iter().map(|group| self.get_group(group))).await?;
        let mut found = vec![None; keys.len()];
        for (group, mut rows) in groups.into_iter().zip(answers) {
            rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            for (_, key, at) in group {
                let row = rows.binary_search_by(|(it, _)| it.as_str().cmp(key)).ok();
                found[*at] = row.map(|it| rows[it].1.clone());
            }
        }
        Ok(found)
    }

    async fn get_group(&self, group: &[(Place, &str, usize)]) -> Result<Vec<(Key, StoredRow)>, Fault> {
        let Some((Place::Rows { table, shard, bucket }, ..)) = group.first() else { return Ok(Vec::new()) };
        let mut keys: Vec<&str> = group.iter().map(|(_, key, _)| *key).collect();
        keys.dedup();
        let values = (*shard, *bucket, keys);
        self.fetch("reading rows", &self.statements.of(*table).get, &values, fetch::rows).await
    }
}
