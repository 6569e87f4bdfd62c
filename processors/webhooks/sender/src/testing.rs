//! What the tests of this crate share.

use tillstream_schemas::webhook::{
    WebhookEndpointCreated, WebhookEndpointEvent, WebhookEndpointPayload, WebhookEndpointSettings,
};
use tillstream_webhooks::{Endpoint, EndpointBook, SigningSecret};

/// An event of `demo`'s endpoint.
pub(crate) fn event(endpoint: &str, payload: WebhookEndpointPayload) -> WebhookEndpointEvent {
    WebhookEndpointEvent {
        id: "whc_1".into(),
        tenant: "demo".into(),
        occurred_at_ms: 0,
        actor: "key_1".into(),
        endpoint_id: endpoint.into(),
        payload,
    }
}

/// A new endpoint for all events.
pub(crate) fn created(url: &str) -> WebhookEndpointPayload {
    WebhookEndpointPayload::Created(WebhookEndpointCreated {
        settings: WebhookEndpointSettings {
            url: url.into(),
            description: "".into(),
            events: vec!["*".into()],
            in_flight_max: 16,
            rate_per_second: None,
        },
        secret: SigningSecret::from_bytes(&[7; 32]).reveal().into(),
        enabled: true,
    })
}

/// An endpoint of `demo` for all events.
pub(crate) fn endpoint(id: &str, url: &str) -> Endpoint {
    let mut book = EndpointBook::default();
    book.apply(&event(id, created(url)), 0).unwrap();
    Endpoint::clone(book.get("demo", id).unwrap())
}
