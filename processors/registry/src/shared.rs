//! The fold, the verdicts it gave, and who waits for one: changed together, under one lock.

use crate::event::{Appended, Fold, RegistryEvent};
use crate::registry::Verdict;
use rustc_hash::FxHashMap;
use tillstream_log::Record;
use tillstream_schemas::{Text, codec};
use tokio::sync::oneshot;

/// A tenant and an event's id, as one text: `tenant/id`.
pub(crate) fn name_of<E: RegistryEvent>(event: &E) -> Text {
    let (tenant, id) = (event.tenant(), event.id());
    let mut name = Text::with_capacity(tenant.len() + 1 + id.len());
    name.push_str(tenant);
    name.push('/');
    name.push_str(id);
    name
}

pub(crate) struct Shared<F: Fold> {
    pub fold: F,
    /// What the fold said of every event, so that one that comes again gets the same answer.
    verdicts: FxHashMap<Text, Verdict<F>>,
    waiting: FxHashMap<Text, Vec<oneshot::Sender<Verdict<F>>>>,
    pub applied: u64,
}

impl<F: Fold> Shared<F> {
    pub fn new(fold: F) -> Self {
        Self { fold, verdicts: FxHashMap::default(), waiting: FxHashMap::default(), applied: 0 }
    }

    /// Takes a record in. Whether it could be read.
    pub fn take(&mut self, partition: u32, record: &Record) -> bool {
        // A tombstone: somebody removed a record by hand.
        if record.value.is_empty() {
            return true;
        }
        let event = match codec::decode::<F::Event>(&record.value) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(partition, offset = record.offset, %error, "a change cannot be decoded and is skipped");
                return false;
            }
        };
        let name = name_of(&event);
        if !self.verdicts.contains_key(&name) {
            let appended = Appended { partition, offset: record.offset, at_ms: record.timestamp_ms };
            let verdict = self.fold.apply(&event, appended);
            self.applied += u64::from(verdict.is_ok());
            for waiter in self.waiting.remove(&name).unwrap_or_default() {
                // Whoever no longer waits needs no answer.
                let _ = waiter.send(verdict.clone());
            }
            self.verdicts.insert(name, verdict);
        }
        true
    }

    /// The verdict on this event: at once if there is one, else when it comes.
    pub fn verdict(&mut self, name: &Text) -> oneshot::Receiver<Verdict<F>> {
        let (answer, answered) = oneshot::channel();
        match self.verdicts.get(name) {
            Some(verdict) => {
                // The receiver is ours and open.
                let _ = answer.send(verdict.clone());
            }
            None => {
                let waiting = self.waiting.entry(name.clone()).or_default();
                waiting.retain(|it| !it.is_closed());
                waiting.push(answer);
            }
        }
        answered
    }

    /// Nobody waits for this event any more but those who still listen.
    pub fn tidy(&mut self, name: &Text) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.retain(|it| !it.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(name);
            }
        }
    }

    /// The follower has ended: whoever waits hears that no answer comes.
    pub fn give_up(&mut self) {
        self.waiting.clear();
    }
}
