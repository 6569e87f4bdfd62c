//! Endpoints and deliveries as the API shows them.

use crate::moment::Moment;
use crate::openapi::{OneOf, one_of};
use schemars::JsonSchema;
use serde::Serialize;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::{
    WebhookAttempt, WebhookDeliveryState, WebhookDeliveryStatus, WebhookFeedState,
};
use tillstream_webhooks::Endpoint;

one_of! {
    WebhookDeliveryStatus { Pending, Delivered, Failed }
}

/// Where deliveries go.
#[derive(Serialize, JsonSchema)]
pub(super) struct WebhookEndpoint {
    /// Its id.
    id: String,
    /// Where deliveries go.
    url: String,
    /// What it is for, in the merchant's words.
    description: String,
    /// Event types that are sent.
    events: Vec<String>,
    /// Whether anything is sent.
    enabled: bool,
    /// Why nothing is sent; null while it is on.
    disabled: Option<WebhookDisabled>,
    /// Attempts under way at once.
    in_flight_max: i32,
    /// Attempts per second, at most; null: no limit.
    rate_per_second: Option<i32>,
    /// Grows with every change.
    version: i64,
    /// When it was made.
    created_at: Moment,
    /// When it last changed.
    updated_at: Moment,
    /// Until when a secret before the newest signs as well; null: there is none.
    previous_secret_until: Option<Moment>,
    /// How its deliveries fare; only where one endpoint is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<WebhookHealth>,
    /// The secret that verifies signatures: only in the answer that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// Why nothing is sent.
#[derive(Serialize, JsonSchema)]
struct WebhookDisabled {
    /// `requested`, `failing` or `gone`.
    code: String,
    /// A sentence.
    message: String,
    /// Since when.
    at: Moment,
}

/// How an endpoint's deliveries fare.
#[derive(Serialize, JsonSchema)]
pub(super) struct WebhookHealth {
    /// Since when attempts have failed; null: the last one did not.
    failing_since: Option<Moment>,
    /// When an attempt last succeeded, to ten minutes; null: none has.
    last_success_at: Option<Moment>,
    /// Whether events wait for it in the log.
    behind: bool,
}

impl WebhookHealth {
    /// Of all its feeds.
    pub fn of(feeds: &[WebhookFeedState]) -> Self {
        Self {
            failing_since: feeds.iter().filter_map(|it| it.failing_since_ms).min().map(Moment),
            last_success_at: feeds.iter().filter_map(|it| it.last_success_ms).max().map(Moment),
            behind: feeds.iter().any(|it| it.next_offset.is_some()),
        }
    }
}

/// An endpoint.
pub(super) fn endpoint(endpoint: &Endpoint, now_ms: i64) -> WebhookEndpoint {
    let settings = &endpoint.settings;
    let overlap = endpoint.secrets.iter().filter_map(|it| it.until_ms).filter(|it| *it > now_ms).max();
    WebhookEndpoint {
        id: endpoint.id.to_string(),
        url: settings.url.to_string(),
        description: settings.description.to_string(),
        events: settings.events.iter().map(Text::to_string).collect(),
        enabled: endpoint.is_on(),
        disabled: endpoint.disabled.as_ref().map(|it| WebhookDisabled {
            code: it.code.to_string(),
            message: it.message.to_string(),
            at: Moment(it.at_ms),
        }),
        in_flight_max: settings.in_flight_max,
        rate_per_second: settings.rate_per_second,
        version: endpoint.version,
        created_at: Moment(endpoint.created_at_ms),
        updated_at: Moment(endpoint.updated_at_ms),
        previous_secret_until: overlap.map(Moment),
        health: None,
        secret: None,
    }
}

impl WebhookEndpoint {
    /// With its secret, this once.
    pub fn with_secret(self, secret: String) -> Self {
        Self { secret: Some(secret), ..self }
    }

    /// With how its deliveries fare.
    pub fn with_health(self, health: WebhookHealth) -> Self {
        Self { health: Some(health), ..self }
    }
}

/// What became of one event for one endpoint.
#[derive(Serialize, JsonSchema)]
pub(super) struct WebhookDelivery {
    /// The message's id: what `webhook-id` has.
    id: String,
    /// The event's id.
    event_id: String,
    /// The event's type.
    r#type: String,
    /// The order or SKU it is about.
    subject: String,
    /// When the event happened.
    at: Moment,
    /// What became of it.
    #[schemars(with = "OneOf<WebhookDeliveryStatus>")]
    status: WebhookDeliveryStatus,
    /// Why it was given up: `exhausted`, `disabled` or `expired`.
    reason: Option<String>,
    /// Attempts so far.
    attempt_count: i32,
    /// The last attempts, oldest first.
    attempts: Vec<WebhookDeliveryAttempt>,
    /// When the next attempt is due, while it is pending.
    next_attempt_at: Option<Moment>,
    /// When this last changed.
    updated_at: Moment,
}

/// One attempt.
#[derive(Serialize, JsonSchema)]
struct WebhookDeliveryAttempt {
    /// When.
    at: Moment,
    /// The response's status; null: there was no response.
    status: Option<i32>,
    /// Why there was none: `timeout`, `dns`, `private_address`, `connect`, `tls` or `protocol`.
    error: Option<String>,
    /// How long it took, ms.
    latency_ms: i64,
    /// The response's first bytes, as text.
    response: String,
}

/// A delivery.
pub(super) fn delivery(row: WebhookDeliveryState) -> WebhookDelivery {
    let attempt = |it: WebhookAttempt| WebhookDeliveryAttempt {
        at: Moment(it.at_ms),
        status: it.response_status,
        error: it.error.map(|it| it.to_string()),
        latency_ms: it.latency_ms,
        response: it.response.to_string(),
    };
    WebhookDelivery {
        id: row.message_id.to_string(),
        event_id: row.event_id.to_string(),
        r#type: row.kind.to_string(),
        subject: row.subject.to_string(),
        at: Moment(row.at_ms),
        status: row.status,
        reason: row.reason.map(|it| it.to_string()),
        attempt_count: row.attempt_count,
        attempts: row.attempts.into_iter().map(attempt).collect(),
        next_attempt_at: row.next_attempt_ms.map(Moment),
        updated_at: Moment(row.updated_at_ms),
    }
}

/// What a test message came to.
#[derive(Serialize, JsonSchema)]
pub(super) struct WebhookTest {
    /// The message's id.
    pub id: String,
    /// Whether a 2xx came back.
    pub delivered: bool,
    /// The response's status; null: there was no response.
    pub status: Option<i32>,
    /// Why there was none.
    pub error: Option<String>,
    /// How long it took, ms.
    pub latency_ms: i64,
    /// The response's first bytes, as text.
    pub response: String,
}

/// A replay or redelivery that was accepted.
#[derive(Serialize, JsonSchema)]
pub(super) struct WebhookRequest {
    /// The endpoint, or the message.
    pub id: String,
    /// `accepted`
    pub status: &'static str,
}
