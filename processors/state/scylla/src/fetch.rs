//! Requests: bounded in number, read page by page.

use crate::ScyllaStore;
use crate::error;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use scylla::response::PagingState;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use std::ops::ControlFlow;
use tillstream_log::LogError;
use tillstream_stage::Key;
use tillstream_state::row_store::StoredRow;

/// A page that was too much is asked for again in parts of this share.
const SMALLER: i32 = 8;

/// Why a read failed.
pub(crate) enum Fault {
    /// It walked over too much: a narrower one may pass.
    TooMuch(LogError),
    /// Anything else.
    Other(LogError),
}

impl From<Fault> for LogError {
    fn from(fault: Fault) -> Self {
        let (Fault::TooMuch(error) | Fault::Other(error)) = fault;
        error
    }
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        Self::Other(error)
    }
}

/// Makes values of a page's rows.
pub(crate) type Decode<T> = fn(&QueryRowsResult, &mut Vec<T>) -> Result<(), String>;

impl ScyllaStore {
    /// All rows of the answer. Where the database gives up for all the deleted rows between the living, smaller pages are
    /// tried.
    pub(crate) async fn fetch<T>(
        &self,
        doing: &'static str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
        decode: Decode<T>,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        let mut state = PagingState::start();
        let mut smaller: Option<PreparedStatement> = None;
        let mut session = self.link.session();
        let mut once = true;
        loop {
            let statement = smaller.as_ref().unwrap_or(statement);
            let page = {
                let _permit = self.reads.acquire().await;
                session.execute_single_page(statement, values, state.clone()).await
            };
            let (page, next) = match page {
                Ok(page) => page,
                Err(error) if error::is_too_much(&error) && statement.get_page_size() > 1 => {
                    let mut narrower = statement.clone();
                    narrower.set_page_size((statement.get_page_size() / SMALLER).max(1));
                    smaller = Some(narrower);
                    continue;
                }
                Err(error) if error::is_too_much(&error) => {
                    return Err(Fault::TooMuch(error::of_request(doing, &error)));
                }
                Err(error) => match self.link.instead(&session, &error).await {
                    Some(other) if std::mem::take(&mut once) => {
                        session = other;
                        continue;
                    }
                    _ => return Err(Fault::Other(error::of_request(doing, &error))),
                },
            };
            let page = page.into_rows_result().map_err(|it| error::unreadable(doing, it))?;
            decode(&page, &mut found).map_err(|it| error::unreadable(doing, it))?;
            match next.into_paging_control_flow() {
                ControlFlow::Break(()) => return Ok(found),
                ControlFlow::Continue(next) => state = next,
            }
        }
    }

    /// Runs a statement that only writes, or answers one page.
    pub(crate) async fn run(
        &self,
        doing: &'static str,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
    ) -> Result<QueryResult, LogError> {
        let _permit = self.writes.acquire().await;
        let session = self.link.session();
        let mut done = session.execute_unpaged(statement, values).await;
        if let Err(error) = &done
            && let Some(session) = self.link.instead(&session, error).await
        {
            done = session.execute_unpaged(statement, values).await;
        }
        done.map_err(|it| error::of_request(doing, &it))
    }

    /// Runs reads, so many at once as are allowed, and tells their results in order; the first error ends all.
    pub(crate) async fn each<T, E>(
        &self,
        reads: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
    ) -> Result<Vec<T>, E> {
        // Collected: a lazy iterator's closure would have to be general over lifetimes.
        let reads: Vec<_> = reads.into_iter().collect();
        futures::stream::iter(reads).buffered(self.at_once).try_collect().await
    }
}

/// Rows of `key`.
pub(crate) fn keys(page: &QueryRowsResult, found: &mut Vec<Key>) -> Result<(), String> {
    found.reserve(page.rows_num());
    for row in page.rows::<(&str,)>().map_err(|it| it.to_string())? {
        found.push(Key::from(row.map_err(|it| it.to_string())?.0));
    }
    Ok(())
}

/// Rows of `key, value, writetime(value)`.
pub(crate) fn rows(page: &QueryRowsResult, found: &mut Vec<(Key, StoredRow)>) -> Result<(), String> {
    found.reserve(page.rows_num());
    for row in page.rows::<(&str, Option<&[u8]>, Option<i64>)>().map_err(|it| it.to_string())? {
        let (key, value, timestamp) = row.map_err(|it| it.to_string())?;
        if let (Some(value), Some(timestamp)) = (value, timestamp) {
            // Copied: a slice of the answer would keep all of it in memory for as long as the row is cached.
            found.push((Key::from(key), StoredRow { value: Bytes::copy_from_slice(value), timestamp }));
        }
    }
    Ok(())
}
