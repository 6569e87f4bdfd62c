//! `/v1/webhooks`: endpoints of a tenant, their deliveries, tests, replays.

pub(crate) mod deliveries;
pub(crate) mod endpoints;
pub(crate) mod input;
mod port;
pub(crate) mod requests;
mod view;

pub use port::{PingReply, WebhookError, Webhooks};

use crate::Ingest;
use crate::auth::Caller;
use crate::problem::{Code, Problem};
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_schemas::webhook::{WebhookEndpointEvent, WebhookEndpointPayload};
use tillstream_webhooks::{Endpoint, EndpointRefusal};

/// An endpoint's id in examples.
const ID: &str = "whe_4d8wz1k7c9r0m2x5t6qn";

/// The caller's endpoint.
///
/// # Errors
/// 404 when the tenant has none of that id.
fn find(ingest: &Ingest, caller: &Caller, id: &str) -> Result<Arc<Endpoint>, Problem> {
    let book = ingest.webhooks.book();
    book.get(&caller.tenant, id).cloned().ok_or_else(|| Problem::not_found("webhook endpoint", id))
}

/// Appends a change, and answers once it is in force here.
///
/// # Errors
/// What the fold says about it.
async fn change(
    ingest: &Ingest,
    caller: &Caller,
    id: &str,
    payload: WebhookEndpointPayload,
) -> Result<(), Problem> {
    let event = WebhookEndpointEvent {
        id: random_id("whc_")?,
        tenant: caller.tenant.clone(),
        occurred_at_ms: ingest.clock.now_ms(),
        actor: caller.key_id.clone(),
        endpoint_id: id.into(),
        payload,
    };
    match ingest.webhooks.append(event).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(EndpointRefusal::Unknown)) => Err(Problem::not_found("webhook endpoint", id)),
        Ok(Err(refusal)) => Err(Problem::new(Code::EndpointRefused, refusal.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// So many random bytes.
fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(bytes)
}

/// An id that nobody can guess or make twice.
fn random_id(prefix: &str) -> Result<Text, Problem> {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let digits = random::<20>()?.map(|it| char::from(DIGITS[usize::from(it & 31)]));
    Ok(prefix.chars().chain(digits).collect())
}
