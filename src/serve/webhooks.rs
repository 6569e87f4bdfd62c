//! Outgoing webhooks: the registry of endpoints, the executors' parts, and what the door needs of both.

use super::ServeError;
use super::house::House;
use crate::cli::Serve;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tillstream_ingest_api::webhooks as door;
use tillstream_log::Log;
use tillstream_registry_log::{Registry, RegistryError};
use tillstream_runtime::{Clock, TaskPorts};
use tillstream_schemas::Text;
use tillstream_schemas::webhook::WebhookEndpointEvent;
use tillstream_webhook_sender::{
    ExecutorPorts, ExecutorSettings, Gates, HttpSettings, HttpTransport, Post, Registered, RegisteredBook,
    RegisteredEvent, Transport, WebhookMetrics, check_target,
};
use tillstream_webhooks::message::ping_payload;
use tillstream_webhooks::{
    Endpoint, EndpointBook, EndpointRefusal, Limits, Schedule, TargetError, TargetPolicy, Verdict,
};

/// Tests that run at once in a process; of one endpoint it is one.
const PINGS_MAX: usize = 64;

/// What webhooks are made of in a process.
#[derive(Clone)]
pub struct Webhooks {
    /// Endpoints.
    pub registry: Arc<Registry<RegisteredBook>>,
    log: Arc<dyn Log>,
    transport: Arc<dyn Transport>,
    gates: Gates,
    metrics: WebhookMetrics,
    settings: ExecutorSettings,
    policy: TargetPolicy,
    clock: Arc<dyn Clock>,
    pinged: Arc<Mutex<BTreeSet<Text>>>,
}

impl Webhooks {
    /// Opens the registry and prepares the HTTP client. `endpoints` follows the registry's topic.
    pub async fn build(options: &Serve, house: &House, endpoints: Arc<dyn Log>) -> Result<Self, ServeError> {
        let given = &options.webhooks;
        let policy = TargetPolicy { allow_private: given.webhooks_allow_private };
        let timeout = Duration::from_millis(given.webhooks_timeout_ms);
        let http = HttpSettings { policy, timeout, ..HttpSettings::default() };
        let schedule = match given.webhooks_retry_waits_ms.is_empty() {
            true => Schedule::default(),
            false => Schedule::new(given.webhooks_retry_waits_ms.clone())?,
        };
        let settings = ExecutorSettings {
            schedule,
            limits: Limits { outage_after: given.webhooks_outage_after, ..Limits::default() },
            disable_after: Duration::from_secs(given.webhooks_disable_after_seconds),
            log_kept: Duration::from_secs(u64::from(given.webhooks_log_days) * 24 * 3_600),
            ..ExecutorSettings::default()
        };
        let open = async || {
            Ok(Registry::open(endpoints.clone(), house.clock.clone(), RegisteredBook::default()).await?)
        };
        Ok(Self {
            registry: house.patience.ask(open).await?,
            log: house.log.clone(),
            transport: Arc::new(HttpTransport::new(http)),
            gates: Gates::default(),
            metrics: WebhookMetrics::register(&house.metrics.registry).map_err(ServeError::Metrics)?,
            settings,
            policy,
            clock: house.clock.clone(),
            pinged: Arc::default(),
        })
    }

    /// What an executor works with.
    pub fn executor(&self, ports: &TaskPorts) -> (ExecutorPorts, ExecutorSettings) {
        let ports = ExecutorPorts {
            sessions: ports.sessions.clone(),
            log: self.log.clone(),
            endpoints: Arc::new(Registered { registry: self.registry.clone(), clock: self.clock.clone() }),
            transport: self.transport.clone(),
            gates: self.gates.clone(),
            clock: self.clock.clone(),
            metrics: ports.metrics.clone(),
            webhooks: self.metrics.clone(),
            progress: ports.progress.clone(),
        };
        (ports, self.settings.clone())
    }

    async fn send_ping(&self, endpoint: &Endpoint, message_id: Text) -> door::PingReply {
        let (at_ms, began_ns) = (self.clock.now_ms(), self.clock.monotonic_ns());
        let body = ping_payload(&endpoint.id, at_ms);
        let reply = self.transport.post(Post::new(endpoint, message_id.clone(), body, at_ms)).await;
        let took_ms = self.clock.monotonic_ns().saturating_sub(began_ns) / 1_000_000;
        let attempt = reply.to_attempt(at_ms, i64::try_from(took_ms).unwrap_or(i64::MAX));
        door::PingReply {
            delivered: reply.verdict() == Verdict::Delivered,
            message_id,
            status: attempt.response_status,
            error: attempt.error,
            latency_ms: attempt.latency_ms,
            response: attempt.response,
        }
    }
}

impl door::Webhooks for Webhooks {
    fn book(&self) -> Arc<EndpointBook> {
        self.registry.read(RegisteredBook::book)
    }

    fn append(
        &self,
        event: WebhookEndpointEvent,
    ) -> BoxFuture<'_, Result<Result<(), EndpointRefusal>, door::WebhookError>> {
        Box::pin(async move {
            self.registry.append(&RegisteredEvent(event)).await.map_err(|error| match error {
                RegistryError::Log(error) => error.into(),
                RegistryError::NotFollowed { .. } => door::WebhookError::NotInForceYet,
                other => tillstream_log::LogError::Stopped(other.to_string()).into(),
            })
        })
    }

    fn check_target<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(check_target(self.policy, url))
    }

    fn ping(&self, endpoint: Arc<Endpoint>, message_id: Text) -> BoxFuture<'_, Option<door::PingReply>> {
        Box::pin(async move {
            {
                let mut pinged = self.pinged.lock().unwrap_or_else(PoisonError::into_inner);
                if pinged.len() >= PINGS_MAX || !pinged.insert(endpoint.id.clone()) {
                    return None;
                }
            }
            // However this ends, the next test may begin.
            let _end = PingEnd { pinged: &self.pinged, endpoint: &endpoint.id };
            Some(self.send_ping(&endpoint, message_id).await)
        })
    }
}

struct PingEnd<'a> {
    pinged: &'a Mutex<BTreeSet<Text>>,
    endpoint: &'a Text,
}

impl Drop for PingEnd<'_> {
    fn drop(&mut self) {
        self.pinged.lock().unwrap_or_else(PoisonError::into_inner).remove(self.endpoint);
    }
}
