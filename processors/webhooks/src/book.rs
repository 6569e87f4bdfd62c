//! Every endpoint there is, folded from the events of `webhooks.endpoints`: the same events in the same order give the
//! same book in every process.

use crate::endpoint::{Disabled, Endpoint, REDELIVERIES_MAX, REDELIVERY_MS, Redelivery, Replay, SecretUse};
use crate::filter::EventFilter;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::{
    WebhookEndpointCreated, WebhookEndpointEvent, WebhookEndpointPayload as Change, WebhookEndpointSettings,
    WebhookRedeliveryRequested, WebhookSecretRotated,
};

/// The most endpoints of one tenant.
pub const ENDPOINTS_MAX: usize = 50;

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

/// Shared between books until it changes: a reader's book is cheap to take.
type Tenant = Arc<BTreeMap<Text, Arc<Endpoint>>>;

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
        self.tenants.get(tenant).into_iter().flat_map(|it| it.values())
    }

    /// One endpoint.
    pub fn get(&self, tenant: &str, id: &str) -> Option<&Arc<Endpoint>> {
        self.tenants.get(tenant)?.get(id)
    }

    /// Every endpoint.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.tenants.values().flat_map(|it| it.values())
    }

    /// Folds one event, appended at `at_ms`.
    ///
    /// # Errors
    /// Why it changes nothing.
    pub fn apply(&mut self, event: &WebhookEndpointEvent, at_ms: i64) -> Result<(), EndpointRefusal> {
        let id = &event.endpoint_id;
        match &event.payload {
            Change::Created(created) => {
                let tenant = self.tenants.entry(event.tenant.clone()).or_default();
                if tenant.contains_key(id) {
                    return Err(EndpointRefusal::Exists);
                }
                if tenant.len() >= ENDPOINTS_MAX {
                    return Err(EndpointRefusal::TooMany);
                }
                let endpoint = new_endpoint(event, created, at_ms)?;
                Arc::make_mut(tenant).insert(id.clone(), Arc::new(endpoint));
            }
            change => {
                let tenant = self.tenants.get_mut(&event.tenant).ok_or(EndpointRefusal::Unknown)?;
                let tenant = Arc::make_mut(tenant);
                let endpoint = tenant.get_mut(id).ok_or(EndpointRefusal::Unknown)?;
                if let Change::Deleted(deleted) = change {
                    check_version(endpoint, deleted.expected_version)?;
                    tenant.remove(id);
                } else {
                    let mut changed = Endpoint::clone(endpoint);
                    change_one(&mut changed, change, at_ms)?;
                    *endpoint = Arc::new(changed);
                }
            }
        }
        self.revision += 1;
        Ok(())
    }
}

fn filter_of(settings: &WebhookEndpointSettings) -> Result<EventFilter, EndpointRefusal> {
    EventFilter::parse(settings.events.iter().map(Text::as_str)).map_err(|_| EndpointRefusal::Filter)
}

fn check_version(endpoint: &Endpoint, expected: Option<i64>) -> Result<(), EndpointRefusal> {
    match expected {
        Some(expected) if expected != endpoint.version => {
            Err(EndpointRefusal::Conflict { expected, found: endpoint.version })
        }
        _ => Ok(()),
    }
}

fn new_endpoint(
    event: &WebhookEndpointEvent,
    created: &WebhookEndpointCreated,
    at_ms: i64,
) -> Result<Endpoint, EndpointRefusal> {
    Ok(Endpoint {
        id: event.endpoint_id.clone(),
        tenant: event.tenant.clone(),
        settings: created.settings.clone(),
        filter: filter_of(&created.settings)?,
        disabled: (!created.enabled).then(|| requested(at_ms)),
        created_at_ms: at_ms,
        updated_at_ms: at_ms,
        active_since_ms: at_ms,
        version: 1,
        secrets: vec![SecretUse { secret: created.secret.clone(), until_ms: None }],
        requests: 0,
        replay: None,
        redeliveries: Vec::new(),
    })
}

/// The code of an endpoint that the merchant switched off.
pub const REQUESTED: &str = "requested";

/// Switched off by the merchant.
fn requested(at_ms: i64) -> Disabled {
    Disabled {
        code: Text::const_new(REQUESTED),
        message: Text::from("The endpoint was switched off by a call of the API."),
        at_ms,
    }
}

fn change_one(endpoint: &mut Endpoint, change: &Change, at_ms: i64) -> Result<(), EndpointRefusal> {
    match change {
        Change::Created(_) | Change::Deleted(_) => {}
        Change::Updated(updated) => {
            check_version(endpoint, Some(updated.expected_version))?;
            endpoint.filter = filter_of(&updated.settings)?;
            endpoint.settings = updated.settings.clone();
        }
        Change::Enabled(enabled) => {
            if endpoint.disabled.take().is_some() {
                endpoint.active_since_ms = at_ms;
            }
            if let Some(from_ms) = enabled.replay_from_ms {
                ask_replay(endpoint, from_ms);
            }
        }
        Change::Disabled(disabled) => {
            if !endpoint.is_on() {
                return Err(EndpointRefusal::Off);
            }
            if disabled.active_since_ms.is_some_and(|it| it != endpoint.active_since_ms) {
                return Err(EndpointRefusal::Outdated);
            }
            let (code, message) = (disabled.code.clone(), disabled.message.clone());
            endpoint.disabled = Some(Disabled { code, message, at_ms });
        }
        Change::SecretRotated(rotated) => rotate(endpoint, rotated, at_ms),
        // Requests are no change of settings: they leave the version alone.
        Change::ReplayRequested(replay) => {
            if !endpoint.is_on() {
                return Err(EndpointRefusal::Off);
            }
            ask_replay(endpoint, replay.from_ms);
            return Ok(());
        }
        Change::RedeliveryRequested(redelivery) => return ask_redelivery(endpoint, redelivery, at_ms),
    }
    endpoint.updated_at_ms = at_ms;
    endpoint.version += 1;
    Ok(())
}

/// The new secret signs at once, those before until the overlap is over: never longer than they already would.
fn rotate(endpoint: &mut Endpoint, rotated: &WebhookSecretRotated, at_ms: i64) {
    endpoint.secrets.retain(|it| it.until_ms.is_none_or(|until| at_ms < until));
    for old in &mut endpoint.secrets {
        old.until_ms = Some(old.until_ms.unwrap_or(i64::MAX).min(rotated.overlap_until_ms));
    }
    endpoint.secrets.insert(0, SecretUse { secret: rotated.secret.clone(), until_ms: None });
    endpoint.secrets.truncate(SECRETS_MAX);
}

/// Secrets that sign at once, at most.
const SECRETS_MAX: usize = 3;

fn ask_replay(endpoint: &mut Endpoint, from_ms: i64) {
    endpoint.requests += 1;
    endpoint.replay = Some(Replay { request: endpoint.requests, from_ms });
}

fn ask_redelivery(
    endpoint: &mut Endpoint,
    asked: &WebhookRedeliveryRequested,
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
    endpoint.redeliveries.push(Redelivery {
        request: endpoint.requests,
        item: asked.item,
        partition: u32::try_from(asked.partition).unwrap_or(u32::MAX),
        offset: asked.offset.max(0).unsigned_abs(),
        subject: asked.subject.clone(),
        at_ms,
    });
    Ok(())
}

#[cfg(test)]
mod tests;
