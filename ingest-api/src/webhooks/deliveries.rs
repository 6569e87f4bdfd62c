//! What became of deliveries.

use super::view::{WebhookDelivery, delivery};
use super::{ID, find};
use crate::Ingest;
use crate::auth::Caller;
use crate::cursor;
use crate::openapi::{Answer, Call, Page};
use crate::params::{self, Params, Query, Segments, Wanted, query, rows};
use crate::problem::{Code, Problem};
use crate::topics::owns;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use std::sync::Arc;
use tillstream_log::{LogError, ReadLimit, TopicPartition};
use tillstream_schemas::codec;
use tillstream_schemas::webhook::{WebhookDeliveryState, WebhookDeliveryStatus};
use tillstream_stage::{Key, RowKey};
use tillstream_webhooks::rows::{delivery_key, endpoint_prefix};
use tillstream_webhooks::{Endpoint, MessageId, PublicEvent, Source};

/// The most rows one call looks at.
const SCANNED_ROWS_MAX: usize = 5_000;
/// Rows read at a time where a filter leaves some out.
const STEP_ROWS: usize = 200;

const STATUSES: [(&str, WebhookDeliveryStatus); 3] = [
    ("pending", WebhookDeliveryStatus::Pending),
    ("delivered", WebhookDeliveryStatus::Delivered),
    ("failed", WebhookDeliveryStatus::Failed),
];

const LIST: &[Query] = &[
    query("status", Wanted::Choice(&params::words(&STATUSES)), "Only those of this status"),
    query("type", Wanted::Text, "Only those of this event type"),
    query("subject", Wanted::Text, "Only those about this order or SKU"),
    params::cursor('w'),
    rows(20, 100),
];

/// `GET /v1/webhooks/endpoints/{id}/deliveries`
pub(crate) fn list_call() -> Call {
    Call::get(
        "/v1/webhooks/endpoints/{id}/deliveries",
        "listWebhookDeliveries",
        "webhooks",
        "List deliveries of a webhook endpoint",
    )
    .about(
        "Newest event first. Events in the log that have had no attempt yet are not among them. A page may hold fewer \
         rows than asked for, and more follow all the same: go by `next_cursor`.",
    )
    .id_segment("id", "whe_", "The endpoint's id", ID)
    .query(LIST)
    .answer(Answer::json::<Page<WebhookDelivery>>(200, "A page"))
    .problem(Code::NotFound)
    .reads()
}

/// `GET /v1/webhooks/endpoints/{id}/deliveries`
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::read(&uri, LIST)?;
    let status = params.choice("status", &STATUSES);
    let (kind, subject) = (params.text("type"), params.text("subject"));
    let limit = params.rows();
    let cursor = params.text("cursor");
    params.finish()?;
    find(&ingest, &caller, &id)?;
    let prefix = endpoint_prefix(&caller.tenant, &id);
    let mut after = match cursor {
        Some(cursor) => Some(Key::from(format!("{prefix}{}", cursor::decode('w', &cursor)?))),
        None => None,
    };
    let wanted = |row: &WebhookDeliveryState| {
        status.is_none_or(|it| row.status == it)
            && kind.as_ref().is_none_or(|it| row.kind == *it)
            && subject.as_ref().is_none_or(|it| row.subject == *it)
    };
    let step = if status.is_none() && kind.is_none() && subject.is_none() { limit + 1 } else { STEP_ROWS };
    let mut data = Vec::with_capacity(limit);
    let mut scanned = 0;
    loop {
        let (rows, more) = merged(&ingest, &prefix, after.as_deref(), step).await?;
        for (key, row) in rows {
            if data.len() == limit || scanned >= SCANNED_ROWS_MAX {
                return Ok(page(data, after.as_ref(), &prefix));
            }
            scanned += 1;
            let row: WebhookDeliveryState = codec::decode(&row)?;
            if wanted(&row) {
                data.push(delivery(row));
            }
            after = Some(key);
        }
        if !more {
            return Ok(page(data, None, &prefix));
        }
    }
}

/// Rows of both sources in one order; keys of both are made alike.
async fn merged(
    ingest: &Ingest,
    prefix: &str,
    after: Option<&str>,
    step: usize,
) -> Result<(Vec<(Key, bytes::Bytes)>, bool), Problem> {
    let mut rows = Vec::new();
    let mut more = false;
    // Past the last row of a page that has more, the other source's rows must wait for it.
    let mut until: Option<Key> = None;
    for source in Source::ALL {
        let page = ingest.state.scan(source.tables().delivery, prefix, after, step).await?;
        if page.more
            && let Some((last, _)) = page.rows.last()
        {
            more = true;
            until = Some(until.map_or_else(|| last.clone(), |it| it.min(last.clone())));
        }
        rows.extend(page.rows);
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(until) = until {
        rows.retain(|it| it.0 <= until);
    }
    Ok((rows, more))
}

fn page(data: Vec<WebhookDelivery>, after: Option<&Key>, prefix: &str) -> Response {
    let next_cursor = after.and_then(|it| it.strip_prefix(prefix)).map(|it| cursor::encode('w', it));
    Json(Page { data, next_cursor }).into_response()
}

/// `GET /v1/webhooks/endpoints/{id}/deliveries/{message}`
pub(crate) fn get_call() -> Call {
    Call::get(
        "/v1/webhooks/endpoints/{id}/deliveries/{message}",
        "getWebhookDelivery",
        "webhooks",
        "Read a delivery of a webhook endpoint",
    )
    .id_segment("id", "whe_", "The endpoint's id", ID)
    .id_segment("message", "msg_", "The message's id, as `webhook-id` has it", MESSAGE)
    .answer(Answer::json::<WebhookDelivery>(200, "The delivery"))
    .problem(Code::NotFound)
    .reads()
}

/// A message's id in examples.
pub(super) const MESSAGE: &str = "msg_o3_1f4a_2bdw7ncy4ksv6zrt9qgx";

/// `GET /v1/webhooks/endpoints/{id}/deliveries/{message}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments((id, message)): Segments<(String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let endpoint = find(&ingest, &caller, &id)?;
    let (at, event) = event_of(&ingest, &endpoint, &message).await?;
    let key = delivery_key(at.source, &caller.tenant, &id, event.at_ms, &message, &event.subject);
    let row = ingest.state.get_many(&[RowKey::new(key.table, key.key)]).await?.into_iter().next().flatten();
    let row = row.ok_or_else(|| Problem::not_found("delivery", &message))?;
    Ok(Json(delivery(codec::decode(&row)?)).into_response())
}

/// The event a message's id stands for, if it is this endpoint's.
///
/// # Errors
/// 404 for every other id, and once the log no longer has the event.
pub(super) async fn event_of(
    ingest: &Ingest,
    endpoint: &Endpoint,
    message: &str,
) -> Result<(MessageId, PublicEvent), Problem> {
    let missing = || Problem::not_found("delivery", message);
    let at = MessageId::parse(message).ok_or_else(missing)?;
    let topic = at.source.topic();
    if at.partition >= ingest.log.partitions(topic) {
        return Err(missing());
    }
    let limit = ReadLimit { records_max: 1, bytes_max: 1 };
    let records = match ingest.log.read(TopicPartition::new(topic, at.partition), at.offset, limit).await {
        Ok(records) => records,
        Err(LogError::OutOfRange { .. } | LogError::Corrupt { .. }) => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    let record = records.first().filter(|it| it.offset == at.offset && owns(&endpoint.tenant, &it.key));
    let event = record.and_then(|it| PublicEvent::read(at.source, &it.value).ok()).ok_or_else(missing)?;
    let theirs = MessageId::new(at.source, at.partition, at.offset, &endpoint.id, &event.id);
    if theirs == at { Ok((at, event)) } else { Err(missing()) }
}
