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
}

/// Notes of one partition. Whoever adds makes room first: what is noted and dropped without proof is a product that may
/// be sold at an older price.
#[derive(Debug)]
pub(super) struct Notes<K> {
    of: FxHashMap<K, Note>,
    full: usize,
}

impl<K: Eq + Hash + Clone> Notes<K> {
    /// None yet; full with `full` of them.
    pub fn new(full: usize) -> Self {
        Self { of: FxHashMap::default(), full }
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

    /// The store has this version of a product: a note that tells no later one has done its work.
    pub fn stored<Q>(&mut self, key: &Q, version: i64)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if self.get(key).is_some_and(|it| it.version <= version) {
            self.forget(key);
        }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.of.len() >= self.full
    }

    /// Whether half of the room is free, which is enough for a while.
    pub fn has_plenty_of_room(&self) -> bool {
        self.of.len() <= self.full / 2
    }

    /// The products of which something is noted.
    pub fn keys(&self) -> Vec<K> {
        self.of.keys().cloned().collect()
    }

    /// How many notes there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stays_until_the_store_has_what_it_tells() {
        let mut notes = Notes::new(10);
        notes.note("s", Note { offset: 7, version: 3 });
        notes.stored("s", 2);
        assert_eq!(notes.get("s"), Some(Note { offset: 7, version: 3 }));
        notes.note("s", Note { offset: 9, version: 4 });
        notes.stored("s", 3);
        assert_eq!(
            notes.get("s").map(|it| it.offset),
            Some(9),
            "what was stored is older than the newest record"
        );
        notes.stored("s", 4);
        assert_eq!(notes.get("s"), None);
    }

    #[test]
    fn room_is_what_is_not_noted() {
        let mut notes = Notes::new(2);
        assert!(!notes.is_full() && notes.has_plenty_of_room());
        notes.note("a", Note { offset: 0, version: 1 });
        assert!(!notes.is_full() && notes.has_plenty_of_room());
        notes.note("a", Note { offset: 1, version: 2 });
        assert_eq!(notes.len(), 1);
        notes.note("b", Note { offset: 2, version: 1 });
        assert!(notes.is_full() && !notes.has_plenty_of_room());
    }
}
