//! Every endpoint there is, folded from the events of `webhooks.endpoints`: the same events in the same order give the
//! same book in every process.

use crate::endpoint::{
    Disabled, Endpoint, EndpointSettings, REDELIVERIES_MAX, REDELIVERY_MS, Redelivery, Replay, SecretUse,
};
use crate::filter::EventFilter;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;
use tillstream_schemas::Text;

/// The most endpoints of one tenant.
pub const ENDPOINTS_MAX: usize = 50;

/// One change of one endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointEvent {
    /// The event's own id.
    pub id: Text,
    /// The tenant.
    pub tenant: Text,
    /// The endpoint.
    pub endpoint: Text,
    /// Who did it: the id of an API key, or `system`.
    pub by: Text,
    /// What.
    pub change: Change,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new endpoint.
    Created {
        /// As the merchant set it.
        settings: EndpointSettings,
        /// Its first secret, `whsec_…`.
        secret: Text,
        /// Whether it begins switched off.
        off: bool,
    },
    /// New settings.
    Updated {
        /// The version they replace.
        expected_version: i64,
        /// As the merchant set them.
        settings: EndpointSettings,
    },
    /// Switched on: what is appended from now on is sent.
    Enabled {
        /// Sends what was appended since then as well, ms since the epoch.
        replay_from_ms: Option<i64>,
    },
    /// Switched off: what is pending is given up.
    Disabled {
        /// Only if it has been on without a break since then; `None`: in any case. Keeps a disablement that was decided
        /// on old news from ending a new life.
        active_since_ms: Option<i64>,
        /// Stable code.
        code: Text,
        /// A sentence.
        message: Text,
    },
    /// A new secret; the ones before sign until `overlap_until_ms`.
    SecretRotated {
        /// `whsec_…`
        secret: Text,
        /// Ms since the epoch.
        overlap_until_ms: i64,
    },
    /// Send again what was appended from then on.
    ReplayRequested {
        /// Ms since the epoch.
        from_ms: i64,
    },
    /// Send one event again.
    RedeliveryRequested {
        /// Whether the event is an item's.
        item: bool,
        /// The event's partition.
        partition: u32,
        /// Its offset.
        offset: u64,
        /// The order or item.
        subject: Text,
    },
    /// Gone for good.
    Deleted,
}

/// Why an event changes nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EndpointRefusal {
    /// There is no such endpoint.
    #[error("there is no such endpoint")]
    Unknown,
    /// There is one already.
    #[error("the endpoint exists already")]
    Exists,
    /// The settings have changed meanwhile.
    #[error("the endpoint is at version {found}, not {expected}")]
    Conflict {
        /// What the event was made for.
        expected: i64,
        /// What there is.
        found: i64,
    },
    /// The tenant has enough.
    #[error("the tenant has {ENDPOINTS_MAX} endpoints")]
    TooMany,
    /// Nothing is sent to an endpoint that is off.
    #[error("the endpoint is switched off")]
    Off,
    /// It has been switched off and on since.
    #[error("the endpoint has been switched on since")]
    Outdated,
    /// Too many redeliveries within an hour.
    #[error("{REDELIVERIES_MAX} redeliveries were asked for within the hour; ask for a replay instead")]
    TooManyRedeliveries,
    /// Patterns that no event can match; the door never writes them.
    #[error("the event types cannot be read")]
    Filter,
}

type Tenant = BTreeMap<Text, Arc<Endpoint>>;

/// Every endpoint there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointBook {
    tenants: BTreeMap<Text, Tenant>,
    /// Events folded so far.
    revision: u64,
}

impl EndpointBook {
    /// Grows with every event that changed something.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A tenant's endpoints, by id.
    pub fn of<'a>(&'a self, tenant: &str) -> impl Iterator<Item = &'a Arc<Endpoint>> + use<'a> {
        self.tenants.get(tenant).into_iter().flat_map(BTreeMap::values)
    }

    /// One endpoint.
    pub fn get(&self, tenant: &str, id: &str) -> Option<&Arc<Endpoint>> {
        self.tenants.get(tenant)?.get(id)
    }

    /// Every endpoint.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.tenants.values().flat_map(BTreeMap::values)
    }

    /// Folds one event, appended at `at_ms`.
    ///
    /// # Errors
    /// Why it changes nothing.
    pub fn apply(&mut self, event: &EndpointEvent, at_ms: i64) -> Result<(), EndpointRefusal> {
        match &event.change {
            Change::Created { settings, secret, off } => {
                let tenant = self.tenants.entry(event.tenant.clone()).or_default();
                if tenant.contains_key(&event.endpoint) {
                    return Err(EndpointRefusal::Exists);
                }
                if tenant.len() >= ENDPOINTS_MAX {
                    return Err(EndpointRefusal::TooMany);
                }
                let endpoint = created(event, settings, secret, *off, at_ms)?;
                tenant.insert(event.endpoint.clone(), Arc::new(endpoint));
            }
            Change::Deleted => {
                let tenant = self.tenants.get_mut(&event.tenant).ok_or(EndpointRefusal::Unknown)?;
                tenant.remove(&event.endpoint).ok_or(EndpointRefusal::Unknown)?;
            }
            change => {
                let tenant = self.tenants.get_mut(&event.tenant).ok_or(EndpointRefusal::Unknown)?;
                let endpoint = tenant.get_mut(&event.endpoint).ok_or(EndpointRefusal::Unknown)?;
                let mut changed = Endpoint::clone(endpoint);
                change_one(&mut changed, change, at_ms)?;
                *endpoint = Arc::new(changed);
            }
        }
        self.revision += 1;
        Ok(())
    }
}

fn filter_of(settings: &EndpointSettings) -> Result<EventFilter, EndpointRefusal> {
    EventFilter::parse(settings.events.iter().map(Text::as_str)).map_err(|_| EndpointRefusal::Filter)
}

fn created(
    event: &EndpointEvent,
    settings: &EndpointSettings,
    secret: &Text,
    off: bool,
    at_ms: i64,
) -> Result<Endpoint, EndpointRefusal> {
    Ok(Endpoint {
        id: event.endpoint.clone(),
        tenant: event.tenant.clone(),
        settings: settings.clone(),
        filter: filter_of(settings)?,
        disabled: off.then(|| requested(at_ms)),
        created_at_ms: at_ms,
        updated_at_ms: at_ms,
        active_since_ms: at_ms,
        version: 1,
        secrets: vec![SecretUse { secret: secret.clone(), until_ms: None }],
        requests: 0,
        replay: None,
        redeliveries: Vec::new(),
    })
}

/// Switched off by the merchant.
fn requested(at_ms: i64) -> Disabled {
    Disabled {
        code: Text::const_new("requested"),
        message: Text::from("The endpoint was switched off by a call of the API."),
        at_ms,
    }
}

fn change_one(endpoint: &mut Endpoint, change: &Change, at_ms: i64) -> Result<(), EndpointRefusal> {
    match change {
        Change::Created { .. } | Change::Deleted => {}
        Change::Updated { expected_version, settings } => {
            if endpoint.version != *expected_version {
                let (expected, found) = (*expected_version, endpoint.version);
                return Err(EndpointRefusal::Conflict { expected, found });
            }
            endpoint.filter = filter_of(settings)?;
            endpoint.settings = settings.clone();
        }
        Change::Enabled { replay_from_ms } => {
            if endpoint.disabled.take().is_some() {
                endpoint.active_since_ms = at_ms;
            }
            if let Some(from_ms) = *replay_from_ms {
                ask_replay(endpoint, from_ms);
            }
        }
        Change::Disabled { active_since_ms, code, message } => {
            if !endpoint.is_on() {
                return Err(EndpointRefusal::Off);
            }
            if active_since_ms.is_some_and(|it| it != endpoint.active_since_ms) {
                return Err(EndpointRefusal::Outdated);
            }
            endpoint.disabled = Some(match active_since_ms {
                Some(_) => Disabled { code: code.clone(), message: message.clone(), at_ms },
                None => requested(at_ms),
            });
        }
        Change::SecretRotated { secret, overlap_until_ms } => {
            endpoint.secrets.retain(|it| it.until_ms.is_none_or(|until| at_ms < until));
            for old in &mut endpoint.secrets {
                old.until_ms = Some(old.until_ms.unwrap_or(i64::MAX).min(*overlap_until_ms));
            }
            endpoint.secrets.insert(0, SecretUse { secret: secret.clone(), until_ms: None });
            endpoint.secrets.truncate(SECRETS_MAX);
        }
        Change::ReplayRequested { from_ms } => {
            if !endpoint.is_on() {
                return Err(EndpointRefusal::Off);
            }
            ask_replay(endpoint, *from_ms);
            return Ok(());
        }
        Change::RedeliveryRequested { item, partition, offset, subject } => {
            ask_redelivery(endpoint, *item, *partition, *offset, subject, at_ms)?;
            return Ok(());
        }
    }
    endpoint.updated_at_ms = at_ms;
    endpoint.version += 1;
    Ok(())
}

/// Secrets that sign at once, at most.
const SECRETS_MAX: usize = 3;

fn ask_replay(endpoint: &mut Endpoint, from_ms: i64) {
    endpoint.requests += 1;
    endpoint.replay = Some(Replay { request: endpoint.requests, from_ms });
}

fn ask_redelivery(
    endpoint: &mut Endpoint,
    item: bool,
    partition: u32,
    offset: u64,
    subject: &Text,
    at_ms: i64,
) -> Result<(), EndpointRefusal> {
    if !endpoint.is_on() {
        return Err(EndpointRefusal::Off);
    }
    endpoint.redeliveries.retain(|it| at_ms < it.at_ms.saturating_add(REDELIVERY_MS));
    if endpoint.redeliveries.len() >= REDELIVERIES_MAX {
        return Err(EndpointRefusal::TooManyRedeliveries);
    }
    endpoint.requests += 1;
    let subject = subject.clone();
    let request = endpoint.requests;
    endpoint.redeliveries.push(Redelivery { request, item, partition, offset, subject, at_ms });
    Ok(())
}

#[cfg(test)]
mod tests;
