//! What the webhook tasks keep of deliveries under way and past. Never a payload: an event is read from the log again.

use crate::Text;
use serde::{Deserialize, Serialize};

/// How far one endpoint is in one partition. Key: `tenant/endpoint/salt`, the salt chosen so that the key lies there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookFeedState {
    /// The offset to go on from; `None`: where the task is.
    #[serde(default)]
    pub next_offset: Option<i64>,
    /// Events appended before are not sent, ms since the epoch.
    pub from_ms: i64,
    /// Since when every attempt has failed.
    #[serde(default)]
    pub failing_since_ms: Option<i64>,
    /// When an attempt last succeeded, to some minutes.
    #[serde(default)]
    pub last_success_ms: Option<i64>,
    /// The endpoint's last request (replay, redelivery) that was taken on here.
    pub request: i64,
    /// When the endpoint was last switched on, as this feed knows it.
    pub active_since_ms: i64,
}

/// Events of one order or item that wait for another attempt. Key: `tenant/subject/endpoint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookLaneState {
    /// The events, first to be sent first.
    pub items: Vec<WebhookItem>,
    /// Failed attempts of the first.
    pub failed: i32,
    /// When the next attempt is due.
    pub next_attempt_ms: i64,
}

/// One event on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookItem {
    /// Its offset.
    pub offset: i64,
    /// Whether somebody asked for it again.
    pub again: bool,
}

/// What became of one event for one endpoint.
/// Key: `tenant/endpoint/<i64::MAX − at_ms, 16 hex digits>/message id/subject`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookDeliveryState {
    /// The message's id.
    pub message_id: Text,
    /// The event's id.
    pub event_id: Text,
    /// The event's type.
    pub kind: Text,
    /// The order or SKU.
    pub subject: Text,
    /// When the event happened.
    pub at_ms: i64,
    /// What became of it.
    pub status: WebhookDeliveryStatus,
    /// Why it was given up: `exhausted`, `disabled` or `expired`.
    #[serde(default)]
    pub reason: Option<Text>,
    /// Attempts so far.
    pub attempt_count: i32,
    /// The last attempts, oldest first.
    pub attempts: Vec<WebhookAttempt>,
    /// When the next attempt is due, while it is pending.
    #[serde(default)]
    pub next_attempt_ms: Option<i64>,
    /// When this last changed.
    pub updated_at_ms: i64,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookDeliveryStatus {
    /// It is tried again.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// It was given up.
    Failed,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookAttempt {
    /// When.
    pub at_ms: i64,
    /// The response's status, if there was a response.
    #[serde(default)]
    pub response_status: Option<i32>,
    /// Why there was none: `timeout`, `connect`, `tls`, `dns`, `private_address` or `protocol`.
    #[serde(default)]
    pub error: Option<Text>,
    /// How long it took.
    pub latency_ms: i64,
    /// The response's first bytes, as text.
    pub response: Text,
}

/// `webhooks.endpoints.v1`: one change of a tenant's endpoints. Every record has a key of its own, in the partition of the
/// tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookEndpointEvent {
    /// Unique id: an event that comes again is the same event.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// When it was asked for, ms since the epoch.
    pub occurred_at_ms: i64,
    /// Who asked: the id of an API key, or `system` for what is decided here.
    pub actor: Text,
    /// The endpoint.
    pub endpoint_id: Text,
    /// What changes.
    pub payload: WebhookEndpointPayload,
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WebhookEndpointPayload {
    /// A new endpoint.
    #[serde(rename = "tillstream.WebhookEndpointCreated")]
    Created(WebhookEndpointCreated),
    /// New settings.
    #[serde(rename = "tillstream.WebhookEndpointUpdated")]
    Updated(WebhookEndpointUpdated),
    /// Switched on: what is appended from now on is sent.
    #[serde(rename = "tillstream.WebhookEndpointEnabled")]
    Enabled(WebhookEndpointEnabled),
    /// Switched off: what is pending is given up.
    #[serde(rename = "tillstream.WebhookEndpointDisabled")]
    Disabled(WebhookEndpointDisabled),
    /// A new secret.
    #[serde(rename = "tillstream.WebhookSecretRotated")]
    SecretRotated(WebhookSecretRotated),
    /// Send again what was appended from some time on.
    #[serde(rename = "tillstream.WebhookReplayRequested")]
    ReplayRequested(WebhookReplayRequested),
    /// Send one event again.
    #[serde(rename = "tillstream.WebhookRedeliveryRequested")]
    RedeliveryRequested(WebhookRedeliveryRequested),
    /// Gone for good.
    #[serde(rename = "tillstream.WebhookEndpointDeleted")]
    Deleted(WebhookEndpointDeleted),
}

/// What a merchant sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookEndpointSettings {
    /// Where deliveries go.
    pub url: Text,
    /// In the merchant's words.
    pub description: Text,
    /// Patterns of event types.
    pub events: Vec<Text>,
    /// Attempts under way at once.
    pub in_flight_max: i32,
    /// Attempts per second, at most; `None`: no limit.
    #[serde(default)]
    pub rate_per_second: Option<i32>,
}

/// A new endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookEndpointCreated {
    /// As the merchant set it.
    pub settings: WebhookEndpointSettings,
    /// Its first secret, `whsec_…`.
    pub secret: Text,
    /// Whether it begins switched on.
    pub enabled: bool,
}

/// New settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookEndpointUpdated {
    /// The version they replace: another one is a conflict.
    pub expected_version: i64,
    /// As the merchant set them.
    pub settings: WebhookEndpointSettings,
}

/// Switched on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookEndpointEnabled {
    /// Sends what was appended since then as well.
    #[serde(default)]
    pub replay_from_ms: Option<i64>,
}

/// Switched off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookEndpointDisabled {
    /// Only if it has been on without a break since then; `None`: in any case. Keeps what was decided on old news from
    /// ending a new life.
    #[serde(default)]
    pub active_since_ms: Option<i64>,
    /// Stable code: `requested`, `failing` or `gone`.
    pub code: Text,
    /// A sentence.
    pub message: Text,
}

/// A new secret; the ones before sign beside it for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookSecretRotated {
    /// `whsec_…`
    pub secret: Text,
    /// Until when those before sign.
    pub overlap_until_ms: i64,
}

/// Send again what was appended from some time on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookReplayRequested {
    /// From then on.
    pub from_ms: i64,
}

/// Send one event again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookRedeliveryRequested {
    /// Whether the event is an item's, else an order's.
    pub item: bool,
    /// The event's partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The order or SKU.
    pub subject: Text,
}

/// Gone for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookEndpointDeleted {
    /// Only at this version; `None`: in any case.
    #[serde(default)]
    pub expected_version: Option<i64>,
}

impl WebhookEndpointEvent {
    /// The event without the secret it carries: for people.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        const HIDDEN: Text = Text::const_new("whsec_(hidden)");
        match &mut self.payload {
            WebhookEndpointPayload::Created(it) => it.secret = HIDDEN,
            WebhookEndpointPayload::SecretRotated(it) => it.secret = HIDDEN,
            _ => {}
        }
        self
    }
}
