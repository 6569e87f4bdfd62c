//! Plugs the processors of this process into the HTTP door's ports.

use futures::future::BoxFuture;
use ports::SandboxError;
use std::sync::{Arc, Mutex, PoisonError};
use tillstream_effects::SandboxLedger;
use tillstream_embedded::EmbeddedStore;
use tillstream_ingest_api::ports;
use tillstream_log::{Headers, Log, LogError, NewRecord, TopicPartition};
use tillstream_runtime::{
    CatalogCache, Clock, Metrics, Progress, Subscription, Subscriptions, TenantEvent, TenantFeed,
};
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload};
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids;
use tillstream_stage::partition::partition_of;
use tillstream_state::TaskId;

/// Live events of orders.
pub struct EventsHub(pub Arc<Subscriptions>);

struct Feed(Option<Subscription>);

impl ports::OrderEvents for Feed {
    fn next(&mut self) -> BoxFuture<'_, Option<Arc<OrderEvent>>> {
        Box::pin(async move { self.0.as_mut()?.next().await.map(|it| it.event) })
    }
}

struct AllOfTenant(TenantFeed);

fn placed(it: TenantEvent) -> ports::PlacedEvent {
    ports::PlacedEvent { partition: it.partition, offset: it.offset, event: it.event }
}

impl ports::TenantEvents for AllOfTenant {
    fn from_offsets(&self) -> Vec<u64> {
        self.0.from_offsets().to_vec()
    }

    fn positions(&self) -> Vec<u64> {
        self.0.positions()
    }

    fn try_next(&mut self) -> Option<ports::PlacedEvent> {
        self.0.try_next().map(placed)
    }

    fn next(&mut self) -> BoxFuture<'_, Option<ports::PlacedEvent>> {
        Box::pin(async move { self.0.next().await.map(placed) })
    }
}

impl ports::OrderEventsHub for EventsHub {
    fn subscribe(&self, key: &str) -> Box<dyn ports::OrderEvents> {
        Box::new(Feed(self.0.subscribe(key).ok()))
    }

    fn subscribe_tenant(&self, tenant: &str) -> Option<Box<dyn ports::TenantEvents>> {
        let feed = self.0.subscribe_tenant(tenant).ok()?;
        Some(Box::new(AllOfTenant(feed)))
    }
}

/// The catalog as pricing sees it.
pub struct Products {
    /// The cache pricing reads.
    pub catalog: Arc<CatalogCache>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl ports::ProductsInForce for Products {
    fn wait_version<'a>(&'a self, tenant: &'a str, sku: &'a str, version: i64) -> BoxFuture<'a, ()> {
        let waiter = self.catalog.wait_for_version(tenant, sku, version);
        Box::pin(async move {
            // The caller has a deadline of its own.
            waiter.wait(&*self.clock, u64::MAX).await;
        })
    }
}

/// How far the tasks of this process are.
pub struct LocalProgress {
    /// What the tasks tell.
    pub progress: Arc<Progress>,
    /// Where their inputs end.
    pub store: Arc<EmbeddedStore>,
    /// Where their lag is shown.
    pub metrics: Arc<Metrics>,
    /// What halted, if anything did.
    pub halted: Arc<Mutex<Vec<String>>>,
}

impl ports::Progress for LocalProgress {
    fn has_committed(&self, task: TaskId, end: u64) -> bool {
        self.progress.caught_up_with(&[(task, end)])
    }

    fn wait_committed(&self, task: TaskId, end: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.progress.wait_caught_up(&[(task, end)]).await })
    }

    fn lags(&self) -> Vec<(TaskId, u64)> {
        let statuses = self.progress.statuses(&*self.store);
        statuses.into_iter().flatten().map(|it| (it.id, it.lag)).collect()
    }

    fn export(&self) {
        if let Err(error) = self.progress.export(&*self.store, &self.metrics) {
            tracing::warn!(%error, "lag cannot be shown");
        }
    }

    fn trouble(&self) -> Vec<String> {
        self.halted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sandbox provider's back door.
pub struct Sandbox {
    /// The provider.
    pub provider: Arc<dyn SandboxLedger>,
    /// Where its answers go.
    pub log: Arc<dyn Log>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Sandbox {
    async fn act(&self, tenant: &str, payment_id: &str, succeed: bool) -> Result<(), SandboxError> {
        let stored = self.provider.payment(payment_id).await.map_err(failed)?;
        if stored.is_none_or(|it| it.tenant != tenant) {
            return Err(SandboxError::NoSuchPayment);
        }
        let acted = self.provider.authenticate(payment_id, succeed).await.map_err(failed)?;
        let Some((tenant, order_id, result)) = acted else {
            return Err(SandboxError::NotWaiting("it never asked for action, or was given up".to_owned()));
        };
        let key = ids::key(&tenant, &order_id);
        let command = OrderCommand {
            // The customer acts once: a repeat is the same command.
            id: ids::derived_id("cmd_", &[payment_id, "authenticate"]),
            tenant,
            order_id,
            accepted_at_ms: self.clock.now_ms(),
            traceparent: None,
            fingerprint: Text::default(),
            payload: OrderCommandPayload::PaymentResult(result),
        };
        let value = codec::encode(&command).map_err(|error| LogError::Io(error.to_string()))?;
        let partition = partition_of(key.as_bytes(), self.log.partitions(Topic::OrderCommands));
        let to = TopicPartition::new(Topic::OrderCommands, partition);
        let record =
            NewRecord { to, key: key.into_string().into(), value: value.into(), headers: Headers::new() };
        Ok(self.log.append(vec![record]).await?)
    }
}

fn failed(error: impl std::fmt::Display) -> SandboxError {
    SandboxError::Log(LogError::Io(error.to_string()))
}

impl ports::SandboxControl for Sandbox {
    fn payment<'a>(
        &'a self,
        tenant: &'a str,
        payment_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<ports::SandboxPayment>, SandboxError>> {
        let shown = |it: tillstream_effects::SandboxPayment| ports::SandboxPayment {
            order_id: it.order_id,
            status: it.status.as_str(),
            method: it.method,
            currency: it.currency,
            amount_minor: it.amount_minor,
            authorized_minor: it.authorized_minor,
            captured_minor: it.captured_minor,
            refunded_minor: it.refunded_minor,
        };
        Box::pin(async move {
            let stored = self.provider.payment(payment_id).await.map_err(failed)?;
            Ok(stored.filter(|it| it.tenant == tenant).map(shown))
        })
    }

    fn authenticate<'a>(
        &'a self,
        tenant: &'a str,
        payment_id: &'a str,
        succeed: bool,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(self.act(tenant, payment_id, succeed))
    }
}
