//! Whether the database has kept what it acknowledged: a node that restarts may have lost what it had not synced.

use crate::ports::Spawner;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tillstream_log::LogError;
use tillstream_runtime::Clock;
use tillstream_state::row_store::RowStore;
use tokio::sync::watch;

/// A node that cannot be asked for so long counts as gone: what it had acknowledged is written again.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// What is known of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Grows whenever a node has restarted, gone or come.
    pub id: u64,
    /// When every node was last seen running since then, monotonic ns.
    pub confirmed_at_ns: u64,
}

#[derive(Debug)]
struct Node {
    /// `None` before its first answer.
    started: Option<i64>,
    /// Its last answer, or when it was first asked in vain.
    heard_at_ns: u64,
    gone: bool,
}

#[derive(Debug, Default)]
struct Seen {
    nodes: BTreeMap<String, Node>,
    epoch: Epoch,
}

/// Asks the nodes again and again when they started.
pub struct NodeWatch {
    seen: Mutex<Seen>,
}

impl NodeWatch {
    /// Asks once, so that the first epoch is known.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn begin(rows: &dyn RowStore, clock: &dyn Clock) -> Result<Arc<Self>, LogError> {
        let watch = Self { seen: Mutex::default() };
        let asked_ns = clock.monotonic_ns();
        watch.note(rows.incarnations().await?, asked_ns);
        Ok(Arc::new(watch))
    }

    /// Keeps asking every `interval` until `shutdown`.
    pub fn run(
        self: &Arc<Self>,
        rows: Arc<dyn RowStore>,
        clock: Arc<dyn Clock>,
        interval: Duration,
        spawner: &dyn Spawner,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let watch = Arc::clone(self);
        spawner.spawn(Box::pin(async move {
            loop {
                tokio::select! {
                    biased;
                    _ = shutdown.wait_for(|it| *it) => return,
                    () = clock.sleep(interval) => {}
                }
                let asked_ns = clock.monotonic_ns();
                match rows.incarnations().await {
                    Ok(found) => watch.note(found, asked_ns),
                    Err(error) => tracing::debug!(%error, "the database's nodes cannot be asked"),
                }
            }
        }));
    }

    /// What is known now.
    pub fn epoch(&self) -> Epoch {
        self.seen.lock().epoch
    }

    /// Takes an answer in that was asked for at `asked_ns`.
    pub fn note(&self, found: BTreeMap<String, Option<i64>>, asked_ns: u64) {
        let mut seen = self.seen.lock();
        let known: Vec<String> = seen.nodes.keys().cloned().collect();
        let mut changed = known.iter().any(|it| !found.contains_key(it));
        seen.nodes.retain(|it, _| found.contains_key(it));
        let mut all_answered = true;
        for (host, started) in found {
            let silent = Node { started: None, heard_at_ns: asked_ns, gone: false };
            let node = seen.nodes.entry(host).or_insert(silent);
            if started.is_some() {
                changed |= node.gone || node.started != started;
                *node = Node { started, heard_at_ns: asked_ns, gone: false };
            } else if !node.gone {
                node.gone = asked_ns.saturating_sub(node.heard_at_ns) > GONE_AFTER.as_nanos() as u64;
                changed |= node.gone;
                all_answered &= node.gone;
            }
        }
        if changed {
            seen.epoch.id += 1;
        }
        if all_answered {
            seen.epoch.confirmed_at_ns = asked_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn answer(nodes: &[(&str, Option<i64>)]) -> BTreeMap<String, Option<i64>> {
        nodes.iter().map(|(host, started)| ((*host).to_owned(), *started)).collect()
    }

    fn watch() -> NodeWatch {
        let watch = NodeWatch { seen: Mutex::default() };
        watch.note(answer(&[("a", Some(1)), ("b", Some(1))]), SECOND);
        watch
    }

    #[test]
    fn a_restart_begins_an_epoch_and_silence_only_withholds_the_confirmation() {
        let watch = watch();
        let first = watch.epoch();
        assert_eq!(first.confirmed_at_ns, SECOND);
        watch.note(answer(&[("a", Some(1)), ("b", None)]), 2 * SECOND);
        assert_eq!(watch.epoch(), first);
        watch.note(answer(&[("a", Some(1)), ("b", Some(1))]), 3 * SECOND);
        assert_eq!(watch.epoch(), Epoch { id: first.id, confirmed_at_ns: 3 * SECOND });
        watch.note(answer(&[("a", Some(1)), ("b", Some(2))]), 4 * SECOND);
        assert_eq!(watch.epoch().id, first.id + 1);
    }

    #[test]
    fn a_node_that_was_never_heard_withholds_the_confirmation_too() {
        let watch = NodeWatch { seen: Mutex::default() };
        watch.note(answer(&[("a", Some(1)), ("b", None)]), SECOND);
        assert_eq!(watch.epoch().confirmed_at_ns, 0, "it may take writes although it does not answer us");
        let silent = watch.epoch().id;
        watch.note(answer(&[("a", Some(1)), ("b", Some(7))]), 2 * SECOND);
        assert_eq!(watch.epoch(), Epoch { id: silent + 1, confirmed_at_ns: 2 * SECOND });
    }

    #[test]
    fn a_node_long_silent_counts_as_gone_and_its_return_as_a_restart() {
        let watch = watch();
        let first = watch.epoch().id;
        watch.note(answer(&[("a", Some(1)), ("b", None)]), 100 * SECOND);
        assert_eq!(watch.epoch(), Epoch { id: first + 1, confirmed_at_ns: 100 * SECOND });
        watch.note(answer(&[("a", Some(1)), ("b", None)]), 101 * SECOND);
        assert_eq!(watch.epoch(), Epoch { id: first + 1, confirmed_at_ns: 101 * SECOND });
        watch.note(answer(&[("a", Some(1)), ("b", Some(1))]), 102 * SECOND);
        assert_eq!(watch.epoch().id, first + 2);
        watch.note(answer(&[("a", Some(1))]), 103 * SECOND);
        assert_eq!(watch.epoch().id, first + 3, "a node was removed from the cluster");
    }
}
