//! Time that moves when the test says so.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tillstream_runtime::Clock;
use tokio::sync::watch;

pub struct ManualClock {
    now_ns: watch::Sender<u64>,
    epoch_ms: AtomicI64,
    next: AtomicU64,
    /// Deadlines of whoever sleeps now.
    sleepers: Arc<watch::Sender<BTreeMap<u64, u64>>>,
    /// Keeps readings apart, so that durations are not all zero.
    ticks: Mutex<u64>,
}

struct Asleep {
    id: u64,
    sleepers: Arc<watch::Sender<BTreeMap<u64, u64>>>,
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.sleepers.send_modify(|it| {
            it.remove(&self.id);
        });
    }
}

impl ManualClock {
    pub fn new(epoch_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            now_ns: watch::channel(0).0,
            epoch_ms: AtomicI64::new(epoch_ms),
            next: AtomicU64::new(0),
            sleepers: Arc::new(watch::channel(BTreeMap::new()).0),
            ticks: Mutex::new(0),
        })
    }

    pub fn advance(&self, ms: u64) {
        self.now_ns.send_modify(|it| *it += ms * 1_000_000);
    }

    /// Waits until somebody sleeps for at most `ms` from now; whoever is about to wake does not count.
    pub async fn sleeper_within(&self, ms: u64) {
        let now = *self.now_ns.borrow();
        let until = now + ms * 1_000_000;
        let mut sleepers = self.sleepers.subscribe();
        let there = sleepers.wait_for(|it| it.values().any(|deadline| (now + 1..=until).contains(deadline)));
        super::soon("a sleeper", there).await.unwrap();
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.epoch_ms.load(Ordering::Relaxed) + (*self.now_ns.borrow() / 1_000_000) as i64
    }

    fn monotonic_ns(&self) -> u64 {
        *self.ticks.lock() += 1;
        *self.now_ns.borrow()
    }

    fn sleep_until(&self, deadline_ns: u64) -> BoxFuture<'static, ()> {
        let mut now = self.now_ns.subscribe();
        let sleepers = Arc::clone(&self.sleepers);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let asleep = Asleep { id, sleepers };
            asleep.sleepers.send_modify(|it| {
                it.insert(id, deadline_ns);
            });
            let _ = now.wait_for(|it| *it >= deadline_ns).await;
        })
    }
}
