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
