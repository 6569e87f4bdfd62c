//! Which checkpoint may be written when. A row acknowledged is not yet a row on disk.

use crate::nodes::Epoch;
use std::collections::VecDeque;

/// What was acknowledged, waiting to be surely on disk.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    offset: u64,
    acknowledged_at_ns: u64,
    epoch_id: u64,
}

/// A line of acknowledgements; each becomes durable a fixed time after it, unless a node restarted meanwhile.
#[derive(Debug)]
pub(crate) struct Durability {
    waiting: VecDeque<Waiting>,
    durable_after_ns: u64,
}

/// A node has restarted since something was acknowledged: it may be lost, and must be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodesRestarted;

impl Durability {
    /// Nothing acknowledged yet.
    pub fn new(durable_after_ns: u64) -> Self {
        Self { waiting: VecDeque::new(), durable_after_ns }
    }

    /// Everything before `offset` was acknowledged at `now_ns`, by writes that began in `epoch`.
    pub fn acknowledged(&mut self, offset: u64, now_ns: u64, epoch: Epoch) {
        self.waiting.push_back(Waiting { offset, acknowledged_at_ns: now_ns, epoch_id: epoch.id });
    }

    /// The newest offset that has become durable, if any has.
    pub fn advance(&mut self, epoch: Epoch) -> Result<Option<u64>, NodesRestarted> {
        let mut durable = None;
        while let Some(first) = self.waiting.front() {
            if first.epoch_id != epoch.id {
                return Err(NodesRestarted);
            }
            if epoch.confirmed_at_ns < first.acknowledged_at_ns.saturating_add(self.durable_after_ns) {
                break;
            }
            durable = Some(first.offset);
            self.waiting.pop_front();
        }
        Ok(durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch { id: 1, confirmed_at_ns: 0 };

    fn confirmed(at_ns: u64) -> Epoch {
        Epoch { id: 1, confirmed_at_ns: at_ns }
    }

    #[test]
    fn nothing_is_durable_before_its_time_or_without_a_confirmation() {
        let mut durability = Durability::new(20);
        durability.acknowledged(100, 5, EPOCH);
        durability.acknowledged(200, 6, EPOCH);
        assert_eq!(durability.advance(confirmed(24)), Ok(None));
        assert_eq!(durability.advance(confirmed(25)), Ok(Some(100)));
        assert_eq!(durability.advance(confirmed(25)), Ok(None));
        assert_eq!(durability.advance(confirmed(90)), Ok(Some(200)));
    }

    #[test]
    fn a_restart_since_the_acknowledgement_ends_it() {
        let mut durability = Durability::new(20);
        durability.acknowledged(100, 5, EPOCH);
        assert_eq!(durability.advance(Epoch { id: 2, confirmed_at_ns: 99 }), Err(NodesRestarted));
    }
}
