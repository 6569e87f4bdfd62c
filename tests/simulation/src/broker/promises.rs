//! What a client of the protocol never does, whatever goes wrong: a broker would let it pass, and fencing may make it harmless.

use super::call::Call;
use super::member::Place;
use super::producer::State;
use super::world::{World, nanos};
use std::collections::VecDeque;
use std::sync::Arc;
use tillstream_log::TopicPartition;
use tillstream_log::broker::GroupOffset;

impl World {
    fn break_promise(&mut self, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// Everything is acknowledged before the offset is sent.
    pub(crate) fn expect_drained(&mut self, handle: u64) {
        let Some(client) = self.producers.get(&handle) else { return };
        let unsent: usize = client.buffer.values().map(VecDeque::len).sum();
        let id = client.transactional_id.clone();
        if unsent > 0 {
            self.break_promise(|| format!("{id} sent its offset before {unsent} records were acknowledged"));
        }
    }

    /// Only the member a partition belongs to moves its offset on.
    pub(crate) fn expect_owner(&mut self, group: &str, place: &Place, at: TopicPartition, to: &GroupOffset) {
        let Some(found) = self.groups.get(group) else { return };
        let owner = found.owners.get(&at.partition).map(|it| it.member());
        let before = found.offsets.get(&at).map_or(0, |it| it.offset);
        if owner != Some(place.member_id) && to.offset > before {
            let what =
                format!("{at} was moved on to {} in {group} by a member it does not belong to", to.offset);
            self.break_promise(|| what);
        }
    }

    /// A batch gives up before half of its transaction's time is over, and a task that was stopped does nothing more once its
    /// partition was given back.
    pub(crate) fn expect_in_time(&mut self, handle: u64, call: Call) {
        let Some(client) = self.producers.get(&handle) else { return };
        let (id, given_back) = (client.transactional_id.clone(), client.given_back);
        if given_back {
            self.break_promise(|| format!("{id} goes on with {call:?} after its partition was given back"));
        }
        let age_ns = self.now_ns.saturating_sub(client_age(self, handle));
        let asks = matches!(call, Call::Produce | Call::Drain | Call::SendOffset | Call::Commit);
        if asks && age_ns > nanos(self.settings.transaction_timeout) / 2 {
            let age_ms = age_ns / 1_000_000;
            self.break_promise(|| format!("{id} goes on with {call:?} after {age_ms} ms of its transaction"));
        }
    }

    /// The process stands still, if it is to do so at this call.
    pub(crate) fn stand_still(&mut self, call: Call, name: &Arc<str>) {
        let asked = |it: &super::world::StandStill| it.call == call && name.starts_with(it.process.as_str());
        let Some(at) = self.stops.iter().position(asked) else { return };
        if self.stops[at].skip > 0 {
            self.stops[at].skip -= 1;
            return;
        }
        let for_ms = self.stops.remove(at).for_ms;
        let now_ns = self.now_ns;
        let process = self.processes.entry(name.clone()).or_default();
        process.paused = true;
        process.silent_since_ns.get_or_insert(now_ns);
        self.injected += 1;
        self.stopped.push((name.to_string(), for_ms));
        self.wake_all();
    }
}

/// When the client's transaction began; now, if it has none.
fn client_age(world: &World, handle: u64) -> u64 {
    let client = world.producers.get(&handle).filter(|it| it.state == State::InTransaction);
    client.map_or(world.now_ns, |it| it.begun_ns)
}
