//! The timers of one task that are due within the horizon, held in memory so that an idle loop reads nothing.

use std::collections::BTreeSet;
use tillstream_log::LogError;
use tillstream_stage::{Key, TimerName};
use tillstream_state::{State, TaskId, Timer};

/// Longer than the hold of an order (15 min): a timer that is set and cleared within it never costs a scan.
const HORIZON_MS: i64 = 20 * 60 * 1000;

/// Every timer due up to `loaded_until_ms` (and perhaps some later ones), as of the last commit.
#[derive(Debug)]
pub(crate) struct TimerQueue {
    pending: BTreeSet<Timer>,
    loaded_until_ms: i64,
    capacity: usize,
}

impl TimerQueue {
    /// A queue that has read nothing yet, of at most so many timers; what more there are stays in the store until these have
    /// fired.
    pub fn new(capacity: usize) -> Self {
        Self { pending: BTreeSet::new(), loaded_until_ms: -1, capacity }
    }

    /// Reads the next stretch from the store when the horizon has come near.
    pub async fn load(&mut self, state: &dyn State, id: TaskId, now_ms: i64) -> Result<(), LogError> {
        let near = self.loaded_until_ms < now_ms.saturating_add(HORIZON_MS / 2);
        if !near || self.pending.len() >= self.capacity.div_ceil(2) {
            return Ok(());
        }
        let until_ms = now_ms.saturating_add(HORIZON_MS).max(self.loaded_until_ms + 1);
        let from_ms = self.loaded_until_ms + 1;
        let found = state.timers_due(id, from_ms, until_ms, self.capacity).await?;
        self.loaded_until_ms = match found.last() {
            // More of the same moment may be left in the store.
            Some(last) if found.len() >= self.capacity => last.due_ms - 1,
            _ => until_ms,
        };
        self.pending.extend(found);
        Ok(())
    }

    /// The timers due now, earliest first, at most `limit`. They stay until their removal is committed.
    pub fn due(&self, now_ms: i64, limit: usize) -> Vec<Timer> {
        self.pending.iter().take_while(|timer| timer.due_ms <= now_ms).take(limit).cloned().collect()
    }

    /// How long the loop may sleep before this queue wants something, ms.
    pub fn idle_ms(&self, now_ms: i64) -> i64 {
        let load_ms = self.loaded_until_ms.saturating_sub(HORIZON_MS / 2).saturating_sub(now_ms);
        let due_ms = self.pending.first().map_or(i64::MAX, |timer| timer.due_ms.saturating_sub(now_ms));
        load_ms.min(due_ms).max(1)
    }

    /// The commit that removed and set these is durable.
    pub fn committed(&mut self, removed: &[Timer], set: &[Timer]) {
        for timer in removed {
            self.pending.remove(timer);
        }
        for timer in set {
            if timer.due_ms <= self.loaded_until_ms {
                self.pending.insert(timer.clone());
            }
        }
        if self.pending.len() > self.capacity * 2 {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let Some(cut_ms) = self.pending.iter().nth(self.capacity).map(|timer| timer.due_ms) else { return };
        let first = Timer { due_ms: cut_ms, key: Key::default(), name: TimerName::HoldExpiry };
        self.pending.split_off(&first);
        self.loaded_until_ms = cut_ms - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;
    use parking_lot::Mutex;
    use tillstream_stage::{RowKey, Table};
    use tillstream_state::Page;

    #[derive(Default)]
    struct Store {
        timers: Mutex<BTreeSet<Timer>>,
        scans: Mutex<usize>,
    }

    impl State for Store {
        fn get_many<'a>(
            &'a self,
            _keys: &'a [RowKey],
        ) -> BoxFuture<'a, Result<Vec<Option<bytes::Bytes>>, LogError>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn scan<'a>(
            &'a self,
            _table: Table,
            _prefix: &'a str,
            _after: Option<&'a str>,
            _limit: usize,
        ) -> BoxFuture<'a, Result<Page, LogError>> {
            Box::pin(async { Ok(Page::default()) })
        }
        fn timers_due(
            &self,
            _task: TaskId,
            from_ms: i64,
            until_ms: i64,
            limit: usize,
        ) -> BoxFuture<'_, Result<Vec<Timer>, LogError>> {
            *self.scans.lock() += 1;
            let timers = self.timers.lock();
            let found = timers.iter().filter(|it| (from_ms..=until_ms).contains(&it.due_ms)).take(limit);
            let found = found.cloned().collect();
            Box::pin(async move { Ok(found) })
        }
        fn committed(&self, _task: TaskId) -> BoxFuture<'_, Result<u64, LogError>> {
            Box::pin(async { Ok(0) })
        }
    }

    fn timer(due_ms: i64, key: &str) -> Timer {
        Timer { due_ms, key: key.into(), name: TimerName::HoldExpiry }
    }

    fn id() -> TaskId {
        TaskId { kind: tillstream_stage::task::TaskKind::Order, partition: 0 }
    }

    #[tokio::test]
    async fn an_idle_queue_scans_once() {
        let store = Store::default();
        let mut queue = TimerQueue::new(1_000);
        for now_ms in 0..1_000 {
            queue.load(&store, id(), now_ms).await.unwrap();
            assert!(queue.due(now_ms, 10).is_empty());
        }
        assert_eq!(*store.scans.lock(), 1);
    }

    #[tokio::test]
    async fn every_timer_fires_once_although_few_fit_in_memory() {
        let store = Store::default();
        for n in 0..500_i64 {
            store.timers.lock().insert(timer(n / 40, &format!("k{n}")));
            store.timers.lock().insert(timer(HORIZON_MS * (n % 7), &format!("later{n}")));
        }
        let all = store.timers.lock().len();
        let mut queue = TimerQueue::new(8);
        let (mut now_ms, mut fired, mut last_ms) = (0, 0, 0);
        while fired < all {
            queue.load(&store, id(), now_ms).await.unwrap();
            let due = queue.due(now_ms, 5);
            if due.is_empty() {
                now_ms += queue.idle_ms(now_ms).min(HORIZON_MS);
                assert!(now_ms <= HORIZON_MS * 8, "{fired} of {all} fired");
                continue;
            }
            for it in &due {
                assert!(it.due_ms >= last_ms, "{it:?} after {last_ms}");
                last_ms = it.due_ms;
                assert!(store.timers.lock().remove(it));
            }
            fired += due.len();
            queue.committed(&due, &[]);
        }
        assert!(store.timers.lock().is_empty());
    }

    #[tokio::test]
    async fn sets_and_removals_of_a_commit_are_seen_without_a_scan() {
        let store = Store::default();
        let mut queue = TimerQueue::new(1_000);
        queue.load(&store, id(), 1_000).await.unwrap();
        queue.committed(&[], &[timer(1_500, "a"), timer(1_400, "b"), timer(1_200, "gone")]);
        queue.committed(&[timer(1_200, "gone")], &[]);
        assert_eq!(queue.idle_ms(1_000), 400);
        assert_eq!(queue.due(1_500, 10), [timer(1_400, "b"), timer(1_500, "a")]);
        assert_eq!(*store.scans.lock(), 1);
    }

    #[tokio::test]
    async fn too_many_set_timers_are_left_to_the_store() {
        let store = Store::default();
        let mut queue = TimerQueue::new(4);
        queue.load(&store, id(), 0).await.unwrap();
        for n in 0..50 {
            let set = timer(100 + n, "k");
            store.timers.lock().insert(set.clone());
            queue.committed(&[], &[set]);
            assert!(queue.pending.len() <= 9);
        }
        let mut fired = Vec::new();
        while fired.len() < 50 {
            queue.load(&store, id(), 200).await.unwrap();
            let due = queue.due(200, 3);
            assert!(!due.is_empty(), "stuck after {} timers", fired.len());
            for it in &due {
                store.timers.lock().remove(it);
            }
            queue.committed(&due, &[]);
            fired.extend(due);
        }
        assert!(fired.is_sorted());
    }
}
