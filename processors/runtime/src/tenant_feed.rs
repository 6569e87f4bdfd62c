//! Live events of one tenant, over all partitions of `orders.events`.
//!
//! A feed begins where its partitions end at that moment. What is before must be read from the log; so must
//! everything once a feed is lost because its reader was too slow. That bounds the memory of a slow reader.

use crate::RuntimeError;
use crate::subscriptions::Subscriptions;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tillstream_schemas::order_event::OrderEvent;
use tokio::sync::mpsc;

/// An event, and where it stands.
#[derive(Clone, Debug)]
pub struct TenantEvent {
    /// The partition of `orders.events`.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// The event.
    pub event: Arc<OrderEvent>,
}

/// The hub's end of a feed, one per partition.
#[derive(Clone, Debug)]
pub(crate) struct TenantSubscriber {
    pub id: u64,
    /// Events before this offset were there before the feed.
    pub from_offset: u64,
    sender: mpsc::Sender<TenantEvent>,
    lost: Arc<AtomicBool>,
}

impl TenantSubscriber {
    /// Hands an event over; `false` once the feed is lost, in whichever partition that happened.
    pub fn hand(&self, event: TenantEvent) -> bool {
        if self.lost.load(Ordering::Acquire) {
            return false;
        }
        if event.offset < self.from_offset || self.sender.try_send(event).is_ok() {
            return true;
        }
        self.lost.store(true, Ordering::Release);
        false
    }
}

/// A live feed. Dropping it unsubscribes.
pub struct TenantFeed {
    hubs: Arc<Subscriptions>,
    tenant: Bytes,
    id: u64,
    from_offsets: Vec<u64>,
    receiver: mpsc::Receiver<TenantEvent>,
    lost: Arc<AtomicBool>,
}

impl Subscriptions {
    /// Every event of this tenant that becomes durable from now on.
    ///
    /// # Errors
    /// When the follower has ended, or the log does not know its ends.
    pub fn subscribe_tenant(self: &Arc<Self>, tenant: &str) -> Result<TenantFeed, RuntimeError> {
        let tenant = Bytes::copy_from_slice(tenant.as_bytes());
        let (sender, receiver) = mpsc::channel(self.capacity());
        let lost = Arc::new(AtomicBool::new(false));
        let id = self.fresh_id();
        // Made first: whatever goes wrong on the way, dropping it takes back what was registered.
        let mut feed = TenantFeed {
            hubs: Arc::clone(self),
            tenant: tenant.clone(),
            id,
            from_offsets: Vec::new(),
            receiver,
            lost: Arc::clone(&lost),
        };
        feed.from_offsets = self.add_tenant(&tenant, |from_offset| TenantSubscriber {
            id,
            from_offset,
            sender: sender.clone(),
            lost: Arc::clone(&lost),
        })?;
        Ok(feed)
    }
}

impl TenantFeed {
    /// Per partition, the first offset that comes through this feed.
    pub fn from_offsets(&self) -> &[u64] {
        &self.from_offsets
    }

    /// Per partition, an offset before which every event of the tenant has been put into this feed.
    pub fn positions(&self) -> Vec<u64> {
        let read = self.hubs.next_offsets();
        read.into_iter().zip(&self.from_offsets).map(|(read, from)| read.max(*from)).collect()
    }

    /// The next event; `None` when the hub has ended or this reader fell too far behind. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<TenantEvent> {
        if self.lost.load(Ordering::Acquire) {
            return None;
        }
        self.receiver.recv().await
    }

    /// The next event, if one is there already.
    pub fn try_next(&mut self) -> Option<TenantEvent> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for TenantFeed {
    fn drop(&mut self) {
        self.hubs.remove_tenant(&self.tenant, self.id);
    }
}

/// The tenant of a record's key, `tenant/order`.
pub(crate) fn tenant_of(key: &Bytes) -> &[u8] {
    key.split(|it| *it == b'/').next().unwrap_or_default()
}
