//! Bodies of the webhook calls.

use super::port::Webhooks;
use crate::moment;
use crate::problem::{FieldError, Problem};
use crate::shape::{self, Field, Kind, needed, optional, quoted};
use serde::Deserialize;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::WebhookEndpointSettings;
use tillstream_webhooks::EventFilter;
use tillstream_webhooks::endpoint::{IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX, OVERLAP_MAX_MS, RATE_PER_SECOND_MAX};
use tillstream_webhooks::filter::{FilterError, PATTERNS_MAX, kinds};
use tillstream_webhooks::target::{TargetError, URL_BYTES_MAX};

const URL: Kind = Kind::Text { min: 1, max: URL_BYTES_MAX };
const DESCRIPTION: Kind = Kind::Prose { max: 500 };
const EVENTS: Kind = Kind::List { of: &Kind::Text { min: 1, max: 64 }, min: 1, max: PATTERNS_MAX };
const IN_FLIGHT: Kind = Kind::Integer { min: 1, max: IN_FLIGHT_MAX as i64 };
const RATE: Kind = Kind::Integer { min: 0, max: RATE_PER_SECOND_MAX as i64 };

const URL_ABOUT: &str = "Where deliveries go: https, a public host";
const EVENTS_ABOUT: &str = "Event types that are sent: exact (`order.priced`), a prefix (`order.*`), or `*`";
const IN_FLIGHT_ABOUT: &str = "Attempts under way at once; 16 when left out";
const RATE_ABOUT: &str = "Attempts per second, at most; 0: no limit";

/// A new endpoint.
pub(super) const CREATE: &[Field] = &[
    needed("url", URL).about(URL_ABOUT),
    optional("description", DESCRIPTION),
    optional("events", EVENTS).about(EVENTS_ABOUT),
    optional("enabled", Kind::Flag).about("Whether it begins switched on; true when left out"),
    optional("in_flight_max", IN_FLIGHT).about(IN_FLIGHT_ABOUT),
    optional("rate_per_second", RATE).about(RATE_ABOUT),
];

/// A change of an endpoint: what is left out stays.
pub(super) const CHANGE: &[Field] = &[
    optional("url", URL).about(URL_ABOUT),
    optional("description", DESCRIPTION),
    optional("events", EVENTS).about(EVENTS_ABOUT),
    optional("enabled", Kind::Flag).about("Switches it on or off"),
    optional("replay_from", Kind::Time).about("With `enabled: true`: sends what happened since then as well"),
    optional("in_flight_max", IN_FLIGHT).about(IN_FLIGHT_ABOUT),
    optional("rate_per_second", RATE).about(RATE_ABOUT),
    optional("expected_version", Kind::Integer { min: 1, max: i64::MAX })
        .about("The version the change is made for; another one is a conflict"),
];

/// A rotation of the secret.
pub(super) const ROTATE: &[Field] =
    &[optional("overlap_seconds", Kind::Integer { min: 0, max: OVERLAP_MAX_MS / 1_000 })
        .about("How long the secrets before this one sign beside it; a day when left out")];

/// A replay.
pub(super) const REPLAY: &[Field] =
    &[needed("from", Kind::Time).about("Events that were recorded from then on are sent again")];

#[derive(Deserialize)]
pub(super) struct CreateInput {
    url: Text,
    #[serde(default)]
    description: Option<Text>,
    #[serde(default)]
    events: Option<Vec<Text>>,
    #[serde(default)]
    pub enabled: Option<bool>,
    #[serde(default)]
    in_flight_max: Option<i32>,
    #[serde(default)]
    rate_per_second: Option<i32>,
}

#[derive(Deserialize)]
pub(super) struct ChangeInput {
    #[serde(default)]
    url: Option<Text>,
    #[serde(default)]
    description: Option<Text>,
    #[serde(default)]
    events: Option<Vec<Text>>,
    #[serde(default)]
    pub enabled: Option<bool>,
    #[serde(default)]
    pub replay_from: Option<Text>,
    #[serde(default)]
    in_flight_max: Option<i32>,
    #[serde(default)]
    rate_per_second: Option<i32>,
    #[serde(default)]
    pub expected_version: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct RotateInput {
    #[serde(default)]
    pub overlap_seconds: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct ReplayInput {
    pub from: Text,
}

/// Reads a body and forgets it.
pub(crate) fn check_create(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<CreateInput>(bytes, CREATE).map(|it| drop(it.settings()))
}

/// Reads a body and forgets it.
pub(crate) fn check_change(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<ChangeInput>(bytes, CHANGE).map(drop)
}

/// Reads a body and forgets it.
pub(crate) fn check_rotation(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<RotateInput>(bytes, ROTATE).map(drop)
}

/// Reads a body and forgets it.
pub(crate) fn check_replay(bytes: &[u8]) -> Result<(), Problem> {
    shape::read::<ReplayInput>(bytes, REPLAY).map(drop)
}

/// Nothing is limited by 0.
fn limit(rate_per_second: i32) -> Option<i32> {
    (rate_per_second > 0).then_some(rate_per_second)
}

impl CreateInput {
    /// The settings it asks for.
    pub fn settings(&self) -> WebhookEndpointSettings {
        WebhookEndpointSettings {
            url: self.url.clone(),
            description: self.description.clone().unwrap_or_default(),
            events: self.events.clone().unwrap_or_else(|| vec![Text::const_new("*")]),
            in_flight_max: self.in_flight_max.unwrap_or(IN_FLIGHT_DEFAULT),
            rate_per_second: self.rate_per_second.and_then(limit),
        }
    }
}

impl ChangeInput {
    /// The settings it asks for, where it changes any.
    pub fn settings(&self, now: &WebhookEndpointSettings) -> Option<WebhookEndpointSettings> {
        let settings = WebhookEndpointSettings {
            url: self.url.clone().unwrap_or_else(|| now.url.clone()),
            description: self.description.clone().unwrap_or_else(|| now.description.clone()),
            events: self.events.clone().unwrap_or_else(|| now.events.clone()),
            in_flight_max: self.in_flight_max.unwrap_or(now.in_flight_max),
            rate_per_second: self.rate_per_second.map_or(now.rate_per_second, limit),
        };
        (settings != *now).then_some(settings)
    }
}

/// Checks what the shape of a body does not tell.
///
/// # Errors
/// Every field that cannot be taken.
pub(super) async fn check(
    settings: &WebhookEndpointSettings,
    webhooks: &dyn Webhooks,
) -> Result<(), Problem> {
    let mut errors = Vec::new();
    if let Err(error) = webhooks.check_target(&settings.url).await {
        errors.push(FieldError::new("url", error.to_string(), target_fix(&error)));
    }
    if let Err((index, error)) = EventFilter::parse(settings.events.iter().map(Text::as_str)) {
        errors.push(FieldError::new(format!("events[{index}]"), error.to_string(), filter_fix(&error)));
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid_fields(errors)) }
}

fn target_fix(error: &TargetError) -> &'static str {
    match error {
        TargetError::NoUrl(_) => "send an absolute URL, such as https://shop.example.com/hooks/tillstream",
        TargetError::TooLong(_) => "send a shorter URL",
        TargetError::Scheme(_) => "send a URL that begins with https://",
        TargetError::Credentials | TargetError::Fragment => "leave that part out",
        TargetError::PrivateName(_) | TargetError::PrivateAddress(_) => {
            "send a host that everybody on the Internet can reach"
        }
    }
}

fn filter_fix(error: &FilterError) -> String {
    match error {
        FilterError::Star(_) => "send a type, a prefix with .* behind it, or * alone".to_owned(),
        FilterError::UnknownType(_) | FilterError::UnknownPrefix(_) => {
            let all: Vec<&str> = kinds().collect();
            format!("send *, a prefix such as order.*, or one of: {}", all.join(", "))
        }
    }
}

/// Reads the time of a replay: not in the future.
pub(super) fn replay_from(field: &str, text: &str, now_ms: i64) -> Result<i64, Problem> {
    match moment::from_rfc3339(text) {
        Some(from_ms) if from_ms <= now_ms => Ok(from_ms),
        _ => {
            let message = format!("{} lies in the future", quoted(text));
            Err(Problem::invalid_fields(vec![FieldError::new(field, message, "send a time in the past")]))
        }
    }
}
