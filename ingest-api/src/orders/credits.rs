//! `/v1/returns`: a return or credit that names no order.

use super::credit_view::Credit;
use super::written::ReturnLineInput;
use super::{ID_EXAMPLES, credit_view, is_id};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::commands::MISS_WAIT;
use crate::idempotency::{fingerprint, key_of, wait_of};
use crate::moment::from_rfc3339;
use crate::observe::Trace;
use crate::openapi::{Answer, Call};
use crate::params::{Params, Segments};
use crate::problem::{Code, FieldError, Problem};
use crate::shape::{self, CUSTOMER, Field, Kind, METADATA, QUANTITY, SKU, needed, optional};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tillstream_schemas::order_command::{IssueCredit, OrderCommand, OrderCommandPayload, ReturnLine};
use tillstream_schemas::order_state::OrderState;
use tillstream_schemas::{Text, TextMap, Topic, codec};
use tillstream_stage::Table;
use tillstream_stage::ids::{self, client_id};
use tillstream_stage::money::AMOUNT_MINOR_MAX;

const ROUTE: &str = "POST /v1/returns";

const LINE: Kind = Kind::Object(&[
    needed("sku", SKU),
    needed("quantity", QUANTITY),
    needed("amount", Kind::Amount { min: 0 }),
    optional("restock", Kind::Flag),
]);
const CREDIT: &[Field] = &[
    optional("customer", CUSTOMER),
    needed("currency", Kind::Currency),
    optional("country", Kind::Country),
    needed("lines", Kind::List { of: &LINE, min: 1, max: 1_000 }),
    optional("returned_at", Kind::Time),
    optional("reason", Kind::Text { min: 1, max: 500 }),
    optional("metadata", METADATA),
];

#[derive(Deserialize)]
struct CreditInput {
    customer: Option<Text>,
    currency: Text,
    country: Option<Text>,
    lines: Vec<ReturnLineInput>,
    returned_at: Option<Text>,
    reason: Option<Text>,
    metadata: Option<TextMap>,
}

/// Reads a body and forgets it.
pub(crate) fn check_body(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<CreditInput>(bytes, CREDIT).map(drop)
}

/// `POST /v1/returns`
pub(crate) fn issue_call() -> Call {
    let example = json!({
        "customer": "c-17850", "currency": "GBP", "country": "GB", "returned_at": "2010-12-09T10:00:00Z",
        "lines": [{ "sku": "85123A", "quantity": 2, "amount": 510, "restock": true }], "reason": "damaged",
    });
    Call::post("/v1/returns", "issueCredit", "returns", "Issue a return or credit that names no order")
        .idempotent()
        .waits()
        .body("CreditInput", CREDIT, example)
        .answer(
            Answer::json::<Credit<'_>>(202, "Accepted and durable")
                .example(json!({ "id": ID_EXAMPLES.credit, "status": "accepted", "links": { "self": format!("/v1/returns/{}", ID_EXAMPLES.credit) } }))
                .header("Location", "The credit")
                .header("Preference-Applied", "`wait=…`, where it was heard")
                .link("getCredit", &[("id", "$response.body#/id")]),
        )
        .answer(
            Answer::json::<Credit<'_>>(200, "Issued (with `Prefer: wait`)")
                .header("Location", "The credit")
                .header("Preference-Applied", "`wait=…`, where it was heard"),
        )
        .writes()
}

/// `GET /v1/returns/{id}`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/returns/{id}", "getCredit", "returns", "Read a credit")
        .id_segment("id", "crd_", "The credit's id", ID_EXAMPLES.credit)
        .answer(Answer::json::<Credit<'_>>(200, "The credit"))
        .problem(Code::NotFound)
        .reads()
}

/// Issues a credit.
pub(crate) async fn issue(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let idempotency_key = key_of(&headers)?;
    let bytes = body::json(&headers, body).await?;
    let input: CreditInput = shape::read(&bytes, CREDIT)?;
    let sum: i128 = input.lines.iter().filter_map(|it| it.amount).map(i128::from).sum();
    if sum > i128::from(AMOUNT_MINOR_MAX) {
        let fix = format!("the amounts together may come to {AMOUNT_MINOR_MAX} minor units");
        return Err(Problem::invalid_fields(vec![FieldError::new(
            "lines",
            format!("come to {sum} minor units"),
            fix,
        )]));
    }
    let now_ms = ingest.clock.now_ms();
    let given = input.returned_at.and_then(|it| from_rfc3339(&it));
    let id = client_id("crd_", &[&caller.tenant, ROUTE, idempotency_key]);
    let mut command = OrderCommand {
        id: id.clone(),
        tenant: caller.tenant.clone(),
        order_id: id.clone(),
        accepted_at_ms: 0,
        traceparent: None,
        fingerprint: Text::default(),
        payload: OrderCommandPayload::IssueCredit(IssueCredit {
            customer: input.customer,
            currency: input.currency,
            country: input.country.unwrap_or_default(),
            lines: input.lines.into_iter().map(ReturnLine::from).collect(),
            returned_at_ms: given.unwrap_or_default(),
            reason: input.reason,
            metadata: input.metadata.unwrap_or_default(),
        }),
    };
    let mut bytes = Vec::with_capacity(256);
    let fingerprint = fingerprint(&command, &mut bytes)?;
    if let OrderCommandPayload::IssueCredit(credit) = &mut command.payload {
        credit.returned_at_ms = given.unwrap_or(now_ms);
    }
    command.accepted_at_ms = now_ms;
    command.traceparent = Some(trace.0);
    command.fingerprint = fingerprint.clone();
    bytes.clear();
    codec::encode_into(&command, &mut bytes)?;
    let key = ids::key(&caller.tenant, &id);
    let record = ingest.record(Topic::OrderCommands, &key, bytes);
    ingest.check_new_work(record.to)?;
    let wait = wait_of(&headers);
    let feed = wait.map(|_| ingest.order_events.subscribe(&key));
    let judge = async || {
        let row: Option<OrderState> = ingest.row(Table::Order, key.clone()).await?;
        Ok(row.map(|it| it.fingerprint))
    };
    ingest.append_claimed(&caller.tenant, &id, &fingerprint, record, judge).await?;
    let row = match (wait, feed) {
        (Some(wait), Some(feed)) => {
            ingest.await_order(&caller.tenant, &id, wait, Some(feed), |_| true).await?
        }
        _ => None,
    };
    let body =
        match row.as_ref().and_then(|row| row.credit.as_ref().map(|credit| credit_view::issued(row, credit)))
        {
            Some(credit) => (StatusCode::OK, credit),
            None => (StatusCode::ACCEPTED, credit_view::accepted(&id)),
        };
    let mut response = (body.0, Json(body.1)).into_response();
    super::place::locate(&mut response, &format!("/v1/returns/{id}"), wait);
    Ok(response)
}

/// Reads a credit.
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    if !is_id("crd_", &id) {
        return Err(Problem::not_found("return", &id));
    }
    let row = match ingest.row::<OrderState>(Table::Order, ids::key(&caller.tenant, &id)).await? {
        Some(row) => Some(row),
        None => ingest.await_order(&caller.tenant, &id, MISS_WAIT, None, |_| true).await?,
    };
    match row.as_ref().and_then(|row| row.credit.as_ref().map(|credit| credit_view::issued(row, credit))) {
        Some(credit) => Ok(Json(credit)),
        None if ingest.in_flight.is_durable(&caller.tenant, &id) => Ok(Json(credit_view::accepted(&id))),
        None => Err(Problem::not_found("return", &id)),
    }
}
