//! Rows in key order: over all shards, or bucket by bucket of one.

use crate::fetch::{self, Fault};
use crate::{ScyllaStore, limit_of};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use tillstream_log::LogError;
use tillstream_stage::{Key, Table};
use tillstream_state::row_store::{KeyPage, ShardPage, ShardPlace, StoredRow};
use tillstream_state::{Page, layout};

/// Rows of one place that are asked for at once.
const SLICE_ROWS: std::ops::RangeInclusive<usize> = 16..=500;

/// A walk over the rows of one place.
struct Walk {
    shard: i32,
    bucket: i32,
    /// The first key not yet asked for; `None` at the end.
    from: Option<String>,
    rows: VecDeque<(Key, StoredRow)>,
}

/// A slice of a place's rows.
struct Slice<'a> {
    table: Table,
    shard: i32,
    bucket: i32,
    from: &'a str,
    /// Exclusive.
    until: Option<&'a str>,
    limit: usize,
}

impl ScyllaStore {
    async fn slice(&self, slice: Slice<'_>) -> Result<Vec<(Key, StoredRow)>, Fault> {
        let statements = self.statements.of(slice.table);
        let (place, limit) = ((slice.shard, slice.bucket), limit_of(slice.limit));
        match slice.until {
            Some(until) => {
                let values = (place.0, place.1, slice.from, until, limit);
                self.fetch("reading a range of rows", &statements.between, &values, fetch::rows).await
            }
            None => {
                let values = (place.0, place.1, slice.from, limit);
                self.fetch("reading a range of rows", &statements.from, &values, fetch::rows).await
            }
        }
    }

    pub(crate) async fn scan_all(
        &self,
        table: Table,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, LogError> {
        let until = behind(prefix);
        let from = after.map(next_key).filter(|it| it.as_str() > prefix).unwrap_or_else(|| prefix.to_owned());
        let mut page = Page::default();
        if until.as_deref().is_some_and(|it| from.as_str() >= it) {
            return Ok(page);
        }
        let places = layout::places_of(table, prefix, self.layout.partitions, self.layout.buckets);
        // A place's share, and as much again: keys do not spread evenly.
        let slice = (limit.saturating_add(1) / places.len().max(1)).saturating_mul(2);
        let slice = slice.clamp(*SLICE_ROWS.start(), *SLICE_ROWS.end()).min(limit.saturating_add(1));
        let mut walks: Vec<Walk> = places
            .into_iter()
            .map(|(shard, bucket)| Walk {
                shard: shard.cast_signed(),
                bucket: bucket.cast_signed(),
                from: Some(from.clone()),
                rows: VecDeque::new(),
            })
            .collect();
        self.refill(table, until.as_deref(), slice, &mut walks).await?;
        let mut heads: BinaryHeap<Reverse<(Key, usize)>> =
            walks.iter().enumerate().filter_map(|(at, walk)| head(walk, at)).collect();
        while let Some(Reverse((key, at))) = heads.pop() {
            if page.rows.len() == limit {
                page.more = true;
                break;
            }
            if let Some((_, row)) = walks[at].rows.pop_front() {
                page.rows.push((key, row.value));
            }
            if walks[at].rows.is_empty() {
                self.refill(table, until.as_deref(), slice, &mut walks[at..=at]).await?;
            }
            heads.extend(head(&walks[at], at));
        }
        Ok(page)
    }

    async fn refill(
        &self,
        table: Table,
        until: Option<&str>,
        limit: usize,
        walks: &mut [Walk],
    ) -> Result<(), LogError> {
        let reads = walks.iter().map(async |walk| match &walk.from {
            Some(from) => {
                let (shard, bucket) = (walk.shard, walk.bucket);
                self.slice(Slice { table, shard, bucket, from, until, limit }).await
            }
            None => Ok(Vec::new()),
        });
        let slices = self.each(reads).await?;
        for (walk, rows) in walks.iter_mut().zip(slices) {
            walk.from = rows.last().filter(|_| rows.len() >= limit).map(|(key, _)| next_key(key));
            walk.rows = rows.into();
        }
        Ok(())
    }

    pub(crate) async fn page_of_shard(
        &self,
        table: Table,
        partition: u32,
        from: Option<&ShardPlace>,
        limit: usize,
    ) -> Result<ShardPage, LogError> {
        let mut stretch = Stretch::new(from, limit, self.layout.buckets);
        let (shard, mut rows) = (partition.cast_signed(), Vec::new());
        while let Some((bucket, from, limit)) = stretch.wanted() {
            let slice = Slice { table, shard, bucket, from: &from, until: None, limit };
            let found = self.slice(slice).await?;
            stretch.found(found.len(), found.last().map(|(key, _)| key));
            rows.extend(found);
        }
        Ok(ShardPage { rows, next: stretch.next })
    }

    pub(crate) async fn keys_of_shard(
        &self,
        table: Table,
        partition: u32,
        from: Option<&ShardPlace>,
        limit: usize,
    ) -> Result<KeyPage, LogError> {
        let mut stretch = Stretch::new(from, limit, self.layout.buckets);
        let (shard, mut keys) = (partition.cast_signed(), Vec::new());
        let statement = &self.statements.of(table).keys_from;
        while let Some((bucket, from, limit)) = stretch.wanted() {
            let values = (shard, bucket, from, limit_of(limit));
            let found = self.fetch("reading a range of keys", statement, &values, fetch::keys).await?;
            stretch.found(found.len(), found.last());
            keys.extend(found);
        }
        Ok(KeyPage { keys, next: stretch.next })
    }
}

/// One page of a walk, over as many buckets as it takes.
struct Stretch {
    bucket: u32,
    buckets: u32,
    /// The first key wanted in the bucket.
    from: String,
    /// Rows that may still come.
    left: usize,
    /// Where the next page begins, once this one is full.
    next: Option<ShardPlace>,
}

impl Stretch {
    fn new(from: Option<&ShardPlace>, limit: usize, buckets: u32) -> Self {
        let after = from.and_then(|it| it.after.as_ref());
        Self {
            bucket: from.map_or(0, |it| it.bucket),
            buckets,
            from: after.map(next_key).unwrap_or_default(),
            left: limit.max(1),
            next: None,
        }
    }

    /// The bucket, first key and number of rows to ask for; `None` when the page is whole.
    fn wanted(&mut self) -> Option<(i32, String, usize)> {
        let more = self.next.is_none() && self.bucket < self.buckets;
        more.then(|| (self.bucket.cast_signed(), std::mem::take(&mut self.from), self.left))
    }

    /// So many came of what was asked for.
    fn found(&mut self, rows: usize, last: Option<&Key>) {
        if rows >= self.left {
            self.next = Some(ShardPlace { bucket: self.bucket, after: last.cloned() });
        }
        self.left = self.left.saturating_sub(rows);
        self.bucket += 1;
    }
}

fn head(walk: &Walk, at: usize) -> Option<Reverse<(Key, usize)>> {
    walk.rows.front().map(|(key, _)| Reverse((key.clone(), at)))
}

/// The least string greater than `key`.
fn next_key(key: impl AsRef<str>) -> String {
    format!("{}\0", key.as_ref())
}

/// The least string greater than all that start with `prefix`; `None` when there is none. CQL orders text as Rust does:
/// by its bytes, which is by code points.
fn behind(prefix: &str) -> Option<String> {
    let mut chars = prefix.char_indices().rev();
    chars.find_map(|(at, last)| {
        // The code points of surrogates are no characters.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        next.map(|it| format!("{}{it}", &prefix[..at]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_a_prefix_is_greater_than_all_with_it_and_not_greater_than_the_rest() {
        let cases = [
            ("", None),
            ("demo/", Some("demo0")),
            ("a\u{7f}", Some("a\u{80}")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
        ];
        for (prefix, expected) in cases {
            assert_eq!(behind(prefix).as_deref(), expected, "{prefix:?}");
            if let Some(behind) = behind(prefix) {
                assert!(behind.as_str() > format!("{prefix}\u{10ffff}\u{10ffff}").as_str());
            }
        }
    }

    #[test]
    fn nothing_lies_between_a_key_and_its_next() {
        assert!(next_key("a").as_str() > "a");
        assert!(next_key("a").as_str() <= "a\0");
    }
}
