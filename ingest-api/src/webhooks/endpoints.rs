//! Endpoints: made, read, changed, deleted.

use super::input::{CHANGE, CREATE, ChangeInput, CreateInput, check, replay_from};
use super::view::{WebhookEndpoint, WebhookHealth, endpoint};
use super::{ID, change, find, random, random_id};
use crate::Ingest;
use crate::auth::Caller;
use crate::body;
use crate::openapi::{Answer, Call, Page};
use crate::params::{Params, Segments};
use crate::problem::{Code, FieldError, Problem};
use crate::shape;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::json;
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_schemas::codec;
use tillstream_schemas::webhook::{
    WebhookEndpointCreated, WebhookEndpointDeleted, WebhookEndpointDisabled, WebhookEndpointEnabled,
    WebhookEndpointPayload as Change, WebhookEndpointUpdated, WebhookFeedState,
};
use tillstream_webhooks::book::REQUESTED;
use tillstream_webhooks::rows::endpoint_prefix;
use tillstream_webhooks::signature::SECRET_BYTES;
use tillstream_webhooks::{SigningSecret, Source};

/// Feeds of one endpoint that are looked at: one per partition.
const FEEDS_MAX: usize = 1_024;

/// `POST /v1/webhooks/endpoints`
pub(crate) fn create_call() -> Call {
    Call::post("/v1/webhooks/endpoints", "createWebhookEndpoint", "webhooks", "Create a webhook endpoint")
        .about(
            "Events that happen from now on are sent to it, signed as Standard Webhooks has it. The only answer that \
             holds the secret.",
        )
        .body(
            "WebhookEndpointInput",
            CREATE,
            json!({ "url": "https://shop.example.com/hooks", "events": ["order.*", "payment.captured"] }),
        )
        .answer(
            Answer::json::<WebhookEndpoint>(201, "The endpoint, with its secret")
                .header("Cache-Control", "`no-store`")
                .link("getWebhookEndpoint", &[("id", "$response.body#/id")]),
        )
        .problem(Code::EndpointRefused)
        .problem(Code::NotInForceYet)
        .problem(Code::DiskFull)
        .reads()
}

/// `POST /v1/webhooks/endpoints`
pub(crate) async fn create(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: CreateInput = shape::read(&body::json(&headers, body).await?, CREATE)?;
    let settings = input.settings();
    check(&settings, &*ingest.webhooks).await?;
    let id = random_id("whe_")?;
    let secret = new_secret()?;
    let created = WebhookEndpointCreated {
        settings,
        secret: secret.as_str().into(),
        enabled: input.enabled.unwrap_or(true),
    };
    change(&ingest, &caller, &id, Change::Created(created)).await?;
    let made = find(&ingest, &caller, &id)?;
    let shown = endpoint(&made, ingest.clock.now_ms()).with_secret(secret);
    Ok(unstored((StatusCode::CREATED, Json(shown)).into_response()))
}

/// A fresh secret, `whsec_…`.
pub(super) fn new_secret() -> Result<String, Problem> {
    Ok(SigningSecret::from_bytes(&random::<SECRET_BYTES>()?).reveal())
}

/// An answer that holds a secret is kept by nobody in between.
pub(super) fn unstored(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /v1/webhooks/endpoints`
pub(crate) fn list_call() -> Call {
    Call::get("/v1/webhooks/endpoints", "listWebhookEndpoints", "webhooks", "List webhook endpoints")
        .answer(Answer::json::<Page<WebhookEndpoint>>(200, "Every endpoint, by id"))
        .problem(Code::Internal)
}

/// `GET /v1/webhooks/endpoints`
pub(crate) async fn list(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let (book, now_ms) = (ingest.webhooks.book(), ingest.clock.now_ms());
    let data = book.of(&caller.tenant).map(|it| endpoint(it, now_ms)).collect();
    Ok(Json(Page::<WebhookEndpoint>::whole(data)).into_response())
}

/// `GET /v1/webhooks/endpoints/{id}`
pub(crate) fn get_call() -> Call {
    Call::get("/v1/webhooks/endpoints/{id}", "getWebhookEndpoint", "webhooks", "Read a webhook endpoint")
        .id_segment("id", "whe_", "The endpoint's id", ID)
        .answer(Answer::json::<WebhookEndpoint>(200, "The endpoint, with how its deliveries fare"))
        .problem(Code::NotFound)
        .reads()
}

/// `GET /v1/webhooks/endpoints/{id}`
pub(crate) async fn get(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let found = find(&ingest, &caller, &id)?;
    let prefix = endpoint_prefix(&caller.tenant, &id);
    let mut feeds = Vec::new();
    for source in Source::ALL {
        let page = ingest.state.scan(source.tables().feed, &prefix, None, FEEDS_MAX).await?;
        for (_, row) in page.rows {
            let row: WebhookFeedState = codec::decode(&row)?;
            if row.active_since_ms == found.active_since_ms {
                feeds.push(row);
            }
        }
    }
    let shown = endpoint(&found, ingest.clock.now_ms()).with_health(WebhookHealth::of(&feeds));
    Ok(Json(shown).into_response())
}

/// `PATCH /v1/webhooks/endpoints/{id}`
pub(crate) fn change_call() -> Call {
    Call::patch("/v1/webhooks/endpoints/{id}", "changeWebhookEndpoint", "webhooks", "Change a webhook endpoint")
        .about(
            "What is left out stays. `enabled: false` gives up what is pending; `enabled: true` sends what happens from \
             then on, and with `replay_from` what happened since then as well.",
        )
        .id_segment("id", "whe_", "The endpoint's id", ID)
        .body("WebhookEndpointChange", CHANGE, json!({ "events": ["order.*"], "enabled": true }))
        .answer(Answer::json::<WebhookEndpoint>(200, "The endpoint as it is now"))
        .problem(Code::NotFound)
        .problem(Code::EndpointRefused)
        .problem(Code::NotInForceYet)
        .problem(Code::DiskFull)
        .reads()
}

/// `PATCH /v1/webhooks/endpoints/{id}`
pub(crate) async fn patch(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let input: ChangeInput = shape::read(&body::json(&headers, body).await?, CHANGE)?;
    let found = find(&ingest, &caller, &id)?;
    let now_ms = ingest.clock.now_ms();
    let replay = input.replay_from.as_deref().map(|it| replay_from("replay_from", it, now_ms)).transpose()?;
    if replay.is_some() && input.enabled != Some(true) {
        let error = FieldError::new(
            "replay_from",
            "needs enabled: true",
            "send enabled: true too, or ask for a replay",
        );
        return Err(Problem::invalid_fields(vec![error]));
    }
    let expected_version = input.expected_version.unwrap_or(found.version);
    if expected_version != found.version {
        let detail = format!("the endpoint is at version {}, not {expected_version}", found.version);
        return Err(Problem::new(Code::EndpointRefused, detail));
    }
    if let Some(settings) = input.settings(&found.settings) {
        check(&settings, &*ingest.webhooks).await?;
        let updated = WebhookEndpointUpdated { expected_version, settings };
        change(&ingest, &caller, &id, Change::Updated(updated)).await?;
    }
    match input.enabled {
        Some(true) if !found.is_on() || replay.is_some() => {
            let enabled = WebhookEndpointEnabled { replay_from_ms: replay };
            change(&ingest, &caller, &id, Change::Enabled(enabled)).await?;
        }
        Some(false) if found.is_on() => {
            let disabled = WebhookEndpointDisabled {
                active_since_ms: None,
                code: Text::const_new(REQUESTED),
                message: "The endpoint was switched off by a call of the API.".into(),
            };
            change(&ingest, &caller, &id, Change::Disabled(disabled)).await?;
        }
        _ => {}
    }
    let changed = find(&ingest, &caller, &id)?;
    Ok(Json(endpoint(&changed, now_ms)).into_response())
}

/// `DELETE /v1/webhooks/endpoints/{id}`
pub(crate) fn delete_call() -> Call {
    Call::delete(
        "/v1/webhooks/endpoints/{id}",
        "deleteWebhookEndpoint",
        "webhooks",
        "Delete a webhook endpoint",
    )
    .about("What is pending is given up, and its delivery log is forgotten.")
    .id_segment("id", "whe_", "The endpoint's id", ID)
    .answer(Answer::empty(204, "It is gone"))
    .problem(Code::NotFound)
    .problem(Code::NotInForceYet)
    .problem(Code::DiskFull)
    .reads()
}

/// `DELETE /v1/webhooks/endpoints/{id}`
pub(crate) async fn delete(
    State(ingest): State<Arc<Ingest>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Problem> {
    find(&ingest, &caller, &id)?;
    let deleted = WebhookEndpointDeleted { expected_version: None };
    change(&ingest, &caller, &id, Change::Deleted(deleted)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
