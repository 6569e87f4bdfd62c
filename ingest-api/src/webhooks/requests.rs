//! What is asked of an endpoint: a test, a new secret, a replay, one event again.

use super::deliveries::{MESSAGE, event_of};
use super::endpoints::{new_secret, unstored};
use super::input::{REPLAY, ROTATE, ReplayInput, RotateInput, replay_from};
use super::view::{WebhookEndpoint, WebhookRequest, WebhookTest, endpoint};
use super::{ID, change, find, random_id};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::openapi::{Answer, Call};
use crate::params::Segments;
use crate::problem::{Code, Problem};
use crate::shape;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use std::sync::Arc;
use tillstream_schemas::webhook::{
    WebhookEndpointPayload as Change, WebhookRedeliveryRequested, WebhookReplayRequested,
    WebhookSecretRotated,
};
use tillstream_webhooks::Source;
use tillstream_webhooks::rows::signed;

/// Where nothing else is asked for, both secrets sign for so long, s.
const OVERLAP_SECONDS: i64 = 24 * 3_600;

/// `POST /v1/webhooks/endpoints/{id}/test`
pub(crate) fn test_call() -> Call {
    Call::post("/v1/webhooks/endpoints/{id}/test", "testWebhookEndpoint", "webhooks", "Test a webhook endpoint")
        .about(
            "Sends one signed `webhook.ping` at once, also to an endpoint that is switched off, and answers what came \
             back. It is not tried again and stands in no log.",
        )
        .id_segment("id", "whe_", "The endpoint's id", ID)
        .answer(Answer::json::<WebhookTest>(200, "What came back"))
        .problem(Code::NotFound)
        .problem(Code::EndpointRefused)
        .reads()
}

/// `POST /v1/webhooks/endpoints/{id}/test`
pub(crate) async fn test(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    let found = find(&ingest, &caller, &id)?;
    let Some(reply) = ingest.webhooks.ping(found, random_id("msg_")?).await else {
        let detail = "a test of this endpoint is under way; wait for its answer";
        return Err(Problem::new(Code::EndpointRefused, detail));
    };
    let shown = WebhookTest {
        id: reply.message_id.to_string(),
        delivered: reply.delivered,
        status: reply.status,
        error: reply.error.map(|it| it.to_string()),
        latency_ms: reply.latency_ms,
        response: reply.response.to_string(),
    };
    Ok(Json(shown).into_response())
}

/// `POST /v1/webhooks/endpoints/{id}/secret`
pub(crate) fn rotate_call() -> Call {
    Call::post(
        "/v1/webhooks/endpoints/{id}/secret",
        "rotateWebhookSecret",
        "webhooks",
        "Rotate the secret of a webhook endpoint",
    )
    .about(
        "Messages are signed with the new secret from now on, and with those before as well until the overlap is over: \
         `webhook-signature` holds a signature of each. The only answer that holds the secret.",
    )
    .id_segment("id", "whe_", "The endpoint's id", ID)
    .body("WebhookSecretRotation", ROTATE, json!({ "overlap_seconds": 86_400 }))
    .answer(
        Answer::json::<WebhookEndpoint>(201, "The endpoint, with its new secret")
            .header("Cache-Control", "`no-store`"),
    )
    .problem(Code::NotFound)
    .problem(Code::NotInForceYet)
    .problem(Code::DiskFull)
    .reads()
}

/// `POST /v1/webhooks/endpoints/{id}/secret`
pub(crate) async fn rotate(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: RotateInput = shape::read(&body::json(&headers, body).await?, ROTATE)?;
    find(&ingest, &caller, &id)?;
    let overlap_ms = input.overlap_seconds.unwrap_or(OVERLAP_SECONDS).saturating_mul(1_000);
    let secret = new_secret()?;
    let rotated = WebhookSecretRotated {
        secret: secret.as_str().into(),
        overlap_until_ms: ingest.clock.now_ms().saturating_add(overlap_ms),
    };
    change(&ingest, &caller, &id, Change::SecretRotated(rotated)).await?;
    let shown = endpoint(&*find(&ingest, &caller, &id)?, ingest.clock.now_ms()).with_secret(secret);
    Ok(unstored((StatusCode::CREATED, Json(shown)).into_response()))
}

/// `POST /v1/webhooks/endpoints/{id}/replay`
pub(crate) fn replay_call() -> Call {
    Call::post("/v1/webhooks/endpoints/{id}/replay", "replayWebhooks", "webhooks", "Send events again from a time")
        .about(
            "Every event recorded from then on that the endpoint wants is sent again, under its old message id, in order \
             per order. New events come behind. As far back as the log reaches.",
        )
        .id_segment("id", "whe_", "The endpoint's id", ID)
        .body("WebhookReplayInput", REPLAY, json!({ "from": "2026-11-30T00:00:00Z" }))
        .answer(Answer::json::<WebhookRequest>(202, "It begins within seconds"))
        .problem(Code::NotFound)
        .problem(Code::EndpointRefused)
        .problem(Code::NotInForceYet)
        .problem(Code::DiskFull)
        .reads()
}

/// `POST /v1/webhooks/endpoints/{id}/replay`
pub(crate) async fn replay(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: ReplayInput = shape::read(&body::json(&headers, body).await?, REPLAY)?;
    find(&ingest, &caller, &id)?;
    let from_ms = replay_from("from", &input.from, ingest.clock.now_ms())?;
    change(&ingest, &caller, &id, Change::ReplayRequested(WebhookReplayRequested { from_ms })).await?;
    Ok((StatusCode::ACCEPTED, Json(WebhookRequest { id, status: "accepted" })).into_response())
}

/// `POST /v1/webhooks/endpoints/{id}/deliveries/{message}/redeliver`
pub(crate) fn redeliver_call() -> Call {
    Call::post(
        "/v1/webhooks/endpoints/{id}/deliveries/{message}/redeliver",
        "redeliverWebhook",
        "webhooks",
        "Send one event again",
    )
    .about("Under the same message id, behind what the order still waits for. At most 1,000 per endpoint and hour.")
    .id_segment("id", "whe_", "The endpoint's id", ID)
    .id_segment("message", "msg_", "The message's id, as `webhook-id` has it", MESSAGE)
    .answer(Answer::json::<WebhookRequest>(202, "It is sent within seconds"))
    .problem(Code::NotFound)
    .problem(Code::EndpointRefused)
    .problem(Code::NotInForceYet)
    .problem(Code::DiskFull)
    .reads()
}

/// `POST /v1/webhooks/endpoints/{id}/deliveries/{message}/redeliver`
pub(crate) async fn redeliver(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments((id, message)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let found = find(&ingest, &caller, &id)?;
    let (at, event) = event_of(&ingest, &found, &message).await?;
    let asked = WebhookRedeliveryRequested {
        item: at.source == Source::Items,
        partition: i32::try_from(at.partition).unwrap_or(i32::MAX),
        offset: signed(at.offset),
        subject: event.subject,
    };
    change(&ingest, &caller, &id, Change::RedeliveryRequested(asked)).await?;
    Ok((StatusCode::ACCEPTED, Json(WebhookRequest { id: message, status: "accepted" })).into_response())
}
