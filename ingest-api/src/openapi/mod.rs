//! The contract, made from the code: `/openapi.json` (OpenAPI 3.1).
//!
//! How to document a route, in the file of its handler:
//! 1. A JSON body is a `&[Field]` table of [`crate::shape`], the one `shape::read` parses by; a query is a `&[Query]`
//!    table, the one `Params::read` reads by. Bounds and words stand in these tables and nowhere else.
//! 2. An answer is a struct that derives `Serialize` and `JsonSchema`; its `///` comments become the descriptions. Lists
//!    are [`Page`]s, times [`crate::moment::Moment`]s, enums of the wire [`OneOf`]s.
//! 3. Write `pub(crate) fn …_call() -> Call`, which says the rest: [`Call::post`]`("/v1/…", "operationId", "tag", "summary")`,
//!    then `.idempotent()`, `.waits()`, `.query(TABLE)`, `.body("NameInput", TABLE, example)`, `.answer(Answer::json::<T>(…))`,
//!    `.reads()` or `.writes()`, and `.problem(Code::…)` for what only this call answers.
//! 4. Name it in [`calls::all`], in the order readers should meet it.
//! 5. `TILLSTREAM_GOLDEN=refresh cargo test -p tillstream-ingest-api --lib contract` takes the addition into
//!    `contract/openapi.json`; a change that would break a client is refused there until that file is edited by hand.

pub(crate) mod answer;
pub(crate) mod call;
mod calls;
mod document;
mod input;

#[cfg(test)]
mod breaking;
#[cfg(test)]
mod breaking_tests;
#[cfg(test)]
mod contract;

pub(crate) use answer::{OneOf, Page, one_of};
pub(crate) use call::{Answer, Call};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document::document().to_string().into());

/// Builds the document, so that no caller waits for it.
pub(crate) fn prepare() {
    LazyLock::force(&DOCUMENT);
}

/// The contract.
pub(crate) async fn json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// Its own entry.
pub(crate) fn json_call() -> Call {
    Call::get("/openapi.json", "getContract", "operations", "This document").answer(Answer::other(
        200,
        "OpenAPI 3.1",
        "application/json",
    ))
}
