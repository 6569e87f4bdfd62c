//! The event hub: order events of one key, as they become durable.
//!
//! Keys are compared before anything is decoded. A partition nobody subscribes to is not read at all.

use crate::RuntimeError;
use crate::follow::{Followed, follow, partitions};
use crate::shell::stopped;
use crate::tenant_feed::{TenantEvent, TenantSubscriber, tenant_of};
use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tillstream_log::{Log, Record, TopicPartition};
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::{Topic, codec};
use tillstream_stage::partition::partition_of;
use tokio::sync::{Notify, mpsc, watch};

/// An event and the offset it stands at.
#[derive(Clone, Debug)]
pub struct HubEvent {
    /// Its offset in its partition of `orders.events`.
    pub offset: u64,
    /// The event.
    pub event: Arc<OrderEvent>,
}

#[derive(Debug)]
struct Subscriber {
    id: u64,
    /// Events before this offset were there before the subscription.
    from_offset: u64,
    sender: mpsc::Sender<HubEvent>,
}

#[derive(Debug, Default)]
struct Hub {
    by_key: FxHashMap<Bytes, Vec<Subscriber>>,
    by_tenant: FxHashMap<Bytes, Vec<TenantSubscriber>>,
    /// Where to read on. Means nothing while there is no subscriber.
    next_offset: u64,
    ended: bool,
}

struct PartitionHub {
    partition: TopicPartition,
    hub: Mutex<Hub>,
    subscribed: Notify,
}

/// The hub of a process.
pub struct Subscriptions {
    log: Arc<dyn Log>,
    hubs: Vec<PartitionHub>,
    capacity: usize,
    next_id: AtomicU64,
}

impl Subscriptions {
    /// A hub whose subscribers may each lag behind by `capacity` events.
    pub fn new(log: Arc<dyn Log>, capacity: usize) -> Arc<Self> {
        let hub = |partition| PartitionHub { partition, hub: Mutex::default(), subscribed: Notify::new() };
        let hubs = partitions(&*log, Topic::OrderEvents).into_iter().map(hub).collect();
        Arc::new(Self { log, hubs, capacity: capacity.max(1), next_id: AtomicU64::new(0) })
    }

    /// Every event of this key (`tenant/order_id`) that becomes durable from now on. Subscribe before producing.
    ///
    /// # Errors
    /// When the follower has ended, or the log does not know its end.
    pub fn subscribe(self: &Arc<Self>, key: &str) -> Result<Subscription, RuntimeError> {
        let partitions = u32::try_from(self.hubs.len()).unwrap_or(u32::MAX);
        let index = partition_of(key.as_bytes(), partitions) as usize;
        let Some(hub) = self.hubs.get(index) else {
            return Err(RuntimeError::FollowerStopped("orders.events"));
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let key = Bytes::copy_from_slice(key.as_bytes());
        let (sender, receiver) = mpsc::channel(self.capacity);
        let from_offset = self.log.end_offset(hub.partition)?;
        {
            let mut open = hub.hub.lock();
            if open.ended {
                return Err(RuntimeError::FollowerStopped("orders.events"));
            }
            if open.is_idle() {
                open.next_offset = open.next_offset.max(from_offset);
            }
            open.by_key.entry(key.clone()).or_default().push(Subscriber { id, from_offset, sender });
        }
        hub.subscribed.notify_one();
        Ok(Subscription { hubs: Arc::clone(self), index, key, id, receiver })
    }

    /// Follows the topic until `shutdown`; then every subscription ends.
    ///
    /// # Errors
    /// What the log says.
    pub async fn run_follower(&self, mut shutdown: watch::Receiver<bool>) -> Result<(), RuntimeError> {
        let _ending = Ending(self);
        let all = self.hubs.iter().map(|hub| self.follow_partition(hub));
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => Ok(()),
            ended = try_join_all(all) => ended.map(|_: Vec<()>| ()),
        }
    }

    async fn follow_partition(&self, hub: &PartitionHub) -> Result<(), RuntimeError> {
        loop {
            let next_offset = {
                let open = hub.hub.lock();
                (!open.is_idle()).then_some(open.next_offset)
            };
            let Some(next_offset) = next_offset else {
                hub.subscribed.notified().await;
                continue;
            };
            match follow(&*self.log, hub.partition, next_offset).await? {
                Followed::Records(records, next_offset) => hub.deliver(&records, next_offset),
                Followed::Gap(after) => hub.hub.lock().go_on(after),
            }
        }
    }

    /// How many subscriptions there are; a tenant's counts once per partition.
    pub fn count(&self) -> usize {
        let of_tenants = |hub: &Hub| hub.by_tenant.values().map(Vec::len).sum::<usize>();
        let of_keys = |hub: &Hub| hub.by_key.values().map(Vec::len).sum::<usize>();
        self.hubs.iter().map(|it| it.hub.lock()).map(|hub| of_keys(&hub) + of_tenants(&hub)).sum()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a tenant's subscriber to every partition; answers the first offset it gets, per partition.
    pub(crate) fn add_tenant(
        &self,
        tenant: &Bytes,
        subscriber: impl Fn(u64) -> TenantSubscriber,
    ) -> Result<Vec<u64>, RuntimeError> {
        let mut from_offsets = Vec::with_capacity(self.hubs.len());
        for hub in &self.hubs {
            let end = self.log.end_offset(hub.partition)?;
            let mut open = hub.hub.lock();
            if open.ended {
                return Err(RuntimeError::FollowerStopped("orders.events"));
            }
            // The hub may be past the end that was just asked for: what it handed out does not come again.
            let from_offset = open.next_offset.max(end);
            if open.is_idle() {
                open.next_offset = from_offset;
            }
            open.by_tenant.entry(tenant.clone()).or_default().push(subscriber(from_offset));
            drop(open);
            hub.subscribed.notify_one();
            from_offsets.push(from_offset);
        }
        Ok(from_offsets)
    }

    pub(crate) fn remove_tenant(&self, tenant: &Bytes, id: u64) {
        for hub in &self.hubs {
            let mut hub = hub.hub.lock();
            if let Some(subscribers) = hub.by_tenant.get_mut(tenant) {
                subscribers.retain(|it| it.id != id);
                if subscribers.is_empty() {
                    hub.by_tenant.remove(tenant);
                }
            }
        }
    }

    /// How far each partition is read.
    pub(crate) fn next_offsets(&self) -> Vec<u64> {
        self.hubs.iter().map(|it| it.hub.lock().next_offset).collect()
    }
}

/// However the follower ends (an error, a dropped future), nobody must wait for it.
struct Ending<'a>(&'a Subscriptions);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        for hub in &self.0.hubs {
            let mut hub = hub.hub.lock();
            hub.ended = true;
            hub.by_key.clear();
            hub.by_tenant.clear();
        }
    }
}

impl PartitionHub {
    fn deliver(&self, records: &[Record], next_offset: u64) {
        let mut hub = self.hub.lock();
        for record in records {
            if !hub.is_wanted(&record.key) {
                continue;
            }
            match codec::decode::<OrderEvent>(&record.value) {
                Ok(event) => hub.hand_out(&record.key, self.partition.partition, record.offset, event),
                Err(error) => {
                    tracing::warn!(partition = %self.partition, offset = record.offset, %error, "no such event");
                }
            }
        }
        hub.go_on(next_offset);
    }
}

impl Hub {
    fn is_idle(&self) -> bool {
        self.by_key.is_empty() && self.by_tenant.is_empty()
    }

    /// Whether anybody listens to a key: only then is its record decoded.
    fn is_wanted(&self, key: &Bytes) -> bool {
        self.by_key.contains_key(key)
            || (!self.by_tenant.is_empty() && self.by_tenant.contains_key(tenant_of(key)))
    }

    /// Whoever cannot keep up loses its subscription, never an event in silence.
    fn hand_out(&mut self, key: &Bytes, partition: u32, offset: u64, event: OrderEvent) {
        let event = Arc::new(event);
        if let Some(subscribers) = self.by_key.get_mut(key) {
            subscribers.retain(|it| {
                offset < it.from_offset
                    || it.sender.try_send(HubEvent { offset, event: Arc::clone(&event) }).is_ok()
            });
            if subscribers.is_empty() {
                self.by_key.remove(key);
            }
        }
        let tenant = tenant_of(key);
        if let Some(subscribers) = self.by_tenant.get_mut(tenant) {
            let event = TenantEvent { partition, offset, event };
            subscribers.retain(|it| it.hand(event.clone()));
            if subscribers.is_empty() {
                self.by_tenant.remove(tenant);
            }
        }
    }

    /// Never back: while the follower read, the last subscriber may have gone and a later one come.
    fn go_on(&mut self, next_offset: u64) {
        self.next_offset = self.next_offset.max(next_offset);
    }
}

/// Events of one key. Dropping it unsubscribes.
pub struct Subscription {
    hubs: Arc<Subscriptions>,
    index: usize,
    key: Bytes,
    id: u64,
    receiver: mpsc::Receiver<HubEvent>,
}

impl Subscription {
    /// The next event; `None` when the hub has ended or this subscriber fell too far behind.
    pub async fn next(&mut self) -> Option<HubEvent> {
        self.receiver.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(hub) = self.hubs.hubs.get(self.index) else { return };
        let mut hub = hub.hub.lock();
        if let Some(subscribers) = hub.by_key.get_mut(&self.key) {
            subscribers.retain(|it| it.id != self.id);
            if subscribers.is_empty() {
                hub.by_key.remove(&self.key);
            }
        }
    }
}
