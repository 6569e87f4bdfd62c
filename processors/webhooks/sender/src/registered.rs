//! Endpoints as the registry keeps them.

use crate::endpoints::{Disablement, Endpoints};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tillstream_log::LogError;
use tillstream_registry_log::{Appended, Fold, Registry, RegistryError, RegistryEvent};
use tillstream_runtime::Clock;
use tillstream_schemas::codec::{Schema, Wire};
use tillstream_schemas::webhook::{WebhookEndpointDisabled, WebhookEndpointEvent, WebhookEndpointPayload};
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::derived_id;
use tillstream_webhooks::{EndpointBook, EndpointRefusal};
use tokio::sync::watch;

/// A change of an endpoint, as an event of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegisteredEvent(pub WebhookEndpointEvent);

impl Wire for RegisteredEvent {
    const SCHEMA: Schema = Schema::WebhookEndpointEvent;
}

impl RegistryEvent for RegisteredEvent {
    const TOPIC: Topic = Topic::WebhookEndpoints;

    fn id(&self) -> &str {
        &self.0.id
    }

    fn tenant(&self) -> &str {
        &self.0.tenant
    }
}

/// Every endpoint, as the registry folds them.
#[derive(Debug, Default)]
pub struct RegisteredBook(Arc<EndpointBook>);

impl RegisteredBook {
    /// As it is now.
    pub fn book(&self) -> Arc<EndpointBook> {
        self.0.clone()
    }
}

impl Fold for RegisteredBook {
    type Event = RegisteredEvent;
    type Refusal = EndpointRefusal;

    fn apply(&mut self, event: &RegisteredEvent, appended: Appended) -> Result<(), EndpointRefusal> {
        Arc::make_mut(&mut self.0).apply(&event.0, appended.at_ms)
    }
}

/// The registry of endpoints, for the executor.
#[derive(Clone)]
pub struct Registered {
    /// The registry.
    pub registry: Arc<Registry<RegisteredBook>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

fn to_log_error(error: RegistryError) -> LogError {
    match error {
        RegistryError::Log(error) => error,
        // A life later the registry may follow again; if it has stopped, so does the process.
        other => LogError::Unavailable(other.to_string()),
    }
}

impl Endpoints for Registered {
    fn caught_up(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async { self.registry.followed_to_end().await.map_err(to_log_error) })
    }

    fn book(&self) -> Arc<EndpointBook> {
        self.registry.read(RegisteredBook::book)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.registry.changes()
    }

    fn disable(&self, disablement: Disablement) -> BoxFuture<'_, Result<(), LogError>> {
        let Disablement { tenant, endpoint, active_since_ms, code, message } = disablement;
        // The same end of the same life is one event, whoever sees it first.
        let id = derived_id("whc_", &[&tenant, &endpoint, &active_since_ms.to_string(), code]);
        let disabled = WebhookEndpointDisabled {
            active_since_ms: Some(active_since_ms),
            code: Text::const_new(code),
            message: message.into(),
        };
        let event = RegisteredEvent(WebhookEndpointEvent {
            id,
            tenant,
            occurred_at_ms: self.clock.now_ms(),
            actor: Text::const_new("system"),
            endpoint_id: endpoint,
            payload: WebhookEndpointPayload::Disabled(disabled),
        });
        Box::pin(async move {
            // A refusal says that it is off already, on again, or gone: there is nothing to do.
            let _ = self.registry.append(&event).await.map_err(to_log_error)?;
            Ok(())
        })
    }
}
