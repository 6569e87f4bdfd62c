//! Commands that are accepted but whose row cannot be read yet: the judge of an Idempotency-Key between the two.

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use tillstream_schemas::Text;
use tillstream_state::TaskId;

const SHARDS: usize = 64;
/// Landed entries looked at per claim: more than one, so that the table shrinks under load.
const SWEPT_PER_CLAIM: usize = 4;

/// Command (or order) id to the fingerprint of its body. An entry lives from before the append until the task
/// has committed past it, from when on its row is the judge.
pub(crate) struct InFlight {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    entries: FxHashMap<Text, Entry>,
    landed: VecDeque<(Text, Landed)>,
}

struct Entry {
    tenant: Text,
    fingerprint: Text,
    /// Claims that have not ended.
    claims: u32,
    /// Where the command stands in the log; `None` while it is being appended.
    landed: Option<Landed>,
}

/// A command is in the log at an offset below `past` of the task's input partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Landed {
    pub task: TaskId,
    pub past: u64,
}

/// What the table knows of an id.
pub(crate) enum Judged {
    /// Not in the log as far as this table knows: append it, then land (or drop) the claim. Another call may be
    /// appending the same body at this moment; a second record of the same id changes nothing.
    Open(Claim),
    /// The same body is durable already.
    Durable,
    /// Another body has this id.
    Conflict,
}

/// The right to append under an id. Dropped without landing, it leaves no trace.
pub(crate) struct Claim {
    table: Arc<InFlight>,
    id: Text,
    ended: bool,
}

impl InFlight {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { shards: std::array::from_fn(|_| Mutex::default()) })
    }

    fn shard(&self, id: &str) -> &Mutex<Shard> {
        // Ids are hashes: their last characters are as good as random.
        let index = id.bytes().rev().take(2).fold(0_usize, |sum, it| sum * 32 + usize::from(it));
        &self.shards[index % SHARDS]
    }

    /// Claims an id for a body, atomically. `is_readable` says whether the rows of a landed command can be read.
    pub(crate) fn claim(
        self: &Arc<Self>,
        tenant: &Text,
        id: &Text,
        fingerprint: &Text,
        is_readable: impl Fn(Landed) -> bool,
    ) -> Judged {
        let mut shard = self.shard(id).lock();
        shard.sweep(is_readable);
        match shard.entries.get_mut(id) {
            Some(entry) if entry.fingerprint != *fingerprint => return Judged::Conflict,
            Some(entry) if entry.landed.is_some() => return Judged::Durable,
            Some(entry) => entry.claims += 1,
            None => {
                let entry = Entry {
                    tenant: tenant.clone(),
                    fingerprint: fingerprint.clone(),
                    claims: 1,
                    landed: None,
                };
                shard.entries.insert(id.clone(), entry);
            }
        }
        drop(shard);
        Judged::Open(Claim { table: self.clone(), id: id.clone(), ended: false })
    }

    /// Whether a tenant's id is durable in the log though its row may not be readable yet.
    pub(crate) fn is_durable(&self, tenant: &str, id: &str) -> bool {
        self.shard(id).lock().entries.get(id).is_some_and(|it| it.landed.is_some() && it.tenant == tenant)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|it| it.lock().entries.len()).sum()
    }
}

impl Shard {
    fn sweep(&mut self, is_readable: impl Fn(Landed) -> bool) {
        for _ in 0..SWEPT_PER_CLAIM {
            match self.landed.front() {
                Some((_, landed)) if is_readable(*landed) => {}
                _ => return,
            }
            let Some((id, landed)) = self.landed.pop_front() else { return };
            if self.entries.get(&id).is_some_and(|it| it.landed == Some(landed) && it.claims == 0) {
                self.entries.remove(&id);
            }
        }
    }
}

impl Claim {
    /// The append is durable.
    pub(crate) fn land(mut self, landed: Landed) {
        self.ended = true;
        let mut shard = self.table.shard(&self.id).lock();
        if let Some(entry) = shard.entries.get_mut(&self.id) {
            entry.claims -= 1;
            entry.landed = Some(landed);
            shard.landed.push_back((self.id.clone(), landed));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut shard = self.table.shard(&self.id).lock();
        if let Some(entry) = shard.entries.get_mut(&self.id) {
            entry.claims -= 1;
            if entry.claims == 0 && entry.landed.is_none() {
                shard.entries.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_stage::task::TaskKind;

    const TASK: TaskId = TaskId { kind: TaskKind::Order, partition: 0 };

    fn claim(table: &Arc<InFlight>, fingerprint: &str, committed: u64) -> Judged {
        table.claim(&"demo".into(), &Text::from("ord_1"), &fingerprint.into(), |it| it.past <= committed)
    }

    fn open(judged: Judged) -> Claim {
        match judged {
            Judged::Open(claim) => claim,
            Judged::Durable | Judged::Conflict => panic!("not open"),
        }
    }

    #[test]
    fn of_two_bodies_under_one_id_the_first_wins_while_it_is_in_flight_and_after() {
        let table = InFlight::new();
        let first = open(claim(&table, "a", 0));
        assert!(matches!(claim(&table, "b", 0), Judged::Conflict));
        first.land(Landed { task: TASK, past: 7 });
        assert!(matches!(claim(&table, "b", 6), Judged::Conflict));
        assert!(matches!(claim(&table, "a", 6), Judged::Durable));
        assert!(table.is_durable("demo", "ord_1"));
        assert!(!table.is_durable("other", "ord_1"));
    }

    #[test]
    fn a_failed_append_leaves_no_trace_unless_another_one_landed() {
        let table = InFlight::new();
        drop(open(claim(&table, "a", 0)));
        assert_eq!(table.len(), 0);
        let (first, second) = (open(claim(&table, "b", 0)), open(claim(&table, "b", 0)));
        drop(first);
        assert!(matches!(claim(&table, "a", 0), Judged::Conflict));
        second.land(Landed { task: TASK, past: 1 });
        assert!(matches!(claim(&table, "a", 0), Judged::Conflict));
    }

    #[test]
    fn an_entry_goes_once_the_task_has_committed_past_it() {
        let table = InFlight::new();
        open(claim(&table, "a", 0)).land(Landed { task: TASK, past: 7 });
        assert!(matches!(claim(&table, "a", 6), Judged::Durable));
        drop(open(claim(&table, "other", 7)));
        assert_eq!(table.len(), 0);
    }
}
