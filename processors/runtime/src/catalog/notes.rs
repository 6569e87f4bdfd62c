//! Where the newest record of a product stands, for as long as its row in the store may be older.

use rustc_hash::FxHashMap;
use std::borrow::Borrow;
use std::hash::Hash;

/// The newest record of a product that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Where it stands.
    pub offset: u64,
    /// The version it tells.
    pub version: i64,
    /// Since when the store is known to have it, ns.
    pub stored_ns: Option<u64>,
}

/// Notes of one partition. Whoever adds makes room first: what is noted and dropped without proof is a product that may
/// be sold at an older price.
#[derive(Debug)]
pub(super) struct Notes<K> {
    of: FxHashMap<K, Note>,
    full: usize,
    durable_after_ns: u64,
    looked_ns: u64,
}

impl<K: Eq + Hash + Clone> Notes<K> {
    /// None yet; full with `full` of them.
    pub fn new(full: usize, durable_after_ns: u64) -> Self {
        Self { of: FxHashMap::default(), full, durable_after_ns, looked_ns: 0 }
    }

    /// The newest record of a product.
    pub fn note(&mut self, key: K, note: Note) {
        self.of.insert(key, note);
    }

    /// What is noted of a product.
    pub fn get<Q>(&self, key: &Q) -> Option<Note>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.of.get(key).copied()
    }

    /// Nothing is to be noted of a product any more.
    pub fn forget<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.of.remove(key);
    }

    /// The products whose rows are to be looked at now: half of the room is taken, and it was not done just now.
    pub fn looks_due(&mut self, now_ns: u64, interval_ns: u64) -> Vec<K> {
        if self.of.len() <= self.full / 2 || now_ns < self.looked_ns.saturating_add(interval_ns) {
            return Vec::new();
        }
        self.looked_ns = now_ns;
        let due =
            |it: &Note| it.stored_ns.is_none_or(|at| at.saturating_add(self.durable_after_ns) <= now_ns);
        self.of.iter().filter(|(_, note)| due(note)).map(|(key, _)| key.clone()).collect()
    }

    /// The store has this version of a product now (`None`: no row). A note that tells no later one has done its work
    /// once this is so for long enough.
    pub fn looked<Q>(&mut self, key: &Q, version: Option<i64>, now_ns: u64)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let Some(note) = self.of.get_mut(key) else { return };
        if version.is_none_or(|it| it < note.version) {
            note.stored_ns = None;
        } else if now_ns >= note.stored_ns.get_or_insert(now_ns).saturating_add(self.durable_after_ns) {
            self.of.remove(key);
        }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.of.len() >= self.full
    }

    /// How many notes there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(offset: u64, version: i64) -> Note {
        Note { offset, version, stored_ns: None }
    }

    #[test]
    fn a_note_stays_until_the_store_has_what_it_tells_for_good() {
        let mut notes = Notes::new(1, 100);
        notes.note("s", note(7, 3));
        for (version, now_ns) in [(Some(2), 0), (Some(3), 10), (Some(3), 109)] {
            notes.looked("s", version, now_ns);
            assert_eq!(notes.get("s").map(|it| it.offset), Some(7), "{version:?} at {now_ns}");
        }
        // A crash took it again: it has to be there for long once more.
        notes.looked("s", None, 110);
        notes.looked("s", Some(3), 120);
        notes.looked("s", Some(3), 219);
        assert!(notes.get("s").is_some());
        notes.looked("s", Some(3), 220);
        assert_eq!(notes.get("s"), None);
    }

    #[test]
    fn a_newer_record_is_noted_anew() {
        let mut notes = Notes::new(1, 100);
        notes.note("s", note(7, 3));
        notes.looked("s", Some(3), 0);
        notes.note("s", note(9, 4));
        notes.looked("s", Some(3), 100);
        notes.looked("s", Some(4), 200);
        assert_eq!(notes.get("s").map(|it| it.offset), Some(9));
        notes.looked("s", Some(5), 300);
        assert_eq!(notes.get("s"), None);
    }

    #[test]
    fn rows_are_looked_at_once_half_of_the_room_is_taken_and_those_that_are_there_only_when_it_counts() {
        let mut notes = Notes::new(4, 100);
        notes.note("a", note(0, 1));
        notes.note("b", note(1, 1));
        assert!(notes.looks_due(10, 5).is_empty());
        notes.note("b", note(2, 2));
        notes.note("c", note(3, 1));
        assert!(!notes.is_full());
        let mut keys = notes.looks_due(10, 5);
        keys.sort_unstable();
        assert_eq!(keys, ["a", "b", "c"]);
        notes.looked("a", Some(1), 10);
        notes.note("d", note(4, 1));
        assert!(notes.is_full());
        assert!(notes.looks_due(14, 5).is_empty(), "it was done just now");
        assert_eq!(notes.looks_due(15, 5).len(), 3, "a is there, and nothing is learnt from it yet");
        assert_eq!(notes.looks_due(110, 5).len(), 4);
    }
}
