//! `GET /v1/categories`: which categories a tenant's products have, and how many products each.

use crate::Ingest;
use crate::auth::Caller;
use crate::cursor;
use crate::openapi::{Answer, Call, Page};
use crate::params::{self, Params, Query, rows};
use crate::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tillstream_schemas::item::ProductState;
use tillstream_schemas::{Text, codec};
use tillstream_stage::{Key, Table, ids};

/// Products read at a time.
const STEP_ROWS: usize = 1_000;

const LIST: &[Query] = &[params::cursor('k'), rows(100, 1_000)];

/// A category.
#[derive(Serialize, JsonSchema)]
struct Category<'a> {
    /// Its name, as products have it.
    name: &'a str,
    /// Products that have it.
    products: u64,
}

/// `GET /v1/categories`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/categories", "listCategories", "products", "List categories, by name")
        .query(LIST)
        .answer(
            Answer::json::<Page<Category<'_>>>(200, "A page")
                .example(json!({ "data": [{ "name": "lanterns", "products": 12 }], "next_cursor": null })),
        )
        .reads()
}

/// Lists categories in the order of their names. Products without one are not counted.
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, LIST)?;
    let limit = params.rows();
    let cursor = params.text("cursor");
    params.finish()?;
    let after = cursor.map(|it| cursor::decode('k', &it)).transpose()?.map(Text::from);
    let counts = counts(&ingest, &caller.tenant).await?;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut page: Vec<(&Text, &u64)> = counts.range((from, Bound::Unbounded)).take(limit + 1).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let last = page.last().filter(|_| more);
    let next = last.map(|(name, _)| cursor::encode('k', name));
    let data: Vec<_> =
        page.iter().map(|(name, products)| Category { name: name.as_str(), products: **products }).collect();
    Ok(Json(Page { data, next_cursor: next }).into_response())
}

/// Every category with the number of its products, removed ones left out.
async fn counts(ingest: &Ingest, tenant: &str) -> Result<BTreeMap<Text, u64>, Problem> {
    let prefix = ids::key(tenant, "");
    let mut counts = BTreeMap::new();
    let mut after: Option<Key> = None;
    loop {
        let page = ingest.state.scan(Table::Product, &prefix, after.as_deref(), STEP_ROWS).await?;
        for (key, bytes) in page.rows {
            let row: ProductState = codec::decode(&bytes)?;
            if let Some(category) = row.category.filter(|_| !row.removed) {
                *counts.entry(category).or_default() += 1;
            }
            after = Some(key);
        }
        if !page.more {
            return Ok(counts);
        }
        // A large catalog is read in strides: other calls come in between.
        tokio::task::yield_now().await;
    }
}
