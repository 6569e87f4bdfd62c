//! How many streams are open, per tenant and in all, and the drain that ends them.

use crate::problem::{Code, Problem};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use tillstream_schemas::Text;
use tokio::sync::watch;

/// Streams of all tenants together.
const STREAMS_MAX: usize = 10_000;
/// When to come again once the limit is reached, s.
const RETRY_SECONDS: u32 = 5;

/// Every open stream of this process.
pub(crate) struct Streams {
    open: Mutex<Open>,
    per_tenant_max: usize,
    draining: watch::Sender<bool>,
    /// Changes whenever a stream ends.
    left: watch::Sender<usize>,
    gauge: IntGaugeVec,
    ended: IntCounterVec,
}

#[derive(Default)]
struct Open {
    by_tenant: FxHashMap<Text, usize>,
    total: usize,
}

impl Streams {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn new(registry: &Registry, per_tenant_max: usize) -> prometheus::Result<Arc<Self>> {
        let help = "Open streams of events";
        let gauge = IntGaugeVec::new(Opts::new("tillstream_streams_open", help), &["transport"])?;
        let help = "Streams of events that ended, by why";
        let ended =
            IntCounterVec::new(Opts::new("tillstream_streams_ended_total", help), &["transport", "reason"])?;
        registry.register(Box::new(gauge.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        for transport in ["sse", "websocket"] {
            gauge.with_label_values(&[transport]).set(0);
            for reason in ["gone", "slow", "drained", "failed"] {
                ended.with_label_values(&[transport, reason]);
            }
        }
        Ok(Arc::new(Self {
            open: Mutex::default(),
            per_tenant_max,
            draining: watch::Sender::new(false),
            left: watch::Sender::new(0),
            gauge,
            ended,
        }))
    }

    /// A place for one more stream.
    ///
    /// # Errors
    /// 429 when the tenant (or the process) has as many as it may have.
    pub(crate) fn open(self: &Arc<Self>, tenant: &str, transport: &'static str) -> Result<Slot, Problem> {
        let mut open = self.open.lock();
        let mine = open.by_tenant.get(tenant).copied().unwrap_or(0);
        if mine >= self.per_tenant_max || open.total >= STREAMS_MAX {
            let detail = format!(
                "{mine} streams of this tenant are open; {} may be: close some, or follow all orders on one stream",
                self.per_tenant_max
            );
            return Err(Problem::new(Code::TooManyStreams, detail).retry_after(RETRY_SECONDS));
        }
        open.by_tenant.insert(tenant.into(), mine + 1);
        open.total += 1;
        self.gauge.with_label_values(&[transport]).inc();
        Ok(Slot { streams: Arc::clone(self), tenant: tenant.into(), transport })
    }

    /// Turns true when every stream must end.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Ends every stream, and resolves once they have ended.
    pub(crate) async fn drain(&self) {
        self.draining.send_replace(true);
        let mut left = self.left.subscribe();
        while self.open.lock().total > 0 {
            // The sender lives in `self`.
            let _ = left.changed().await;
        }
    }
}

/// One open stream's place. Dropping it gives the place back.
pub(crate) struct Slot {
    streams: Arc<Streams>,
    tenant: Text,
    transport: &'static str,
}

impl Slot {
    /// Notes why the stream ended.
    pub(crate) fn ended(&self, reason: &str) {
        self.streams.ended.with_label_values(&[self.transport, reason]).inc();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        open.total -= 1;
        if let Some(mine) = open.by_tenant.get_mut(&self.tenant) {
            *mine -= 1;
            if *mine == 0 {
                open.by_tenant.remove(&self.tenant);
            }
        }
        self.streams.gauge.with_label_values(&[self.transport]).dec();
        self.streams.left.send_replace(open.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_own_limit_and_an_ended_stream_makes_room() {
        let streams = Streams::new(&Registry::new(), 2).unwrap();
        let first = streams.open("a", "sse").unwrap();
        let _second = streams.open("a", "websocket").unwrap();
        let refused = streams.open("a", "sse").err().unwrap();
        assert_eq!((refused.code, refused.retry_after_seconds), (Code::TooManyStreams, Some(RETRY_SECONDS)));
        let _other = streams.open("b", "sse").unwrap();
        drop(first);
        let _third = streams.open("a", "sse").unwrap();
    }

    #[tokio::test]
    async fn a_drain_ends_when_the_last_stream_does() {
        let streams = Streams::new(&Registry::new(), 2).unwrap();
        let slot = streams.open("a", "sse").unwrap();
        let mut draining = streams.draining();
        let drain = tokio::spawn({
            let streams = streams.clone();
            async move { streams.drain().await }
        });
        draining.wait_for(|it| *it).await.unwrap();
        assert!(!drain.is_finished());
        drop(slot);
        drain.await.unwrap();
    }
}
