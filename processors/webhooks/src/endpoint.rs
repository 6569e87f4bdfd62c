//! Endpoints of tenants, and the events that change them.

use crate::filter::EventFilter;
use crate::signature::SigningSecret;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::WebhookEndpointSettings;

/// The most attempts of one endpoint under way at once that may be asked for.
pub const IN_FLIGHT_MAX: i32 = 64;
/// Attempts of one endpoint under way at once, where nothing else is asked for.
pub const IN_FLIGHT_DEFAULT: i32 = 16;
/// The most attempts of one endpoint per second that may be asked for.
pub const RATE_PER_SECOND_MAX: i32 = 5_000;
/// The longest overlap of two secrets, ms.
pub const OVERLAP_MAX_MS: i64 = 7 * 24 * 3_600_000;
/// Redeliveries that may be asked for within [`REDELIVERY_MS`].
pub const REDELIVERIES_MAX: usize = 1_000;
/// How long a request to redeliver is remembered, ms.
pub const REDELIVERY_MS: i64 = 3_600_000;

/// Why an endpoint is off although nobody switched it off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// Stable code: `failing` or `gone`; `requested` when somebody switched it off.
    pub code: Text,
    /// A sentence.
    pub message: Text,
    /// Since when, ms since the epoch.
    pub at_ms: i64,
}

/// A secret, and until when it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// `whsec_…`
    pub secret: Text,
    /// Until when it signs beside a newer one, ms since the epoch; `None`: it is the newest.
    pub until_ms: Option<i64>,
}

/// A request to send events again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The endpoint's request number.
    pub request: i64,
    /// Events appended from then on, ms since the epoch.
    pub from_ms: i64,
}

/// A request to send one event again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redelivery {
    /// The endpoint's request number.
    pub request: i64,
    /// Whether the event is an item's.
    pub item: bool,
    /// The event's partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// The order or item.
    pub subject: Text,
    /// When it was asked for, ms since the epoch.
    pub at_ms: i64,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// `whe_…`
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// What the merchant set.
    pub settings: WebhookEndpointSettings,
    /// Which events it wants.
    pub filter: EventFilter,
    /// Why nothing is sent, if nothing is.
    pub disabled: Option<Disabled>,
    /// When it was made, ms since the epoch.
    pub created_at_ms: i64,
    /// When it last changed, ms since the epoch.
    pub updated_at_ms: i64,
    /// Events appended before are not sent, unless a replay asks for them, ms since the epoch.
    pub active_since_ms: i64,
    /// Grows with every change of settings.
    pub version: i64,
    /// Newest first.
    pub secrets: Vec<SecretUse>,
    /// Requests so far.
    pub requests: i64,
    /// The newest replay.
    pub replay: Option<Replay>,
    /// Requested redeliveries of the last hour, oldest first.
    pub redeliveries: Vec<Redelivery>,
}

impl Endpoint {
    /// The secrets that sign now, newest first.
    pub fn signing(&self, now_ms: i64) -> Vec<SigningSecret> {
        let current = self.secrets.iter().filter(|it| it.until_ms.is_none_or(|until| now_ms < until));
        current.filter_map(|it| SigningSecret::parse(&it.secret)).collect()
    }

    /// Whether anything is sent.
    pub fn is_on(&self) -> bool {
        self.disabled.is_none()
    }
}
